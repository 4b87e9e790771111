"""The 1,797 handwritten digits (8 x 8 pixels) that scikit-learn carries: real data without a download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fedopt.data.dataset import Dataset, from_images
from fedopt.data.sources.base import Source
from fedopt.seeding import Purpose, stream

TEST_SAMPLES = 360


class Digits(Source):
    def load(self, clients: int, seed: int) -> Dataset:
        """A fixed split, the same for every seed, so that runs over seeds are tested on the same samples."""
        pixels, targets = read_digits()
        images = pixels.astype(np.uint8).reshape(-1, 1, 8, 8)
        order = stream(0, Purpose.DATA).permutation(len(images))
        test, train = order[:TEST_SAMPLES], order[TEST_SAMPLES:]
        names = tuple(str(digit) for digit in range(10))
        return from_images(images[train], targets[train], images[test], targets[test], names)


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels [samples, 64] and targets, as sklearn.datasets.load_digits gives them.

    Importing scikit-learn takes longer than training does, so the file that it carries is read without.
    """
    package = find_spec("sklearn")
    if package is not None and package.origin is not None:
        file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.data, digits.target
