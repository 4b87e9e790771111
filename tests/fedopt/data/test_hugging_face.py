"""Data sets of the library `datasets`, and Flower's partitioners. The data sets are local ones that the tests write."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fedopt
from fedopt.data.dataset import Dataset
from fedopt.data.loading import load_dataset
from fedopt.data.partition import partition, split_labels
from fedopt.data.settings import DataSettings
from fedopt.errors import DataUnavailable, InvalidExperiment, PartitionImpossible
from fedopt.imports import optional
from fedopt.seeding import Purpose, stream

datasets: Any = optional("datasets", "this test", "hf")
partitioners: Any = optional("flwr_datasets.partitioner", "this test", "hf")

RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 256, (24, 6, 6, 3), dtype=np.uint8)
Y = np.arange(24) % 3
WHO = np.array(["carl", "ann"])[np.arange(24) // 5 % 2]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    before = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    yield
    if before:
        datasets.enable_progress_bars()


def pictures(pixels: np.ndarray = PIXELS, y: np.ndarray = Y) -> Any:
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "kind": datasets.ClassLabel(names=["ant", "bee", "cow"]),
            "owner": datasets.Value("string"),
        }
    )
    rows = {
        "picture": [Image.fromarray(image) for image in pixels],
        "kind": y.tolist(),
        "owner": WHO[: len(y)].tolist(),
    }
    return datasets.Dataset.from_dict(rows, features=features)


def numbers() -> Any:
    x = RNG.standard_normal((24, 2))
    return datasets.Dataset.from_dict({"a": x[:, 0], "b": x[:, 1], "label": Y, "note": ["free text"] * 24})


def load(folder: Path, **keys: Any) -> Dataset:
    return load_dataset(DataSettings(name=f"hf:{folder}", **keys), seed=0)


def test_a_saved_data_set_of_images_is_read_with_its_classes_and_clients(tmp_path: Path) -> None:
    splits = datasets.DatasetDict({"train": pictures(), "test": pictures(PIXELS[:6], Y[:6])})
    splits.save_to_disk(str(tmp_path / "saved"))
    settings = DataSettings(name=f"hf:{tmp_path / 'saved'}", client="owner", clients=2)
    dataset = load_dataset(settings, 0)
    mean, deviation = PIXELS.mean(axis=(0, 1, 2)), PIXELS.std(axis=(0, 1, 2))
    for x, pixels in ((dataset.x_train, PIXELS), (dataset.x_test, PIXELS[:6])):
        assert np.allclose(x.numpy(), ((pixels - mean) / deviation).transpose(0, 3, 1, 2), atol=1e-5)
    assert dataset.class_names == ("ant", "bee", "cow")
    assert dataset.y_train.tolist() == Y.tolist()
    assert settings.partition.name == "natural"
    assert [set(WHO[part]) for part in partition(dataset, settings, 0)] == [{"ann"}, {"carl"}]
    assert load(tmp_path / "saved", image_size=4).sample_shape == (3, 4, 4)


def test_parquet_files_in_a_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table = numbers()
    table.to_parquet(str(tmp_path / "data" / "train-00000.parquet"))
    table.select(range(6)).to_parquet(str(tmp_path / "data" / "validation-00000.parquet"))
    dataset = load(tmp_path / "data")
    assert np.array_equal(dataset.x_train.numpy(), np.stack([table["a"][:], table["b"][:]], axis=1))
    assert len(dataset.y_test) == 6
    assert load(tmp_path / "data", features=["b"]).sample_shape == (1,)
    assert len(load(tmp_path / "data", test_split="train").y_test) == 24


def test_lists_are_features_and_a_bare_data_set_has_a_share_held_out(tmp_path: Path) -> None:
    x = RNG.standard_normal((24, 3, 2))
    datasets.Dataset.from_dict({"x": x.tolist(), "y": Y.tolist()}).save_to_disk(str(tmp_path / "bare"))
    with pytest.raises(DataUnavailable, match=r"no test samples; hold some out, as with data\.validation = 0\.2"):
        load(tmp_path / "bare")
    dataset = load(tmp_path / "bare", validation=0.25)
    assert dataset.sample_shape == (3, 2)
    assert len(dataset.y_train) == 18
    grey = datasets.Dataset.from_dict(
        {"x": PIXELS[..., 0].tolist(), "y": Y.tolist()},
        features=datasets.Features({"x": datasets.Array2D(shape=(6, 6), dtype="uint8"), "y": datasets.Value("int64")}),
    )
    grey.save_to_disk(str(tmp_path / "grey"))
    assert load(tmp_path / "grey", validation=0.25).sample_shape == (1, 6, 6)


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"split": "all"}, r"data\.split: hf:.* has no split all; it has train"),
        ({"test_split": "dev"}, r"data\.test_split: .* has no split dev; it has train"),
        ({"label": "z"}, r"data\.label: .* has no column z; it has a, b, label, note"),
        ({"client": "z"}, r"data\.client: .* has no column z"),
        ({"features": ["a", "note"]}, "note of hf:.* holds neither numbers nor images"),
    ],
)
def test_what_is_wrong_is_said(keys: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    datasets.DatasetDict({"train": numbers()}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataUnavailable, match=complaint) as caught:
        load(tmp_path / "saved", validation=0.5, **keys)
    assert "\n" not in str(caught.value)


def test_columns_that_could_be_several_things_are_asked_for(tmp_path: Path) -> None:
    two = pictures().add_column("sort", Y).cast_column("sort", datasets.ClassLabel(num_classes=3))
    two.save_to_disk(str(tmp_path / "two"))
    with pytest.raises(DataUnavailable, match=r"which column of .* holds labels\? it has kind, sort"):
        load(tmp_path / "two", validation=0.5)
    assert load(tmp_path / "two", validation=0.5, label="kind", features=["picture"]).sample_shape == (3, 6, 6)
    texts = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    texts.save_to_disk(str(tmp_path / "texts"))
    with pytest.raises(DataUnavailable, match=r"which column of .* holds the samples\? it has text"):
        load(tmp_path / "texts", validation=0.5)


def test_names_that_nothing_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataUnavailable, match="there is no folder"):
        load(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataUnavailable, match=r"data\.name: hf:.*empty cannot be read \("):
        load(tmp_path / "empty")
    with pytest.raises(
        DataUnavailable, match=r"hf:nobody/nothing cannot be read; it is not in the cache: .*data\.download=true"
    ) as caught:
        load_dataset(DataSettings(name="hf:nobody/nothing"), 0)
    assert "\n" not in str(caught.value)
    with pytest.raises(InvalidExperiment, match=r"data\.name: hf:a/b/c is neither hf:OWNER/NAME nor a folder"):
        fedopt.Experiment(data={"name": "hf:a/b/c"})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataUnavailable, match=r"there is a folder empty here; hf:\./empty names it"):
        load_dataset(DataSettings(name="hf:empty"), 0)
    assert DataSettings(name="hf:./empty").source.name == f"hf:{tmp_path / 'empty'}"
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InvalidExperiment, match=r"data\.name: hf:a/b needs datasets: pip install 'fedopt\[hf\]'"):
        load_dataset(DataSettings(name="hf:a/b"), 0)


def test_a_data_set_of_the_hub_is_read_from_the_cache_without_the_network(tmp_path: Path) -> None:
    """The cache of a folder differs from that of a data set on the Hub by its owner alone."""
    (tmp_path / "things").mkdir()
    numbers().to_parquet(str(tmp_path / "things" / "train.parquet"))
    datasets.load_dataset(str(tmp_path / "things"))
    (tmp_path / "cache" / "things").rename(tmp_path / "cache" / "nobody___things")
    dataset = load_dataset(DataSettings(name="hf:nobody/things", validation=0.25), 0)
    assert (len(dataset.y_train), dataset.sample_shape) == (18, (2,))


def test_a_run_on_a_local_data_set_with_a_partitioner_of_flower(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": pictures(), "test": pictures()}).save_to_disk(str(tmp_path / "saved"))
    experiment = fedopt.Experiment(
        data={"name": f"hf:{tmp_path / 'saved'}", "clients": 3, "partition": "flwr:PathologicalPartitioner"}
        | {"num_classes_per_partition": 2},
        model={"name": "logistic"},
        run={"rounds": 2, "participation": 1.0, "workers": 1},
    )
    first, second = (fedopt.run(experiment, tmp_path / name) for name in ("a", "b"))
    assert first.summary.weights_sha256 == second.summary.weights_sha256
    assert fedopt.resume(tmp_path / "a", ["run.rounds=3"]).summary.rounds == 3


LABELS = RNG.integers(0, 5, 300)


def split(clients: int, seed: int = 0, natural: Any = None, **keys: Any) -> list[np.ndarray]:
    source = {"name": "hf:x", "client": "c"} if natural is not None else {}
    return split_labels(LABELS, DataSettings(clients=clients, **source, **keys), seed, natural)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("IidPartitioner", {}),
        ("LinearPartitioner", {}),
        ("SizePartitioner", {"partition_sizes": [100, 100, 60, 40]}),
        ("DirichletPartitioner", {"alpha": 0.5, "min_partition_size": 1}),
        ("DirichletPartitioner", {"alpha": (0.5, 0.5, 1.0, 1.0), "min_partition_size": 1, "self_balancing": True}),
        ("InnerDirichletPartitioner", {"alpha": 0.5, "partition_sizes": [75, 75, 75, 75]}),
        ("PathologicalPartitioner", {"num_classes_per_partition": 2, "class_assignment_mode": "first-deterministic"}),
        ("ShardPartitioner", {"num_shards_per_partition": 3}),
    ],
)
def test_flowers_partitioners_divide_as_they_do_alone(name: str, keys: dict[str, Any]) -> None:
    parts = split(4, partition=f"flwr:{name}", **keys)
    rng = stream(0, Purpose.PARTITION, 0)
    order = rng.permutation(300)
    arguments = {key: list(value) if isinstance(value, tuple) else value for key, value in keys.items()}
    if "partition_sizes" not in keys:
        arguments["num_partitions"] = 4
    if name not in ("IidPartitioner", "LinearPartitioner", "SizePartitioner"):
        arguments |= {"partition_by": "label", "seed": int(rng.integers(2**31))}
    alone = getattr(partitioners, name)(**arguments)
    alone.dataset = datasets.Dataset.from_dict({"label": LABELS[order], "row": order})
    assert [part.tolist() for part in parts] == [sorted(alone.load_partition(client)["row"][:]) for client in range(4)]
    everything = sorted(np.concatenate(parts).tolist())
    assert len(set(everything)) == len(everything)
    again, other = (split(4, seed, partition=f"flwr:{name}", **keys) for seed in (0, 1))
    assert all(map(np.array_equal, again, parts))
    assert not all(map(np.array_equal, other, parts))


def test_a_pathological_partition_has_so_many_classes_a_client() -> None:
    parts = split(5, partition="flwr:PathologicalPartitioner", num_classes_per_partition=2)
    assert [len(np.unique(LABELS[part])) for part in parts] == [2] * 5


def test_natural_partitioners_keep_each_clients_samples_together() -> None:
    natural = tuple(np.arange(300)[np.arange(300) % 6 == client] for client in range(6))
    parts = split(6, natural=natural, partition="flwr:NaturalIdPartitioner")
    assert sorted(part.tolist() for part in parts) == sorted(part.tolist() for part in natural)
    groups = split(3, natural=natural, partition="flwr:GroupedNaturalIdPartitioner", group_size=2)
    assert [len(part) for part in groups] == [100] * 3
    with pytest.raises(PartitionImpossible, match=r"makes 6 clients of these data, not 5; set data\.clients to 6"):
        split(5, natural=natural, partition="flwr:NaturalIdPartitioner")


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"partition": "flwr:Dirichlet"}, "unknown partitioner 'Dirichlet'; did you mean DirichletPartitioner"),
        ({"partition": "flwr:DirichletPartitioner"}, r"needs alpha; set data\.alpha"),
        ({"partition": "flwr:IidPartitioner", "group_size": 2}, r"data\.group_size: flwr:IidPartitioner has no such"),
        ({"partition": "flwr:IdToSizeFncPartitioner"}, "needs partition_id_to_size_fn; it cannot be given"),
        ({"partition": "flwr:DirichletPartitioner", "alpha": -1.0}, "cannot divide these data: Alpha values should be"),
        ({"partition": "flwr:SizePartitioner", "partition_sizes": [1, 2]}, "makes 2 clients of these data, not 4"),
    ],
)
def test_what_a_partitioner_cannot_do_is_said(keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(PartitionImpossible, match=complaint) as caught:
        split(4, **keys)
    assert "\n" not in str(caught.value)


def test_partitioners_that_do_not_apply_are_refused_with_the_experiment() -> None:
    with pytest.raises(InvalidExperiment, match="divides features, not samples"):
        fedopt.Experiment(data={"partition": "flwr:VerticalEvenPartitioner"})
    with pytest.raises(InvalidExperiment, match=r"digits comes without clients .*flwr:NaturalIdPartitioner"):
        fedopt.Experiment(data={"partition": "flwr:NaturalIdPartitioner"})
