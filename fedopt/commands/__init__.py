"""Subcommands that need the method alone."""
