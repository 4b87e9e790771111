"""Subcommands that train."""
