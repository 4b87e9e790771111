"""Studies: a question asked as a grid of experiments, its runs, and the tables that answer it."""
