"""Pages in a real browser: Chromium of the system, driven by Playwright."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.helpers.pages import Server, chromium

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
SIZE = {"width": 1400, "height": 860}
WAIT_MS = 120_000
"""For machines that are busy."""


@contextmanager
def page_of(server: Server, ready: str = ".patch img") -> Iterator[Any]:
    """A server's page, once there is an element `ready`; at the end nothing may have complained."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(chromium()), args=FLAGS)
        page = browser.new_page(viewport=SIZE)
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("dialog", lambda dialog: page.errors.append("a dialog"))
        page.set_default_timeout(WAIT_MS)
        page.set_default_navigation_timeout(WAIT_MS)
        page.goto(server.address)
        page.wait_for_selector(ready)
        yield page
        assert page.errors == []
        browser.close()


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    """The pages forbid evaluated strings, so that the waiting is done here."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def settled(page: Any) -> None:
    """All keys of a labelling page are on the server's disk."""
    wait_until(lambda: page.locator(".mark.pending").count() == 0)
    time.sleep(0.2)


def done(page: Any) -> int:
    """How many patches a labelling page says are labelled."""
    return int(page.locator("#status").inner_text().split(" labelled")[0])


def place_in_view(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where a level-0 pixel is in the window of a viewing page, from what its link says."""
    view = page.evaluate("location.hash").partition("at=")[2].partition("&")[0].replace("%2C", ",").split(",")
    middle_x, middle_y, scale = map(float, view)
    box = page.locator(".pane").first.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2 + (x - middle_x) * scale, box["y"] + box["height"] / 2 + (y - middle_y) * scale
