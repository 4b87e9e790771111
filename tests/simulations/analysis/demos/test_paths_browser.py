"""The page of `fedopt demo paths` in a real headless Chromium: what it computes, and what its controls do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from fedopt.optimizers.sgd import Sgd
from simulations.analysis.demos.descent import descend
from simulations.analysis.demos.paths_page.choices import CHOICES
from simulations.analysis.demos.paths_page.page import write_page
from simulations.analysis.demos.surfaces import SURFACES
from tests.simulations.analysis.demos.paths_in_python import CHAOTIC, check, usual_jobs
from tests.simulations.chromium import chromium, contrast, errors, open_page, prefer

pytestmark = pytest.mark.xdist_group("the page of paths")  # browser and page are made once, for one worker


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page("quadratic", tmp_path_factory.mktemp("page"))


def field(browser: Chrome, name: str) -> WebElement:
    return browser.find_element(By.ID, name)


def enter(browser: Chrome, name: str, text: str) -> None:
    field(browser, name).send_keys(Keys.CONTROL, "a")
    field(browser, name).send_keys(text)


def choose(browser: Chrome, name: str, value: str) -> None:
    Select(field(browser, name)).select_by_value(value)


def drawn(browser: Chrome, path: int = 0) -> str:
    return str(browser.find_element(By.CSS_SELECTOR, f'path[data-path="{path}"]').get_attribute("d"))


def ends(browser: Chrome) -> str:
    return field(browser, "ends").text


def number(browser: Chrome, name: str) -> float:
    return float(str(field(browser, name).get_attribute("value")))


def address(browser: Chrome, part: str) -> str:
    """The page's address, once it has the part: it follows the controls a moment later."""
    WebDriverWait(browser, 10).until(lambda at: part in at.current_url)
    return browser.current_url


@pytest.mark.slow
def test_all_paths_of_the_page_are_those_of_python(browser: Chrome, page: Path) -> None:
    open_page(browser, page)
    jobs = usual_jobs()
    script = "return JSON.stringify(arguments[0].map((job) => descend(...job)))"
    check(jobs, json.loads(browser.execute_script(script, [job.arguments for job in jobs])), CHAOTIC)


def test_a_rate_that_is_entered_changes_path_and_sentence(browser: Chrome, page: Path) -> None:
    open_page(browser, page, address="#optimizer=gd")
    before = drawn(browser)
    enter(browser, "lr-0", "0.02")
    assert drawn(browser) != before
    start = torch.tensor([SURFACES["quadratic"].start], dtype=torch.float64)
    end = descend(Sgd(), start, lambda w, step: SURFACES["quadratic"].gradient(w), [0.02] * 80)[-1, 0, 0].item()
    assert f"ends at ({end:.4g}, 0)" in ends(browser)
    enter(browser, "lr-0", "0.1")
    assert "gradient descent (SGD) diverges: at step 18" in ends(browser)


def test_sliders_and_fields_follow_each_other(browser: Chrome, page: Path) -> None:
    open_page(browser, page)
    slider = browser.find_element(By.CSS_SELECTOR, '#settings-0 input[aria-label^="momentum"]')
    before, path = str(slider.get_attribute("value")), drawn(browser)
    slider.send_keys(Keys.ARROW_RIGHT * 5)
    assert 0.9 < number(browser, "momentum-0") < 0.91
    assert drawn(browser) != path
    enter(browser, "momentum-0", "0.9")
    assert slider.get_attribute("value") == before
    assert drawn(browser) == path


def test_the_start_follows_arrow_keys_and_the_mouse(browser: Chrome, page: Path) -> None:
    open_page(browser, page)
    handle = browser.find_element(By.CSS_SELECTOR, "#map .start")
    path = drawn(browser)
    handle.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_UP)
    assert (number(browser, "w1"), number(browser, "w2")) == pytest.approx((-3.93, 1.07))
    assert drawn(browser) != path
    assert handle.get_attribute("aria-valuetext") == "w1 -3.93, w2 1.07"
    ActionChains(browser).drag_and_drop_by_offset(handle, 120, 60).perform()
    dragged = number(browser, "w1"), number(browser, "w2")
    assert dragged[0] > -3 and dragged[1] < 0.6  # noqa: PT018
    target = browser.find_element(By.CSS_SELECTOR, "#map svg")
    ActionChains(browser).move_to_element_with_offset(target, 0, -40).click().perform()
    assert number(browser, "w1") != dragged[0]
    assert errors(browser) == []


def test_an_address_restores_the_view(browser: Chrome, page: Path) -> None:
    open_page(browser, page)
    choose(browser, "surface", "two-minima")
    choose(browser, "optimizer-0", "adam")
    enter(browser, "beta2-0", "0.99")
    choose(browser, "optimizer-1", "sam")
    enter(browser, "rho-1", "0.3")
    choose(browser, "batch", "16")
    enter(browser, "seed", "5")
    enter(browser, "w1", "-1.5")
    hash_ = address(browser, "start=-1.5,").partition("#")[2]
    before = drawn(browser), drawn(browser, 1), ends(browser)
    assert "Adam ends" in before[2]
    assert "SAM ends" in before[2]
    open_page(browser, page, address=f"#{hash_}")
    assert (drawn(browser), drawn(browser, 1), ends(browser)) == before
    assert (number(browser, "beta2-0"), number(browser, "rho-1"), number(browser, "seed")) == (0.99, 0.3, 5)


def test_reset_and_nothing_to_compare_with_bring_the_first_view_back(browser: Chrome, page: Path) -> None:
    open_page(browser, page)
    first = drawn(browser)
    choose(browser, "optimizer-1", "newton")
    enter(browser, "steps", "7")
    assert drawn(browser, 1) != drawn(browser) != first
    choose(browser, "optimizer-1", "")
    assert not browser.find_elements(By.CSS_SELECTOR, 'path[data-path="1"]')
    field(browser, "reset").click()
    assert drawn(browser) == first


def test_what_is_wrong_is_said_in_a_sentence_and_draws_nothing_new(browser: Chrome, page: Path) -> None:
    open_page(browser, page)
    path = drawn(browser)
    for text in ("-1", "0", "5000"):
        enter(browser, "lr-0", text)
        assert field(browser, "lr-0-wrong").text == "rate lr: give a number from 0.000001 to 1000"
        assert field(browser, "lr-0").get_attribute("aria-invalid") == "true"
    enter(browser, "steps", "1.5")
    assert field(browser, "steps-wrong").text == "steps: give a whole number from 1 to 1000"
    assert drawn(browser) != path, "the rate 0.5 and the step 1 were on the way to what was entered"
    enter(browser, "lr-0", "0.04")
    assert field(browser, "lr-0-wrong").text == ""
    open_page(browser, page, address="#surface=hill&optimizer=gd&lr=fast&start=1&batch=3")
    assert field(browser, "wrong").text == (
        "the address names surface hill, which the page does not have; start: give two numbers, start=W1,W2; "
        "batch: give 0, for exact gradients, 1 or 16; rate lr: give a number from 0.000001 to 1000"
    )
    assert "gradient descent (SGD) ends" in ends(browser)


EVERY = """
const choose = (id, value) => {
  document.getElementById(id).value = value;
  document.getElementById(id).dispatchEvent(new Event("change"));
};
return Object.keys(data.surfaces).flatMap((surface) => {
  choose("surface", surface);
  return Object.keys(data.optimizers).map((optimizer) => {
    choose("optimizer-1", optimizer);
    return [surface, optimizer, document.querySelector("main").innerText, document.querySelector("main").innerHTML];
  });
});
"""


@pytest.mark.slow
def test_every_optimizer_is_shown_on_every_surface_without_an_error(browser: Chrome, page: Path) -> None:
    open_page(browser, page)
    found = browser.execute_script(EVERY)
    assert {(surface, optimizer) for surface, optimizer, *_ in found} == {(s, o) for s in SURFACES for o in CHOICES}
    for surface, optimizer, text, markup in found:
        assert f"{CHOICES[optimizer].title} ends" in text or f"{CHOICES[optimizer].title} diverges" in text, surface
        assert CHOICES[optimizer].formula.replace("  ", " ") in text.replace("\xa0", " ")
        assert not {"NaN", "undefined", "Infinity"} & set(text.split()), (surface, optimizer)
        assert "NaN" not in markup, (surface, optimizer)
    assert errors(browser) == []


def test_the_pointer_is_told_the_step_beneath_it(browser: Chrome, page: Path) -> None:
    open_page(browser, page, address="#optimizer=gd&steps=3")
    dot = browser.find_element(By.CSS_SELECTOR, "#map circle.steps")  # the end of the path
    ActionChains(browser).move_to_element(dot).perform()
    assert "step 3" in field(browser, "tip").text
    chart = browser.find_element(By.CSS_SELECTOR, "#loss svg")
    ActionChains(browser).move_to_element(chart).perform()
    assert "gradient descent (SGD): " in field(browser, "tip").text


@pytest.mark.parametrize("width", [360, 800, 1280, 2000])
def test_nothing_sticks_out(browser: Chrome, page: Path, width: int) -> None:
    for surface in ("quadratic", "product"):
        open_page(browser, page, width, address=f"#surface={surface}&optimizer=adam&against=nadam")
        size = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert size[0] <= size[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_paths_stand_out_in_both_schemes(browser: Chrome, page: Path, scheme: str) -> None:
    prefer(browser, scheme)
    open_page(browser, page, address="#optimizer=gd&against=adam")
    script = "return [...document.querySelectorAll(arguments[0])].map((one) => getComputedStyle(one)[arguments[1]])"

    def colors(selector: str, of: str) -> list[Any]:
        return list(browser.execute_script(script, selector, of))

    (ground,) = colors("body", "backgroundColor")
    texts = colors("body, label, .formula, .note, legend, #ends p", "color") + colors("#map text", "fill")
    assert len(texts) > 10
    assert min(contrast(color, ground) for color in texts) >= 4.5
    marks = colors("#map path.steps", "stroke") + colors("select, input[type=number]", "borderTopColor")
    assert min(contrast(color, ground) for color in marks) >= 3, "WCAG asks 3 of graphics and of controls"
    prefer(browser, "")


def test_every_control_has_a_name(browser: Chrome, page: Path) -> None:
    open_page(browser, page, address="#optimizer=adam&against=sam&batch=1")
    controls = browser.find_elements(By.CSS_SELECTOR, "select, input, button, [tabindex]")
    assert len(controls) > 15
    assert [control.get_attribute("id") for control in controls if not control.accessible_name] == []
