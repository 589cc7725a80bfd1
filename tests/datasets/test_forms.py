"""Every spelling of the public data sets, labels in names, masks in every coding, and names that mean harm."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wsiseg.datasets.dataset import KNOWN_CLASSES, PatchDataset, read_dataset
from wsiseg.datasets.masks import MaskCoding
from wsiseg.datasets.patch import group_of, label_of, mpp_of
from wsiseg.errors import DatasetError

LUAD, BCSS = KNOWN_CLASSES["luad-histoseg"], KNOWN_CLASSES["bcss-wsss"]
BCSS_NAME = "TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500"


def picture(path: Path, side: int = 32, value: int = 120) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), value, dtype=np.uint8)).save(path)
    return path


def masked(folder: Path, name: str, side: int = 32, mask_side: int | None = None) -> None:
    picture(folder / "img" / f"{name}.png", side)
    (folder / "mask").mkdir(exist_ok=True)
    Image.fromarray(np.full((mask_side or side,) * 2, 3, np.uint8)).save(folder / "mask" / f"{name}.png")


@given(
    label=st.lists(st.integers(0, 1), min_size=1, max_size=20),
    separator=st.sampled_from(["", " ", ", ", ","]),
    before=st.text(alphabet="aZ09-_+. []", max_size=20),
)
def test_any_label_is_read_back(label: list[int], separator: str, before: str) -> None:
    assert label_of(f"{before}[{separator.join(map(str, label))}]") == tuple(label)


@given(st.text(max_size=60))
def test_any_name_is_a_label_or_none(stem: str) -> None:
    label = label_of(stem)
    assert label is None or (label and set(label) <= {0, 1})
    assert group_of(stem) or not stem


@pytest.mark.parametrize("stem", ["p", "p-[]", "p-[2 0]", "p-[1 0", "p-[1 0][x]", "p-[-1]", "p-[\u0661]", "p-[1.0]"])
def test_what_is_no_label(stem: str) -> None:
    assert label_of(stem) is None


def test_groups_and_resolution_of_the_public_names() -> None:
    assert group_of("1031280-2300-27920-[1 0 0 1]") == "1031280"
    assert group_of(f"{BCSS_NAME}+0[1101]") == group_of("tcga-a1-a0sk-DX2_x") == "TCGA-A1-A0SK"
    assert group_of("plain[10]") == "plain"
    assert mpp_of(f"{BCSS_NAME}+0[1101]") == 0.25
    assert mpp_of("1031280-2300-27920-[1 0 0 1]") is None


@pytest.mark.parametrize("train", ["train", "Training", "TRAIN/IMG", "train/images"])
@pytest.mark.parametrize("val", ["val", "Valid", "VALIDATION"])
def test_every_spelling(tmp_path: Path, train: str, val: str) -> None:
    picture(tmp_path / train / f"{BCSS_NAME}+0[1101].PNG")
    masked(tmp_path / val, "TCGA-B1-AAAA-DX1_xmin1_ymin1_MPP-0.2500+0")
    masked(tmp_path / "Test", "TCGA-C1-AAAA-DX1_xmin1_ymin1_MPP-0.2500+0", side=70)
    data = read_dataset(tmp_path, classes=BCSS)
    assert [(p.label, p.group) for p in data.train] == [((1, 1, 0, 1), "TCGA-A1-A0SK")]
    assert [(p.label, p.group) for p in data.val] == [((0, 0, 0, 1), "TCGA-B1-AAAA")]
    assert data.split("test")[0].read_truth(4).shape == (70, 70)
    assert data.mpp == 0.25
    assert "0.25 um per pixel" in data.notes[0]
    assert read_dataset(tmp_path, mpp=1, classes=BCSS).notes == ()


def test_names_that_disagree_tell_no_resolution(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a_MPP-0.25[10].png")
    picture(tmp_path / "train" / "b_MPP-0.5[10].png")
    (tmp_path / "classes.json").write_text('["A", "B"]')
    with pytest.raises(DatasetError, match="file names disagree"):
        read_dataset(tmp_path)


def test_training_masks_and_labels_from_them(tmp_path: Path) -> None:
    masked(tmp_path / "train", "1-[1001]")
    masked(tmp_path / "train", "2")
    assert [p.label for p in read_dataset(tmp_path, 1, LUAD, 0).train] == [(1, 0, 0, 1), (0, 0, 0, 1)]


@pytest.mark.parametrize(
    ("side", "mask_side", "message"),
    [(40, 39, "39 x 39 px, but its image is 40 x 40 px"), (31, 31, "smaller than a patch")],
)
def test_sizes_of_what_is_held_back(tmp_path: Path, side: int, mask_side: int, message: str) -> None:
    picture(tmp_path / "train" / "p-[1000].png")
    masked(tmp_path / "test", "q", side, mask_side)
    with pytest.raises(DatasetError, match=message):
        read_dataset(tmp_path, 1, LUAD)


def test_training_refuses_larger_validation_images(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "p-[1000].png")
    masked(tmp_path / "val", "q", 40)
    data: PatchDataset = read_dataset(tmp_path, 1, LUAD)
    with pytest.raises(DatasetError, match="40 x 40 px, but training needs"):
        data.check_for_training()


def test_masks_in_every_coding(tmp_path: Path) -> None:
    values = np.array([[0, 1], [5, 255]], np.uint8)
    expected = [[0, 1], [2, 2]]
    path, coding = tmp_path / "m.png", MaskCoding(2, 5, ((200, 0, 0), (0, 0, 200)))
    Image.fromarray(values).save(path)
    assert coding.read(path).tolist() == expected
    palette = Image.fromarray(values).convert("P")
    palette.putpalette([7] * 768)
    palette.putdata(values.ravel().tolist())
    palette.save(path)
    assert Image.open(path).mode == "P"
    assert coding.read(path).tolist() == expected
    colors = np.array([[[200, 0, 0], [0, 0, 200]], [[255] * 3, [0] * 3]], np.uint8)
    Image.fromarray(colors).save(path)
    assert coding.read(path).tolist() == expected
    Image.fromarray(colors + np.uint8(1)).save(path)
    with pytest.raises(DatasetError, match=r"colour \(201, 1, 1\)"):
        coding.read(path)
    Image.fromarray(np.full((2, 2), 2, np.uint8)).save(path)
    with pytest.raises(DatasetError, match="unknown class 2, expected 0 to 1, or 5 for excluded"):
        coding.read(path)


@pytest.mark.parametrize("excluded", [1, 256, -1, "3", 2.0, True])
def test_an_excluded_value_is_no_class(tmp_path: Path, excluded: object) -> None:
    picture(tmp_path / "train" / "p-[10].png")
    (tmp_path / "dataset.json").write_text(json.dumps({"mpp": 1, "classes": ["A", "B"], "excluded": excluded}))
    with pytest.raises(DatasetError, match="from 2 "):
        read_dataset(tmp_path)


@pytest.mark.parametrize("link", ["file", "folder", "mask"])
def test_links_may_not_leave_the_folder(tmp_path: Path, link: str) -> None:
    root, away = tmp_path / "data", picture(tmp_path / "away" / "p-[1000].png")
    picture(root / "train" / "q-[1000].png")
    if link == "file":
        (root / "train" / "p-[1000].png").symlink_to(away)
    elif link == "folder":
        (root / "val").symlink_to(away.parent)
    else:
        masked(root / "train", "r-[1000]")
        (root / "train" / "mask" / "r-[1000].png").unlink()
        (root / "train" / "mask" / "r-[1000].png").symlink_to(away)
    with pytest.raises(DatasetError, match="outside the data set's folder"):
        read_dataset(root, 1, LUAD)


def test_links_inside_and_to_the_folder_are_followed(tmp_path: Path) -> None:
    root = tmp_path / "data"
    picture(root / "originals" / "p.png")
    (root / "train").mkdir()
    (root / "train" / "p-[1000].png").symlink_to(root / "originals" / "p.png")
    (tmp_path / "link").symlink_to(root)
    assert read_dataset(tmp_path / "link", 1, LUAD).train[0].name == "train/p-[1000].png"


@pytest.mark.parametrize("file", ["a\0b.png", "x" * 5000, "/etc/passwd", "../p.png", ".", ""])
def test_hostile_names_in_a_table(tmp_path: Path, file: str) -> None:
    (tmp_path / "labels.csv").write_text(f"file,A\n{file},1\n")
    with pytest.raises(DatasetError) as caught:
        read_dataset(tmp_path, 1)
    assert "\n" not in str(caught.value)
