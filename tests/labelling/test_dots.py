"""Images with a dot on each cell become patches whose labels can be looked at."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsiseg.cli.label import _reviewed
from wsiseg.labelling.workplace import Wishes, workplace

NAME = "TCGA-A7-A0D9-01Z-00-DX1_1_0.98"


@pytest.fixture
def dotted(tmp_path: Path) -> Path:
    """An image of 128 x 64 px in BRCA-M2C's form, with tumour cells in its left half and stroma in its right one."""
    root = tmp_path / "dots"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "images" / f"{NAME}.png")
    cells = "10 5 2\n12 50 2\n20 20 2\n40 100 3\n30 90 3\n31 91 3\n"
    (root / "labels" / f"{NAME}_gt_class_coords.txt").write_text(cells)
    (root / "brca_ds_train.txt").write_text(f"{NAME}.png\n")
    return root


def test_they_are_reviewed(dotted: Path, tmp_path: Path) -> None:
    """By the command's own way in; and the table that this leaves, by its name."""
    out = tmp_path / "out"
    data = _reviewed(dotted, out, None, None, 64)
    wishes = Wishes(out, [], data.classes, data.mpp, data.patch_size_px, review=data)
    with workplace(wishes) as place:
        assert place.review is not None
        of = place.labelling.round()
        assert sorted(place.review.given[item.patch] for item in of.items) == [("Stroma",), ("Tumour",)]
        place.cutter.wait([item.patch for item in of.items])
        whole = np.asarray(Image.open(dotted / "images" / f"{NAME}.png"))
        shown = [place.cache.pixels(item.patch) for item in of.items]
        assert {tuple(p[0, 0]) for p in shown if p is not None} == {tuple(whole[0, 0]), tuple(whole[0, 64])}
        place.labelling.answer({0: ["Stroma"]}, "labelled")
    assert _reviewed(dotted, out, None, None, 64).root == data.root, "cut once"
    again = _reviewed(out / "labels.csv", tmp_path / "other", None, None, None)
    assert len(again.train) == 2
