"""One file for each kind of data; each offers load(settings, seed) -> Dataset."""
