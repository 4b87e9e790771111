"""Tables as Markdown and LaTeX."""

from __future__ import annotations

from fedopt.runs.table import Table

TABLE = Table([{"name": "a|b_1", "ζ²": 0.123456, "none": None}, {"name": "50% ± \\x", "ζ²": None, "none": None}])


def test_markdown_aligns_numbers_and_escapes_bars() -> None:
    assert TABLE.to_markdown().splitlines() == [
        "| name | ζ² | none |",
        "| --- | ---: | ---: |",
        "| a\\|b_1 | 0.1235 | - |",
        "| 50% ± \\x | - | - |",
    ]


def test_latex_escapes_its_commands() -> None:
    assert TABLE.without_empty_columns().to_latex().splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"name & $\zeta^2$ \\",
        r"\midrule",
        r"a|b\_1 & 0.1235 \\",
        r"50\% $\pm$ \textbackslash{}x & - \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
