"""What to run: the experiment, and its TOML file."""
