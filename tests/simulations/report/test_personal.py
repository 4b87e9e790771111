"""The accuracy of the models that clients use themselves, in records, summaries, tables, figures and searches."""

from __future__ import annotations

import io
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import fedopt
from fedopt.data.evaluation_shares import owners_of_tests
from fedopt.data.loading import load_dataset
from fedopt.data.partition import partition
from fedopt.runs.display import history_text
from simulations.commands.study import print_results
from simulations.comparison import columns, marked, paired
from simulations.report.curves import over_seeds
from simulations.report.page import page, page_data
from simulations.results import Results, read_results
from simulations.study.tables import results_csv, summary_md

SECTIONS: dict[str, Any] = {
    "data": {"clients": 5, "partition": "dirichlet", "alpha": 0.2},
    "run": {"rounds": 3, "participation": 1.0, "workers": 1},
}
ALGORITHMS = ("fedavg", "finetune", "local")

Histories = dict[str, fedopt.History]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("personal")


@pytest.fixture(scope="module")
def histories(folder: Path) -> Histories:
    return {
        name: fedopt.run(fedopt.Experiment(algorithm={"name": name}, **SECTIONS), folder / name) for name in ALGORITHMS
    }


@pytest.fixture(scope="module")
def results(histories: Histories, folder: Path) -> Results:
    return read_results([folder])


def weighted(history: fedopt.History, round_: int) -> float:
    """The accuracies of the clients of that round, weighted by the sizes of their test shares."""
    experiment = history.experiment
    dataset = load_dataset(experiment.data, 0)
    owners = owners_of_tests(dataset, partition(dataset, experiment.data, 0), 0)
    clients = history.records[round_ - 1].clients
    assert clients is not None
    sizes = np.bincount(owners, minlength=5)
    right = [accuracy * n for accuracy, n in zip(clients.accuracy, sizes, strict=True) if accuracy is not None]
    return float(sum(right) / int(sizes.sum()))


@pytest.mark.parametrize("name", ["finetune", "local"])
def test_records_have_the_accuracy_of_the_clients_own_models_over_all_test_samples(
    histories: Histories, name: str
) -> None:
    first, middle, last = histories[name].records
    assert first.personal_accuracy == pytest.approx(weighted(histories[name], 1), abs=1e-12)
    assert last.personal_accuracy == pytest.approx(weighted(histories[name], 3), abs=1e-12)
    assert middle.personal_accuracy is None, "clients are evaluated in the first round and the last one"
    assert histories[name].summary.final.personal_accuracy == last.personal_accuracy
    assert last.personal_accuracy != last.test_accuracy


def test_one_global_model_has_one_accuracy(histories: Histories) -> None:
    history = histories["fedavg"]
    assert [record.personal_accuracy for record in history.records] == [None] * 3
    assert history.summary.final.personal_accuracy is None
    assert history.summary.final.of_clients == pytest.approx(weighted(history, 3), abs=1e-12)
    assert "own models" not in history_text(history)
    final = histories["local"].summary.final
    assert history_text(histories["local"]).endswith(f"; the clients' own models {final.personal_accuracy:.2%})")


def test_a_run_that_stops_early_ends_with_the_accuracy_of_its_clients(tmp_path: Path) -> None:
    class Once:
        def round_done(self, record: fedopt.RoundRecord) -> None:
            if record.round == 2:
                raise fedopt.StopRun

    experiment = fedopt.Experiment(algorithm={"name": "local"}, **SECTIONS)
    stopped = fedopt.run(experiment, tmp_path / "stopped", observers=[Once()])
    whole = fedopt.run(experiment.replace(run={"rounds": 2}), tmp_path / "whole")
    assert stopped.records[-1].personal_accuracy is None
    assert stopped.summary.final.personal_accuracy == whole.summary.final.personal_accuracy is not None


def test_clients_that_are_never_evaluated_have_no_accuracy(tmp_path: Path) -> None:
    experiment = fedopt.Experiment(algorithm={"name": "local"}, metrics={"clients_every": 0}, **SECTIONS)
    history = fedopt.run(experiment.replace(run={"rounds": 1}), tmp_path / "run")
    assert history.summary.final.personal_accuracy is None
    (row,) = read_results([tmp_path]).rows
    assert row.clients_accuracy is None, "it is not that of the global model"


def test_tables_show_it_beside_the_global_one_and_mark_the_best_of_each(results: Results, histories: Histories) -> None:
    finals = {name: history.summary.final for name, history in histories.items()}
    figures_of = marked(results, columns(results))
    table = {group.rows[0].run.experiment.algorithm.name: figures_of(group) for group in results.groups}
    titles = ["clients' models, %", "global model, %", "best (global), %"]
    assert [column.title for column in columns(results)][:3] == titles
    for name, final in finals.items():
        own = final.test_accuracy if name == "fedavg" else final.personal_accuracy
        assert own is not None
        assert [text for text, _ in table[name][:2]] == [f"{100 * own:.2f}", f"{100 * final.score:.2f}"]
    best = [max(finals, key=lambda name: value(finals[name])) for value in (of_clients, of_server)]
    assert [[name for name in finals if table[name][place][1]] for place in (0, 1)] == [[one] for one in best]
    assert best[0] != "fedavg"
    assert best[1] == "fedavg"
    bold = [line.count("**") // 2 for line in summary_md(results).splitlines() if line.startswith("|")]
    assert sum(bold) == 2


def of_server(final: Any) -> float:
    accuracy: float = final.test_accuracy
    return accuracy


def of_clients(final: Any) -> float:
    return final.test_accuracy if final.personal_accuracy is None else final.personal_accuracy  # type: ignore[no-any-return]


def test_methods_are_compared_by_the_models_that_clients_use(
    results: Results, histories: Histories, folder: Path
) -> None:
    """Under local training no client uses the global model."""
    finals = {name: of_clients(history.summary.final) for name, history in histories.items()}
    gains = {f"{name} - fedavg": 100 * (finals[name] - finals["fedavg"]) for name in ("finetune", "local")}
    of_global = of_server(histories["local"].summary.final) - of_server(histories["fedavg"].summary.final)
    assert abs(gains["local - fedavg"] - 100 * of_global) > 1
    assert {pair.difference: pair.gains for pair in paired(results)} == {
        name: [pytest.approx(gain)] for name, gain in gains.items()
    }
    rows = fedopt.compare([folder]).pairs
    assert {row["difference"]: row["mean"] for row in rows} == pytest.approx(gains)
    assert {row["of"] for row in rows} == {"clients_accuracy"}
    assert "Difference in final accuracy of the clients' models on the same clients" in summary_md(results)
    assert "Difference in final accuracy of the clients' models on the same clients" in unescape(page(results))
    final = {group["labels"][0]: group["final"][0] for group in page_data(results)["groups"]}
    assert final == pytest.approx(finals, rel=1e-4)


def test_the_terminal_says_whose_accuracy_is_compared(results: Results) -> None:
    console = Console(width=200, file=io.StringIO())
    print_results(console, results)
    assert isinstance(console.file, io.StringIO)
    (pair, _) = paired(results)
    assert f"{pair.difference}, clients' models, seed by seed: {pair.each} points" in console.file.getvalue()


def test_csv_comparisons_and_figures_have_it(results: Results, histories: Histories, folder: Path) -> None:
    head, *lines = results_csv(results).splitlines()
    place = head.split(",").index("personal_accuracy")
    personal = {name: history.summary.final.personal_accuracy for name, history in histories.items()}
    assert {line.split(",")[place] for line in lines} == {"" if one is None else str(one) for one in personal.values()}
    comparison = fedopt.compare([folder])
    assert [row["clients_accuracy"] for row in comparison.table] == [
        history.summary.final.of_clients for history in histories.values()
    ]
    assert "clients_accuracy_std" in comparison.table.columns
    assert "clients-accuracy" in comparison.figures
    assert "clients-accuracy" not in fedopt.compare([histories["fedavg"]]).figures
    assert "clients_accuracy" not in fedopt.compare([histories["fedavg"]]).table[0]


def test_the_page_draws_the_global_model_where_clients_have_no_other(results: Results, histories: Histories) -> None:
    data = page_data(results)
    assert data["personal"]
    curves = {group["labels"][0]: group["curves"] for group in data["groups"]}
    assert curves["fedavg"]["test_accuracy"][0] == (1, 2, 3)
    assert curves["fedavg"]["personal_accuracy"][:2] == [
        (1, 3),
        pytest.approx([record.test_accuracy for record in histories["fedavg"].records[::2]], rel=1e-4),
    ]
    assert curves["local"]["personal_accuracy"][0] == (1, 3)
    shown = [record.personal_accuracy for record in histories["local"].records if record.personal_accuracy is not None]
    assert curves["local"]["personal_accuracy"][1] == pytest.approx(shown, rel=1e-4)


def test_curves_of_the_clients_models_have_the_same_rounds_and_markers(folder: Path) -> None:
    comparison = fedopt.compare([folder])
    assert comparison._repr_html_().count("<svg") == 3, "a notebook shows it beside the two of any comparison"
    assert comparison.figure("accuracy").get_supylabel() == "test accuracy of the global model, %"
    (axes,) = comparison.figure("clients-accuracy").axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[1, 3]] * 3
    assert {line.get_marker() for line in axes.lines} == {"o"}


@pytest.mark.parametrize(
    ("rounds", "marked"),
    [(range(1, 41), False), (range(1, 12), True), ([1, *range(5, 101, 5)], True), (range(21, 41), False)],
)
def test_markers_show_values_that_are_few_or_apart(rounds: list[int], marked: bool) -> None:
    assert over_seeds([[(round_, 0.5) for round_ in rounds]]).needs_markers is marked


def test_a_search_takes_the_values_that_are_best_for_the_clients(tmp_path: Path) -> None:
    """Under local training the global model is the same whatever the rate."""
    study = fedopt.Study(
        fedopt.Experiment(algorithm={"name": "local"}, **SECTIONS),
        axes={"algorithm.name": ["local"]},
        seeds=[0],
        search={"rounds": 2, "grid": {"local.lr": [1e-6, 0.1]}},
    )
    result = study.run(tmp_path / "study", jobs=1, progress=False)
    assert result.runs[0]["local.lr (searched)"] == "0.1"
