"""The report in a real headless Chromium: it draws, it answers to the mouse, it fits a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.commands import fedopt as command
from tests.simulations.chromium import chromium, contrast, errors, luminance, open_page, prefer
from tests.simulations.report.test_page import STUDY

pytestmark = pytest.mark.xdist_group("the page in a browser")  # both made once, for one worker

SECTIONS = ["results", "accuracy", "axes", "pairs", "drift", "clients", "partition", "experiment"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "drift.toml").write_text(STUDY.replace("rounds = 12", "rounds = 6"))
    done = command("study", "drift.toml", "--out", "drift", "--seeds", "1", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "drift" / "report.html"


def chart(browser: webdriver.Chrome, name: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, f'figure[data-chart="{name}"]')


def curves(browser: webdriver.Chrome, name: str) -> list[str]:
    found = chart(browser, name).find_elements(By.CSS_SELECTOR, "path.curve")
    return [str(curve.get_attribute("data-series")) for curve in found]


def test_every_section_is_drawn_without_an_error(browser: webdriver.Chrome, page: Path) -> None:
    open_page(browser, page)
    for section in SECTIONS:
        assert browser.find_element(By.ID, section).is_displayed(), section
    for name in ("test_accuracy", "test_loss", "drift.ratio", "gradients.zeta2", "algorithm.error", "clients.worst"):
        assert curves(browser, name), name
    assert len(chart(browser, "partition bars").find_elements(By.CSS_SELECTOR, "rect")) > 8
    assert len(chart(browser, "partition bubbles").find_elements(By.CSS_SELECTOR, "circle")) > 8
    assert len(chart(browser, "client accuracies").find_elements(By.CSS_SELECTOR, "circle")) > 8
    assert len(chart(browser, "axis data.alpha").find_elements(By.CSS_SELECTOR, "circle")) == 6
    text = browser.find_element(By.TAG_NAME, "body").text
    assert "NaN" not in text
    assert "undefined" not in text
    assert "NaN" not in browser.page_source.split("<script")[0]


def test_a_curve_is_switched_off_and_on(browser: webdriver.Chrome, page: Path) -> None:
    open_page(browser, page)
    before = curves(browser, "test_accuracy")
    assert len(before) == 6

    def press() -> None:
        chart(browser, "test_accuracy").find_element(By.CSS_SELECTOR, ".legend button").click()

    press()
    assert curves(browser, "test_accuracy") == before[1:]
    assert before[0] not in curves(browser, "drift.ratio")
    button = chart(browser, "test_accuracy").find_element(By.CSS_SELECTOR, ".legend button")
    assert button.get_attribute("aria-pressed") == "false"
    press()
    assert curves(browser, "test_accuracy") == before


def test_filters_choose_runs_and_bytes_replace_rounds(browser: webdriver.Chrome, page: Path) -> None:
    open_page(browser, page)
    browser.find_element(By.CSS_SELECTOR, '[data-filter="algorithm.name=fedavg"]').click()
    assert curves(browser, "test_accuracy") == ["alpha 0.1", "alpha 1", "iid"]
    browser.find_element(By.CSS_SELECTOR, '[data-filter="data.alpha=iid"]').click()
    assert curves(browser, "drift.ratio") == ["alpha 0.1", "alpha 1"]
    chart(browser, "test_accuracy").find_elements(By.CSS_SELECTOR, ".switch button")[1].click()
    assert "MB sent" in chart(browser, "test_accuracy").text
    assert errors(browser) == []


def test_hovering_tells_values(browser: webdriver.Chrome, page: Path) -> None:
    open_page(browser, page)
    tip = browser.find_element(By.ID, "tip")
    assert not tip.is_displayed()
    for name, message in (
        ("test_accuracy", "fedavg, alpha 0.1: "),
        ("drift.ratio", "scaffold, iid: "),
        ("partition bars", "samples"),
    ):
        target = chart(browser, name).find_element(By.CSS_SELECTOR, "svg rect" if "bars" in name else "svg")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", target)
        ActionChains(browser).move_to_element(target).perform()
        assert tip.is_displayed(), name
        assert message in tip.text


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_sticks_out(browser: webdriver.Chrome, page: Path, width: int) -> None:
    open_page(browser, page, width)
    size = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert size[0] <= size[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ink_and_ground_are_far_apart_in_both_schemes(browser: webdriver.Chrome, page: Path, scheme: str) -> None:
    """WCAG asks for a contrast of 4.5."""
    prefer(browser, scheme)
    open_page(browser, page)
    script = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    ink, ground = browser.execute_script(script)
    assert (luminance(ink) < luminance(ground)) == (scheme == "light")
    assert contrast(ink, ground) > 4.5
    prefer(browser, "")


def run(folder: Path, name: str, *settings: str) -> Path:
    fixed = ("data.clients=4", "run.cohort=2", "local.epochs=1", "run.workers=1")
    done = command("run", *(part for one in (*fixed, *settings) for part in ("--set", one)), "--out", folder / name)
    assert done.returncode == 0, done.stderr
    return folder / name


def test_runs_that_differ_in_several_keys_are_all_drawn_and_named(browser: webdriver.Chrome, tmp_path: Path) -> None:
    runs = [
        run(tmp_path, "first", "algorithm.name=scaffold", "run.rounds=2"),
        run(tmp_path, "nesterov", "local.momentum=0.9", "local.nesterov=true", "data.alpha=1.0", "run.rounds=3"),
    ]
    assert command("report", *runs, "--html", tmp_path / "page.html").returncode == 0
    open_page(browser, tmp_path / "page.html")
    names = curves(browser, "test_accuracy")
    assert len(names) == 2
    assert [("no nesterov" in name, ", nesterov" in name, "rounds 2" in name) for name in names] == [
        (True, False, True),
        (False, True, False),
    ]
    assert "struck-out" not in browser.find_element(By.ID, "filters").text
    assert len(chart(browser, "test_accuracy").find_elements(By.CSS_SELECTOR, "circle.marker")) == 5


def test_where_more_settings_are_there_than_colors_the_page_says_so(browser: webdriver.Chrome, page: Path) -> None:
    """Twelve settings of the six drawn by the study: each of them once more with another number of clients."""
    text = page.read_text(encoding="utf-8")
    head, rest = text.split('<script type="application/json" id="data">')
    data, tail = rest.split("</script>", 1)
    found = json.loads(data)
    found["axes"].append({"name": "data.clients", "title": "clients", "labels": ["8", "9"]})
    groups = found["groups"]
    found["groups"] = [
        {**group, "title": f"{group['title']}, clients {count}", "labels": [*group["labels"], count]}
        for count in ("8", "9")
        for group in groups
    ]
    many = page.with_name("many.html")
    many.write_text(f'{head}<script type="application/json" id="data">{json.dumps(found)}</script>{tail}')
    open_page(browser, many)
    drawn = curves(browser, "test_accuracy")
    assert 1 < len(drawn) <= 8
    assert f"{len(drawn)} of 12 settings are drawn" in browser.find_element(By.ID, "filters").text


def test_a_single_run_is_shown_reduced(browser: webdriver.Chrome, page: Path) -> None:
    run = page.parent / "scaffold-alpha1-seed0"
    assert command("report", run).returncode == 0
    open_page(browser, run / "report.html")
    assert curves(browser, "test_accuracy")
    assert not browser.find_element(By.ID, "pairs").is_displayed()
    assert not browser.find_element(By.ID, "axes").is_displayed()
    assert browser.find_element(By.ID, "filters").text == ""
