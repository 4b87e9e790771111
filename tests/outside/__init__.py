"""A package from outside fedopt: an algorithm, an optimizer, a partition and a channel stage that it does not ship."""
