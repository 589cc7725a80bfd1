"""Every spelling of the public data sets, labels in names, masks in every coding, and names that mean harm."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wsiseg.classes import ClassTable
from wsiseg.datasets.check import check_dataset
from wsiseg.datasets.dataset import KNOWN_CLASSES, PatchDataset, read_dataset
from wsiseg.datasets.masks import MaskCoding, MaskNumbers
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
    [(40, 39, "39 x 39 px, but its image is 40 x 40 px"), (15, 15, "less than half of a patch of 32 x 32 px")],
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


@pytest.mark.parametrize("excluded", [1, 256, -1, "3", 2.0, True, False])
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


def test_masks_of_which_0_is_unlabelled(tmp_path: Path) -> None:
    """0 for what is unlabelled leaves 1 for the first class; another first value is stated."""
    Image.fromarray(np.array([[0, 1, 2, 255]], np.uint8)).save(tmp_path / "m.png")
    classes = ClassTable.from_names(["A", "B"])
    for numbers in (MaskNumbers(0), MaskNumbers(0, 1)):
        assert MaskCoding.from_classes(classes, numbers).read(tmp_path / "m.png").tolist() == [[2, 0, 1, 2]]
    Image.fromarray(np.array([[0, 5, 6, 7]], np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(DatasetError, match="unknown class 7, expected 5 to 6, or 0 for excluded"):
        MaskCoding.from_classes(classes, MaskNumbers(0, 5)).read(tmp_path / "m.png")
    for excluded, offset in ((0, 0), (1, 1), (6, 5), (0, "1"), (0, 254)):
        with pytest.raises(DatasetError, match="must be a whole number"):
            MaskCoding.from_classes(classes, MaskNumbers(excluded, offset))  # type: ignore[arg-type]


def masked_set(root: Path, masks: list[np.ndarray], labels: list[str], white: int = 0) -> Path:
    """Grey images, white in their first columns, with masks and labels."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = []
    for number, (mask, label) in enumerate(zip(masks, labels, strict=True)):
        pixels = np.random.default_rng(number).integers(90, 180, (32, 32, 3)).astype(np.uint8)
        pixels[:, :white] = 240
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
        rows.append(f"images/{number}.png,{label},masks/{number}.png,g{number},train\n")
    (root / "labels.csv").write_text("file,A,B,mask,group,split\n" + "".join(rows))
    (root / "dataset.json").write_text('{"mpp": 1, "classes": ["A", "B"]}')
    return root


def columns(*values: int) -> np.ndarray:
    return np.repeat(np.array(values, np.uint8), 32 // len(values))[None].repeat(32, axis=0)


def test_masks_that_are_read_one_class_off_are_found(tmp_path: Path) -> None:
    """0 unlabelled, 1 and 2 classes: read as if 0 were the first, every mask contradicts its label."""
    masks = [columns(0, 1, 2, 2), columns(0, 2, 2, 2), columns(0, 1, 1, 1)]
    root = masked_set(tmp_path / "d", masks, ["1,1", "0,1", "1,0"], white=8)
    found = check_dataset(root)
    assert not found.sound
    assert {"disagree", "coding", "white class"} <= set(found.problems)
    assert "2 of 2 masks" in found.problems["coding"][0][1] or "agree if 0" in found.problems["coding"][0][1]
    assert "A: 100 % of its pixels in masks are white" in found.problems["white class"][0][1]
    assert check_dataset(root, excluded=0).sound


def test_a_mask_that_contradicts_its_label_or_picture_is_shown(tmp_path: Path) -> None:
    masks = [columns(0, 0, 1, 1), columns(1, 1, 1, 1), columns(0, 0, 0, 0), columns(1, 0, 0, 0)]
    root = masked_set(tmp_path / "d", masks, ["1,1", "1,1", "1,1", "1,1"])
    pixels = np.array(Image.open(root / "images" / "3.png"))
    pixels[:, :8] = 250
    Image.fromarray(pixels).save(root / "images" / "3.png")
    found = check_dataset(root)
    assert [where for where, _ in found.problems["disagree"]] == ["images/1.png", "images/2.png"]
    assert "the mask lacks A" in found.problems["disagree"][0][1]
    assert found.problems["white"] == [("images/3.png", "images/3.png: 100 % of what its mask calls B is white")]
    assert "coding" not in found.problems
    Image.fromarray(columns(0, 1, 2, 9)).save(root / "masks" / "0.png")
    assert "unknown class 9, expected 0 to 1" in check_dataset(root).problems["mask"][0][1]


def test_a_set_for_testing_alone(tmp_path: Path) -> None:
    for side in (40, 70, 33):
        masked(tmp_path / "test", str(side), side)
    found = check_dataset(tmp_path, LUAD, 1)
    assert set(found.problems) == {"for testing", "constant"}  # the pictures are of one grey
    data = read_dataset(tmp_path, 1, LUAD, needs=None)
    assert sorted(p.name for p in data.split("test")) == ["test/img/33.png", "test/img/40.png", "test/img/70.png"]
    with pytest.raises(DatasetError, match="no training image"):
        read_dataset(tmp_path, 1, LUAD)
