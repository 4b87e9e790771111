"""Subcommands of the client's side."""
