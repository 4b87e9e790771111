"""The client's side: local training on lanes, what a client keeps between rounds, the ClientApp and its node."""

import fedopt  # noqa: F401 (first of all it keeps Flower, which is imported below, off the network)
