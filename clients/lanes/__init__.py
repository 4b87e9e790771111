"""Local training of several clients side by side."""
