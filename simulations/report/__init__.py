"""Reports: runs as one self-contained page, and as figures for a paper."""
