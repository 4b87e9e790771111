"""Subcommands that train, and those about the results."""
