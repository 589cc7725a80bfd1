"""Annotations drawn on a slide without a map become patches: known where drawn, absent where all is drawn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from tests.helpers.commands import Run, run  # noqa: F401
from tests.helpers.corrections import drawn, exported
from wsiseg.corrections.from_qupath import AnnotationOptions, from_qupath
from wsiseg.datasets.dataset import read_dataset, read_image
from wsiseg.errors import OptionError
from wsiseg.geometry import Box
from wsiseg.slides import open_slide

SIDE = 96


@pytest.fixture
def slide(sample_data: Path) -> Path:
    return sample_data / "CMU-1-Small-Region.svs"


def square(column: float, row: float, width: float = 1, height: float = 1) -> Any:
    return shapely.box(column * SIDE, row * SIDE, (column + width) * SIDE, (row + height) * SIDE)


FEATURES = [
    drawn(square(2, 2), "Tumor"),
    drawn(square(4, 2, 2, 1), "Region*"),
    drawn(square(4, 2, 0.5, 1), "Stroma"),
    drawn(square(8, 2, 0.5, 1), "Tumor"),
    drawn(square(10, 2), "Ignore*"),
    drawn({"type": "Point", "coordinates": [12.5 * SIDE, 2.5 * SIDE]}, "Stroma"),
]


def made(slide: Path, out: Path, features: list[Any] = FEATURES, **options: Any) -> dict[tuple[int, int], Any]:
    file = exported(out.with_name("a.geojson"), features)
    with open_slide(slide) as opened:
        from_qupath(opened, file, out, AnnotationOptions(**{"mpp": 0.5, "patch_px": SIDE, **options}))
    data = read_dataset(out)
    found = {}
    for patch in (*data.train, *data.val):
        origin = patch.provenance
        assert origin is not None
        assert origin.x is not None
        assert origin.y is not None
        found[int(origin.x) // SIDE, int(origin.y) // SIDE] = patch
    return found


def test_labels_masks_and_pixels(slide: Path, tmp_path: Path) -> None:
    found = made(slide, tmp_path / "out")
    assert read_dataset(tmp_path / "out").classes.names == ("Tumor", "Stroma")
    assert {place: patch.label for place, patch in found.items()} == {
        (2, 2): (1, 0),  # an area of one class that fills it
        (4, 2): (0, 1),  # all of it is drawn
        (5, 2): (0, 0),
        (8, 2): (1, -1),  # half of it says nothing
        (10, 2): (0, 0),
        (12, 2): (-1, 1),
    }
    mask = found[8, 2].read_truth(2)
    assert (mask[:, : SIDE // 2] == 0).all()
    assert (mask[:, SIDE // 2 :] == 2).all()
    assert found[12, 2].mask is None
    with open_slide(slide) as opened:
        grid = opened.grid(0.5)
        pixels = opened.read(grid, Box(4 * SIDE, 2 * SIDE, SIDE, SIDE)).pixels
    np.testing.assert_array_equal(read_image(found[4, 2].path), pixels)
    assert {patch.provenance.source for patch in found.values()} == {"annotated"}
    assert not any(patch.corrected for patch in found.values())


def test_coarse_areas_say_nothing_of_absence(slide: Path, tmp_path: Path) -> None:
    found = made(slide, tmp_path / "out", coarse=True)
    assert found[2, 2].label == (1, -1)
    assert found[4, 2].label == (-1, 1)
    assert found[5, 2].label == (0, 0)
    assert all(patch.mask is None for patch in found.values())


def test_what_is_missing_is_said(slide: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="state --model, or --mpp"):
        made(slide, tmp_path / "out", patch_px=None)
    with pytest.raises(OptionError, match="no annotation with a class"):
        made(slide, tmp_path / "out", [drawn(square(1, 1))])
    with pytest.raises(OptionError, match="no area lies on"):
        made(slide, tmp_path / "out", [drawn(square(999, 999), "Tumor")])
    with pytest.raises(OptionError, match="did you mean Stroma"):
        made(
            slide, tmp_path / "out", [drawn(square(1, 1), "Stromal")], model="tissue-brca-lite", mpp=None, patch_px=None
        )
    assert not (tmp_path / "out").exists()


def test_command_appends_slides(slide: Path, tmp_path: Path, run: Run) -> None:  # noqa: F811
    first = exported(tmp_path / "a.geojson", FEATURES)
    arguments = ["dataset", "from-qupath", slide, first, "--out", tmp_path / "out", "--model", "tissue-brca-lite"]
    record = json.loads(run(*arguments, "--json"))
    assert record["labels"]["Tumour"]["present"] == 2
    second = exported(tmp_path / "b.geojson", [drawn(square(14, 5), "Immune cells")])
    told = run(*arguments[:3], second, *arguments[4:], "--group", "another")
    assert "1 patches of 96 px" in told
    data = read_dataset(tmp_path / "out")
    assert data.classes.names == ("Tumour", "Stroma", "Lymphocytes")
    assert {patch.label for patch in (*data.train, *data.val) if patch.group == "another"} == {(0, 0, 1)}
