"""A data set: tensors that are in memory once; clients share them by index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fedopt.errors import DataUnavailable
from fedopt.seeding import Purpose, stream


@dataclass(frozen=True)
class Scaling:
    """How samples were shifted and scaled: what a model sees is (sample - mean) / deviation."""

    mean: Tensor
    deviation: Tensor
    """Both of each feature, or of each channel as [C, 1, 1]."""

    def apply(self, x: Tensor) -> Tensor:
        """Samples [n, ...] as the model sees them, in the type of the scaling."""
        return (x.to(self.mean.dtype) - self.mean) / self.deviation


@dataclass(frozen=True)
class Dataset:
    """Images [n, C, H, W] or features [n, F]; integer labels [n], or numbers to predict as floats [n, outputs].
    `load_dataset` normalises uint8 images."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int
    """Outputs of a model: one for each class, or for each number to predict."""
    class_names: tuple[str, ...] = ()
    natural_clients: tuple[np.ndarray, ...] | None = None
    """The training indices of each client, for data that come with clients of their own."""
    test_clients: np.ndarray | None = None
    """The client of each test sample, for such data."""
    client_names: tuple[str, ...] = ()
    """The names of these clients, if they have some."""
    scaling: Scaling | None = None
    """How the samples were shifted and scaled; None where they are as they came."""

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.x_train.shape[1:])

    @property
    def has_numbers(self) -> bool:
        """Whether targets are numbers to predict, and no classes."""
        return self.y_train.is_floating_point()

    def as_one_class(self) -> Dataset:
        """The data as if all samples were of one class, where only who holds how many counts."""
        y_train, y_test = (torch.zeros(len(y), dtype=torch.int64) for y in (self.y_train, self.y_test))
        return replace(self, y_train=y_train, y_test=y_test, classes=1, class_names=("samples",))

    @property
    def train(self) -> tuple[Tensor, Tensor]:
        return self.x_train, self.y_train

    @property
    def test(self) -> tuple[Tensor, Tensor]:
        return self.x_test, self.y_test

    @property
    def notes(self) -> list[str]:
        """Sentences about properties of the data that the user may not know."""
        return self.notes_on(self.y_train, self.y_test)

    def notes_on(self, y_train: Tensor, y_test: Tensor) -> list[str]:
        """`notes`, where a model is to predict these classes of any shape."""
        if self.has_numbers:
            return []
        train, test = (torch.bincount(y.flatten().cpu(), minlength=self.classes) > 0 for y in (y_train, y_test))
        notes = []
        if untested := self._named(train & ~test):
            notes.append(f"the test set has no sample of class {untested}: nothing is measured there")
        if unseen := self._named(test & ~train):
            notes.append(
                f"the training set has no sample of class {unseen}, and the test set has: no model can learn it"
            )
        return notes

    def _named(self, chosen: Tensor) -> str:
        """The names of the chosen classes, a mask [classes]; "" for none."""
        labels = torch.nonzero(chosen).flatten().tolist()
        names = ", ".join(str(self.class_names[label] if self.class_names else label) for label in labels[:10])
        return names + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")

    def are_its_clients(self, parts: Sequence[np.ndarray]) -> bool:
        """Whether these training indices of each client are those of the clients that the data come with."""
        natural = self.natural_clients or ()
        return len(natural) == len(parts) and all(map(np.array_equal, natural, parts))

    def names_of(self, parts: Sequence[np.ndarray]) -> tuple[str, ...]:
        """The names of the clients with these training indices; () if the data do not name them."""
        return self.client_names if self.are_its_clients(parts) else ()

    def to(self, device: torch.device, dtype: torch.dtype) -> Dataset:
        return replace(
            self,
            x_train=self.x_train.to(device, dtype),
            y_train=self.y_train.to(device, dtype if self.has_numbers else None),
            x_test=self.x_test.to(device, dtype),
            y_test=self.y_test.to(device, dtype if self.has_numbers else None),
        )


def hold_out(dataset: Dataset, share: float, seed: int) -> Dataset:
    """Replaces the test set by a random share of the training set, and removes that share from training."""
    samples = len(dataset.y_train)
    held = max(1, round(share * samples))
    if held >= samples:
        raise DataUnavailable(f"data.validation: {share:g} of {samples} training samples leaves none to train on")
    is_held = np.zeros(samples, dtype=bool)
    is_held[stream(seed, Purpose.VALIDATION).permutation(samples)[:held]] = True
    test, train = np.flatnonzero(is_held), np.flatnonzero(~is_held)
    natural, test_clients = dataset.natural_clients, None
    if natural is not None:
        place = np.cumsum(~is_held) - 1  # where a sample that stays is afterwards
        test_clients = np.zeros(samples, dtype=np.int64)
        for client, own in enumerate(natural):
            test_clients[own] = client
        test_clients = test_clients[test]
        natural = tuple(place[own[~is_held[own]]] for own in natural)
    return replace(
        dataset,
        x_train=dataset.x_train[train],
        y_train=dataset.y_train[train],
        x_test=dataset.x_train[test],
        y_test=dataset.y_train[test],
        natural_clients=natural,
        test_clients=test_clients,
    )


def from_images(
    train: np.ndarray, y_train: np.ndarray, test: np.ndarray, y_test: np.ndarray, names: tuple[str, ...]
) -> Dataset:
    """A data set from uint8 images [n, C, H, W]. They are normalized later, when the training set is known."""
    return Dataset(
        torch.from_numpy(np.ascontiguousarray(train)),
        torch.from_numpy(y_train.astype(np.int64)),
        torch.from_numpy(np.ascontiguousarray(test)),
        torch.from_numpy(y_test.astype(np.int64)),
        classes=len(names),
        class_names=names,
    )


def normalised(dataset: Dataset) -> Dataset:
    """uint8 images as floats, each channel to mean 0 and variance 1 over the training set."""
    scaling = scaling_of(dataset.x_train)
    x_train, x_test = scaled(dataset.x_train, scaling), scaled(dataset.x_test, scaling)
    return replace(dataset, x_train=x_train, x_test=x_test, scaling=Scaling(scaling[0][0], scaling[1][0]))


def standardised(dataset: Dataset) -> Dataset:
    """Features [n, ...], each shifted and scaled to mean 0 and variance 1 over the training set."""
    shift, scale = moments_of(dataset.x_train)
    x_train, x_test = (((x.double() - shift) / scale).to(x.dtype) for x in (dataset.x_train, dataset.x_test))
    return replace(dataset, x_train=x_train, x_test=x_test, scaling=Scaling(shift, scale))


def moments_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature of x [n, ...], in float64; a constant one has a deviation of 1."""
    wide = x.double()
    mean, deviation = wide.mean(0), wide.std(0, correction=0)
    # Rounding leaves a constant feature a deviation that is tiny beside its value.
    return mean, torch.where(deviation > 1e-12 * (mean.abs() + deviation), deviation, torch.ones_like(deviation))


def scaling_of(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of uint8 images [n, C, H, W], as [1, C, 1, 1].

    A channel without variance has a deviation of 1.
    """
    channels = [torch.bincount(images[:, c].reshape(-1), minlength=256) for c in range(images.shape[1])]
    counts = torch.stack(channels).numpy()  # exact, and one pass: the moments follow from 256 numbers
    levels = np.arange(256)
    mean = (counts @ levels) / counts.sum(axis=1)
    deviation = np.sqrt((counts @ levels**2) / counts.sum(axis=1) - mean**2)
    return (
        torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1),
        torch.tensor(np.where(deviation > 0, deviation, 1.0), dtype=torch.float32).view(1, -1, 1, 1),
    )


def scaled(images: Tensor, scaling: tuple[Tensor, Tensor]) -> Tensor:
    """uint8 images [n, C, H, W] as float32, less the mean and divided by the deviation of each channel."""
    shift, scale = scaling
    return images.contiguous().float().sub_(shift).div_(scale)
