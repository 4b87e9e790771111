"""Ways to spread the training samples over clients, one a file; base.py says what a partition must do."""
