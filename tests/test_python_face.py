"""What a caller from Python meets: names, a map's methods, plain errors, and how things show themselves."""

import subprocess
import sys
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import wsiseg
from tests.helpers.stored_maps import STEP, provenance, stored_map
from wsiseg.classes import ClassTable
from wsiseg.errors import MapError, OptionError, SlideError
from wsiseg.export.opened_map import TissueMap, open_map
from wsiseg.geometry import Box, Size

WIDTH, HEIGHT = 1301, 1100


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[TissueMap, np.ndarray, np.ndarray]:
    path = tmp_path_factory.mktemp("map") / "map.zarr"
    classes, values = stored_map(path)
    return open_map(path), classes, values


def test_all_names_are_there_listed_and_documented() -> None:
    assert wsiseg.__version__ == version("wsiseg")
    assert set(wsiseg.__all__) <= set(dir(wsiseg))
    for name in wsiseg.__all__:
        assert getattr(wsiseg, name).__doc__, name
        if name.startswith(("export", "train", "predict", "open", "load", "evaluate")):
            assert f"wsiseg.{name}(" in (wsiseg.__doc__ or ""), name
    with pytest.raises(AttributeError, match="no attribute 'preditc'"):
        _ = wsiseg.preditc
    code = "import sys, wsiseg; dir(wsiseg); print(len({'importlib.metadata', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "0\n"


def test_a_slide_is_closed_at_the_end_of_its_block(sample_data: Path) -> None:
    with wsiseg.open_slide(sample_data / "CMU-1-Small-Region.svs") as slide:
        assert slide.read_level(0, Box(0, 0, 10, 10)).pixels.shape == (10, 10, 3)
    with pytest.raises(SlideError, match="closed"):
        slide.read_level(0, Box(0, 0, 10, 10))


@pytest.mark.parametrize("box", [Box(-1, 0, 5, 5), Box(0, 0, WIDTH + 1, 5), Box(0, HEIGHT, 1, 1), Box(5000, 0, 9, 9)])
def test_a_box_outside_the_map_says_how_large_it_is(stored: tuple[TissueMap, np.ndarray, np.ndarray], box: Box) -> None:
    tissue_map = stored[0]
    for read in (lambda: tissue_map.read(box), lambda: tissue_map.read_probability(1, box)):
        with pytest.raises(OptionError, match=r"not inside level 0 of map\.zarr, which is of 1301 x 1100 px") as caught:
            read()
        assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("level", [-1, 3, 99, 1.5, "0", True])
def test_levels_that_are_not_there(stored: tuple[TissueMap, np.ndarray, np.ndarray], level: object) -> None:
    tissue_map, box = stored[0], Box(0, 0, 1, 1)
    for read in (
        tissue_map.scale_um,
        tissue_map.class_map,
        tissue_map.probabilities,
        tissue_map.transform,
        tissue_map.to_xarray,
        lambda level: tissue_map.read(box, level),
        lambda level: tissue_map.class_map_at(box, level),
    ):
        with pytest.raises(OptionError, match="levels 0 to 2"):
            read(level)


def test_classes_that_are_not_there(stored: tuple[TissueMap, np.ndarray, np.ndarray]) -> None:
    tissue_map = stored[0]
    for index in (0, 4, -1, 255):
        with pytest.raises(OptionError, match="a class from 1 to 3"):
            tissue_map.read_probability(index, Box(0, 0, 1, 1))
        with pytest.raises(KeyError):
            tissue_map.classes[index]
    with pytest.raises(OptionError, match="the classes are Tumour, Stroma, Lymphocytes"):
        tissue_map.areas["Bone"]


def test_parts_are_read_as_they_are(stored: tuple[TissueMap, np.ndarray, np.ndarray]) -> None:
    tissue_map, classes, values = stored
    box = Box(500, 400, 301, 222)
    assert np.array_equal(tissue_map.read(box), classes[box.slices()])
    assert np.array_equal(tissue_map.read_probability(2, box), values[1][box.slices()])


def test_parts_in_pixels_of_the_slide(stored: tuple[TissueMap, np.ndarray, np.ndarray]) -> None:
    tissue_map, classes, _ = stored
    found = tissue_map.class_map_at(Box(401, 300, 99, 100))
    assert (found.x, found.y, found.step_x, found.step_y) == (400, 300, STEP, STEP)
    assert found.affine == (2, 0, 400, 0, 2, 300)
    assert np.array_equal(found.classes, classes[150:200, 200:250])
    edge = tissue_map.class_map_at(Box(2590, 2190, 500, 500), 1)  # cut off at the map's end
    assert np.array_equal(edge.classes, tissue_map.class_map(1)[547:550, 647:651].compute())
    assert (edge.x, edge.y, edge.step_x) == (647 * 4, 547 * 4, 4)
    with pytest.raises(OptionError, match="covers 2602 x 2200 level-0 px"):
        tissue_map.class_map_at(Box(2602, 0, 10, 10))


def test_areas_are_a_table(stored: tuple[TissueMap, np.ndarray, np.ndarray]) -> None:
    tissue_map = stored[0]
    areas = tissue_map.areas
    assert [row.name for row in areas] == ["Tumour", "Stroma", "Lymphocytes"]
    assert (areas[0].area_mm2, areas["Stroma"].share, len(areas), areas.tissue_mm2) == (0.5, 0.25, 3, 1.125)
    assert tissue_map.metadata["areas"][1]["name"] == "Stroma"
    frame = areas.to_pandas()
    assert list(frame.columns) == ["class", "area_mm2", "share", "mean_probability"]
    assert frame["area_mm2"].sum() == 1.0
    assert frame.attrs["unread_mm2"] == 0.125
    lines = repr(areas).splitlines()
    assert lines[1].split() == ["Tumour", "0.5000", "44.4", "0.50"]  # of 1.125 mm², as predict says it
    assert [line.split() for line in lines[-2:]] == [["unread", "0.1250", "11.1"], ["tissue", "1.1250", "100.0"]]


def test_a_map_shows_itself(stored: tuple[TissueMap, np.ndarray, np.ndarray]) -> None:
    text = repr(stored[0])
    for words in ("map.zarr", "a.svs", "1301 x 1100 px at 0.5 um per pixel, 3 levels", "2 Stroma", "0.5000"):
        assert words in text
    html = stored[0]._repr_html_()
    assert "a.svs" in html
    assert "data:image/png;base64," in html
    assert stored[0]._repr_png_().startswith(b"\x89PNG")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)


def test_nothing_from_outside_is_shown_unescaped(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script><img src=x onerror=y>\x1b[31m\n"
    classes = ClassTable.from_names(["<script>a</script>", "'\"><b>", "&lt;i&gt;\u202e"])
    about = provenance(bad, bad)
    for row, tissue_class in zip(about["areas"], classes, strict=True):
        row["name"] = tissue_class.name
    about["model"]["hash"] = bad
    stored_map(tmp_path / "<svg>.zarr", Size(60, 50), classes=classes, about=about)
    tissue_map = open_map(tmp_path / "<svg>.zarr")
    for html in (tissue_map._repr_html_(), tissue_map.areas._repr_html_()):
        found = Tags()
        found.feed(html)
        assert found.tags <= {"div", "b", "table", "thead", "tbody", "tr", "th", "td", "img"}
        assert html.count("<img") <= 1
    for text in (repr(tissue_map), repr(tissue_map.areas)):
        assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_transforms_that_are_none_are_one_sentence(tmp_path: Path) -> None:
    import zarr

    stored_map(tmp_path / "m.zarr", Size(60, 50))
    labels = zarr.open_group(tmp_path / "m.zarr" / "labels" / "tissue", mode="a")
    good = labels.attrs["ome"]
    for steps in ([], [{"type": "scale", "scale": [0, 1]}], [{"type": "scale", "scale": ["a", 1]}], 7, [{"type": 1}]):
        image = {"datasets": [{"path": "0", "coordinateTransformations": steps}]}
        labels.attrs["ome"] = {**good, "multiscales": [image]}
        with pytest.raises(MapError, match="no usable scale"):
            open_map(tmp_path / "m.zarr").transform()
