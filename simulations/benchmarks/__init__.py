"""The measurements of `fedopt bench`: ratios within one run, both sides in turns, medians."""
