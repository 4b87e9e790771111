"""A client of a deployed federation: its connection, its node, what it keeps on its disk."""
