"""Data sets of patches: every accepted spelling, and one line for everything that does not fit together."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsiseg.classes import ClassTable
from wsiseg.datasets.dataset import KNOWN_CLASSES, Patch, read_classes, read_dataset, read_mask, split_groups
from wsiseg.errors import DatasetError, OptionError

BCSS = KNOWN_CLASSES["bcss-wsss"]


def picture(path: Path, side: int = 32, value: int = 120) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), value, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A data set with labels.csv: four patches of three patients."""
    for name in ("a1", "a2", "b1", "c1"):
        picture(tmp_path / "images" / f"{name}.png")
    (tmp_path / "labels.csv").write_text(
        "file,Tumour,Stroma,group\nimages/a1.png,1,0,a\nimages/a2.png,0,1,a\nimages/b1.png,1,1,b\nimages/c1.png,0,0,c\n"
    )
    (tmp_path / "dataset.json").write_text(
        json.dumps(
            {
                "mpp": 0.5,
                "licence": "CC0",
                "classes": [{"name": "Tumour", "color": [1, 2, 3]}, {"name": "Stroma", "color": [4, 5, 6]}],
            }
        )
    )
    return tmp_path


def test_table_with_groups(table: Path) -> None:
    data = read_dataset(table, val_share=0.3)
    assert data.mpp == 0.5
    assert data.patch_size_px == 32
    assert data.classes == ClassTable.from_names(["Tumour", "Stroma"], [(1, 2, 3), (4, 5, 6)])
    assert data.about == {"licence": "CC0"}
    labels = {p.name: p.label for p in (*data.train, *data.val)}
    assert labels == {
        "images/a1.png": (1, 0),
        "images/a2.png": (0, 1),
        "images/b1.png": (1, 1),
        "images/c1.png": (0, 0),
    }
    assert data.val
    assert not {p.group for p in data.train} & {p.group for p in data.val}
    assert read_dataset(table, mpp=0.25).mpp == 0.25
    assert data.fingerprint == read_dataset(table, val_share=0.3).fingerprint != read_dataset(table, mpp=1).fingerprint


def test_table_with_its_own_split(table: Path) -> None:
    (table / "labels.csv").write_text(
        "file,split,Stroma,Tumour\nimages/a1.png,train,1,0\nimages/a2.png,train,0,1\n"
        "images/b1.png,val,1,1\nimages/c1.png,val,0,0\n"
    )
    data = read_dataset(table)
    assert [p.name for p in data.val] == ["images/b1.png", "images/c1.png"]
    assert data.train[0].label == (0, 1), "labels follow the class table's order, not the file's"


@pytest.mark.parametrize(
    "name",
    [
        "1031280-2300-27920-[1 0 0 1].png",
        "x-[1, 0, 0, 1].png",
        "TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500+0[1001].png",
    ],
)
@pytest.mark.parametrize("folder", ["train", "training", "train/img"])
def test_labels_in_file_names(tmp_path: Path, folder: str, name: str) -> None:
    picture(tmp_path / folder / name)
    data = read_dataset(tmp_path, mpp=1.0, classes=BCSS)
    assert [p.label for p in data.train] == [(1, 0, 0, 1)]
    assert data.val == ()


@pytest.mark.parametrize("folder", ["val", "valid", "validation"])
def test_validation_masks(tmp_path: Path, folder: str) -> None:
    picture(tmp_path / "train" / "p-[1000].png")
    picture(tmp_path / folder / "img" / "q.png")
    mask = np.full((32, 32), 4, dtype=np.uint8)
    mask[:8], mask[8:16] = 0, 3
    (tmp_path / folder / "mask").mkdir()
    Image.fromarray(mask).save(tmp_path / folder / "mask" / "q.png")
    data = read_dataset(tmp_path, mpp=1.0, classes=BCSS)
    assert data.val[0].label == (1, 0, 0, 1)
    assert data.val[0].mask is not None
    np.testing.assert_array_equal(read_mask(data.val[0].mask, 4), mask)


def test_test_split_of_folders(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "p-[1000].png")
    before = read_dataset(tmp_path, mpp=1.0, classes=BCSS)
    for name in ("TCGA-A1-A0SK-DX1_xmin1", "TCGA-A1-A0SK-DX1_xmin2", "7-1-1"):
        picture(tmp_path / "test" / "img" / f"{name}.png")
        (tmp_path / "test" / "mask").mkdir(exist_ok=True)
        Image.fromarray(np.full((32, 32), 2, np.uint8)).save(tmp_path / "test" / "mask" / f"{name}.png")
    data = read_dataset(tmp_path, mpp=1.0, classes=BCSS)
    assert [(p.label, p.group) for p in data.split("test")] == [
        ((0, 0, 1, 0), "7"),
        ((0, 0, 1, 0), "TCGA-A1-A0SK"),
        ((0, 0, 1, 0), "TCGA-A1-A0SK"),
    ]
    assert data.split("train") == data.train == before.train
    assert data.fingerprint == before.fingerprint
    with pytest.raises(DatasetError, match=r"has no val patches, only train \(1\), test \(3\)"):
        data.split("val")


def test_test_split_and_masks_of_a_table(table: Path) -> None:
    (table / "masks").mkdir()
    for name in ("a1", "c1"):
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(table / "masks" / f"{name}.png")
    (table / "labels.csv").write_text(
        "file,Tumour,Stroma,split,mask\nimages/a1.png,1,0,train,masks/a1.png\nimages/a2.png,0,1,train,\n"
        "images/b1.png,0,1,val,\nimages/c1.png,1,0,test,masks/c1.png\n"
    )
    data = read_dataset(table)
    assert [p.name for p in data.split("test")] == ["images/c1.png"]
    assert data.test[0].mask == (table / "masks" / "c1.png").resolve()
    assert [p.mask and p.mask.name for p in data.train] == ["a1.png", None]
    assert data.val[0].mask is None
    assert not data.test[0].read_truth(2).any()
    with pytest.raises(DatasetError, match="has no mask"):
        data.val[0].read_truth(2)


def broken(table: Path, what: str) -> None:
    """Break a data set in one way."""
    labels = table / "labels.csv"
    text = labels.read_text()
    changes = {
        "image without label": lambda: picture(table / "images" / "d1.png"),
        "label without image": (table / "images" / "b1.png").unlink,
        "unreadable image": lambda: (table / "images" / "b1.png").write_text("no picture"),
        "truncated image": lambda: (table / "images" / "b1.png").write_bytes(
            (table / "images" / "a1.png").read_bytes()[:60]
        ),
        "unknown class": lambda: labels.write_text(text.replace("Stroma", "Fat")),
        "missing class": lambda: labels.write_text("file,Tumour\nimages/a1.png,1\n"),
        "label 2": lambda: labels.write_text(text.replace("a1.png,1", "a1.png,2")),
        "no image at all": lambda: labels.write_text("file,Tumour,Stroma\n"),
        "two rows": lambda: labels.write_text(text + "images/c1.png,1,1,c\n"),
        "outside": lambda: labels.write_text(text.replace("images/c1.png", "../c1.png")),
        "other size": lambda: picture(table / "images" / "b1.png", side=40),
        "no mpp": lambda: (table / "dataset.json").write_text("{}"),
        "bad mpp": lambda: (table / "dataset.json").write_text('{"mpp": "fine"}'),
        "bad json": lambda: (table / "dataset.json").write_text("{"),
    }
    changes[what]()


MESSAGES = {
    "image without label": r"d1\.png has no label",
    "label without image": r"line 4: there is no image 'images/b1\.png'",
    "unreadable image": r"b1\.png cannot be read as an image",
    "truncated image": r"b1\.png cannot be read as an image",
    "unknown class": "unknown class 'Fat', expected Tumour, Stroma",
    "missing class": "lacks a column for the class 'Stroma'",
    "label 2": "line 2: the label of Tumour must be 0 or 1, or empty where it is unknown, got '2'",
    "no image at all": "has no training image",
    "two rows": r"two rows for images/c1\.png",
    "outside": "lies outside",
    "other size": "is 40 x 40 px, larger than a patch of 32 x 32 px",
    "no mpp": "state --mpp",
    "bad mpp": "mpp must be a number",
    "bad json": "is not JSON",
}


@pytest.mark.parametrize("what", MESSAGES)
def test_what_does_not_fit_is_one_line(table: Path, what: str) -> None:
    broken(table, what)
    with pytest.raises(DatasetError, match=MESSAGES[what]) as caught:
        read_dataset(table)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/p.png"], "has no label"),
        (["train/p-[1 0 0].png"], "unknown class: 3 labels in the name, but 4 classes"),
        (["train/p-[1000].png", "val/img/q.png"], "has no mask"),
        (["train/p-[1000].png", "val/img/q.png", "val/mask/q.png", "val/mask/r.png"], "has no image"),
        (["train/p-[1000].png", "val/img/q.png", "val/mask/q.png"], "unknown class of colour"),
        (["train/p-[1000].png", "Train/p2-[1000].png"], "keep one of the two"),
        (["LUAD/train/p-[1000].png"], "did you mean .*LUAD"),
        (["train/readme.txt"], "no training image"),
        (["other/p.png"], "neither labels.csv nor a folder train"),
    ],
)
def test_folders_that_do_not_fit(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix == ".txt" else picture(path)
    with pytest.raises(DatasetError, match=message):
        read_dataset(tmp_path, mpp=1.0, classes=BCSS)


def test_mask_of_an_unknown_class(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 9, dtype=np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(DatasetError, match="unknown class 9"):
        read_mask(tmp_path / "m.png", 4)


def test_folders_need_to_know_their_classes(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "p-[10].png")
    with pytest.raises(DatasetError, match="--classes"):
        read_dataset(tmp_path, mpp=1.0)
    (tmp_path / "classes.json").write_text('["A", "B"]')
    assert read_dataset(tmp_path, mpp=1.0).classes.names == ("A", "B")
    assert read_classes(str(tmp_path / "classes.json")).names == ("A", "B")
    assert read_classes("luad-histoseg").names[1] == "Necrosis"
    with pytest.raises(DatasetError, match="neither a file"):
        read_classes("nothing")


def test_split_keeps_groups_whole_and_some_for_training() -> None:
    patches = [Patch(Path(f"{i}.png"), f"{i}.png", (1,), f"group {i % 5}") for i in range(50)]
    train, val = split_groups(patches, 0.2, seed=1)
    assert len(val) == 10
    assert len(train) == 40
    assert {p.group for p in train}.isdisjoint(p.group for p in val)
    assert split_groups(patches, 0.2, seed=1) == (train, val)
    assert split_groups(patches[:1], 0.5, seed=1) == (patches[:1], [])
    assert len(split_groups(patches, 0.99, seed=1)[0]) == 10
    with pytest.raises(OptionError):
        split_groups(patches, 1.0, seed=1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("file,Tumour,Stroma\nimages/../images/a1.png,1,0\n", "outside"),
        ("file,Tumour,Stroma\nimages/a1.png,1,0,1\n", "more values than columns"),
        ("file,Tumour,Tumour,Stroma\nimages/a1.png,1,0,0\n", "two columns"),
    ],
)
def test_rows_that_mean_something_else_are_refused(table: Path, rows: str, message: str) -> None:
    (table / "labels.csv").write_text(rows.format(root=table))
    with pytest.raises(DatasetError, match=message):
        read_dataset(table)


def test_images_deeper_down_need_a_label_too(table: Path) -> None:
    picture(table / "images" / "deeper" / "d.png")
    with pytest.raises(DatasetError, match="has no label"):
        read_dataset(table)


def test_two_images_of_one_stem_are_refused(table: Path) -> None:
    picture(table / "images" / "a1.jpg")
    with (table / "labels.csv").open("a") as file:
        file.write("images/a1.jpg,1,0,a\n")
    with pytest.raises(DatasetError, match="but for their ending"):
        read_dataset(table)


def test_sixteen_bit_patches_are_refused(table: Path) -> None:
    Image.fromarray(np.full((32, 32), 20_000, np.uint16)).save(table / "images" / "a1.png")
    with pytest.raises(DatasetError, match="8 bits"):
        read_dataset(table)


def test_dataset_json_may_begin_with_a_byte_order_mark(table: Path) -> None:
    path = table / "dataset.json"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert read_dataset(table).mpp == 0.5
