"""Differential fuzz: random experiments, run by fedopt and by an independent reference, must come to the same numbers.

`make fuzz N=300` runs it; `tests/fuzz/test_sample.py` runs a fixed sample.
"""
