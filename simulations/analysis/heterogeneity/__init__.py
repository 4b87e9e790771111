"""How the clients of a run differ."""
