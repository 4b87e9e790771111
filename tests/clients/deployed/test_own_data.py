"""Data of a client's own: files and folders that nobody else sees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clients.deployed.own_data import read_own_data
from fedopt.data.sources.folder import Folder
from fedopt.data.sources.table import Table
from fedopt.errors import DataUnavailable
from tests.processes import Processes

NAMES = ("cat", "dog")


def test_an_archive_is_used_as_it_is(tmp_path: Path) -> None:
    x, y = np.arange(6.0).reshape(3, 2), np.array([0, 1, 1])
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y)
    np.savez(tmp_path / "b.npz", x=x, y=y)
    for file in ("a.npz", "b.npz"):
        samples, labels = read_own_data(tmp_path / file, NAMES, Folder(path=tmp_path))
        assert samples.numpy().tolist() == x.tolist()
        assert labels.tolist() == [0, 1, 1]


def test_a_folder_takes_its_labels_from_the_experiments_classes(tmp_path: Path) -> None:
    (tmp_path / "dog").mkdir()
    for number, grey in enumerate((0, 255)):
        Image.new("L", (4, 4), grey).save(tmp_path / "dog" / f"{number}.png")
    samples, labels = read_own_data(tmp_path, NAMES, Folder(path=tmp_path))
    assert labels.tolist() == [1, 1]
    assert tuple(samples.shape) == (2, 1, 4, 4)
    assert samples.mean().item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        (
            {"x_train": np.zeros((2, 2)), "y_train": np.array([0, 2])},
            "has label 2; the experiment's 2 classes count from 0",
        ),
        ({"x_train": np.zeros((2, 2))}, "there must be|lacks|y_train"),
        ({"z": np.zeros(2)}, "lacks x_train and y_train; it has z"),
        ({"x": np.full((2, 2), np.nan), "y": np.array([0, 1])}, "NaN or infinite"),
        ({"x": np.zeros((2, 2)), "y": np.array([-1, 1])}, "count from 0"),
    ],
)
def test_what_is_wrong_is_said(arrays: dict[str, np.ndarray], complaint: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataUnavailable, match=complaint):
        read_own_data(tmp_path / "a.npz", NAMES, Folder(path=tmp_path))


def test_numbers_to_predict_are_for_experiments_that_predict_numbers(tmp_path: Path) -> None:
    x, y = np.arange(6.0).reshape(3, 2), np.array([[0.5, 1.0], [2.0, 3.0], [4.0, 5.0]])
    np.savez(tmp_path / "a.npz", x=x, y=y)
    samples, targets = read_own_data(tmp_path / "a.npz", NAMES, Folder(path=tmp_path), True)
    assert np.array_equal(samples, x)
    assert np.array_equal(targets, y)
    with pytest.raises(DataUnavailable, match="has numbers to predict as labels; the experiment's are classes"):
        read_own_data(tmp_path / "a.npz", NAMES, Folder(path=tmp_path))
    with pytest.raises(DataUnavailable, match="has 2 numbers a sample; the experiment's samples have 1"):
        read_own_data(tmp_path / "a.npz", NAMES[:1], Folder(path=tmp_path), True)


def test_a_table_has_the_experiments_columns_and_classes(tmp_path: Path) -> None:
    source = Table(path=tmp_path, label="kind", features=("b", "a"))
    (tmp_path / "own.csv").write_text("a,note,kind,b\n1,x,dog,10\n3,y,dog,30\n5,z,cat,20\n")
    samples, labels = read_own_data(tmp_path / "own.csv", NAMES, source)
    expected = np.array([[10.0, 1.0], [30.0, 3.0], [20.0, 5.0]])
    assert np.allclose(samples.numpy(), (expected - expected.mean(0)) / expected.std(0))
    assert labels.tolist() == [1, 1, 0]
    plain = source.model_copy(update={"standardize": False})
    assert read_own_data(tmp_path / "own.csv", NAMES, plain)[0].numpy().tolist() == expected.tolist()
    with pytest.raises(DataUnavailable, match=r"own\.csv has a label cat; the classes are dog, emu"):
        read_own_data(tmp_path / "own.csv", ("dog", "emu"), source)
    with pytest.raises(DataUnavailable, match=r"its data\.features must name them"):
        read_own_data(tmp_path / "own.csv", NAMES, Table(path=tmp_path, label="kind"))
    with pytest.raises(DataUnavailable, match=r"--data: own\.csv has no column 'c' \(features\)"):
        read_own_data(tmp_path / "own.csv", NAMES, Table(path=tmp_path, label="kind", features=("c",)))
    with pytest.raises(DataUnavailable, match="--data: there is no file"):
        read_own_data(tmp_path / "gone.csv", NAMES, source)


def test_a_class_the_experiment_does_not_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train" / "bird").mkdir(parents=True)
    with pytest.raises(DataUnavailable, match="has a class bird; the experiment's are cat, dog"):
        read_own_data(tmp_path, NAMES, Folder(path=tmp_path))


def test_an_own_folder_may_have_folders_and_lack_classes_but_none_is_empty(tmp_path: Path) -> None:
    (tmp_path / "dog" / "2026" / "july").mkdir(parents=True)
    Image.new("L", (4, 4), 9).save(tmp_path / "dog" / "2026" / "july" / "a.png")
    _, labels = read_own_data(tmp_path, NAMES, Folder(path=tmp_path))
    assert labels.tolist() == [1]
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataUnavailable, match=r"--data: there is no image in class cat"):
        read_own_data(tmp_path, NAMES, Folder(path=tmp_path))


@pytest.mark.deployment
def test_clients_bring_their_own_files(processes: Processes) -> None:
    """The server has a test set; what the clients learn from is theirs alone. One brings samples of another shape."""
    rng = np.random.default_rng(0)

    def blobs(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = rng.integers(0, 2, n)
        return rng.standard_normal((n, 5)) + 2.0 * y[:, None], y

    x, y = blobs(200)
    np.savez(processes.folder / "server.npz", x_train=x[:2], y_train=y[:2], x_test=x, y_test=y)
    for client, n in ((0, 30), (1, 50)):
        own_x, own_y = blobs(n)
        np.savez(processes.folder / f"{client}.npz", x_train=own_x, y_train=own_y)
    np.savez(processes.folder / "odd.npz", x_train=np.zeros((3, 4)), y_train=np.array([0, 1, 0]))
    run = processes.folder / "run"
    server = processes.server(
        *(
            "--clients",
            "2",
            "--out",
            run,
            "--set",
            "data.name=npz",
            "--set",
            f"data.path={processes.folder / 'server.npz'}",
        ),
        *("--set", "data.partition=iid", "--set", "run.rounds=5", "--set", "run.participation=1.0"),
    )
    server.wait_for("listening on")
    odd = processes.client(0, "--data", processes.folder / "odd.npz")
    assert odd.wait() == 1
    assert "samples are of shape (4,), the server's (5,)" in odd.output.replace("\n", " ")
    clients = [processes.client(number, "--data", processes.folder / f"{number}.npz") for number in (0, 1)]
    assert server.wait() == 0, server.output
    assert [client.wait() for client in clients] == [0, 0]
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["samples"] == 80
    assert last["test_accuracy"] > 0.9
