"""What `fedopt bench` measures: everything as ratios within one run, turns interleaved, medians."""
