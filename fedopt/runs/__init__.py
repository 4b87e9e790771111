"""A run from start to summary: its directory, records, checkpoints, evaluation and observers."""
