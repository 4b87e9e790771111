"""Label skew from a Dirichlet distribution among clients of about the same size (Yurochkin et al. 2019,
arXiv:1905.12022)."""

from __future__ import annotations

import numpy as np

from fedopt.data.partitions.dirichlet import Dirichlet


class DirichletBalanced(Dirichlet):
    """As dirichlet, but a client that already holds its fair share n / N gets no more of a class."""

    def open_to(self, sizes: np.ndarray, samples: int) -> np.ndarray:
        # Some client is always below its fair share: together they would else hold more than there is.
        below: np.ndarray = sizes < samples / len(sizes)
        return below
