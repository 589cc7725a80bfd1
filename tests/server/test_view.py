"""`wsiseg view`: tiles are the map's and the slide's own pixels, values and areas are right, corrections are kept."""

import io
import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.maps import write_map
from tests.helpers.pages import Server, require_static, served
from tests.helpers.shown_maps import NAMES, make_map
from wsiseg.cli.main import main
from wsiseg.geojson.read import read_geojson
from wsiseg.geometry import Box, Size
from wsiseg.slides import open_slide
from wsiseg.tissue_map.reader import TissueMap, open_map


@dataclass
class Open:
    """A viewer of two maps of one slide, and of a third map without one."""

    server: Server
    folder: Path
    slide: Path
    cases: list[dict[str, Any]]
    maps: list[TissueMap]

    def map_id(self, index: int) -> str:
        maps: list[dict[str, Any]] = [one for case in self.cases for one in case["maps"]]
        return str(maps[index]["id"])


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> Iterator[Open]:
    require_static()
    folder, slide = tmp_path_factory.mktemp("view"), sample_data / "CMU-1-Small-Region.svs"
    paths = [make_map(folder / "a.zarr", slide, 0.5), make_map(folder / "b.zarr", slide, 1.37, 1)]
    write_map(folder / "alone.zarr", Size(900, 700), probabilities=False)
    paths.append(folder / "alone.zarr")
    with served("-m", "wsiseg", "view", *paths, "--slide", slide, "--no-browser") as server:
        server.enter()
        cases = server.get("/cases").json["cases"]
        yield Open(server, folder, slide, cases, [open_map(path) for path in paths])


def pixels(answer_body: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(answer_body)))


def test_what_belongs_together(viewer: Open) -> None:
    both, alone = viewer.cases
    assert [one["name"] for one in both["maps"]] == ["a.zarr", "b.zarr"]
    assert (both["name"], both["width"], both["height"], both["slide"]) == ("CMU-1-Small-Region.svs", 2220, 2967, True)
    assert (alone["slide"], alone["width"], alone["height"]) == (False, 1800, 1400)  # 2 level-0 pixels per map pixel
    assert both["maps"][1]["step"][0] == pytest.approx(1.37 / 0.499)
    assert str(viewer.folder) not in json.dumps(viewer.cases)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_class_tiles_are_the_map(viewer: Open, index: int) -> None:
    """Of every level, all tiles, to the pixel; and a palette that shows the classes' colours."""
    opened, server = viewer.maps[index], viewer.server
    for level in range(opened.levels):
        size = opened.grid.coarsen(2**level)
        for y in range(-(-size.height // 512)):
            for x in range(-(-size.width // 512)):
                answer = server.get(f"/m/{viewer.map_id(index)}/classes/{level}/{x}_{y}.png")
                assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
                picture = Image.open(io.BytesIO(answer.body))
                box = Box(x * 512, y * 512, 512, 512).intersect(Box.from_size(size))
                assert picture.mode == "P"
                assert np.array_equal(np.asarray(picture), opened.read(box, level))
                assert picture.getpalette()[3:6] == list(opened.classes[1].color)
        assert server.get(f"/m/{viewer.map_id(index)}/classes/{level}/{x + 1}_0.png").status == 404


def test_probability_tiles_are_the_map(viewer: Open) -> None:
    opened, server, box = viewer.maps[1], viewer.server, Box(0, 512, 512, 512)
    box = box.intersect(Box.from_size(opened.size))
    expected = [opened.read_probability(index, box) for index in (1, 2, 3)]
    for index in (1, 2, 3):
        answer = server.get(f"/m/{viewer.map_id(1)}/probability/{index}/0/0_1.png")
        assert np.array_equal(pixels(answer.body), expected[index - 1])
    answer = server.get(f"/m/{viewer.map_id(1)}/uncertainty/0/0_1.png")
    assert np.array_equal(pixels(answer.body), 255 - np.max(expected, 0))
    assert server.get(f"/m/{viewer.map_id(1)}/probability/4/0/0_1.png").status == 400
    answer = server.get(f"/m/{viewer.map_id(2)}/probability/1/0/0_0.png")
    assert "written without probabilities" in answer.json["error"]


def test_slide_tiles_are_the_slide(viewer: Open) -> None:
    """To within JPEG, also of levels that the file does not have, and at its ragged edge."""
    case, server = viewer.cases[0], viewer.server
    with open_slide(viewer.slide) as slide:
        whole = slide.read_level(0, Box.from_size(slide.size)).pixels.astype(np.float32)
    for level, x, y in ((0, 1, 1), (0, 4, 5), (1, 1, 1), (2, 1, 1), (3, 0, 0)):
        found = pixels(server.get(f"/s/{case['id']}/{level}/{x}_{y}.jpg").body).astype(np.float32)
        side = 2**level
        part = whole[y * 512 * side : (y + 1) * 512 * side, x * 512 * side : (x + 1) * 512 * side]
        rows, columns = part.shape[0] // side, part.shape[1] // side
        mean = part[: rows * side, : columns * side].reshape(rows, side, columns, side, 3).mean((1, 3))
        assert -(-part.shape[0] // side) == found.shape[0]
        assert abs(found[:rows, :columns] - mean).mean() < 6
    assert server.get(f"/s/{case['id']}/4/0_0.jpg").status == 404
    assert server.get(f"/s/{case['id']}/0/5_0.jpg").status == 404
    assert server.get(f"/s/{viewer.cases[1]['id']}/0/0_0.jpg").status == 404  # its slide is not at hand


def test_thumbnails(viewer: Open) -> None:
    for case in viewer.cases:
        picture = pixels(viewer.server.get(f"/s/{case['id']}/thumbnail.jpg").body)
        assert max(picture.shape[:2]) == 280
        assert picture.std() > 5


def test_what_does_not_change_is_not_sent_again(viewer: Open) -> None:
    path = f"/m/{viewer.map_id(0)}/classes/0/0_0.png"
    first = viewer.server.get(path)
    assert first.headers["cache-control"] == "private, max-age=31536000, immutable"
    headers = {**viewer.server.headers, "Cookie": viewer.server.cookie, "If-None-Match": first.headers["etag"]}
    again = viewer.server.ask(path, headers=headers)
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("name", ["../a", "..%2fa", "0" * 16, "a.zarr", "%2e%2e"])
def test_ids_are_opaque(viewer: Open, name: str) -> None:
    for path in (f"/m/{name}/classes/0/0_0.png", f"/s/{name}/0/0_0.jpg", f"/m/{name}/at?x=0&y=0"):
        assert viewer.server.get(path).status == 404
    assert viewer.server.post(f"/m/{name}/corrections", {"points": [[0, 0], [1, 0], [1, 1]], "class": 1}).status == 404


@pytest.mark.parametrize("index", [0, 1])
def test_what_lies_at_a_place(viewer: Open, index: int) -> None:
    """In level-0 pixels, whatever the map's own are."""
    opened, grid = viewer.maps[index], viewer.maps[index].grid
    rng = np.random.default_rng(3)
    for x, y in rng.uniform((0, 0), (2219, 2966), (12, 2)):
        found = viewer.server.get(f"/m/{viewer.map_id(index)}/at?x={x}&y={y}").json
        box = Box(int(x / grid.step_x), int(y / grid.step_y), 1, 1)
        assert found["class"] == opened.read(box)[0, 0]
        expected = [int(opened.read_probability(i, box)[0, 0]) / 255 for i in (1, 2, 3)]
        assert found["probabilities"] == pytest.approx(expected)
    for place in ("x=-1&y=5", "x=99999&y=5", "x=nan&y=1", "x=1&y=inf"):
        assert viewer.server.get(f"/m/{viewer.map_id(index)}/at?{place}").json is None
    assert viewer.server.get(f"/m/{viewer.map_id(index)}/at?x=a&y=1").status == 400


@pytest.mark.parametrize("index", [0, 1])
def test_areas_of_a_field(viewer: Open, index: int) -> None:
    """Pixels that the field cuts count by their share: compared with a sum over a fine raster."""
    opened, grid = viewer.maps[index], viewer.maps[index].grid
    x, y, width, height = 301.3, 702.9, 613.1, 411.7
    found = viewer.server.get(f"/m/{viewer.map_id(index)}/areas?x={x}&y={y}&w={width}&h={height}").json
    fine = 8  # samples along a level-0 pixel
    columns = ((x + (np.arange(int(width * fine)) + 0.5) / fine) / grid.step_x).astype(int)
    rows = ((y + (np.arange(int(height * fine)) + 0.5) / fine) / grid.step_y).astype(int)
    sampled = opened.read(Box.from_size(opened.size))[np.ix_(rows, columns)]
    mm2 = grid.mpp.x / grid.step_x * grid.mpp.y / grid.step_y / fine**2 / 1e6
    for value, area in zip((1, 2, 3, 255, 0), (*found["classes"], found["white"], found["none"]), strict=True):
        assert area == pytest.approx((sampled == value).sum() * mm2, rel=3e-3, abs=1e-6)
    field = width * height * 0.499**2 / 1e6
    assert sum(found["classes"]) + found["white"] + found["none"] == pytest.approx(field, rel=1e-6)


def test_a_field_beyond_the_slide(viewer: Open) -> None:
    path = f"/m/{viewer.map_id(1)}/areas"
    whole = viewer.server.get(f"{path}?x=-500&y=-500&w=9000&h=9000").json
    assert sum(whole["classes"]) + whole["white"] + whole["none"] == pytest.approx(
        2220 * 2967 * 0.499**2 / 1e6, rel=1e-6
    )
    outside = viewer.server.get(f"{path}?x=5000&y=0&w=10&h=10").json
    assert not any((*outside["classes"], outside["white"], outside["none"]))
    for field in ("x=0&y=0&w=-1&h=1", "x=nan&y=0&w=1&h=1", "x=0&y=0&w=1"):
        assert viewer.server.get(f"{path}?{field}").status == 400


def test_uncertain_regions(viewer: Open) -> None:
    """They come in order, and their mean is that of the map, computed here from its pixels."""
    opened, grid = viewer.maps[1], viewer.maps[1].grid
    regions = viewer.server.get(f"/m/{viewer.map_id(1)}/uncertain").json["regions"]
    means = [one["mean"] for one in regions]
    assert len(regions) > 5
    assert means == sorted(means, reverse=True)
    first = regions[0]
    left, top = round(first["x"] / grid.step_x), round(first["y"] / grid.step_y)
    box = Box(left, top, round(first["width"] / grid.step_x), round(first["height"] / grid.step_y))
    box = box.intersect(Box.from_size(opened.size))
    highest = np.max([opened.read_probability(i, box) for i in (1, 2, 3)], 0)
    classes = opened.read(box)
    inside = (classes > 0) & (classes < 255)
    assert first["mean"] == pytest.approx((1 - highest / 255)[inside].mean(), abs=1e-6)


def test_corrections_are_on_the_disk(viewer: Open) -> None:
    """As QuPath writes them; a line that crosses itself gives valid areas; what lies outside the slide is cut off."""
    path, base = viewer.folder / "a.corrected.geojson", f"/m/{viewer.map_id(0)}/corrections"
    other = {"type": "Feature", "id": "x", "geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {}}
    path.write_text(json.dumps([other]))
    assert viewer.server.get(base).json["count"] == 1
    bow = [[100, 100], [200, 200], [200, 100], [100, 200]]
    answer = viewer.server.post(base, {"points": bow, "class": 2})
    assert (answer.status, answer.json["count"], answer.json["undo"]) == (200, 2, 1)
    answer = viewer.server.post(base, {"points": [[2200, 0], [2300, 0], [2300, 50], [2200, 50]], "class": 0})
    assert answer.json["areas"][-1]["class"] == "Ignore*"
    written = json.loads(path.read_text())
    assert written["features"][0] == other
    first, second = written["features"][1:]
    assert first["properties"]["objectType"] == "annotation"
    assert first["properties"]["classification"]["name"] == NAMES[1]
    assert second["properties"]["classification"]["name"] == "Ignore*"
    path.write_text(json.dumps({**written, "features": [first, second]}))  # QuPath wrote it meanwhile
    (bow_area, name), (cut, none) = read_geojson(path)
    assert (bow_area.is_valid, bow_area.area, name) == (True, pytest.approx(5000), NAMES[1])
    assert (cut.bounds, none) == ((2200, 0, 2220, 50), "Ignore*")
    assert viewer.server.post(f"{base}/undo", {}).json["count"] == 1
    assert viewer.server.post(f"{base}/undo", {}).json["count"] == 0
    answer = viewer.server.post(f"{base}/undo", {})
    assert (answer.status, answer.json["error"]) == (400, "nothing was drawn since wsiseg was started")
    assert not list(viewer.folder.glob(".*partial"))


def test_how_many_patches_a_drawing_makes(viewer: Open) -> None:
    """By the map's patches, here of 96 px of 0.5 um; nothing is written."""
    size = 96 * viewer.maps[0].grid.step_x
    corners = [[size * x, size * y] for x, y in ((2.02, 3.5), (4.5, 3.5), (4.5, 5.001), (2.02, 5.001))]
    base = f"/m/{viewer.map_id(0)}/corrections"
    before = viewer.server.get(base).json
    found = viewer.server.post(f"{base}/preview", {"points": corners})
    # 3 columns of 2 rows; of the third row 0.1 %, which makes no patch.
    assert (found.status, found.json) == (200, {"patches": 6, "labels": 6})
    thin = [[size * x, size * y] for x, y in ((2.1, 3.1), (2.13, 3.1), (2.13, 3.9), (2.1, 3.9))]
    assert viewer.server.post(f"{base}/preview", {"points": thin}).json == {"patches": 1, "labels": 0}
    assert viewer.server.get(base).json == before
    other = viewer.server.post(f"/m/{viewer.map_id(2)}/corrections/preview", {"points": corners})
    assert other.json == {"patches": None, "labels": None}
    assert viewer.server.post(f"{base}/preview", {"points": [[0, 0], [1, 1]]}).status == 400
    assert viewer.server.post(f"{base}/preview", {"points": 7}).status == 400


@pytest.mark.parametrize(
    "body",
    [
        *({"points": [[0, 0], [1, 1]], "class": 1}, {"points": [[0, 0], [9, 9], [5, 5]], "class": 1}),
        *({"points": [[0, 0], [9, 0], [9, 9]], "class": 4}, {"points": [[0, 0], [9, 0], [9, 9]], "class": -1}),
        *({"points": [[0, 0], [9, 0], [9, "a"]], "class": 1}, {"points": [[0, 0], [9, 0], [9, None]], "class": 1}),
        *({"points": "abc", "class": 1}, {"points": [[0, 0], [9, 0], [9, 1e300]], "class": 1}, {"class": 1}),
        *({"points": [[-9, -9], [-1, -9], [-1, -1]], "class": 1}, {"points": [0, 1, 2], "class": 1}, {}),
    ],
)
def test_corrections_that_are_none(viewer: Open, body: dict[str, Any]) -> None:
    answer = viewer.server.post(f"/m/{viewer.map_id(1)}/corrections", body)
    assert answer.status == 400
    assert answer.json["error"]
    assert not (viewer.folder / "b.corrected.geojson").exists()


def test_a_file_that_is_no_geojson_stays(viewer: Open) -> None:
    path = viewer.folder / "b.corrected.geojson"
    path.write_text("not JSON")
    answer = viewer.server.post(f"/m/{viewer.map_id(1)}/corrections", {"points": [[0, 0], [9, 0], [9, 9]], "class": 1})
    assert (answer.status, path.read_text()) == (400, "not JSON")
    assert "name another file by --corrections" in answer.json["error"]
    path.unlink()


BAD = [
    (["nothing.zarr"], "nothing.zarr does not exist"),
    (["a.zarr", "a.zarr"], "are the same map; give it once"),
    (["a.zarr", "--slide", "other.png"], "other.png is not the slide of any map that was given"),
    (["a.zarr", "--slide", "gone.svs"], "gone.svs"),
    (["a.zarr", "b.zarr", "--corrections", "c.geojson"], "--corrections is for one map"),
    (["a.zarr", "--corrections", "c.json"], "must end in .geojson, got"),
    (["a.zarr", "--port", "70000"], "--port must be from 0 (any that is free) to 65535, got 70000"),
    ([], "Missing argument"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input(viewer: Open, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """One line, and exit code 2, before anything is served."""
    if not (viewer.folder / "other.png").exists():
        Image.fromarray(np.full((300, 300, 3), 150, np.uint8)).save(viewer.folder / "other.png")
    places = [str(viewer.folder / one) if "." in one and not one.startswith("-") else one for one in arguments]
    with pytest.raises(SystemExit) as stop:
        main(["view", *places])
    shown = capsys.readouterr()
    assert (stop.value.code, shown.out) == (2, "")
    assert message in shown.err
    assert shown.err.count("\n") == 1


def test_one_file_for_corrections(viewer: Open, tmp_path: Path) -> None:
    """That is named; and SIGTERM, which ends the command in order."""
    own = tmp_path / "own.geojson"
    command = ["view", viewer.folder / "alone.zarr", "--corrections", own, "--no-browser"]
    with served("-m", "wsiseg", *command) as server:
        server.enter()
        path = f"/m/{viewer.map_id(2)}/corrections"
        points = [[0, 0], [1800, 0], [1800, 1400], [0, 1400]]
        assert server.post(path, {"points": points, "class": 1}).json["file"] == "own.geojson"
        assert read_geojson(own)[0][0].area == 1800 * 1400
        assert server.end(signal.SIGTERM) == (0, "")


def test_a_map_that_goes_while_it_is_shown(tmp_path: Path) -> None:
    """What is missing of a store would read as "no tissue"; another map has other places."""
    require_static()
    path = tmp_path / "m.zarr"
    write_map(path, Size(900, 700))
    with served("-m", "wsiseg", "view", path, "--no-browser") as server:
        server.enter()
        name = server.get("/cases").json["cases"][0]["maps"][0]["id"]
        asked = [
            *(f"/m/{name}/classes/0/0_0.png", f"/m/{name}/probability/1/0/0_0.png", f"/m/{name}/at?x=5&y=5"),
            f"/m/{name}/areas?x=0&y=0&w=90&h=90",
        ]
        assert [server.get(one).status for one in asked] == [200] * len(asked)
        path.rename(tmp_path / "elsewhere.zarr")
        for replaced in (False, True):
            if replaced:
                write_map(path, Size(900, 700), probabilities=False)
            for one in asked:
                answer = server.get(one)
                assert answer.status == 400
                assert answer.json["error"].startswith("m.zarr was moved, removed or replaced")
        shutil.rmtree(path)
        (tmp_path / "elsewhere.zarr").rename(path)
        assert server.get(asked[0]).status == 200
