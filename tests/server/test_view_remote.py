"""A map and its slide, both behind an address, in the browser: the page never knows that they are elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.helpers.servers import address_of
from tests.helpers.shown_maps import HOLE, make_map
from tests.helpers.shown_page import PLACE, shown_maps
from wsiseg.geometry import Box
from wsiseg.slides import open_slide
from wsiseg.tissue_map.reader import open_map

COLORS = {1: [213, 45, 45, 255], 2: [240, 170, 40, 255], 3: [40, 90, 200, 255]}

SLIDE_PIXEL = """([x, y]) => {
  const canvas = document.querySelector(".osd canvas");
  const box = canvas.getBoundingClientRect();
  const ratio = canvas.width / box.width;
  return [...canvas.getContext("2d").getImageData((x - box.left) * ratio, (y - box.top) * ratio, 1, 1).data];
}"""


@pytest.fixture(params=["s3", "http"])
def base(request: pytest.FixtureRequest, tmp_path: Path, sample_data: Path) -> Iterator[str]:
    """Where map and slide lie together."""
    folder = tmp_path / "files"
    folder.mkdir()
    slide = folder / "CMU-1-Small-Region.svs"
    slide.write_bytes((sample_data / slide.name).read_bytes())
    make_map(folder / "m.zarr", slide, 0.5, records=True)
    with address_of(request.param, folder, tmp_path) as address:
        yield address


def test_map_and_slide_behind_addresses(base: str, tmp_path: Path) -> None:
    here = open_map(tmp_path / "files" / "m.zarr")
    name = "CMU-1-Small-Region.svs"
    with shown_maps(tmp_path, [f"{base}/m.zarr"], f"{base}/{name}") as shown:
        page, step, seen = shown.page, here.grid.step_x, set()
        for y in range(320, here.size.height - 300, 90):
            for x in range(20, here.size.width - 20, 90):
                around = here.read(Box(x - 8, y - 8, 16, 16))
                if (around == around[0, 0]).all() and int(around[0, 0]) in COLORS:
                    found = page.evaluate(PLACE, list(shown.at((x + 0.5) * step, (y + 0.5) * step)))
                    assert found == COLORS[int(around[0, 0])]
                    seen.add(int(around[0, 0]))
        assert seen == {1, 2, 3}
        # The slide is below it: dark where the slide is dark, bright where it is glass.
        with open_slide(tmp_path / "files" / name) as slide:
            means = {}
            for place in ((300, 2800), (900, 1200), (1500, 400)):
                pixels = slide.read_level(0, Box(place[0] - 15, place[1] - 15, 30, 30)).pixels
                means[place] = float(pixels.mean())
        for place, mean in means.items():
            drawn = [page.evaluate(SLIDE_PIXEL, list(shown.at(place[0] + dx, place[1]))) for dx in (-9, 0, 9)]
            assert sum(sum(pixel[:3]) for pixel in drawn) / 9 == pytest.approx(mean, abs=45), place
        assert max(means.values()) - min(means.values()) > 40, "places that look alike prove nothing"
        # What is recorded besides comes from there as well.
        hole = shown.at(HOLE.x + HOLE.width / 2, HOLE.y + HOLE.height / 2)
        page.mouse.move(*hole)
        expect(page.locator("#pointer")).to_contain_text("unread: the slide's file is damaged here")
        page.keyboard.press("k")
        shown.rest()
        assert any("/gate/0/" in address for address in shown.asked)
        assert not [text for text in shown.said if "willReadFrequently" not in text]
