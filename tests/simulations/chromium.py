"""A real headless Chromium for tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

QUIETLY = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--window-size=1280,900")
OFFLINE = ("--disable-background-networking", "--disable-component-update", "--disable-quic")


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """A browser with a new profile in that folder; skips the test where none is installed."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium and chromedriver here (Debian: apt install chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (*QUIETLY, *OFFLINE, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    made = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield made
    finally:
        made.quit()


def open_page(browser: webdriver.Chrome, page: Path, width: int = 1280, height: int = 900, address: str = "") -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get("about:blank")  # a page that differs in its fragment alone would not be loaded anew
    browser.get(page.as_uri() + address)
    assert errors(browser) == []


def errors(browser: webdriver.Chrome) -> list[Any]:
    logged = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry for entry in logged if entry["level"] in ("SEVERE", "WARNING")]


def prefer(browser: webdriver.Chrome, scheme: str) -> None:
    """Chooses light or dark; "" for the browser's own."""
    features = [{"name": "prefers-color-scheme", "value": scheme}] if scheme else []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def contrast(ink: str, ground: str) -> float:
    """WCAG's contrast of two colors, rgb(...); it asks for 4.5 between text and ground."""
    darker, lighter = sorted((luminance(ink), luminance(ground)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    parts = [int(part) / 255 for part in color.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
