"""The partitions that a report shows: one for each way in which its runs spread their data, at their first seed."""

from __future__ import annotations

from collections.abc import Mapping

from fedopt.data.label_skew import LabelSpread
from fedopt.experiment.experiment import Experiment
from fedopt.text import count
from simulations.results import Results, describe_value

MOST = 8
"""The most partitions on a page."""


def partitions(results: Results) -> dict[str, LabelSpread]:
    """The partitions whose label counts are known, by a title that distinguishes them."""
    found: dict[str, LabelSpread] = {}
    seen: set[str] = set()
    for row in results.rows:
        labels, data = row.run.partition, row.run.experiment.data
        key = f"{data.model_dump_json(exclude={'path', 'download'})}"
        if labels is None or labels.counts is None or key in seen or len(found) == MOST:
            continue
        seen.add(key)
        title = _title(row.labels, row.run.experiment)
        found[title if title not in found else f"{title}, {row.name}"] = labels
    return found


def _title(labels: Mapping[str, str], experiment: Experiment) -> str:
    of_data = [describe_value(axis, label) for axis, label in labels.items() if axis.startswith("data.")]
    if of_data:
        return ", ".join(of_data)
    data = experiment.data
    return f"{data.source.name}, {count(data.clients, 'client')}, {data.partition.title}"
