"""The command line as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import fedopt, fedopt_here

QUICK = ["--set", "run.rounds=3"]


SUBCOMMANDS = ["run", "server", "client", "federation", "keys", "study", "report", "watch"]
SUBCOMMANDS += ["partition", "analyze", "demo", "export", "bench", "list"]


@pytest.mark.parametrize(
    "subcommand",
    [
        *SUBCOMMANDS,
        *("bench engine", "bench scale", "bench store", "bench drift", "bench federation"),
        *(
            "demo amsgrad",
            "demo lookahead",
            "demo weight-decay",
            "demo paths",
            "demo drift",
            "demo rates",
            "demo generalization",
        ),
    ],
)
def test_help_teaches(subcommand: str, tmp_path: Path) -> None:
    done = fedopt_here(*subcommand.split(), "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "Usage" in done.stdout
    assert "Example" in done.stdout or subcommand in ("bench", "demo", "analyze")


def test_help_explains_arguments(tmp_path: Path) -> None:
    for command, sentence in {"export": "The directory of a run.", "run": "without one, FedAvg on digits"}.items():
        assert sentence in " ".join(fedopt_here(command, "--help", cwd=tmp_path).stdout.split())


def test_help_lists_every_subcommand() -> None:
    output = fedopt("--help").stdout
    assert all(name in output for name in SUBCOMMANDS)
    assert fedopt().returncode == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rum"], "did you mean run?"),
        (["run", "--sett", "a.b=1"], "No such option"),
        (["run", "--rounds", "5"], "No such option '--rounds'. Did you mean '--set run.rounds=...'?"),
        (["run", "gone.toml"], "there is no experiment file gone.toml"),
        (["run", "--set", "data.alpha=0"], "data.alpha: must be greater than 0"),
        (["run", "--set", "data.name=mnist"], "is not there; point data.path at"),
        (["run", "--set", "model.name=cnn"], "needs images of at least 16 x 16 pixels"),
        (["run", "--set", "data.clients=2000"], "the training set has 1437"),
        (["run", "--set", "data.alpha=0.001", "--set", "data.min_samples=30"], "what would work: data.alpha = "),
        (["run", "--set", "run.device=cuda"], "torch finds no cuda"),
        (["run", "--resume", "gone"], "there is no run"),
        (["run", "--engine", "raj"], "did you mean ray?"),
        (["run", "--track", "mlfow"], "did you mean mlflow?"),
        (["server", "--tensorboard"], "--tensorboard is called --track tensorboard now"),
        (["run", "--progress", "loud"], "'loud' is not one of"),
        (["run", "--set", "run.min_replies=9"], "9 updates, but a round has 4 clients; lower it"),
        (["bench", "enginee"], "did you mean engine?"),
        (["demo", "paths", "saddel"], "did you mean saddle?"),
        (["demo", "paths", "saddle", "--all"], "--all draws saddle as well"),
        (["demo", "drift", "--lr", "0.4"], "give a rate above 0 and below 0.4"),
        (["demo", "amsgrat"], "did you mean amsgrad?"),
        (["demo", "amsgrad", "--large", "2"], "falls towards -1 only for C above 2"),
        (["demo", "lookahead", "--lr", "1"], "give a rate above 0 and below 1"),
        (["demo", "lookahead", "--slow-step", "nan"], "give a step above 0 and at most 1"),
        (["demo", "weight-decay", "--decay", "-1"], "give a weight decay from 0 to 1"),
        (["demo", "lookahead", "--steps", "2", "--out", "/proc/x"], "--out /proc/x cannot be written"),
        (["client"], "Missing option"),
        (["federation", "--clients", "0"], "0 is not in the range"),
        (["server", "--resume", "gone"], "there is no run"),
        (["run", "--resume", "gone", "--out", "x"], "--resume takes the experiment and the place from DIR"),
        (["partition", "--plot", "p.gif"], "choose .png, .svg or .pdf"),
        (["partition", "--plot", "gone/p.png"], "cannot be written"),
        (["bench", "engine", "--model", "mpl"], "did you mean mlp?"),
        (["study", "--set", "run.rounds=0"], "run.rounds: must be greater than or equal to 1"),
        (["study", "gone.toml"], "there is no study file gone.toml"),
        (["study", "digit"], "did you mean digits?"),
        (["report", "gone"], "there is no directory gone"),
        (["report", "."], ". holds no run"),
        (["watch", "gone"], "there is no directory gone"),
        (["watch", ".", "--metric", "drift.rato"], "did you mean drift.ratio?"),
        (["list", "metrix"], "did you mean metrics?"),
        (["bench", "drift", "--model", "mpl"], "did you mean mlp?"),
        (["bench", "store", "--clients", "5"], "--cohort 1000: there are 5 clients"),
    ],
)
def test_a_mistake_gets_a_sentence_status_2_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = fedopt_here(*arguments, cwd=tmp_path)
    assert message in " ".join(done.stderr.split())
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_run_without_a_file_runs_the_digits_and_names_its_directory(tmp_path: Path) -> None:
    done = fedopt("run", *QUICK, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == ""
    (run,) = (tmp_path / "runs").iterdir()
    assert f"results in runs/{run.name}" in done.stderr
    assert "round 3/3" in done.stderr
    assert "clients/s" in done.stderr


def test_quiet_prints_nothing_and_json_prints_one_object(tmp_path: Path) -> None:
    done = fedopt("run", *QUICK, "--quiet", "--json", "--out", "here", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads((tmp_path / "here" / "summary.json").read_text())


def test_a_file_and_overrides_make_the_experiment_and_an_unread_key_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text('[algorithm]\nname = "scaffold"\n[run]\nrounds = 2\nseed = 4\n')
    overrides = ["--set", "run.seed=5", "-s", "local.optimizer=adam", "-s", "local.momentum=0.9"]
    done = fedopt("run", "e.toml", *overrides, "--out", "o", cwd=tmp_path)
    assert done.returncode == 0
    assert "note: local.momentum is not used by adam" in done.stderr
    assert "scaffold on digits" in done.stderr
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["seed"] == 5


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_partition_shows_and_draws(tmp_path: Path, ending: str) -> None:
    done = fedopt_here("partition", "--set", "data.clients=7", "--plot", f"p.{ending}", cwd=tmp_path)
    assert done.returncode == 0
    assert "7 clients, 1437 samples" in done.stdout
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert (tmp_path / f"p.{ending}").read_bytes().startswith(start)


def test_partition_as_json_adds_up(tmp_path: Path) -> None:
    output = json.loads(fedopt_here("partition", "--json", cwd=tmp_path).stdout)
    assert sum(output["sizes"]) == sum(map(sum, output["counts"])) == 1437
    assert len(output["entropies"]) == len(output["distances"]) == 20


def test_study_ends_in_a_table_and_where_the_results_are(tmp_path: Path) -> None:
    done = fedopt(
        "study", "--seeds", "2", "--set", "run.rounds=2", "--out", "s", "--track", "tensorboard", cwd=tmp_path
    )
    assert done.returncode == 0
    assert "final accuracy" in done.stdout
    assert "scaffold - fedavg, seed by seed:" in done.stdout
    assert "results in s" in done.stdout
    names = {"fedavg-seed0", "fedavg-seed1", "scaffold-seed0", "scaffold-seed1"}
    files = {"study.toml", "plan.json", "results.csv", "summary.md", "report.html"}
    assert {run.name for run in (tmp_path / "s").iterdir()} == names | files
    assert all((tmp_path / "s" / name / "summary.json").is_file() for name in names)
    assert all(list((tmp_path / "s" / name / "tensorboard").glob("events.*")) for name in names)


@pytest.mark.slow
def test_bench_measures_both_on_the_same_work(tmp_path: Path) -> None:
    arguments = ["bench", "engine", "--model", "logistic", "--batch", "64", "--repeats", "1", "--json"]
    output = json.loads(fedopt(*arguments, cwd=tmp_path).stdout)
    (cell,) = output["cells"]
    assert {"model", "batch", "optimizer", "engine", "steps_per_second", "ratio", "ratio_min", "ratio_max"} <= set(cell)
    assert cell["ratio"] == pytest.approx(cell["steps_per_second"] / cell["plain_steps_per_second"], rel=1e-6)
    assert output["machine"]["threads"] == 1
    kept = tmp_path / "runs" / "bench"
    assert sorted(file.name for file in kept.iterdir()) == ["engine.jsonl", "engine.md", "engine.svg"]
    (line,) = (kept / "engine.jsonl").read_text().splitlines()
    assert json.loads(line)["cells"] == output["cells"]
    assert "| sgd, batch 64 |" in (kept / "engine.md").read_text()


@pytest.mark.slow
def test_bench_engine_compares_with_a_peer_and_refuses_one_it_does_not_know(tmp_path: Path) -> None:
    arguments = ["bench", "engine", "--model", "logistic", "--batch", "64", "--repeats", "1", "--json"]
    output = json.loads(fedopt(*arguments, "--peer", "deepcopy-dataloader", cwd=tmp_path).stdout)
    assert output["cells"][0]["peers"]["deepcopy-dataloader"] > 0
    refused = fedopt(*arguments, "--peer", "flower", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--peer flower:" in refused.stderr
    assert "flower-ray" in refused.stderr


@pytest.mark.slow
def test_bench_scale_says_how_a_round_grows(tmp_path: Path) -> None:
    done = fedopt("bench", "scale", "--largest", "10", "--rounds", "1", "--json", cwd=tmp_path)
    points = json.loads(done.stdout)["points"]
    assert [(point["axis"], point["parameters"]) for point in points] == [
        ("clients", 10_000),
        ("cohort", 10_000),
        ("parameters", 1_000),
        ("parameters", 10_000),
    ]
    assert all(point["seconds"] > 0 and point["mib"] > 100 for point in points)
    assert points[-1]["slope"] is not None


@pytest.mark.slow
@pytest.mark.deployment
def test_bench_federation_measures_rounds(tmp_path: Path) -> None:
    done = fedopt("bench", "federation", "--clients", "2", "--rounds", "3", "--json", cwd=tmp_path)
    (cell,) = json.loads(done.stdout)["cells"]
    assert (cell["clients"], cell["nodes"]) == (2, "resident")
    assert 0 < cell["round_min"] <= cell["round_seconds"] <= cell["round_max"] < cell["first_round_seconds"]
    assert list(tmp_path.iterdir()) == []
