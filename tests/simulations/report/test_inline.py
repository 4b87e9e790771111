"""`fedopt.compare`: the report's tables and figures in Python."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

import fedopt
from fedopt.errors import InvalidExperiment
from simulations.report.figures import draw, makers, save
from simulations.results import read_results

ALGORITHMS, SEEDS = ("fedavg", "scaffold"), (0, 1)


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[fedopt.History]]:
    folder = tmp_path_factory.mktemp("compared")

    def run(algorithm: str, seed: int) -> fedopt.History:
        experiment = fedopt.Experiment(
            data={"clients": 4},
            algorithm={"name": algorithm},
            run={"rounds": 2, "cohort": 2, "seed": seed, "workers": 1},
        )
        return fedopt.run(experiment, folder / f"{algorithm}-{seed}")

    return {algorithm: [run(algorithm, seed) for seed in SEEDS] for algorithm in ALGORITHMS}


Histories = dict[str, list[fedopt.History]]


def all_of(histories: Histories) -> list[fedopt.History]:
    return [history for own in histories.values() for history in own]


def test_seeds_of_a_setting_are_one_row_with_mean_and_deviation(histories: Histories) -> None:
    table = fedopt.compare(all_of(histories)).table
    assert [row["algorithm.name"] for row in table] == list(ALGORITHMS)
    for row, own in zip(table, histories.values(), strict=True):
        finals = [history.summary.final.score for history in own]
        ratios = [[record.drift.ratio for record in history.records if record.drift] for history in own]
        assert row["test_accuracy"] == pytest.approx(statistics.fmean(finals))
        assert row["test_accuracy_std"] == pytest.approx(statistics.stdev(finals))
        assert row["drift.ratio"] == pytest.approx(statistics.fmean(r for own in ratios for r in own if r is not None))
        assert (row["finished"], row["runs"]) == (2, 2)


def test_differences_are_seed_by_seed(histories: Histories) -> None:
    (row,) = fedopt.compare(all_of(histories)).pairs
    first, second = ([history.summary.final.score for history in histories[name]] for name in ALGORITHMS)
    gains = [100 * (b - a) for a, b in zip(first, second, strict=True)]
    assert (row["difference"], row["of"]) == ("scaffold - fedavg", "test_accuracy")
    assert row["mean"] == pytest.approx(statistics.fmean(gains))
    assert row["std"] == pytest.approx(statistics.stdev(gains))


def test_directories_histories_and_labels_say_the_same(histories: Histories) -> None:
    of_histories = fedopt.compare(all_of(histories))
    of_directories = fedopt.compare([history.directory for history in all_of(histories)])
    mixed = fedopt.compare([*histories["fedavg"], *(str(history.directory) for history in histories["scaffold"])])
    assert list(of_histories.table) == list(of_directories.table) == list(mixed.table)
    labeled = fedopt.compare({"A": histories["fedavg"], "B": [history.directory for history in histories["scaffold"]]})
    assert [row["run"] for row in labeled.table] == ["A", "B"]
    figures = [{key: value for key, value in row.items() if key != "run"} for row in labeled.table]
    assert figures == [
        {key: value for key, value in row.items() if key != "algorithm.name"} for row in of_histories.table
    ]


def test_there_is_a_row_for_each_run(histories: Histories) -> None:
    frame = fedopt.compare(all_of(histories)).runs.to_pandas()
    assert list(frame["seed"]) == [0, 1, 0, 1]
    assert list(frame["test_accuracy"]) == [history.summary.final.score for history in all_of(histories)]
    assert not frame.isna().all().any(), "no column is empty"
    assert "algorithm.error.last" in frame, "only SCAFFOLD has it"
    assert not {"personal_accuracy", "rounds_to_target", "divergence.last"} & set(frame)


def test_a_paper_gets_the_printed_table_with_the_best_in_bold(histories: Histories) -> None:
    comparison = fedopt.compare({"A & B": histories["fedavg"], "C": histories["scaffold"]})
    finals = [[100 * one.summary.final.score for one in own] for own in histories.values()]
    texts = [f"{statistics.fmean(own):.2f} ± {statistics.stdev(own):.2f}" for own in finals]
    better = max((0, 1), key=lambda place: statistics.fmean(finals[place]))
    head, rule, *rows = comparison.to_markdown().splitlines()
    assert head == "| run | final accuracy, % | best, % | drift ratio | seconds per run |"
    assert rule == "| --- | ---: | ---: | ---: | ---: |"
    bold = [f"**{text}**" if place == better else text for place, text in enumerate(texts)]
    assert [row.split(" | ")[:2] for row in rows] == [["| A & B", bold[0]], ["| C", bold[1]]]
    begin, top, head, middle, *lines, bottom, end = comparison.to_latex().splitlines()
    assert (begin, end) == (r"\begin{tabular}{lrrrr}", r"\end{tabular}")
    assert (top, middle, bottom) == (r"\toprule", r"\midrule", r"\bottomrule")
    assert head == r"run & final accuracy, \% & best, \% & drift ratio & seconds per run \\"
    texts = [text.replace("±", r"$\pm$") for text in texts]
    bold = [rf"\textbf{{{text}}}" if place == better else text for place, text in enumerate(texts)]
    assert lines[0].startswith(rf"A \& B & {bold[0]} & ")
    assert lines[1].startswith(f"C & {bold[1]} & ")
    assert all(line.endswith(r" \\") for line in lines)


def test_runs_of_one_setting_have_a_row_named_by_their_directory(histories: Histories) -> None:
    rows = fedopt.compare(histories["fedavg"]).to_markdown().splitlines()
    assert rows[0].startswith("| run | final accuracy")
    assert rows[2].startswith(f"| {histories['fedavg'][0].directory} | ")


def test_a_notebook_shows_table_and_figures(histories: Histories) -> None:
    comparison = fedopt.compare(all_of(histories), figures=["accuracy", "loss"])
    shown = comparison._repr_html_()
    assert shown.count("<svg") == 2
    assert "<script" not in shown
    assert repr(comparison).splitlines()[0].split("  ")[0] == "algorithm"
    assert len(repr(comparison).splitlines()) == 3


def test_a_saved_figure_is_the_reports_own(histories: Histories, tmp_path: Path) -> None:
    comparison = fedopt.compare(all_of(histories))
    figure = draw(makers(read_results([histories["fedavg"][0].directory.parent]))["loss"])
    assert figure is not None
    for ending in ("svg", "pdf"):
        save(figure, tmp_path / f"report.{ending}", ending)
        saved = comparison.save(tmp_path / f"figure.{ending}", "loss")
        assert saved.read_bytes() == (tmp_path / f"report.{ending}").read_bytes()
    assert comparison.save(tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"
    assert comparison.figure().get_supylabel() == "test accuracy, %"


def test_what_cannot_be_compared_is_refused(histories: Histories, tmp_path: Path) -> None:
    own = histories["fedavg"]
    with pytest.raises(InvalidExperiment, match="give at least one run"):
        fedopt.compare([])
    with pytest.raises(InvalidExperiment, match="'A' has no run"):
        fedopt.compare({"A": []})
    with pytest.raises(InvalidExperiment, match=r"the runs of 'A' differ in algorithm\.name"):
        fedopt.compare({"A": all_of(histories)})
    with pytest.raises(InvalidExperiment, match="'A' and 'B' are the same run"):
        fedopt.compare({"A": own[0], "B": own[0].directory})
    with pytest.raises(InvalidExperiment, match="there is no directory"):
        fedopt.compare(tmp_path / "nothing")
    with pytest.raises(InvalidExperiment, match="there is no figure 'acuracy'; did you mean accuracy"):
        fedopt.compare(own, figures=["acuracy"])
    with pytest.raises(InvalidExperiment, match=r"ends in \.pdf, \.svg or \.png"):
        fedopt.compare(own).save(tmp_path / "figure.jpeg")
    with pytest.raises(InvalidExperiment, match="no data for the figure divergence"):
        fedopt.compare(own).save(tmp_path / "figure.pdf", "divergence")


def test_what_hardly_compares_is_noted(histories: Histories, tmp_path: Path) -> None:
    own = histories["fedavg"][0]
    other = fedopt.run(own.experiment.model_copy(update={"data": {"name": "synthetic"}}), tmp_path / "other")
    assert "different data" in " ".join(fedopt.compare([own, other]).warnings)
    again = fedopt.run(own.experiment, tmp_path / "again")
    assert "it is left out" in " ".join(fedopt.compare([own, again]).warnings)
    assert len(fedopt.compare([own, own, own.directory]).runs) == 1
    same = fedopt.compare({"before": own, "after": again})
    assert len(same.table) == 2
    assert "before and after are the same experiment with the same seed" in same.warnings
