"""The page on which a reader moves start, rate and momentum: `fedopt demo paths` writes it."""
