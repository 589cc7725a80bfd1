"""Images with a dot on each cell become patches whose labels can be looked at."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsiseg.classes import ClassTable
from wsiseg.cli.label import _reviewed
from wsiseg.datasets.dataset import read_dataset
from wsiseg.errors import DatasetError
from wsiseg.labelling.dots import NAMES, SUFFIX, cut_dots, has_dots
from wsiseg.labelling.workplace import Wishes, workplace

CLASSES = ClassTable.from_names(NAMES)


@pytest.fixture
def dotted(tmp_path: Path) -> Path:
    """Two images of 130 x 70 px in BRCA-M2C's form; of the first, cells in two of its patches of 64."""
    root = tmp_path / "dots"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    rng = np.random.default_rng(0)
    dots = {"TCGA-A7-A0D9-01Z [1]_0.98": "10 5 2\n12 63 2\n40 40 3\n10 64 1\n63 127 1\n", "TCGA-A7-A0DA-01Z_0.5": ""}
    for name, text in dots.items():
        Image.fromarray(rng.integers(0, 256, (70, 130, 3), dtype=np.uint8)).save(root / "images" / f"{name}.png")
        (root / "labels" / f"{name}{SUFFIX}").write_text(text)
    (root / "brca_ds_test.txt").write_text("TCGA-A7-A0DA-01Z_0.5.png\n")
    return root


def test_patches_of_dots(dotted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert has_dots(dotted)
    assert cut_dots(dotted, out, CLASSES, 0.5, 64) == 4
    data = read_dataset(out, val_share=0)
    assert [patch.label for patch in data.train] == [(0, 1, 0), (1, 0, 0)], "from two cells on"
    assert [patch.label for patch in data.test] == [(0, 0, 0)] * 2
    assert {patch.group for patch in data.train} == {"TCGA-A7-A0D9"}
    whole = np.asarray(Image.open(next((dotted / "images").glob("*A0D9*"))))
    np.testing.assert_array_equal(np.asarray(Image.open(data.train[1].path)), whole[:64, 64:128])


def test_they_are_reviewed(dotted: Path, tmp_path: Path) -> None:
    """By the command's own way in; and the same for a table's own name."""
    out = tmp_path / "out"
    data = _reviewed(dotted, out, None, None, 64)
    wishes = Wishes(out, [], data.classes, data.mpp, data.patch_size_px, review=data)
    with workplace(wishes) as place:
        of = place.labelling.round()
        given = {place.review.rows[item.patch].name: place.review.given[item.patch] for item in of.items}
        assert sorted(given.values()) == [(), (), ("Lymphocytes",), ("Tumour",)]
        place.labelling.answer({0: ["Stroma"]}, "labelled")
    again = _reviewed(out / "labels.csv", tmp_path / "other", None, None, None)
    assert len([*again.train, *again.test]) == 4
    assert _reviewed(dotted, out, None, None, 64).root == data.root, "cut once"


@pytest.mark.parametrize("line", ["1 2", "1 2 9", "1.5 2 3", "a b c", "1 2 0"])
def test_what_is_no_dot(dotted: Path, tmp_path: Path, line: str) -> None:
    (dotted / "labels" / f"TCGA-A7-A0DA-01Z_0.5{SUFFIX}").write_text(f"1 1 1\n{line}\n")
    with pytest.raises(DatasetError, match="line 2: expected y x class, a class of 1 to 3"):
        cut_dots(dotted, tmp_path / "out", CLASSES, 0.5, 64)
    assert not (tmp_path / "out").exists()


def test_other_resolutions_and_sizes(dotted: Path, tmp_path: Path) -> None:
    assert cut_dots(dotted, tmp_path / "fine", CLASSES, 0.25, 64) == 16
    with pytest.raises(DatasetError, match="smaller --patch-px"):
        cut_dots(dotted, tmp_path / "large", CLASSES, 0.5, 128)
    next((dotted / "images").glob("*A0D9*")).write_bytes(b"no image")
    with pytest.raises(DatasetError, match="cannot be read"):
        cut_dots(dotted, tmp_path / "broken", CLASSES, 0.5, 64)
    next((dotted / "images").glob("*A0D9*")).unlink()
    with pytest.raises(DatasetError, match="has no image"):
        cut_dots(dotted, tmp_path / "missing", CLASSES, 0.5, 64)
