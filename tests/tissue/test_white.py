"""White inside tissue: told by the slide's own glass, counted apart, and no class anywhere else changes."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.color_model import COLORS, color_model
from tests.helpers.damage import damaged_copy, no_jpeg
from wsiseg.classes import ClassTable
from wsiseg.geometry import Box, Grid, Mpp, Size
from wsiseg.prediction.piece_writer import PieceWriter
from wsiseg.prediction.plan import Plan, plan
from wsiseg.prediction.result import Counts
from wsiseg.prediction.run import PredictOptions, predict
from wsiseg.prediction.stream import FinishedPiece
from wsiseg.prediction.sums import PiecePixels
from wsiseg.slides import open_slide
from wsiseg.slides.damage import DamageMap
from wsiseg.system import memory
from wsiseg.tiling.grid import TileGrid, Tiling
from wsiseg.tiling.pieces import pieces_of
from wsiseg.tissue.bit_mask import BitMask
from wsiseg.tissue.light import Light
from wsiseg.tissue.mask import TissueMask
from wsiseg.tissue.stain import DEFAULT_GLASS
from wsiseg.tissue.white import CELL_PX, WhiteRule
from wsiseg.tissue_map.areas import Areas
from wsiseg.tissue_map.edge import SlideEdge
from wsiseg.tissue_map.reader import open_map
from wsiseg.tissue_map.writer import MapWriter

DEFAULT = Light(DEFAULT_GLASS, "assumed")

RULE = WhiteRule.from_light(Light((240.0, 235.0, 230.0), "outside", 0.88), Mpp(0.5, 0.5))


def test_white_is_what_lets_pass_most_of_the_glasss_light_in_each_channel() -> None:
    assert RULE.least == (212, 207, 203)
    assert RULE.min_px == 200
    pixels = np.array([[[240, 235, 230], [212, 207, 203], [211, 230, 230], [240, 206, 230], [240, 235, 202]]], np.uint8)
    assert RULE.bright(pixels).tolist() == [[True, True, False, False, False]]
    clipped = WhiteRule.from_light(Light((255.0, 255.0, 255.0), "outside", 0.97), Mpp(20, 20))
    assert (clipped.min_px, clipped.least) == (1, (248, 248, 248))


def test_the_map_records_all_that_the_rule_goes_by() -> None:
    assert RULE.to_json() == {
        "least_rgb": [212, 207, 203],
        "min_px": 200,
        "min_um2": 50.0,
        "share_of_glass": 0.88,
        "glass_rgb": [240.0, 235.0, 230.0],
        "glass_from": "outside",
        "glass_found": True,
        "glass_apart": None,
    }
    pale = WhiteRule.from_light(Light(DEFAULT_GLASS, "assumed", 0.95, 0.65432), Mpp(1, 1)).to_json()
    assert (pale["glass_found"], pale["share_of_glass"], pale["glass_apart"]) == (False, 0.95, 0.6543)


def test_small_parts_are_tissue_and_parts_join_along_sides() -> None:
    bright = np.zeros((700, 600), bool)
    bright[10:30, 10:20] = True  # 200 px
    bright[100:119, 100:110] = True  # 190 px
    bright[119:121, 110:115] = True  # 10 more, at a corner
    bright[490:512, 200:210] = True  # 220 px above the border of a cell
    found = RULE.parts(bright)
    expected = np.zeros_like(bright)
    expected[10:30, 10:20] = expected[490:512, 200:210] = True
    assert np.array_equal(found, expected)


def test_parts_do_not_depend_on_the_pieces_of_a_run() -> None:
    bright = np.random.default_rng(0).random((3 * CELL_PX - 40, 2 * CELL_PX)) < 0.6
    whole = RULE.parts(bright)
    assert whole.any()
    for y in (0, CELL_PX, 2 * CELL_PX):
        piece = bright[y : y + CELL_PX, CELL_PX:]
        assert np.array_equal(RULE.parts(piece), whole[y : y + CELL_PX, CELL_PX:])


@pytest.mark.parametrize("width", [1101, 1100, 4404, 1])
def test_areas_of_pixels_over_the_edge_count_by_their_share(width: int) -> None:
    """A slide of one class has exactly the slide's area, however its size divides."""
    slide, step, mpp = Size(width, 997), 2.2017, 0.2271
    size = Size(math.ceil(width / step), math.ceil(997 / step))
    grid = Grid(size, Mpp(mpp * step, mpp * step), step, step, 0, step, step)
    edge = SlideEdge.from_grid(grid, slide)
    areas = Areas.empty(2)
    boxes = [Box(x, y, 128, 128) for y in range(0, size.height, 128) for x in range(0, size.width, 128)]
    for box in (box.intersect(Box.from_size(size)) for box in reversed(boxes)):
        classes = np.full(box.size.shape, 2, np.uint8)
        values = np.stack([np.zeros_like(classes), np.full_like(classes, 51)])
        areas.add(Areas.from_json(Areas.from_classes(classes, values, classes > 0, edge.parts(box)).to_json()))
    assert areas.pixels.sum() == size.area
    nothing, all_of_it = areas.of_classes(ClassTable.from_names(["a", "b"]), grid.mpp.pixel_area_um2, edge.weights)
    assert (nothing.area_mm2, nothing.share, nothing.mean_probability) == (0, 0, 0)
    assert all_of_it.area_mm2 == pytest.approx(slide.area * mpp**2 / 1e6, rel=1e-9)
    assert (all_of_it.share, all_of_it.mean_probability) == (1.0, pytest.approx(0.2))


def painted_with_holes(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A picture of red with green, upon glass, with a lumen and a gap too small for one; classes and truth of white."""
    pixels = np.full((700, 650, 3), (240, 238, 236), np.uint8)
    pixels[40:660, 40:600] = COLORS[1]
    pixels[40:660, 300:600] = COLORS[2]
    classes = np.where((pixels == COLORS[1]).all(axis=2), 1, 2).astype(np.uint8)
    white = (pixels == (240, 238, 236)).all(axis=2)
    white[100:112, 100:140] = white[500:530, 280:330] = True
    pixels[white] = (240, 238, 236)
    pixels[300:306, 200:206] = (240, 238, 236)
    Image.fromarray(pixels).save(path)
    return classes, white


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_white_has_a_value_no_probabilities_and_an_area_of_its_own(tmp_path: Path, overlap: float) -> None:
    classes, white = painted_with_holes(tmp_path / "p.png")
    results, maps, values = {}, {}, {}
    for asked in (False, True):
        options = PredictOptions(
            mpp=1, tissue="none", runtime="torch", gate=False, overlap=overlap, white=asked, batch_size=3
        )
        out = tmp_path / f"{asked}.zarr"
        results[asked] = predict(tmp_path / "p.png", out, color_model(), options)
        maps[asked], values[asked] = open_map(out).class_map().compute(), open_map(out).probabilities().compute()
    assert (maps[False] != 255).all()
    assert np.array_equal(maps[True] == 255, white)
    assert np.array_equal(maps[True][~white], maps[False][~white])
    assert np.array_equal(values[True][:, ~white], values[False][:, ~white])
    assert not values[True][:, white].any()
    assert values[False][:, white].any()
    seen = ~white
    seen[300:306, 200:206] = False
    assert np.array_equal(maps[True][seen], classes[seen])
    told, untold = results[True], results[False]
    assert told.white_mm2 == pytest.approx(white.sum() / 1e6)
    assert told.tissue_mm2 == untold.tissue_mm2
    assert sum(a.area_mm2 for a in told.areas) + told.white_mm2 + told.unread_mm2 == pytest.approx(told.tissue_mm2)
    assert untold.white_mm2 is None
    metadata = open_map(tmp_path / "True.zarr").metadata
    assert metadata["white_mm2"] == told.white_mm2
    assert metadata["parameters"]["white_rule"]["least_rgb"] == [212, 210, 208]
    assert "white_mm2" not in open_map(tmp_path / "False.zarr").metadata


def test_pieces_of_any_size_and_devices_find_the_same_white(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painted_with_holes(tmp_path / "p.png")
    options = PredictOptions(mpp=1, tissue="none", runtime="torch", gate=False, overlap=0.25)
    predict(tmp_path / "p.png", tmp_path / "a.zarr", color_model(), options)
    monkeypatch.setattr(memory, "PIECE_PX", 512)
    predict(tmp_path / "p.png", tmp_path / "b.zarr", color_model(), options)
    found = [open_map(tmp_path / f"{name}.zarr").class_map().compute() for name in "ab"]
    assert (found[0] == 255).any()
    assert np.array_equal(*found)


def test_a_damaged_place_is_not_white(tmp_path: Path) -> None:
    """What cannot be read is drawn white; it stays unread."""
    rule = WhiteRule.from_light(DEFAULT, Mpp(1, 1))
    assert rule.bright(np.full((1, 1, 3), 255, np.uint8)).all()
    classes, values = np.ones((64, 64), np.uint8), np.full((1, 64, 64), 255, np.uint8)
    classes[10:30, 10:30] = 0
    todo = Plan(
        Grid(Size(64, 64), Mpp(1, 1), 1, 1, 0, 1, 1),
        TissueMask(BitMask(np.ones((1, 1), bool)), 64, 64, Size(64, 64), "none"),
        TileGrid(Size(64, 64), 64, 0), np.ones((1, 1), bool), rule,
    )  # fmt: skip
    writer = MapWriter(tmp_path / "m.zarr", ClassTable.from_names(["a"]), todo.grid, 512)
    journal = Steps()
    (piece,) = pieces_of(todo.tiles, todo.selected, 512)
    behind = PieceWriter(writer, todo, journal, DamageMap([], []), lambda: None)
    bright = np.zeros((64, 64), bool)
    bright[5:40, 5:40] = True
    behind.write(FinishedPiece(piece, PiecePixels(piece.box, classes, values), Counts(1, 1, shut=[0]), bright))
    areas = journal.steps[0].areas
    assert (areas.unread.sum(), areas.white.sum(), areas.tissue.sum()) == (400, 35 * 35 - 400, 64 * 64)


def test_damage_takes_nothing_from_the_white_that_it_touches(tmp_path: Path, sample_data: Path) -> None:
    source = sample_data / "CMU-1-Small-Region.svs"
    slide = damaged_copy(source, tmp_path / "d.svs", [44, 47, 84, 95], no_jpeg)  # tiles of 240 px in tissue
    options = PredictOptions(tissue="none", gate=False, white=True)
    found = []
    for path, name in ((source, "s.zarr"), (slide, "d.zarr")):
        predict(path, tmp_path / name, color_model(mpp=0.5), options)
        found.append(open_map(tmp_path / name).class_map().compute())
    sound, broken = found
    lost = np.zeros(sound.shape, bool)
    for tile in (44, 47, 84, 95):
        row, column = divmod(tile, 10)
        lost[240 * row : 240 * row + 240, 240 * column : 240 * column + 240] = True
    assert (sound[lost] == 255).any()
    assert (broken[lost] == 0).all()
    assert (broken[(sound == 255) & ~lost] == 255).all()
    changed = (broken != sound) & ~lost
    assert (broken[changed] == 255).all()  # specks beside damage may be what is left of more
    assert changed.sum() < 0.01 * lost.sum()


class Steps:
    """A journal in memory."""

    def __init__(self) -> None:
        self.steps: list[Any] = []

    def book(self, step: Any) -> None:
        self.steps.append(step)

    def booked(self, kind: Any) -> list[Any]:
        return [step for step in self.steps if isinstance(step, kind)]


@pytest.mark.parametrize(
    ("names", "stated", "sees"),
    [
        (["Tumour", "Stroma"], None, False),
        (["Tumour", "Fat"], None, True),
        (["tumor", "adipose tissue"], None, True),
        (["ADI", "MUC", "TUM"], None, True),
        (["Airway epithelium", "Background-like"], None, True),
        (["Airway", "Fathead"], None, False),
        (["Tumour", "Fat"], False, False),
        (["Tumour", "Stroma"], True, True),
    ],
)
def test_models_that_know_white_name_it_themselves(names: list[str], stated: bool | None, sees: bool) -> None:
    spec = color_model().spec
    spec = spec.model_copy(update={"classes": ClassTable.from_names(names), "knows_white": stated})
    assert spec.sees_white == sees
    assert ("knows_white" in spec.to_json()) == (stated is not None)
    options = PredictOptions().resolved_by(spec, "cpu")
    assert options.white is not sees
    assert PredictOptions(faithful=True).resolved_by(spec, "cpu").white is False
    assert PredictOptions(white=sees).resolved_by(spec, "cpu").white is sees


def test_glass_is_that_of_the_slide_however_tissue_is_found(sample_data: Path) -> None:
    with open_slide(sample_data / "CMU-1-Small-Region.svs") as slide:
        found = plan(slide, 1.0, Tiling(64, 16), white=True).white
        given = plan(slide, 1.0, Tiling(64, 16), "none", white=True).white
        assert found == given
        assert found is not None
        assert found.light.source == "outside"
        assert plan(slide, 1.0, Tiling(64, 16)).white is None
