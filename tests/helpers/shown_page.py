"""The viewer in a browser, ready to be looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.helpers.pages import Server, chromium, require_static, served
from wsiseg.tissue_map.reader import TissueMap, open_map

ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
SIZE = {"width": 1300, "height": 800}

PLACE = """([x, y]) => {
  const canvas = document.querySelector("canvas.map");
  const box = canvas.getBoundingClientRect();
  const pixel = canvas.getContext("2d").getImageData(x - box.left, y - box.top, 1, 1).data;
  return [...pixel];
}"""
"""The pixel of the map's canvas under a place of the window."""


@dataclass
class Shown:
    """A page that is ready, its server, its maps, and what it asked for."""

    page: Page
    server: Server
    folder: Path
    maps: list[TissueMap]
    asked: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    open: set[int] = field(default_factory=set)

    def rest(self) -> None:
        """Until everything that is in view has come."""
        before = ""
        while (now := self.page.url) != before or "at=" not in now:
            before = now
            self.page.wait_for_timeout(700)
            while self.open:
                self.page.wait_for_timeout(100)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a level-0 pixel is in the window, from what the link says."""
        view = self.page.evaluate("location.hash").partition("at=")[2].partition("&")[0].replace("%2C", ",").split(",")
        middle_x, middle_y, scale = map(float, view)
        box = self.page.locator(".pane").first.bounding_box()
        assert box is not None
        left = box["x"] + box["width"] / 2 + (x - middle_x) * scale
        return left, box["y"] + box["height"] / 2 + (y - middle_y) * scale

    def becomes(self, place: tuple[float, float], pixel: list[int]) -> None:
        """The map's pixel at a place of the window, sooner or later."""
        for _ in range(50):
            found = self.page.evaluate(PLACE, list(place))
            if found == pixel:
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{found} at {place}, expected {pixel}")

    def message(self) -> str:
        return self.page.locator("#message").inner_text()


@contextmanager
def shown_maps(folder: Path, maps: Sequence[Path | str], slide: Path | str) -> Iterator[Shown]:
    """Maps upon their slide, all that is in view drawn."""
    require_static()
    program = chromium()
    command = ["-m", "wsiseg", "view", *maps, "--slide", slide, "--no-browser"]
    with served(*command) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        page = browser.new_page(viewport=SIZE, accept_downloads=True)
        page.set_default_timeout(120_000)  # of a machine that does other things as well
        shown = Shown(page, server, folder, [open_map(path) for path in maps])
        page.on("request", lambda request: shown.asked.append(request.url))
        page.on("request", lambda request: shown.open.add(id(request)))
        for end in ("requestfinished", "requestfailed"):
            page.on(end, lambda request: shown.open.discard(id(request)))
        page.on("console", lambda message: shown.said.append(message.text))
        page.on("pageerror", lambda error: shown.said.append(str(error)))
        page.on("dialog", lambda dialog: shown.said.append("a dialog"))
        page.goto(server.address)
        page.wait_for_selector("body[data-ready]", timeout=120_000)
        shown.rest()
        yield shown
        browser.close()
