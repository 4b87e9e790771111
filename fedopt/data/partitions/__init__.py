"""Ways to spread training samples over clients: one draw each, from labels, settings and a random stream."""
