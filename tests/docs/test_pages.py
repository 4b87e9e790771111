"""What README.md and the pages of docs/ show works as it stands, and the harness notices when it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.__main__ import main
from tests.docs.blocks import ROOT, Kind, PageError, pages, read_page
from tests.docs.conftest import Runner
from tests.docs.page import matches, resembles


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_every_block_runs(page: Path, run_page: Runner, tmp_path: Path) -> None:
    done = run_page(page, tmp_path)
    assert done.returncode == 0, done.stderr


def page_of(folder: Path, *lines: str) -> Path:
    page = folder / "page.md"
    page.write_text("\n".join(lines) + "\n")
    return page


def test_blocks_share_a_folder_and_a_namespace(run_page: Runner, tmp_path: Path) -> None:
    lines = ['```toml title="a/e.toml"', "[run]", "rounds = 2", "```", "```python", "x = 3", "```"]
    lines += ["```sh", "fedopt run a/e.toml --quiet --out r", "cat a/e.toml", "```"]
    lines += ["<!-- checked -->", "```text", "[run]", "rounds = ...", "```"]
    lines += ["```python", "import json", "print(x, json.load(open('r/summary.json'))['rounds'])", "```"]
    lines += ["<!-- checked -->", "```text", "3 2", "```"]
    lines += ["```python", "print('x 12.5 s')", "```"]
    lines += ["<!-- checked but for numbers -->", "```text", "x 3 s", "```"]
    lines += ["<!-- not run: it never ends -->", "```sh", "yes", "```"]
    done = run_page(page_of(tmp_path, *lines), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["", "```python", "x = 1", "1 / 0", "```"], 'page.md", line 4, in <module>'),
        (["", "```sh", "fedopt run gone.toml", "```"], "page.md:2: sh ended with 2\nfedopt: there is no experiment"),
        (["```sh", "false", "true", "```"], "page.md:1: sh ended with 1"),
        (["```toml", "[run]", "round = 1", "```"], "page.md:1: toml: run.round: unknown key; did you mean rounds?"),
        (["```toml", "[run", "```"], "page.md:1: toml: "),
        (["```json", "{", "```"], "page.md:1: json: "),
        (["```python", "print(1)", "```", "<!-- checked -->", "```text", "2", "```"], "page.md:5: the block before"),
        (
            ["```python", "print('a 1')", "```", "<!-- checked but for numbers -->", "```text", "b 2", "```"],
            "page.md:5: the block before",
        ),
        (["```console", "ls", "```"], "the language 'console' is none of"),
        (["```sh", "ls"], "page.md:1: this block is not closed"),
        (["<!-- checked -->", "```sh", "ls", "```"], "page.md:2: only a text block can be checked"),
    ],
)
def test_what_fails_is_reported_with_its_line(lines: list[str], message: str, run_page: Runner, tmp_path: Path) -> None:
    done = run_page(page_of(tmp_path, *lines), tmp_path)
    assert done.returncode == 1
    assert message in done.stderr


def test_dots_stand_for_what_differs_between_runs() -> None:
    assert matches("a ... c\n...\nlast\n", "a b c\nsome\nlines\nlast\n")
    assert matches("a\n...\n", "a\n")
    assert not matches("a ... c\n", "a b d\n")
    assert not matches("a\n", "a\nb\n")
    assert not matches("3.5\n", "3x5\n")


def test_a_block_in_a_list_or_a_tab_is_found_too(tmp_path: Path) -> None:
    (block,) = read_page(page_of(tmp_path, '=== "pip"', "", "    ```sh", "    ls", "      -l", "    ```"))
    assert (block.kind, block.text, block.line) == (Kind.SHELL, "ls\n  -l\n", 3)


def test_a_block_without_a_language_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PageError, match="the language '' is none of"):
        read_page(page_of(tmp_path, "```", "ls", "```"))


def test_blocks_are_counted_and_those_that_do_not_run_have_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    output = capsys.readouterr().out
    run = sum(block.kind not in (Kind.OUTPUT, Kind.NOT_RUN) for page in pages() for block in read_page(page))
    assert f"{run} blocks run" in output
    assert "README.md:" in output
    assert output.splitlines()[-1].count(": ") >= 1


def test_pages_name_no_path_of_one_machine() -> None:
    for page in pages():
        assert str(ROOT) not in page.read_text(encoding="utf-8"), page


def test_measured_numbers_of_a_page_are_those_of_a_run_but_for_times() -> None:
    assert resembles("accuracy 0.869 in 3.1 s\n...\nend\n", "accuracy 0.871 in 9.9 s\nmore\nend\n")
    assert not resembles("accuracy 0.869, drift ratio 2.46\n", "accuracy 0.869, drift ratio 3.01\n")
    assert not resembles("accuracy 0.869\n", "loss 0.869\n")
    table = "name  best, %  seconds per run\nfirst    95.1     {}\n"
    assert resembles(table.format("0.3"), table.format("12.0"))
    assert not resembles(table.format("0.3"), table.format("0.3").replace("95.1", "65.1"))
    assert not resembles("a\n", "a\nb\n")
    assert not resembles("a\nb\n", "a\n")
