"""The server's side: the Federation over a Flower Grid, our own SuperLink, keys and certificates."""

import fedopt  # noqa: F401 (imported first: it keeps Flower, which is imported below, off the network)
