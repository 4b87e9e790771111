"""The report in any state of the runs; it needs no network."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.commands import fedopt as command
from tests.commands import fedopt_here

pytestmark = pytest.mark.xdist_group("the study of the page")  # made once, for one worker

STUDY = """
title = "Does <it> drift & why {{data}}?"
seeds = 2

[base.data]
clients = 8

[base.model]
name = "mlp"
hidden = [8]

[base.run]
rounds = 12
target_accuracy = 0.3

[base.metrics]
drift_every = 3
clients_every = 3

[grid]
"algorithm.name" = ["fedavg", "scaffold"]
"data.alpha" = [0.1, 1.0, { label = "iid", "data.partition" = "iid" }]
"""


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    (folder / "drift.toml").write_text(STUDY)
    done = command("study", "drift.toml", "--out", "drift", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "drift"


def test_the_page_of_a_study_has_the_figures_of_its_runs(study: Path) -> None:
    page = (study / "report.html").read_text()
    assert html.escape("Does <it> drift & why {{data}}?") in page
    data = data_of(page)
    assert [axis["labels"] for axis in data["axes"]] == [["fedavg", "scaffold"], ["0.1", "1", "iid"]]
    assert len(data["groups"]) == 6
    for group in data["groups"]:
        algorithm, alpha = group["labels"]
        name = f"{algorithm}-{'alpha' * (alpha != 'iid')}{alpha}"
        runs = [study / f"{name}-seed{seed}" for seed in (0, 1)]
        records = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in runs]
        rounds, means, deviations, _ = group["curves"]["drift.ratio"]
        assert rounds == list(range(1, 13))
        for index in range(12):
            a, b = (seed[index]["drift"]["ratio"] for seed in records)
            assert means[index] == pytest.approx((a + b) / 2, rel=1e-4)
            assert deviations[index] == pytest.approx(abs(a - b) / 2**0.5, rel=1e-3, abs=1e-4)
        assert group["curves"]["gradients.zeta2"][0] == [1, 3, 6, 9, 12]
        sent = sum(r["bytes_up"] + r["bytes_down"] for r in records[0]) / 1e6
        assert group["megabytes"]["12"] == pytest.approx(sent, rel=1e-4)
        accuracies = [summary["final"]["test_accuracy"] for summary in map(summary_of, runs)]
        assert group["final"][0] == pytest.approx(sum(accuracies) / 2, rel=1e-4)
        assert f"{50 * sum(accuracies):.2f} ±" in page
    assert [one["title"] for one in data["partitions"]] == ["alpha 0.1", "alpha 1", "iid"]
    counts = json.loads((study / "fedavg-alpha0.1-seed0" / "partition.json").read_text())["counts"]
    assert data["partitions"][0]["counts"] == counts


def summary_of(run: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return summary


def test_the_page_asks_the_network_for_nothing(study: Path) -> None:
    page = (study / "report.html").read_text()
    assert "default-src 'none'" in page
    assert set(re.findall(r"""(?:src|href)\s*=\s*["']?([^\s"'>]*)""", page)) <= {"data:,"}
    assert "@import" not in page
    assert "fetch(" not in page
    addresses = set(re.findall(r"https?://[^\s\"']+", page))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # the name of a language


def test_every_measure_of_the_runs_is_explained(study: Path) -> None:
    data = data_of((study / "report.html").read_text())
    drawn = {measure for group in data["groups"] for measure in group["curves"]}
    assert drawn <= data["meanings"].keys()
    assert {"algorithm.error", "algorithm.distance", "clients.worst", "classes.mean_forgetting"} <= drawn
    assert not any("`" in meaning for meaning in data["meanings"].values())


def test_runs_without_a_study_are_grouped_by_what_they_differ_in(study: Path, tmp_path: Path) -> None:
    runs = [study / f"{name}-alpha1-seed{seed}" for name in ("fedavg", "scaffold") for seed in (0, 1)]
    done = command("report", *runs, "--html", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    data = data_of((tmp_path / "page.html").read_text())
    assert [(axis["name"], axis["labels"]) for axis in data["axes"]] == [("algorithm.name", ["fedavg", "scaffold"])]
    assert len(data["groups"]) == 2


def test_a_single_run_has_its_page(study: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(study / "scaffold-alpha1-seed0", tmp_path / "run"))
    done = command("report", run)
    assert (done.returncode, done.stderr) == (0, "")
    data = data_of((run / "report.html").read_text())
    assert len(data["groups"]) == 1
    assert data["axes"] == []
    layers = data["groups"][0]["layers"]
    assert set(layers["drift"]) == set(layers["scale"]) == {"1", "3"}
    assert layers["scale"]["1"][0] == data["groups"][0]["curves"]["gradients.norm"][0], "the rounds with gradients"


def test_problems_are_named_on_the_page_and_the_rest_is_shown(study: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(study, tmp_path / "study"))
    going = broken / "fedavg-alpha0.1-seed0"
    (going / "summary.json").unlink()
    lines = (going / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (going / "metrics.jsonl").write_bytes(b"".join(lines[:5]))
    torn = broken / "fedavg-alpha1-seed1" / "metrics.jsonl"
    torn.write_bytes(torn.read_bytes().replace(b'{"round":3,', b'{"round":3;', 1))
    shutil.rmtree(broken / "scaffold-iid-seed1")
    (broken / "scaffold-iid-seed0" / "experiment.toml").write_text("[data]\nclients = 'many'\n")
    done = command("report", broken)
    assert done.returncode == 0, done.stderr
    page = (broken / "report.html").read_text()
    for message in (
        "fedavg-alpha0.1-seed0 has not ended: it has 5 of 12 rounds",
        "metrics.jsonl: line 3 is not a record; it is left out",
        "data.clients: must be a whole number",
        "2 of 12 runs are not there: scaffold-iid-seed0, scaffold-iid-seed1",
    ):
        assert message in " ".join(done.stderr.split())
        assert html.escape(message) in page
    assert len(data_of(page)["groups"]) == 5


def test_runs_of_different_data_are_reported_with_a_warning(study: Path, tmp_path: Path) -> None:
    other = ["--set", "data.name=synthetic", "--set", "run.rounds=3", "--set", "data.clients=4"]
    assert command("run", *other, "--out", tmp_path / "other", "--quiet").returncode == 0
    done = command("report", study / "fedavg-alpha1-seed0", tmp_path / "other", "--html", tmp_path / "page.html")
    assert done.returncode == 0
    assert "the runs are of different data: their accuracies do not compare" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone"], "there is no directory gone"),
        (["."], "holds no run"),
        (["run", "--html", "no/page.html"], "cannot be written"),
    ],
)
def test_bad_input_gets_a_sentence_and_leaves_nothing(
    study: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    if arguments[0] == "run":
        shutil.copytree(study / "scaffold-alpha1-seed0", tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    done = fedopt_here("report", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_figures_are_svg_and_pdf_with_text_that_can_be_edited(study: Path, tmp_path: Path) -> None:
    done = command("report", study, "--html", tmp_path / "p.html", "--figures", tmp_path / "figures")
    assert done.returncode == 0, done.stderr
    names = {file.stem for file in (tmp_path / "figures").iterdir()}
    assert {"accuracy", "accuracy-by-bytes", "loss", "drift-ratio", "zeta2", "clients", "final-by-alpha"} <= names
    assert {"partition-1", "partition-2", "partition-3"} <= names
    for name in names:
        assert (tmp_path / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert "<svg" in (tmp_path / "figures" / f"{name}.svg").read_text()
    svg = (tmp_path / "figures" / "accuracy.svg").read_text()
    assert "scaffold" in svg
    assert "#0072b2" in svg.lower()


def test_watch_shows_curves_of_a_run_and_of_a_study(study: Path) -> None:
    one = command("watch", study / "scaffold-alpha1-seed0", "--metric", "drift.ratio", "--metric", "test_accuracy")
    assert one.returncode == 0, one.stderr
    assert "round 12 of 12, accuracy" in one.stdout
    assert "drift.ratio" in one.stdout
    assert re.search("[\u2801-\u28ff]{3}", one.stdout)  # braille
    many = command("watch", study, "--once")
    assert many.returncode == 0
    assert "12 of 12 runs have ended" in many.stdout
