"""Studies: a grid of experiments over seeds, its runs, and the tables that compare them."""
