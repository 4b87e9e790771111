"""What optimizers and algorithms do, as numbers and figures."""

FOLDER = "analysis"
"""Where the results of `fedopt analyze` are, in a run's directory."""
