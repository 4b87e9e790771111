"""`fedopt.Data`: a user's own samples for `fedopt.run(experiment, data=...)`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from torch import Tensor

from fedopt.data.arrays import Part, dataset_of, names_of_clients
from fedopt.data.dataset import Dataset
from fedopt.data.frames import Columns, parts_of
from fedopt.data.sources.memory import Memory
from fedopt.errors import DataUnavailable

PLACE = "fedopt.Data"


@runtime_checkable
class MapStyle(Protocol):
    """A torch `Dataset` with a length: each item is (features, label)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


Pair = tuple[Any, Any]
"""Features [n, ...] and labels [n], as tensors, arrays or lists."""

Samples = Pair | MapStyle


class Data:
    """Training and test samples in memory.

    `x_train` and `x_test` are tensors, NumPy arrays or lists of shape [n, ...]. Floats, integers and bools are used as
    they are. uint8 images ([n, H, W], [n, C, H, W] or [n, H, W, C]) are normalized as those of the built-in sets are:
    each channel to mean 0 and variance 1 over the training set. `y_train` and `y_test` are integers that count from 0,
    or class names. Numbers to predict are rows [n, outputs], or floats [n]; the default loss is then mse_loss.

    `clients` has one entry for each training sample, the name or number of the client that holds it; then the
    experiment's partition is "natural" and its number of clients is theirs, unless it says otherwise. `test_clients`
    does the same for test samples. Without a test set, the experiment has to hold a share of the training set out
    (`data.validation`).

    The samples are copied once. DataUnavailable, with one sentence, if something is wrong with them.

    >>> import numpy as np, fedopt
    >>> x, y = np.random.default_rng(0).random((100, 5)), np.arange(100) % 2
    >>> fedopt.Data(x[:80], y[:80], x[80:], y[80:], clients=["ann", "bob"] * 40)
    Data(80 training samples, 20 test samples, shape (5,), 2 classes, 2 clients)
    """

    def __init__(
        self,
        x_train: Any,
        y_train: Any,
        x_test: Any = None,
        y_test: Any = None,
        clients: Iterable[Any] | None = None,
        test_clients: Iterable[Any] | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        if hasattr(x_train, "iloc") and hasattr(x_train, "columns"):
            raise DataUnavailable(
                f"{PLACE}: x_train is a table; give it whole, as in fedopt.Data.from_pandas(table, label=...)"
            )
        if (x_test is None) != (y_test is None):
            raise DataUnavailable(f"{PLACE}: give x_test and y_test, or neither of them")
        if x_test is None and test_clients is not None:
            raise DataUnavailable(f"{PLACE}: there are test_clients, but no x_test")
        train = Part(_array(x_train), _array(y_train), _names(clients))
        test = None
        if x_test is not None:
            test = Part(_array(x_test), _array(y_test), _names(test_clients), ("x_test", "y_test"))
        if not class_names:
            _check_the_first_class([train.y] if test is None else [train.y, test.y])
        self._hold(dataset_of(PLACE, train, test, class_names))

    def _hold(self, dataset: Dataset, standardize: bool = False) -> None:
        self.dataset = dataset
        self.source = Memory.of(dataset, standardize)
        """What an experiment holds in their place."""

    @classmethod
    def from_dataset(
        cls,
        train: Samples,
        test: Samples | None = None,
        clients: Iterable[Any] | None = None,
        test_clients: Iterable[Any] | None = None,
        class_names: Sequence[str] = (),
    ) -> Data:
        """From map-style torch datasets whose items are (features, label). They are read once, item by item.

        >>> from torch.utils.data import TensorDataset
        >>> import fedopt, torch
        >>> fedopt.Data.from_dataset(TensorDataset(torch.rand(9, 4), torch.arange(9) % 3))
        Data(9 training samples, 0 test samples, shape (4,), 3 classes)
        """
        x, y = _read(train)
        x_test, y_test = (None, None) if test is None else _read(test)
        return cls(x, y, x_test, y_test, clients, test_clients, class_names)

    @classmethod
    def from_clients(
        cls,
        clients: Sequence[Samples] | Mapping[Any, Samples],
        test: Samples | Sequence[Samples] | Mapping[Any, Samples] | None = None,
        class_names: Sequence[str] = (),
    ) -> Data:
        """From one data set a client: each a map-style torch dataset or a pair (features, labels).

        `clients` is a list, or a mapping from the clients' names. `test` is one test set for all, or as many test sets
        as there are clients, in a list or in a mapping with the same names.
        """
        named = _named(clients)
        x, y, owners = _joined(named)
        if test is None:
            return cls(x, y, clients=owners, class_names=class_names)
        if not _is_one_a_client(test):
            x_test, y_test = _read(test)
            return cls(x, y, x_test, y_test, owners, class_names=class_names)
        tests = _named(test)  # type: ignore[arg-type]
        if tests.keys() != named.keys():
            raise DataUnavailable(
                f"{PLACE}: there are {len(named)} clients and {len(tests)} test sets; give one for each, or one for all"
            )
        return cls(x, y, *_joined(tests)[:2], owners, _joined(tests)[2], class_names)

    @classmethod
    def from_pandas(
        cls,
        frame: Any,
        label: str,
        client: str | None = None,
        test: Any = None,
        features: Sequence[str] = (),
        drop: Sequence[str] = (),
        standardize: bool = True,
        targets: Literal["classes", "numbers"] = "classes",
    ) -> Data:
        """From a pandas DataFrame with a column `label` and, where it has one, a column `client`.

        All other columns but those of `drop` are features, or just `features`; they must be numbers. Classes are the
        different labels in sorted order. `test` is a DataFrame with the same columns. `standardize` shifts and scales
        each feature to mean 0 and variance 1 over the training set. With `targets="numbers"` the label is a number to
        predict.
        """
        found = cls.__new__(cls)
        columns = Columns(label, client, tuple(features), tuple(drop), targets == "numbers")
        found._hold(dataset_of(PLACE, *parts_of(PLACE, frame, test, columns)), standardize)
        return found

    def __repr__(self) -> str:
        source = self.source
        clients = f", {source.own_clients} clients" if source.own_clients else ""
        return (
            f"Data({source.samples} training samples, {source.test_samples} test samples, shape {source.shape}, "
            f"{len(source.class_names)} {'outputs' if source.numbers else 'classes'}{clients})"
        )


def _check_the_first_class(parts: Sequence[np.ndarray]) -> None:
    """DataUnavailable for integer labels that count from 1, which would be one class more than there are."""
    if all(y.ndim == 1 and y.dtype.kind in "iu" and len(y) for y in parts):
        least, most = min(y.min() for y in parts), max(y.max() for y in parts)
        if least > 0:
            raise DataUnavailable(
                f"{PLACE}: labels are {least} to {most}, and classes count from 0; subtract {least} from them, or "
                "pass class_names if no sample has one of the classes below"
            )


T = TypeVar("T")


def _named(given: Sequence[T] | Mapping[Any, T]) -> dict[Any, T]:
    named = dict(given) if isinstance(given, Mapping) else dict(enumerate(given))
    if not named:
        raise DataUnavailable(f"{PLACE}: there are no clients")
    return named


def _is_one_a_client(test: object) -> bool:
    return isinstance(test, Mapping | list)


def _joined(named: Mapping[Any, Samples]) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """Features, labels and owners of all clients, one client after the other."""
    pairs = {name: tuple(map(_array, _read(samples))) for name, samples in named.items()}
    shapes = {x.shape[1:] for x, _ in pairs.values()}
    if len(shapes) > 1:
        one, other = sorted(shapes, key=str)[:2]
        raise DataUnavailable(f"{PLACE}: some clients have samples of shape {one} and others of shape {other}")
    owners = [name for name, (x, _) in pairs.items() for _ in range(len(x))]
    x, y = (np.concatenate([pair[place] for pair in pairs.values()]) for place in (0, 1))
    return x, y, owners


def _read(samples: Samples) -> tuple[Any, Any]:
    """Features and labels of a pair or of a map-style data set."""
    if isinstance(samples, tuple):
        if len(samples) != 2:
            raise DataUnavailable(f"{PLACE}: a pair is (features, labels), not {len(samples)} things")
        return samples
    if not isinstance(samples, MapStyle):
        raise DataUnavailable(
            f"{PLACE}: {type(samples).__name__} has no length or no items; give a map-style torch Dataset, or a "
            "pair of arrays (features, labels)"
        )
    items = [samples[index] for index in range(len(samples))]
    if not items:
        raise DataUnavailable(f"{PLACE}: a data set is empty")
    if not all(isinstance(item, tuple | list) and len(item) == 2 for item in items):
        raise DataUnavailable(f"{PLACE}: the items of {type(samples).__name__} are not pairs (features, label)")
    features = [_array(x) for x, _ in items]
    if len({x.shape for x in features}) > 1:
        raise DataUnavailable(
            f"{PLACE}: the samples of {type(samples).__name__} differ in shape: {features[0].shape} and others"
        )
    return np.stack(features), np.array([_label(y) for _, y in items])


def _label(given: Any) -> Any:
    """A number, a text, or an array of several numbers."""
    return given.item() if hasattr(given, "item") and getattr(given, "ndim", 0) == 0 else given


def _array(given: Any) -> np.ndarray:
    """A copy."""
    if isinstance(given, Tensor):
        given = given.detach().cpu().numpy()
    try:
        return np.array(given)
    except ValueError as error:
        raise DataUnavailable(f"{PLACE}: a list of samples whose lengths differ is no array: {error}") from error


def _names(clients: Iterable[Any] | None) -> list[Any] | None:
    if clients is None:
        return None
    names = names_of_clients(clients)
    try:
        set(names)
    except TypeError as error:
        raise DataUnavailable(f"{PLACE}: clients are names or numbers, one a sample, not {names[0]!r}") from error
    return list(names)
