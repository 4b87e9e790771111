"""The models of a finished run, by name, and their losses."""
