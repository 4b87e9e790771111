"""A client of a deployed federation: its connection, its node, and its state on disk."""
