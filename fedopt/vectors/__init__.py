"""Named parameters as flat vectors, and sums of vectors that are exact."""
