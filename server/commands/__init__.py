"""Subcommands of the server's side."""
