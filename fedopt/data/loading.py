"""From the experiment's [data] section to a data set that can be trained on."""

from __future__ import annotations

import torch

from fedopt.data.dataset import Dataset, hold_out, normalised, standardised
from fedopt.data.settings import DataSettings
from fedopt.errors import DataUnavailable


def load_dataset(settings: DataSettings, seed: int) -> Dataset:
    """Reads the data the experiment names; DataUnavailable says where it looked and what to do."""
    dataset = settings.source.load(settings.clients, seed)
    if settings.validation:
        dataset = hold_out(dataset, settings.validation, seed)
    if not len(dataset.y_test):
        raise DataUnavailable(
            f"data.name: {settings.source.name} has no test samples; hold some out, as with data.validation = 0.2"
        )
    # Only now: what is held out is as unknown as a test set, and has no part in the statistics.
    if dataset.x_train.dtype == torch.uint8:
        return normalised(dataset)
    return standardised(dataset) if settings.source.standardizes else dataset
