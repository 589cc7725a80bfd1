"""Pictures of maps: their size, place, colours, and what stands below them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.helpers.stored_maps import CLASSES, STEP, provenance, stored_map
from wsiseg.classes import WHITE_VALUE, ClassTable
from wsiseg.errors import OptionError
from wsiseg.export.legend import bar_um, with_legend
from wsiseg.export.opened_map import TissueMap, open_map
from wsiseg.export.picture import draw
from wsiseg.export.polygons import export_png
from wsiseg.geometry import Box, Mpp, Size
from wsiseg.slides import open_slide
from wsiseg.slides.array import ArrayReader

WIDTH, HEIGHT = 1301, 1100
TABLE = np.full((256, 3), 255, np.uint8)
TABLE[1:4] = [c.color for c in CLASSES]


@pytest.fixture(scope="module")
def tissue_map(tmp_path_factory: pytest.TempPathFactory) -> TissueMap:
    path = tmp_path_factory.mktemp("map") / "map.zarr"
    stored_map(path)
    return open_map(path)


@pytest.mark.parametrize("max_px", [1, 7, 100, 512, 651, 1000, 1300, 1301, 5000])
def test_the_longest_side_is_what_was_asked_for(tissue_map: TissueMap, max_px: int) -> None:
    drawn = draw(tissue_map, max_px=max_px, opacity=1)
    height, width, _ = drawn.image.shape
    assert width == min(max_px, WIDTH)
    assert abs(height - width * HEIGHT / WIDTH) < 1
    assert drawn.mpp.x == pytest.approx(0.5 * WIDTH / width)


@pytest.mark.parametrize("max_px", [5000, 1000, 300])
def test_each_pixel_has_the_colour_of_the_class_at_its_middle(tissue_map: TissueMap, max_px: int) -> None:
    drawn = draw(tissue_map, max_px=max_px, opacity=1)
    height, width, _ = drawn.image.shape
    factor = WIDTH / width
    level = int(np.log2(factor))
    classes = tissue_map.class_map(level).compute()
    rows = ((np.arange(height) + 0.5) * factor / 2**level).astype(int).clip(0, classes.shape[0] - 1)
    columns = ((np.arange(width) + 0.5) * factor / 2**level).astype(int).clip(0, classes.shape[1] - 1)
    assert np.array_equal(drawn.image, TABLE[classes[np.ix_(rows, columns)]])
    assert drawn.colors == tuple(c.color for c in CLASSES)


def test_a_part_is_cut_out_of_the_whole(tissue_map: TissueMap) -> None:
    whole = draw(tissue_map, max_px=5000, opacity=1).image
    part = draw(tissue_map, box=Box(401, 300, 900, 500), max_px=5000, opacity=1).image
    assert np.array_equal(part, whole[150:400, 200:651])  # all map pixels that the box touches
    assert np.array_equal(tissue_map.overlay(Box(401, 300, 900, 500), max_px=5000, opacity=1.0), part)
    assert tissue_map.overlay(Box(401, 300, 900, 500), max_px=1).shape == (1, 1, 3)
    small = tissue_map.overlay(Box(401, 300, 900, 500), max_px=100)
    assert max(small.shape) == 100
    for box in (Box(2700, 0, 10, 10), Box(-20, 0, 10, 10), Box(0, 0, 0, 5)):
        with pytest.raises(OptionError, match="covers 2602 x 2200 level-0 px"):
            tissue_map.overlay(box)


def test_slide_and_classes_lie_upon_each_other(tissue_map: TissueMap, monkeypatch: pytest.MonkeyPatch) -> None:
    # A slide in the colours of the map itself: mixed with itself it stays what it is, unless something is shifted.
    classes = tissue_map.class_map().compute()
    pixels = np.kron(TABLE[classes], np.ones((int(STEP), int(STEP), 1), np.uint8))
    slide = ArrayReader(pixels, stated_mpp=Mpp(0.25, 0.25))
    monkeypatch.setattr(slide, "quick_hash", lambda: "0" * 64)
    for box in (None, Box(402, 300, 900, 500)):
        with_slide = draw(tissue_map, slide, box, max_px=5000, opacity=0.5).image
        assert np.array_equal(with_slide, draw(tissue_map, None, box, max_px=5000, opacity=1).image)
        for max_px in (1000, 333):
            ours = draw(tissue_map, slide, box, max_px=max_px, opacity=0.5).image.astype(int)
            theirs = draw(tissue_map, None, box, max_px=max_px, opacity=1).image
            # Pixels at borders are means of several classes on the slide.
            assert (np.abs(ours - theirs).max(axis=2) <= 1).mean() > 0.85
    monkeypatch.setattr(slide, "quick_hash", lambda: "2" * 64)
    with pytest.raises(OptionError, match=r"was made from a\.svs"):
        draw(tissue_map, slide)


def test_white_and_what_is_no_tissue_show_the_slide(tissue_map: TissueMap) -> None:
    classes = tissue_map.class_map().compute()
    image = draw(tissue_map, max_px=5000, opacity=0.3).image
    assert (image[(classes == 0) | (classes == WHITE_VALUE)] == 255).all()


def test_the_legend_has_the_colours_that_are_drawn(tissue_map: TissueMap) -> None:
    drawn = draw(tissue_map, max_px=1301, opacity=0.4)
    legend = with_legend(tissue_map, drawn)[drawn.image.shape[0] :]
    for tissue_class, color in zip(CLASSES, drawn.colors, strict=True):
        mixed = np.rint(np.array(tissue_class.color) * 0.4 + 255 * 0.6)
        assert np.abs(np.array(color) - mixed).max() <= 1
        assert (drawn.image == color).all(axis=2).sum() > 10_000
        assert (legend == color).all(axis=2).sum() > 100
        assert (legend == tissue_class.color).all(axis=2).sum() > 50  # its outline, as the borders of regions


def test_the_legend_says_areas_as_shares_of_the_tissue(tissue_map: TissueMap, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1.125 mm² of tissue, some of which has no class."""
    written: list[str] = []
    real = ImageDraw.ImageDraw.text

    def text(pen: ImageDraw.ImageDraw, xy: tuple[float, float], words: str, *more: object, **options: object) -> None:
        written.append(words)
        real(pen, xy, words, *more, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    with_legend(tissue_map, draw(tissue_map, max_px=1301))
    assert written[-3:] == ["Tumour 0.5 mm2 (44.4 %)", "Stroma 0.25 mm2 (22.2 %)", "Lymphocytes 0.25 mm2 (22.2 %)"]


@pytest.mark.parametrize(
    ("width_um", "expected"), [(4, 1), (1000, 200), (799, 100), (800, 200), (8000, 2000), (20000, 5000), (0.4, 0.1)]
)
def test_the_scale_bar_has_a_round_length(width_um: float, expected: float) -> None:
    assert bar_um(width_um) == pytest.approx(expected)


def test_the_scale_bar_is_as_long_as_it_says(tissue_map: TissueMap) -> None:
    drawn = draw(tissue_map, max_px=5000)
    legend = with_legend(tissue_map, drawn)[drawn.image.shape[0] :]
    black = (legend == 0).all(axis=2)
    longest = max(len(run) for row in black for run in "".join("#" if on else " " for on in row).split())
    assert longest * 0.5 == bar_um(WIDTH * 0.5) == 100


@pytest.mark.parametrize("max_px", [1, 20, 60, 200])
def test_small_pictures_and_names_of_any_kind_have_a_legend(tmp_path: Path, max_px: int) -> None:
    classes = ClassTable.from_names(["W" * 200, "<b>Ünï</b> \u202e", "肿瘤"])
    stored_map(tmp_path / "m.zarr", Size(300, 200), classes=classes, about=provenance("a\x1b[31m\n" * 40, "m" * 300))
    export_png(open_map(tmp_path / "m.zarr"), tmp_path / "a.png", max_px=max_px)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == max_px
        assert picture.height > max_px * 200 // 300


def test_the_file_holds_its_resolution(sample_data: Path, tmp_path: Path) -> None:
    with open_slide(sample_data / "CMU-1-Small-Region.svs") as slide:
        about = provenance(slide.name)
        about["slide"]["quick_hash"] = slide.quick_hash()
        stored_map(tmp_path / "m.zarr", Size(1110, 1484), about=about)
        mean = export_png(open_map(tmp_path / "m.zarr"), tmp_path / "a.png", slide, max_px=500)
    with Image.open(tmp_path / "a.png") as picture:
        # pHYs counts whole pixels a metre.
        assert picture.info["dpi"] == pytest.approx((25400 / mean, 25400 / mean), rel=1e-5)
        assert picture.height > 500
        assert abs(picture.width - 500 * 2220 / 2967) <= 1
    assert mean == pytest.approx(0.5 * 1484 / 500)


def test_impossible_resolutions_are_left_out_of_the_file(tmp_path: Path) -> None:
    import json

    from wsiseg.export.ome_tiff import export_ome_tiff

    for mpp in (1e-6, 1e6):
        stored_map(tmp_path / f"{mpp}.zarr", Size(60, 50))
        node = tmp_path / f"{mpp}.zarr" / "zarr.json"
        content = json.loads(node.read_text())
        content["attributes"]["wsiseg"]["grid"]["mpp"] = {"x": mpp, "y": mpp}
        node.write_text(json.dumps(content))
        tissue_map = open_map(tmp_path / f"{mpp}.zarr")
        export_png(tissue_map, tmp_path / f"{mpp}.png")
        export_ome_tiff(tissue_map, tmp_path / f"{mpp}.ome.tif")
        with Image.open(tmp_path / f"{mpp}.png") as picture:
            assert "dpi" not in picture.info
