"""Hashes of the weights that short runs end with, to compare before and after a change that must change no result."""
