"""The 1,797 handwritten digits (8 x 8 pixels) that scikit-learn carries: real data without a download."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from fedopt.data.dataset import Dataset, from_images
from fedopt.data.settings import DataSettings
from fedopt.seeding import Purpose, stream

TEST_SAMPLES = 360


def load(settings: DataSettings, seed: int) -> Dataset:
    """A fixed split, the same for every seed, so that runs over seeds are tested on the same samples."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)[:, None]
    order = stream(0, Purpose.DATA).permutation(len(images))
    test, train = order[:TEST_SAMPLES], order[TEST_SAMPLES:]
    names = tuple(str(digit) for digit in range(10))
    return from_images(images[train], digits.target[train], images[test], digits.target[test], names)
