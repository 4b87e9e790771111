"""Data sources: what they read, and what they say when they cannot."""

from __future__ import annotations

import gzip
import shutil
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import ImageFolder

import fedopt
from fedopt.data.dataset import Dataset
from fedopt.data.loading import load_dataset
from fedopt.data.settings import DataSettings
from fedopt.data.sources.digits import read_digits
from fedopt.data.sources.folder import Folder
from fedopt.errors import DataUnavailable
from tests.commands import fedopt as command


def load(**keys: Any) -> Dataset:
    return load_dataset(DataSettings(**keys), seed=0)


def assert_normalised(dataset: Dataset) -> None:
    channels = dataset.x_train.double().transpose(0, 1).flatten(1)
    assert torch.allclose(channels.mean(1), torch.zeros(len(channels), dtype=torch.float64), atol=1e-5)
    assert torch.allclose(channels.var(1, correction=0), torch.ones(len(channels), dtype=torch.float64), atol=1e-4)


def test_digits_are_all_there_and_split_once_for_all_seeds() -> None:
    dataset = load()
    assert dataset.x_train.shape == (1437, 1, 8, 8)
    assert dataset.x_test.shape == (360, 1, 8, 8)
    assert_normalised(dataset)
    labels = torch.cat([dataset.y_train, dataset.y_test])
    assert torch.bincount(labels).tolist() == np.bincount(load_digits().target).tolist()
    assert load_dataset(DataSettings(), seed=5).x_test.equal(dataset.x_test)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_what_is_held_out_has_no_part_in_the_statistics(share: float) -> None:
    held = load(validation=share)
    assert_normalised(held)
    # Held-out images are scaled as the others are: the 17 levels of a pixel lie at the same places.
    assert set(np.unique(held.x_test)) <= set(np.unique(held.x_train))


def test_digits_are_those_that_scikit_learn_loads() -> None:
    pixels, targets = read_digits()
    assert np.array_equal(pixels, load_digits().data)
    assert np.array_equal(targets, load_digits().target)


def test_digits_are_loaded_by_scikit_learn_where_its_file_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedopt.data.sources.digits.find_spec", lambda name: None)
    pixels, targets = read_digits()
    assert pixels.shape == (1797, 64)
    assert targets.shape == (1797,)


def test_mnist_is_read_from_its_own_files(shared_data: Path) -> None:
    dataset = load(name="mnist", path=str(shared_data))
    assert dataset.x_train.shape == (60_000, 1, 28, 28)
    assert dataset.x_test.shape == (10_000, 1, 28, 28)
    assert_normalised(dataset)
    # label counts as published with the data
    assert torch.bincount(dataset.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_sets_in_mnists_format_are_read(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDOPT_CACHE", "off")
    raw = shared_data / "MNIST" / "raw"
    shutil.copytree(raw, tmp_path / "FashionMNIST" / "raw")
    emnist = tmp_path / "EMNIST" / "raw"
    emnist.mkdir(parents=True)
    for part, source in (("train", "train"), ("test", "t10k")):
        for kind in ("images-idx3", "labels-idx1"):
            shutil.copy(raw / f"{source}-{kind}-ubyte", emnist / f"emnist-digits-{part}-{kind}-ubyte")
    assert load(name="fashionmnist", path=str(tmp_path)).class_names[0] == "T-shirt/top"
    assert load(name="emnist", split="digits", path=str(tmp_path)).classes == 10


@pytest.mark.parametrize("name", ["mnist", "fashionmnist", "emnist", "cifar10", "cifar100", "svhn"])
def test_a_missing_set_says_where_it_looked_and_how_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable) as caught:
        load(name=name, path=str(tmp_path))
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "is not there" in message
    assert "--set data.download=true" in message
    assert "\n" not in message


def test_a_torn_set_is_named(shared_data: Path, tmp_path: Path) -> None:
    shutil.copytree(shared_data / "MNIST", tmp_path / "MNIST")
    torn = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    torn.write_bytes(torn.read_bytes()[:1000])
    with pytest.raises(DataUnavailable, match="cannot be read"):
        load(name="mnist", path=str(tmp_path))


def make_folder(root: Path, modes: dict[str, str] | None = None, size: int = 6) -> np.ndarray:
    """train/ and test/ with classes ant and bee; the training images as written."""
    rng = np.random.default_rng(0)
    written = []
    for part, count in (("train", 3), ("test", 2)):
        for name in ("ant", "bee"):
            (root / part / name).mkdir(parents=True)
            for k in range(count):
                pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
                image = Image.fromarray(pixels).convert((modes or {}).get(name, "RGB"))
                image.save(root / part / name / f"{k}.png")
                if part == "train":
                    written.append(pixels)
    return np.stack(written)


def test_a_folder_of_images_is_read_in_order(tmp_path: Path) -> None:
    pixels = make_folder(tmp_path).transpose(0, 3, 1, 2).astype(np.float64)
    dataset = load(name="folder", path=str(tmp_path))
    mean, deviation = pixels.mean(axis=(0, 2, 3), keepdims=True), pixels.std(axis=(0, 2, 3), keepdims=True)
    assert np.allclose(dataset.x_train.numpy(), (pixels - mean) / deviation, atol=1e-5)
    assert dataset.y_train.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.class_names == ("ant", "bee")


def test_images_in_folders_below_are_read_as_torchvision_reads_them(tmp_path: Path) -> None:
    make_folder(tmp_path)
    bee, elsewhere = tmp_path / "train" / "bee", tmp_path / "elsewhere"
    for place in (bee / "z", bee / "a" / "deep", bee / "a.b", elsewhere):
        place.mkdir(parents=True)
        for name in ("b.PNG", "a.png", "notes.txt", "10.jpg"):
            Image.new("RGB", (6, 6), (len(str(place)), ord(name[0]), 0)).save(place / name, format="png")
    (bee / "link").symlink_to(elsewhere)
    expected = ImageFolder(str(tmp_path / "train"))
    dataset = Folder(path=tmp_path).load(clients=1, seed=0)
    assert dataset.class_names == tuple(expected.classes)
    assert dataset.y_train.tolist() == expected.targets
    assert len(expected.targets) == 6 + 4 * 3
    images = np.stack([np.asarray(image) for image, _ in expected])
    assert np.array_equal(dataset.x_train.numpy(), images.transpose(0, 3, 1, 2))


def test_an_empty_class_is_named_and_one_without_test_images_is_noted(tmp_path: Path) -> None:
    make_folder(tmp_path)
    shutil.rmtree(tmp_path / "test" / "bee")
    assert load(name="folder", path=str(tmp_path)).notes == [
        "the test set has no sample of class bee: nothing is measured there"
    ]
    dataset = load(name="folder", path=str(tmp_path))
    unseen = replace(
        dataset, x_train=dataset.x_test, y_train=dataset.y_test, x_test=dataset.x_train, y_test=dataset.y_train
    )
    assert unseen.notes == ["the training set has no sample of class bee, and the test set has: no model can learn it"]
    (tmp_path / "train" / "cow" / "herd").mkdir(parents=True)
    (tmp_path / "train" / "cow" / "cow.svg").write_text("<svg/>")
    with pytest.raises(DataUnavailable, match=r"data\.path: there is no image in class cow \(.*cow\)"):
        load(name="folder", path=str(tmp_path))
    shutil.rmtree(tmp_path / "train" / "cow")
    asked = ("data.name=folder", f"data.path={tmp_path}", "data.clients=2", "data.partition=iid", "run.rounds=1")
    changes = [part for text in asked for part in ("--set", text)]
    done = command("run", *changes, "--set", "model.name=logistic", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "note: the test set has no sample of class bee" in done.stderr


def test_grey_and_coloured_images_meet_in_colour(tmp_path: Path) -> None:
    make_folder(tmp_path, {"ant": "L"})
    assert load(name="folder", path=str(tmp_path)).sample_shape == (3, 6, 6)
    make_folder(tmp_path / "grey", {"ant": "L", "bee": "L"})
    assert load(name="folder", path=str(tmp_path / "grey")).sample_shape == (1, 6, 6)


def test_a_folder_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="has no folder train/"):
        load(name="folder", path=str(tmp_path))
    make_folder(tmp_path)
    odd = tmp_path / "train" / "bee" / "odd.png"
    Image.new("RGB", (7, 6)).save(odd)
    with pytest.raises(DataUnavailable, match=r"odd\.png is 7 x 6 pixels.*set data\.image_size"):
        load(name="folder", path=str(tmp_path))
    assert load(name="folder", path=str(tmp_path), image_size=4).sample_shape == (3, 4, 4)
    odd.write_bytes(b"no image")
    with pytest.raises(DataUnavailable, match=r"odd\.png is not an image"):
        load(name="folder", path=str(tmp_path))
    odd.unlink()
    (tmp_path / "test" / "cow").mkdir()
    with pytest.raises(DataUnavailable, match="class cow is in"):
        load(name="folder", path=str(tmp_path))


def arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    plain = {
        "x_train": rng.standard_normal((12, 3)),
        "y_train": np.arange(12) % 4,
        "x_test": rng.standard_normal((5, 3)),
        "y_test": np.arange(5) % 4,
    }
    return {**plain, **changes}


def save(file: Path, named: dict[str, np.ndarray]) -> None:
    np.savez(file, allow_pickle=True, **named)


def test_npz_arrays_are_used_as_they_are(tmp_path: Path) -> None:
    given_arrays = arrays()
    save(tmp_path / "own.npz", given_arrays)
    dataset = load(name="npz", path=str(tmp_path / "own.npz"))
    assert np.array_equal(dataset.x_train.numpy(), given_arrays["x_train"])
    assert dataset.y_test.tolist() == [0, 1, 2, 3, 0]
    assert dataset.classes == 4


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"x_train": np.ones((12, 3), dtype=np.complex64)}, "features are numbers"),
        ({"x_train": np.full((12, 3), np.nan)}, "NaN or infinite values in x_train"),
        ({"x_train": np.ones((11, 3))}, "one row of features for each label"),
        ({"x_test": np.ones((5, 4))}, r"training samples of shape \(3,\)"),
        ({"y_train": np.ones(12)}, "one integer a sample"),
        ({"y_train": np.arange(12) - 1}, "labels from -1 to 10"),
        (
            {"y_test": np.array([0, 1, 2, 3, 900_000])},
            "has a label 900000, which makes 900001 classes, but only 5 different labels",
        ),
        ({"y_test": np.zeros(0, dtype=np.int64), "x_test": np.zeros((0, 3))}, "npz has no test samples"),
        ({"y_train": np.zeros(0, dtype=np.int64), "x_train": np.zeros((0, 3))}, "one row of features for each label"),
    ],
)
def test_npz_says_what_is_wrong_with_it(tmp_path: Path, changes: dict[str, np.ndarray], told: str) -> None:
    save(tmp_path / "own.npz", arrays(**changes))
    with pytest.raises(DataUnavailable, match=told):
        load(name="npz", path=str(tmp_path / "own.npz"))


def test_npz_without_its_arrays_names_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x_train=np.ones((2, 2)), X=np.ones(2))
    with pytest.raises(DataUnavailable, match=r"lacks y_train, x_test, y_test; it has x_train, X"):
        load(name="npz", path=str(tmp_path / "own.npz"))
    with pytest.raises(DataUnavailable, match="there is no file"):
        load(name="npz", path=str(tmp_path / "gone.npz"))


def test_npz_with_objects_is_never_unpickled(tmp_path: Path) -> None:
    save(tmp_path / "own.npz", arrays(x_train=np.array([{}], dtype=object)))
    with pytest.raises(DataUnavailable, match=r"is not an \.npz file of plain arrays"):
        load(name="npz", path=str(tmp_path / "own.npz"))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_damaged_npz_is_refused_in_one_sentence(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("npz") / "own.npz"
    save(file, arrays())
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        load(name="npz", path=str(file))
    except DataUnavailable as error:
        assert "\n" not in str(error)


def test_synthetic_has_the_papers_covariance_and_its_own_clients() -> None:
    dataset = load(name="synthetic", a=1.0, b=1.0, clients=30)
    assert dataset.natural_clients is not None
    assert sum(len(part) for part in dataset.natural_clients) == len(dataset.y_train)
    sizes = [len(part) for part in dataset.natural_clients]
    assert min(sizes) >= 45  # 50 at least, a tenth of them for the test set
    largest = dataset.x_train[torch.from_numpy(dataset.natural_clients[int(np.argmax(sizes))])].double()
    variances = largest.var(0)
    expected = torch.arange(1, 61, dtype=torch.float64) ** -1.2
    assert torch.allclose(variances / expected, torch.ones(60, dtype=torch.float64), atol=8 * (2 / max(sizes)) ** 0.5)


def test_synthetic_clients_differ_more_with_b() -> None:
    def spread(b: float) -> float:
        dataset = load(name="synthetic", a=0.0, b=b, clients=40)
        assert dataset.natural_clients is not None
        means = [dataset.x_train[torch.from_numpy(part)].mean() for part in dataset.natural_clients]
        return float(torch.stack(means).std())

    assert spread(5.0) > 3 * spread(0.0)


def test_a_compressed_original_is_not_taken_for_the_data(shared_data: Path, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    source = (shared_data / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").read_bytes()
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(source))
    with pytest.raises(DataUnavailable, match="is not there"):
        load(name="mnist", path=str(tmp_path))


@pytest.mark.slow
def test_cifar10_as_image_folders_is_read_and_learned(shared_data: Path, tmp_path: Path) -> None:
    """200 training and 50 test images of each class, from the real archive; a CNN beats guessing."""
    wanted = {"train": 200, "test": 50}
    taken: Counter[str] = Counter()
    with tarfile.open(shared_data / "cifar10-jpeg.tar.xz") as archive:
        for member in archive:
            parts = Path(member.name).parts
            if not member.isfile() or len(parts) < 3 or taken["/".join(parts[-3:-1])] >= wanted[parts[-3]]:
                continue
            taken["/".join(parts[-3:-1])] += 1
            content = archive.extractfile(member)
            assert content is not None
            target = tmp_path / "cifar" / Path(*parts[-3:])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())
    experiment = fedopt.Experiment(
        data={"name": "folder", "path": str(tmp_path / "cifar"), "clients": 10, "alpha": 1.0},
        model={"name": "cnn"},
        algorithm={"name": "scaffold"},
        local={"lr": 0.05, "epochs": 3},
        run={"rounds": 15, "participation": 0.5, "eval_every": 15},
    )
    assert load_dataset(experiment.data, 0).x_train.shape == (2000, 3, 32, 32)
    assert fedopt.run(experiment, tmp_path / "run").summary.final.score > 0.2
