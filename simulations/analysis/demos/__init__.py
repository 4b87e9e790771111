"""Teaching examples that take seconds; each runs the optimizers of fedopt on a problem whose answer is known."""
