"""Tables of texts as Markdown and as LaTeX, for papers and for pages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

Cell = tuple[str, bool]
"""A text, and whether it is bold."""

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "±": r"$\pm$",
    "ζ²": r"$\zeta^2$",
    "²": r"$^2$",
    "µ": r"$\mu$",
    "μ": r"$\mu$",
    "λ": r"$\lambda$",
}
"""What stands in LaTeX for characters that are commands there, or that its fonts may lack."""

SPECIAL = re.compile("|".join(re.escape(text) for text in sorted(LATEX, key=len, reverse=True)))


@dataclass(frozen=True)
class Sheet:
    """Titles and lines of the same length."""

    titles: Sequence[str]
    is_figure: Sequence[bool]
    """Whether the column's texts are figures, which are aligned right."""
    lines: Sequence[Sequence[Cell]]

    @property
    def markdown(self) -> str:
        """The table in the Markdown of GitHub."""
        return "\n".join(
            f"| {' | '.join(cells)} |"
            for cells in (
                [_in_markdown((title, False)) for title in self.titles],
                ["---:" if figures else "---" for figures in self.is_figure],
                *([_in_markdown(cell) for cell in line] for line in self.lines),
            )
        )

    @property
    def latex(self) -> str:
        """A tabular with the lines of the package booktabs."""
        alignment = "".join("r" if figures else "l" for figures in self.is_figure)
        body = [[_in_latex(cell) for cell in line] for line in self.lines]
        return "\n".join(
            [
                rf"\begin{{tabular}}{{{alignment}}}",
                r"\toprule",
                _latex_line([_in_latex((title, False)) for title in self.titles]),
                r"\midrule",
                *map(_latex_line, body),
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )


def _in_markdown(cell: Cell) -> str:
    text, is_bold = cell
    text = text.replace("|", "\\|")
    return f"**{text}**" if is_bold else text


def _in_latex(cell: Cell) -> str:
    text, is_bold = cell
    text = SPECIAL.sub(lambda found: LATEX[found[0]], text)
    return rf"\textbf{{{text}}}" if is_bold else text


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
