"""Tables: CSV, Parquet and Arrow files, and pandas DataFrames."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

import fedopt
from fedopt.data.dataset import Dataset
from fedopt.data.loading import load_dataset
from fedopt.data.partition import partition
from fedopt.data.settings import DataSettings
from fedopt.errors import DataUnavailable, InvalidExperiment
from fedopt.imports import optional
from fedopt.runs.own_data import with_data

pandas: Any = optional("pandas", "this test", "tables")

RNG = np.random.default_rng(3)


def frame(rows: int = 40) -> Any:
    return pandas.DataFrame(
        {
            "age": RNG.integers(18, 90, rows),
            "height": RNG.normal(170, 9, rows),
            "member": RNG.integers(0, 2, rows).astype(bool),
            "same": np.full(rows, 0.1),
            "city": [("rome", "oslo", "lima")[row % 3] for row in range(rows)],
            "kind": [("dog", "cat")[row % 2] for row in range(rows)],
        }
    )


def settings(path: Path, **keys: Any) -> DataSettings:
    return DataSettings(**{"name": "table", "path": path, "label": "kind", "client": "city", "clients": 3, **keys})


def load(path: Path, **keys: Any) -> Dataset:
    return load_dataset(settings(path, **keys), seed=0)


WRITERS = {
    "t.csv": lambda table, file: table.to_csv(file, index=False),
    "t.csv.gz": lambda table, file: table.to_csv(file, index=False),
    "t.tsv": lambda table, file: table.to_csv(file, index=False, sep="\t"),
    "t.parquet": lambda table, file: table.to_parquet(file),
    "t.feather": lambda table, file: table.to_feather(file),
    "t.arrow": lambda table, file: table.to_feather(file),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_is_read_and_standardized(name: str, tmp_path: Path) -> None:
    table, tests = frame(), frame(10)
    (tmp_path / "tests").mkdir()
    for file, content in ((tmp_path / name, table), (tmp_path / "tests" / name, tests)):
        WRITERS[name](content, file)
    dataset = load(tmp_path / name, test=tmp_path / "tests" / name)
    columns = ["age", "height", "member", "same"]
    scaler = StandardScaler().fit(table[columns].to_numpy(dtype=float))
    for x, of in ((dataset.x_train, table), (dataset.x_test, tests)):
        assert np.allclose(x.numpy(), scaler.transform(of[columns].to_numpy(dtype=float)), atol=1e-9)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.y_train.tolist() == [1, 0] * 20
    parts = partition(dataset, settings(tmp_path / name), 0)
    assert [set(table["city"].iloc[part]) for part in parts] == [{"lima"}, {"oslo"}, {"rome"}]


def test_what_is_held_out_has_no_part_in_the_statistics(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "t.csv", index=False)
    dataset = load(tmp_path / "t.csv", validation=0.25, features=["height"])
    assert (len(dataset.y_train), len(dataset.y_test)) == (30, 10)
    assert np.isclose(dataset.x_train.mean(), 0, atol=1e-9)
    assert np.isclose(dataset.x_train.std(correction=0), 1)
    assert dataset.test_clients is not None
    plain = load(tmp_path / "t.csv", validation=0.25, features=["height"], standardize=False)
    assert plain.x_train.mean() > 150


def test_columns_are_chosen_and_whole_numbers_are_labels_whatever_they_start_at(tmp_path: Path) -> None:
    table = frame().assign(grade=[(3, 7, 5.0)[row % 3] for row in range(40)])
    table.to_csv(tmp_path / "t.csv", index=False)
    dataset = load(tmp_path / "t.csv", label="grade", client=None, drop=["city", "kind", "same"], validation=0.1)
    assert dataset.class_names == ("3", "5", "7")
    assert dataset.sample_shape == (3,)
    two = load(tmp_path / "t.csv", features=["height", "age"], validation=0.1, standardize=False)
    assert set(two.x_train[:, 1].int().tolist()) <= set(table["age"])
    assert settings(tmp_path / "t.csv", client=None).partition.name == "dirichlet"
    assert settings(tmp_path / "t.csv").partition.name == "natural"


@pytest.mark.parametrize(
    ("change", "keys", "complaint"),
    [
        (lambda t: t, {"client": None}, r'columns that are not numbers: city; leave them out with drop = \["city"\]'),
        (lambda t: t, {"label": "sort"}, r"has no column 'sort' \(label\); it has age, height"),
        (lambda t: t, {"label": "height", "drop": ["kind"]}, "a label is a whole number or a text"),
        (lambda t: t.assign(age=t["age"].where(t["age"] > 40)), {}, r"missing values in age; fill them in"),
        (lambda t: t.assign(kind=t["kind"].where(t["age"] > 40)), {}, "rows without a label in 'kind'"),
        (lambda t: t.assign(city=t["city"].where(t["age"] > 40)), {}, "rows without a client in 'city'"),
        (lambda t: t.assign(kind=range(len(t) * 50, len(t) * 51)), {"client": None, "drop": ["city"]}, None),
        (lambda t: t[["kind", "city"]], {}, "has no column of features"),
        (lambda t: t.assign(age=t["age"] / 0.0), {}, "has infinite values in age; replace them"),
        (lambda t: t[:0], {}, "has no rows"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(change: Any, keys: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    change(frame()).to_parquet(tmp_path / "t.parquet")
    if complaint is None:
        assert load(tmp_path / "t.parquet", validation=0.1, **keys).classes == 40
        return
    with pytest.raises(DataUnavailable, match=complaint) as caught:
        load(tmp_path / "t.parquet", validation=0.1, **keys)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_tables_are_named(tmp_path: Path) -> None:
    for name, content in (("t.csv", b""), ("t.parquet", b"PAR1 nonsense"), ("t.feather", b"\0" * 99)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataUnavailable, match=rf"data\.path: .*{name} cannot be read as a table"):
            load(tmp_path / name)
    with pytest.raises(DataUnavailable, match=r"t\.xlsx has none of the endings \.csv, "):
        load(tmp_path / "t.xlsx")
    with pytest.raises(DataUnavailable, match="there is no file"):
        load(tmp_path / "gone.csv")
    with pytest.raises(InvalidExperiment, match=r"data\.path: table needs it: a \.csv"):
        fedopt.Experiment(data={"name": "table"})
    with pytest.raises(InvalidExperiment, match=r"data\.drop: give features or drop, not both"):
        fedopt.Experiment(data={"name": "table", "path": "t.csv", "drop": ["a"], "features": ["b"]})


def test_without_pandas_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InvalidExperiment, match=r"data\.name: table needs pandas: pip install 'fedopt\[tables\]'"):
        load(tmp_path / "t.csv")


def test_a_data_frame_and_its_file_are_the_same_data(tmp_path: Path) -> None:
    table = frame()
    table.to_parquet(tmp_path / "t.parquet")
    data = fedopt.Data.from_pandas(table, label="kind", client="city", test=table)
    passed = with_data(fedopt.Experiment(), data).data
    assert (passed.partition.name, passed.clients) == ("natural", 3)
    one, other = load_dataset(passed, 0), load(tmp_path / "t.parquet", test=tmp_path / "t.parquet")
    assert one.x_train.equal(other.x_train)
    assert one.x_test.equal(other.x_test)
    assert one.y_train.equal(other.y_train)
    with pytest.raises(DataUnavailable, match=r"fedopt\.Data has no column 'x' \(client\)"):
        fedopt.Data.from_pandas(table, label="kind", client="x")


def test_a_run_learns_from_a_table(tmp_path: Path) -> None:
    table = frame(90)
    table["age"] = np.where(table["kind"] == "cat", 5, 9)
    table.to_csv(tmp_path / "t.csv", index=False)
    history = fedopt.run(
        fedopt.Experiment(
            data={"name": "table", "path": tmp_path / "t.csv", "label": "kind", "client": "city", "clients": 3}
            | {"validation": 0.2},
            model={"name": "logistic"},
            run={"rounds": 3, "participation": 1.0, "workers": 1},
        ),
        tmp_path / "run",
    )
    assert history.summary.final.score > 0.9
