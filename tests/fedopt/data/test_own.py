"""fedopt.Data: samples that Python code passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import TensorDataset

import fedopt
from fedopt.data.evaluation_shares import owners_of_tests
from fedopt.data.loading import load_dataset
from fedopt.data.partition import partition
from fedopt.data.sources.memory import Memory
from fedopt.errors import DataUnavailable, InvalidExperiment, PartitionImpossible
from fedopt.runs.own_data import with_data

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 4))
Y = np.arange(60) % 3
PLAIN: dict[str, Any] = {"x_train": X, "y_train": Y, "x_test": X[:15], "y_test": Y[:15]}
WHO = np.array(["carl", "ann", "bob"])[np.arange(60) // 7 % 3]


def experiment(**sections: Any) -> fedopt.Experiment:
    run = {"rounds": 2, "participation": 1.0, "workers": 1, **sections.pop("run", {})}
    return fedopt.Experiment(**{"model": {"name": "logistic"}, "run": run, **sections})


def test_arrays_tensors_and_lists_are_the_same_data() -> None:
    floats = X.astype(np.float32)
    kinds: list[Any] = [floats, torch.from_numpy(floats)]
    datas = [fedopt.Data(x, y, x[:5], y[:5]) for x in kinds for y in (Y, Y.tolist(), torch.from_numpy(Y))]
    assert len({data.source.sha256 for data in datas}) == 1
    assert fedopt.Data(X.tolist(), Y.tolist(), X[:5].tolist(), Y[:5].tolist()).dataset.x_train.equal(
        torch.from_numpy(X)
    )


def test_the_samples_are_a_copy() -> None:
    x = X.copy()
    data = fedopt.Data(x, Y)
    x[:] = 0
    assert data.dataset.x_train.equal(torch.from_numpy(X))


def test_uint8_images_are_normalized_in_every_layout() -> None:
    images = RNG.integers(0, 256, (30, 5, 6, 3), dtype=np.uint8)
    y = np.arange(30) % 2
    mean, deviation = images.mean(axis=(0, 1, 2)), images.std(axis=(0, 1, 2))
    expected = ((images - mean) / deviation).transpose(0, 3, 1, 2)
    for x in (images, np.ascontiguousarray(images.transpose(0, 3, 1, 2))):
        data = fedopt.Data(x, y, x, y)
        loaded = load_dataset(with_data(experiment(), data).data, 0)
        assert np.allclose(loaded.x_train.numpy(), expected, atol=1e-5)
        assert np.allclose(loaded.x_test.numpy(), expected, atol=1e-5)
    assert fedopt.Data(images[..., 0], y).dataset.sample_shape == (1, 5, 6)


def test_labels_by_name_are_numbered_in_sorted_order_or_as_asked() -> None:
    names = np.array(["dog", "cat", "emu"])[Y]
    data = fedopt.Data(X, names, X[:2], ["emu", "cat"])
    assert data.dataset.class_names == ("cat", "dog", "emu")
    assert data.dataset.y_train[:3].tolist() == [1, 0, 2]
    assert data.dataset.y_test.tolist() == [2, 0]
    asked = fedopt.Data(X, names, class_names=("emu", "dog", "cat", "fox"))
    assert asked.dataset.y_train[:3].tolist() == [1, 2, 0]
    assert asked.dataset.classes == 4


class Pictures(TorchDataset[tuple[Image.Image, int]]):
    """As torchvision's: images of the library PIL, labels as integers."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self._pixels[index]), index % 2


def test_torch_datasets_are_read_item_by_item() -> None:
    pixels = RNG.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
    data = fedopt.Data.from_dataset(Pictures(pixels), Pictures(pixels[:4]))
    assert np.array_equal(data.dataset.x_train.numpy(), pixels.transpose(0, 3, 1, 2))
    assert data.dataset.y_test.tolist() == [0, 1, 0, 1]
    tensors = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    assert fedopt.Data.from_dataset(tensors, tensors).source == fedopt.Data(X, Y, X, Y).source


def test_clients_are_numbered_in_sorted_order() -> None:
    data = fedopt.Data(X, Y, X, Y, clients=WHO, test_clients=WHO)
    settings = with_data(experiment(), data).data
    assert (settings.partition.name, settings.clients) == ("natural", 3)
    parts = partition(data.dataset, settings, 0)
    assert [set(WHO[part]) for part in parts] == [{"ann"}, {"bob"}, {"carl"}]
    assert sorted(np.concatenate(parts)) == list(range(60))
    assert np.array_equal(owners_of_tests(data.dataset, parts, 0), [["ann", "bob", "carl"].index(name) for name in WHO])
    mixed = fedopt.Data(X[:4], Y[:4], clients=[("b", 1), None, ("b", 1), "a"])
    assert mixed.dataset.natural_clients is not None
    assert [part.tolist() for part in mixed.dataset.natural_clients] == [[0, 2], [1], [3]]


def test_one_data_set_a_client() -> None:
    owners = np.repeat([0, 1], [20, 40])
    pairs: list[Any] = [(X[:20], Y[:20]), TensorDataset(torch.from_numpy(X[20:]), torch.from_numpy(Y[20:]))]
    expected = fedopt.Data(X, Y, X[:15], Y[:15], clients=owners)
    assert fedopt.Data.from_clients(pairs, test=(X[:15], Y[:15])).source == expected.source
    assert fedopt.Data.from_clients(dict(enumerate(pairs)), test=(X[:15], Y[:15])).source == expected.source
    own_tests = fedopt.Data.from_clients({"a": pairs[0], "b": pairs[1]}, test={"b": (X[:2], Y[:2]), "a": (X, Y)})
    assert own_tests.dataset.test_clients is not None
    assert own_tests.dataset.test_clients.tolist() == [1, 1] + [0] * 60


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"x_train": np.where(X > 2, np.nan, X)}, "NaN or infinite values in x_train"),
        ({"y_train": Y[:59]}, r"x_train of shape \(60, 4\) for 59 labels"),
        ({"x_test": X[:15, :3]}, r"training samples of shape \(4,\) .* test samples of shape \(3,\)"),
        ({"y_train": Y - 1}, "labels from -1 to 1 in y_train"),
        ({"y_train": Y.astype(float)}, "labels are one integer a sample, or one class name"),
        ({"y_train": Y, "y_test": ["a"] * 15}, "labels are one integer a sample, or one class name"),
        ({"class_names": ("a", "b")}, "has label 2, but 2 class names"),
        ({"clients": WHO[:9]}, "names a client for 9 samples, but y_train has 60"),
        ({"test_clients": WHO[:15]}, "clients of test samples, but not those of training"),
        ({"clients": WHO, "test_clients": ["eve"] * 15}, "a client 'eve' that has no training samples"),
        ({"x_train": X.astype(np.uint8)}, r"uint8 images are \[n, H, W\]"),
        ({"x_train": X.astype(str)}, "features are numbers, or uint8 images"),
        ({"x_train": [[1.0], [1.0, 2.0]]}, "lengths differ"),
        ({"y_test": None}, "give x_test and y_test, or neither"),
        ({"clients": [[1]] * 60}, "clients are names or numbers"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataUnavailable, match=complaint) as caught:
        fedopt.Data(**{**PLAIN, **changes})
    assert str(caught.value).startswith("fedopt.Data")


def test_a_run_learns_from_passed_arrays_and_resumes_on_the_same_alone(tmp_path: Path) -> None:
    x, y = np.vstack([X + 3 * Y[:, None]]), Y
    data = fedopt.Data(x, y, x, y, clients=WHO)
    whole = fedopt.run(experiment(run={"rounds": 4}), tmp_path / "whole", data=data)
    assert whole.experiment.data.clients == 3
    with pytest.raises(InvalidExperiment, match="holds a run already"):
        fedopt.run(experiment(), tmp_path / "whole", data=data)
    fedopt.run(experiment(run={"rounds": 2}), tmp_path / "half", data=data)
    source = whole.experiment.data.source
    weights = whole.weights
    del whole
    with pytest.raises(DataUnavailable, match=f"arrays with the fingerprint {data.source.sha256[:12]}, and data= has"):
        fedopt.resume(tmp_path / "half", ["run.rounds=4"], data=fedopt.Data(x + 1, y, x, y, clients=WHO))
    del data
    with pytest.raises(DataUnavailable, match=r"pass the same again.*fedopt\.resume\(directory, data="):
        fedopt.resume(tmp_path / "half", ["run.rounds=4"])
    model = fedopt.load(tmp_path / "whole").model()  # without the data
    assert all(value.equal(weights[name]) for name, value in model.state_dict().items())
    again = fedopt.Data(x, y, x, y, clients=WHO)
    assert again.source == source
    resumed = fedopt.resume(tmp_path / "half", ["run.rounds=4", "run.workers=2"], data=again)
    first = fedopt.run(resumed.experiment, tmp_path / "again")  # its source finds the arrays by their hash
    assert resumed.summary.weights_sha256 == first.summary.weights_sha256
    recorded = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    assert len(recorded) == len((tmp_path / "half" / "metrics.jsonl").read_text().splitlines()) == 4


def test_an_npz_file_and_the_arrays_in_it_give_the_same_bits(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **PLAIN)
    keys = {"clients": 3, "partition": "iid"}
    from_file = fedopt.run(experiment(data={"name": "npz", "path": tmp_path / "a.npz", **keys}), tmp_path / "file")
    passed = fedopt.run(experiment(data=keys), tmp_path / "passed", data=fedopt.Data(**PLAIN))
    assert passed.summary.weights_sha256 == from_file.summary.weights_sha256
    fingerprints = [(tmp_path / run / "fingerprint.json").read_text() for run in ("file", "passed")]
    assert fingerprints[0] == fingerprints[1]


def test_an_npz_file_names_clients(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **PLAIN, client_train=WHO, client_test=WHO[:15])
    np.savez(tmp_path / "b.npz", **PLAIN, client=WHO)
    for name in ("a", "b"):
        keys = {"name": "npz", "path": tmp_path / f"{name}.npz", "partition": "natural"}
        settings = experiment(data={**keys, "clients": 3}).data
        parts = partition(load_dataset(settings, 0), settings, 0)
        assert [set(WHO[part]) for part in parts] == [{"ann"}, {"bob"}, {"carl"}]
        few = experiment(data={**keys, "clients": 2}).data
        with pytest.raises(PartitionImpossible, match=r"data\.clients: the data come with 3 clients, not 2"):
            partition(load_dataset(few, 0), few, 0)
    np.savez(tmp_path / "c.npz", **PLAIN)
    settings = experiment(data={"name": "npz", "path": tmp_path / "c.npz", "partition": "natural"}).data
    with pytest.raises(PartitionImpossible, match="natural needs data that name the client of each sample"):
        partition(load_dataset(settings, 0), settings, 0)


def test_without_a_test_set_a_share_is_held_out(tmp_path: Path) -> None:
    data = fedopt.Data(X, Y)
    with pytest.raises(DataUnavailable, match=r"no test samples; hold some out, as with data\.validation = 0\.2"):
        fedopt.run(experiment(), tmp_path / "run", data=data)
    settings = with_data(experiment(data={"validation": 0.25}), data).data
    assert len(load_dataset(settings, 0).y_test) == 15


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidExperiment, match=r"must be a fedopt\.Data, not tuple"):
        fedopt.run(experiment(), tmp_path / "run", data=(X, Y))  # type: ignore[arg-type]
    with pytest.raises(InvalidExperiment, match="ray trains in processes that do not see arrays"):
        fedopt.run(experiment(), tmp_path / "run", engine="ray", data=fedopt.Data(**PLAIN))
    with pytest.raises(InvalidExperiment, match=r"data\.name: memory stands for arrays in Python"):
        experiment(data={"name": "memory"})
    fedopt.run(experiment(data={"clients": 3}), tmp_path / "digits")
    with pytest.raises(InvalidExperiment, match="was begun on digits, which it reads itself"):
        fedopt.resume(tmp_path / "digits", data=fedopt.Data(**PLAIN))


def test_a_partition_that_is_named_wins_over_the_clients_of_the_data() -> None:
    data = fedopt.Data(**PLAIN, clients=WHO)
    settings = with_data(experiment(data={"partition": "iid"}), data).data
    assert (settings.partition.name, settings.clients) == ("iid", 20)
    assert isinstance(settings.source, Memory)
    assert settings.model_copy(update={"clients": 4}).source == data.source


def test_a_client_that_loses_its_only_sample_is_explained() -> None:
    data = fedopt.Data(X, Y, clients=["only", *["other"] * 59])
    asked = [fedopt.Experiment(data={"validation": 0.5}, run={"seed": seed}) for seed in range(9)]
    complaints = []
    for one in asked:
        settings = with_data(one, data).data
        try:
            partition(load_dataset(settings, one.run.seed), settings, one.run.seed)
        except PartitionImpossible as error:
            complaints.append(str(error))
    assert 0 < len(complaints) < 9
    assert complaints[0].endswith("what would work: data.partition = iid")


def test_labels_that_count_from_one_are_refused() -> None:
    x, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 2 + 1
    with pytest.raises(DataUnavailable, match=r"labels are 1 to 2, and classes count from 0; subtract 1 from"):
        fedopt.Data(x, y)
    assert fedopt.Data(x, y, class_names=["none", "one", "two"]).source.class_names == ("none", "one", "two")


def test_tables_and_their_columns_are_explained() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"age": [1.0, 2.0, np.inf], "risk": [0, 1, 0]})
    with pytest.raises(DataUnavailable, match=r"x_train is a table; give it whole, as in fedopt\.Data\.from_pandas"):
        fedopt.Data(frame, [0, 1, 0])
    with pytest.raises(DataUnavailable, match=r"has no column 'rsk' \(label\); did you mean 'risk'\? It has age, risk"):
        fedopt.Data.from_pandas(frame, label="rsk")
    with pytest.raises(DataUnavailable, match=r"has infinite values in age; replace them, or leave out these columns"):
        fedopt.Data.from_pandas(frame, label="risk")
