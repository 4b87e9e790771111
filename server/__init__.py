"""The server's side: the Federation over a Flower Grid, a SuperLink of its own, keys and certificates."""

import fedopt  # noqa: F401 (first of all it keeps Flower, which is imported below, off the network)
