"""The client's side: local training on lanes, and what a client keeps between rounds."""
