"""Labels that are there already are looked at again: all is kept, and only what was answered changes."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsiseg.datasets.dataset import PatchDataset, read_dataset
from wsiseg.errors import OptionError
from wsiseg.labelling.advice import Advice
from wsiseg.labelling.review import review_of
from wsiseg.labelling.workplace import Wishes, workplace

ROWS = [
    ("a.png", "1", "0", "p1", "train", ""),
    ("b.png", "0", "1", "p2", "val", ""),
    ("c.png", "1", "1", "p1", "train", "c_mask.png"),
    ("d.png", "0", "0", "p3", "test", ""),
]


@pytest.fixture
def dataset(tmp_path: Path) -> PatchDataset:
    root = tmp_path / "old"
    root.mkdir()
    rng = np.random.default_rng(0)
    for name, *_ in ROWS:
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(root / name)
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:], mask[:9] = 1, 2
    Image.fromarray(mask).save(root / "c_mask.png")
    (root / "dataset.json").write_text('{"mpp": 0.5, "classes": ["Tumour", "Stroma"]}')
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "Tumour", "Stroma", "group", "split", "mask"), *ROWS])
    return read_dataset(root, val_share=0)


def wishes(dataset: PatchDataset, out: Path) -> Wishes:
    return Wishes(out, [], dataset.classes, dataset.mpp, dataset.patch_size_px, review=dataset)


def test_what_nobody_answers_stays(dataset: PatchDataset, tmp_path: Path) -> None:
    out = tmp_path / "new"
    with workplace(wishes(dataset, out)) as place:
        of = place.labelling.round()
        assert [item.source for item in of.items] == ["review"] * 4
        place.cutter.wait([item.patch for item in of.items])
        first = next(i for i, item in enumerate(of.items) if place.review.rows[item.patch].name == "a")
        place.labelling.answer({first: ["Stroma"]}, "labelled")
    again = read_dataset(out, val_share=0)
    for split, old in (("train", dataset.train), ("val", dataset.val), ("test", dataset.test)):
        new = {Path(patch.name).stem: patch for patch in again.split(split)}
        assert set(new) == {Path(patch.name).stem for patch in old}
        for patch in old:
            found = new[Path(patch.name).stem]
            assert found.label == ((0, 1) if patch.name == "a.png" else patch.label)
            assert found.group == patch.group
            np.testing.assert_array_equal(np.asarray(Image.open(found.path)), np.asarray(Image.open(patch.path)))
            if patch.mask is not None:
                np.testing.assert_array_equal(found.read_truth(2), patch.read_truth(2))


def test_the_model_s_doubts_come_first(dataset: PatchDataset) -> None:
    review = review_of(dataset)
    of = {row.name: patch for patch, row in review.rows.items()}
    says = {"a": [0.9, 0.2], "b": [0.3, 0.6], "c": [0.9, 0.02], "d": [0.45, 0.1]}
    probabilities = {of[name]: np.float32(values) for name, values in says.items()}
    advice = Advice("m", ("Tumour", "Stroma"), {}, probabilities, {})

    def order(sort: str) -> str:
        return "".join(review.rows[patch].name for patch in review.order(sort, advice))

    assert order("disagreement") == "cdba"  # 0.98, 0.45, 0.4, 0.2
    assert order("confidence") == "dbac"  # 0.05, 0.1, 0.3, 0.4
    assert order("class")[0] == "d"
    with pytest.raises(OptionError, match="needs a model"):
        review.order("disagreement", None)
    with pytest.raises(OptionError, match="no class in common"):
        review.order("confidence", Advice("m", ("Fat",), {}, {}, {}))
