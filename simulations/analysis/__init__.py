"""What optimizers and algorithms do, as numbers and figures."""
