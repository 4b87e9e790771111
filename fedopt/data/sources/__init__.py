"""Where data come from, one kind a file; base.py says what a source must do."""
