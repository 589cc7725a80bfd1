"""The viewer in a browser: what is drawn are the map's classes, keys do what they say, and nothing asks elsewhere."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.helpers.shown_maps import HOLE, NAMES, make_map
from tests.helpers.shown_page import PLACE, Shown, shown_maps
from wsiseg.geojson.read import read_geojson
from wsiseg.geometry import Box

NOTHING = [0, 0, 0, 0]
SHUT, PARTLY = [230, 70, 30, 255], [245, 200, 110, 255]
COLORS = {1: (213, 45, 45), 2: (240, 170, 40), 3: (40, 90, 200)}


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> Iterator[Shown]:
    folder, slide = tmp_path_factory.mktemp("page"), sample_data / "CMU-1-Small-Region.svs"
    paths = [make_map(folder / "a.zarr", slide, 0.5, records=True), make_map(folder / "b.zarr", slide, 1.37, 1)]
    with shown_maps(folder, paths, slide) as shown:
        yield shown


def test_the_token_is_gone_from_the_address(viewer: Shown) -> None:
    assert "token" not in viewer.page.url
    assert viewer.page.evaluate("document.cookie") == ""  # no script can read it


def test_names_from_files_are_text(viewer: Shown) -> None:
    assert viewer.page.locator("#panel .name").nth(1).inner_text() == NAMES[1]
    assert viewer.page.locator("#panel img, #status img").count() == 0


def test_all_of_the_slide_is_in_view_at_first(viewer: Shown) -> None:
    box = viewer.page.locator(".pane").first.bounding_box()
    assert box is not None
    for x, y in (viewer.at(0, 0), viewer.at(2220, 2967)):
        assert box["x"] - 1 <= x <= box["x"] + box["width"] + 1
        assert box["y"] - 1 <= y <= box["y"] + box["height"] + 1


def test_what_is_drawn_is_the_map(viewer: Shown) -> None:
    """At many places of the window, the colour of the class that the map has there."""
    opened = viewer.maps[0]
    classes = opened.read(Box.from_size(opened.size))
    rng, seen = np.random.default_rng(1), set()
    for x, y in rng.integers((30, 30), (2190, 2900), (60, 2)):
        around = classes[y - 12 : y + 12, x - 12 : x + 12]
        if (around != around[0, 0]).any():
            continue  # a border: there the screen's pixels are coarser than the map's
        if HOLE.x <= x < HOLE.right and HOLE.y <= y < HOLE.bottom:
            continue
        pixel = tuple(viewer.page.evaluate(PLACE, list(viewer.at(int(x), int(y)))))
        value = int(around[0, 0])
        assert pixel == ((*COLORS[value], 255) if value in COLORS else (0, 0, 0, 0)), (x, y)
        seen.add(value)
    assert seen == {0, 1, 2, 3, 255}


def place_of(viewer: Shown, value: int) -> tuple[float, float]:
    """The middle of some area of a class, in the window."""
    opened = viewer.maps[0]
    classes = opened.read(Box.from_size(opened.size))
    for y in range(420, 2500, 40):
        for x in range(20, 2200, 40):
            if (classes[y - 15 : y + 15, x - 15 : x + 15] == value).all():
                return viewer.at(x, y)
    raise AssertionError("no such place")


def test_toggles_cost_no_request(viewer: Shown) -> None:
    first, second = place_of(viewer, 1), place_of(viewer, 2)
    asked = len(viewer.asked)
    viewer.page.keyboard.press("1")
    viewer.becomes(first, NOTHING)
    viewer.becomes(second, [*COLORS[2], 255])
    viewer.page.keyboard.press("1")
    viewer.page.keyboard.press("Shift+Digit1")  # alone
    viewer.becomes(first, [*COLORS[1], 255])
    viewer.becomes(second, NOTHING)
    viewer.page.keyboard.press("Shift+Digit1")
    viewer.page.locator('#panel input[type="color"]').first.fill("#00ff00")
    viewer.becomes(first, [0, 255, 0, 255])
    viewer.page.locator('#panel input[type="color"]').first.fill("#d52d2d")
    viewer.page.keyboard.press("b")
    viewer.becomes(first, NOTHING)  # the middle of an outline
    viewer.page.keyboard.press("b")
    viewer.page.keyboard.press("o")
    expect(viewer.page.locator("canvas.map")).to_have_css("opacity", "0")
    viewer.page.keyboard.press("o")
    assert len(viewer.asked) == asked


def test_a_class_has_an_opacity_of_its_own(viewer: Shown) -> None:
    """Half as strong as the others, kept in the link, and without a request."""
    first, second = place_of(viewer, 1), place_of(viewer, 2)
    asked, strength = len(viewer.asked), viewer.page.get_by_label("opacity of Tumour")
    strength.fill("0.5")
    viewer.becomes(first, [213, 45, 45, 128], near=2)  # a canvas keeps less of a colour at this opacity
    viewer.becomes(second, [*COLORS[2], 255])
    viewer.rest()
    assert "strength=0.50Tumour" in viewer.page.url
    viewer.page.get_by_label("opacity of Tumour").fill("1")
    viewer.becomes(first, [*COLORS[1], 255])
    assert len(viewer.asked) == asked


def test_class_and_probability_under_the_pointer(viewer: Shown) -> None:
    x, y = place_of(viewer, 3)
    viewer.page.mouse.move(x, y)
    viewer.page.wait_for_selector("#pointer strong")
    viewer.page.wait_for_timeout(500)
    assert viewer.page.locator("#pointer strong").inner_text().startswith("Lymphocytes ")


def test_areas_of_the_whole_slide_in_view_are_the_map_s(viewer: Shown) -> None:
    rows = viewer.page.locator("#panel .classes tr:not(.rest)")
    for index in (1, 2, 3):
        whole, in_view = rows.nth(index).locator("td.number").all_inner_texts()
        assert float(in_view) == pytest.approx(float(whole), rel=0.02)


def test_heat_maps(viewer: Shown) -> None:
    """From a threshold on; below it nothing is drawn."""
    page, opened = viewer.page, viewer.maps[0]
    page.get_by_label("heat map").select_option(label="probability of Tumour")
    viewer.rest()
    x, y = 1020, 1300  # the middle of an area of one value
    probability = int(opened.read_probability(1, Box(x, y, 1, 1))[0, 0]) / 255
    page.get_by_label("threshold").fill(f"{min(1, probability + 0.1):.2f}")
    viewer.becomes(viewer.at(x, y), NOTHING)
    page.get_by_label("threshold").fill(f"{max(0, probability - 0.1):.2f}")
    page.wait_for_timeout(1000)
    assert page.evaluate(PLACE, list(viewer.at(x, y)))[3] == 255
    page.get_by_label("threshold").fill("0")
    page.get_by_label("heat map").select_option(label="none")


def test_what_was_unread_is_hatched_and_nothing_else_is(viewer: Shown) -> None:
    """No tissue is not; with the slide unread, pixels there are black, yellow, or between."""
    page, colors = viewer.page, set()
    for x in range(HOLE.x + 20, HOLE.right - 20, 9):
        for y in range(HOLE.y + 20, HOLE.bottom - 20, 23):
            colors.add(tuple(page.evaluate(PLACE, list(viewer.at(x, y)))))
    assert all(alpha == 255 and blue <= 20 for _, _, blue, alpha in colors), colors  # classes' colours have more blue
    assert min(red for red, *_ in colors) < 100
    assert max(red for red, *_ in colors) > 180
    assert page.evaluate(PLACE, list(viewer.at(600, 150))) == NOTHING
    middle = viewer.at(HOLE.x + HOLE.width / 2, HOLE.y + HOLE.height / 2)
    page.mouse.move(*middle)
    expect(page.locator("#pointer")).to_contain_text("unread: the slide's file is damaged here")
    page.keyboard.press("d")
    viewer.becomes(middle, NOTHING)
    page.keyboard.press("d")
    assert "what could not be read" in page.locator("#panel").inner_text()


def test_where_the_gate_shut(viewer: Shown) -> None:
    """Of the class that is shown alone, else where it left one class at most."""
    page, opened = viewer.page, viewer.maps[0]
    classes = opened.read(Box.from_size(opened.size))

    def becomes(index: int) -> None:
        found, seen = opened.read_gate(index, Box.from_size(opened.size)), set()
        for y in range(400, 2600, 170):
            for x in range(40, 2150, 130):
                around = found[y - 12 : y + 12, x - 12 : x + 12]
                here = classes[y - 12 : y + 12, x - 12 : x + 12]
                if (around == around[0, 0]).all() and here.min() > 0 and here.max() < 4:
                    viewer.becomes(viewer.at(x, y), {1: NOTHING, 2: PARTLY, 3: SHUT}[int(around[0, 0])])
                    seen.add(int(around[0, 0]))
        assert {1, 3} <= seen

    page.keyboard.press("k")
    viewer.rest()
    becomes(0)
    page.keyboard.press("k")
    page.keyboard.press("Shift+Digit1")
    page.keyboard.press("k")
    viewer.rest()
    becomes(1)
    assert page.get_by_label("heat map").locator("option:checked").inner_text() == "gate shut for Tumour"
    page.keyboard.press("k")
    page.keyboard.press("Shift+Digit1")
    x, y = place_of(viewer, 3)
    page.mouse.move(x, y)
    expect(page.locator("#pointer")).to_contain_text("gate shut")


def test_a_map_that_does_not_record_places_says_so(viewer: Shown) -> None:
    page = viewer.page
    page.keyboard.press("x")
    page.keyboard.press("k")
    expect(page.locator("#message")).to_contain_text("made without a gate")
    page.keyboard.press("d")
    expect(page.locator("#message")).to_have_text("this map does not record what could not be read")
    page.keyboard.press("x")
    viewer.rest()


def test_measure(viewer: Shown) -> None:
    page = viewer.page
    page.keyboard.press("m")
    page.mouse.click(*viewer.at(500, 600))
    page.mouse.click(*viewer.at(1500, 600))
    assert viewer.message() == "distance: 499 µm"
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert page.locator("#prompt").is_hidden()


def test_a_lasso_and_a_key_write_a_correction(viewer: Shown) -> None:
    page, path = viewer.page, viewer.folder / "a.corrected.geojson"
    page.keyboard.press("e")
    corners = [(600, 900), (1200, 900), (1200, 1500), (600, 1500)]
    page.mouse.move(*viewer.at(*corners[0]))
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*viewer.at(*corner), steps=12)
    page.mouse.up()
    expect(page.locator("#prompt")).to_contain_text("What is it?")
    expect(page.locator("#prompt")).to_contain_text("49 patches, 0.090 mm²")  # 7 x 7 of 96 px of 0.5 um
    page.keyboard.press("2")
    expect(page.locator("#message")).to_have_text("saved: 1 in a.corrected.geojson")
    ((area, name),) = read_geojson(path)
    assert (area.area, name) == (pytest.approx(600 * 600, rel=0.02), NAMES[1])
    assert area.bounds == pytest.approx((600, 900, 1200, 1500), abs=8)
    page.keyboard.press("Escape")
    page.keyboard.press("Control+z")
    expect(page.locator("#message")).to_have_text("taken back: 0 in a.corrected.geojson")
    assert json.loads(path.read_text())["features"] == []
    page.keyboard.press("e")
    page.mouse.move(*viewer.at(*corners[0]))
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*viewer.at(*corner), steps=12)
    page.mouse.up()
    page.locator("#prompt button").nth(2).click()  # there is no key from the tenth class on
    expect(page.locator("#message")).to_have_text("saved: 1 in a.corrected.geojson")
    ((_, name),) = read_geojson(path)
    assert name == NAMES[2]
    page.keyboard.press("Escape")
    page.keyboard.press("Control+z")
    expect(page.locator("#message")).to_have_text("taken back: 0 in a.corrected.geojson")


def test_two_maps(viewer: Shown) -> None:
    page = viewer.page
    page.keyboard.press("v")
    viewer.rest()
    assert page.locator(".pane").count() == 1
    assert "A: a.zarr" in page.locator(".label").inner_text()
    page.keyboard.press("v")
    viewer.rest()
    assert page.locator(".pane").count() == 2
    page.keyboard.press("x")
    viewer.rest()
    assert page.locator(".label").all_inner_texts() == ["A: b.zarr", "B: a.zarr"]
    page.keyboard.press("x")
    page.keyboard.press("v")
    viewer.rest()
    assert page.locator(".pane").count() == 1


def test_a_link_restores_the_view(viewer: Shown) -> None:
    page = viewer.page
    page.keyboard.press("3")
    page.keyboard.press("g")
    viewer.rest()
    expect(page.locator("#message")).to_contain_text("uncertain region 1 of ", timeout=30_000)
    viewer.rest()
    link, places = page.url, [viewer.at(*place) for place in ((1000, 1000), (1500, 2000))]
    page.goto("about:blank")
    page.goto(link)
    page.wait_for_selector("body[data-ready]")
    viewer.rest()
    assert not page.get_by_label("show Lymphocytes").is_checked()
    assert [viewer.at(*place) for place in ((1000, 1000), (1500, 2000))] == [pytest.approx(p, abs=1) for p in places]
    page.keyboard.press("3")
    page.keyboard.press("f")
    viewer.rest()


def test_the_picture_of_the_view(viewer: Shown) -> None:
    """Slide and map mixed, with a legend below."""
    page = viewer.page
    x, y = place_of(viewer, 1)
    page.mouse.move(x, y)
    with page.expect_download() as download:
        page.keyboard.press("s")
    picture = Image.open(download.value.path()).convert("RGB")
    box = page.locator(".pane").bounding_box()
    assert box is not None
    assert picture.width == round(box["width"])
    assert picture.height > box["height"] + 20
    found = np.asarray(picture).astype(int)
    row, column = round(y - box["y"]), round(x - box["x"])
    shown = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    assert (
        abs(
            found[row - 5 : row + 5, column - 5 : column + 5]
            - shown[round(y) - 5 : round(y) + 5, round(x) - 5 : round(x) + 5]
        ).mean()
        < 6
    )
    below = found[round(box["height"]) :].reshape(-1, 3)
    for color in COLORS.values():
        assert (abs(below - np.array(color)).sum(1) < 6).sum() > 50


def test_nothing_was_asked_elsewhere_and_nothing_complained(viewer: Shown) -> None:
    own = f"http://127.0.0.1:{viewer.server.port}/"
    assert not [url for url in viewer.asked if not url.startswith((own, "data:", "blob:"))]
    harmless = ("Ignoring tile", "willReadFrequently")  # OpenSeadragon's at another slide, and what these tests do
    assert not [text for text in viewer.said if not any(part in text for part in harmless)]
