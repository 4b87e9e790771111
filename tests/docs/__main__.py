"""`python -m tests.docs`: how many blocks of each page run, and which do not, with the reason."""

from __future__ import annotations

from collections import Counter

from tests.docs.blocks import ROOT, Kind, pages, read_page

RUN = (Kind.PYTHON, Kind.SHELL, Kind.FILE, Kind.PARSED, Kind.CHECKED, Kind.LIKE)


def main() -> None:
    total: Counter[Kind] = Counter()
    left_out: list[str] = []
    for page in pages():
        blocks = read_page(page)
        counts = Counter(block.kind for block in blocks)
        total += counts
        parts = ", ".join(f"{counts[kind]} {kind.value}" for kind in Kind if counts[kind])
        print(f"{page.relative_to(ROOT)}: {parts or 'no blocks'}")
        left_out += [f"{block.place}: {block.reason}" for block in blocks if block.kind is Kind.NOT_RUN]
    run = sum(total[kind] for kind in RUN)
    print(f"{run} blocks run, {total[Kind.OUTPUT]} show output, {total[Kind.NOT_RUN]} do not run:")
    for line in left_out:
        print(f"  {line}")


if __name__ == "__main__":
    main()
