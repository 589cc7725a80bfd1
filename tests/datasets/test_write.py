"""Data sets written and appended to: what is read back is what was given, and another's classes are refused by name."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsiseg.classes import ClassTable
from wsiseg.datasets.check import ClassInSplit, check_dataset
from wsiseg.datasets.dataset import read_dataset
from wsiseg.datasets.provenance import Provenance
from wsiseg.datasets.sheet import dataset_sheet
from wsiseg.datasets.write import DatasetWriter, PatchRow
from wsiseg.errors import DatasetError, OptionError, OutputError

CLASSES = ClassTable.from_names(["Tumour", "Stroma", "Necrosis"])
PLACE = Provenance(slide="case 1.svs", x=1024, y=2048.5, size_px=48, mpp=0.5, status="labelled", labeller="AB",
                   round=1, source="random", seconds=2.25, shown_prediction="0", time="2026-01-01T00:00:00Z",
                   model_hash="abc")  # fmt: skip


def pixels(seed: int, side: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def begun(root: Path) -> DatasetWriter:
    return DatasetWriter(root, CLASSES, 0.5, 48)


def test_what_is_read_back_is_what_was_given(tmp_path: Path) -> None:
    root, mask = tmp_path / "patches", np.full((48, 48), 255, np.uint8)
    mask[:10], mask[10:20] = 1, 2
    with begun(root) as writer:
        first = writer.add(pixels(1), PatchRow({"Tumour": 1, "Stroma": 0, "Necrosis": 0}, "case 1", "", PLACE))
        second = writer.add(pixels(2), PatchRow({"Stroma": 1}, "case 1", "", replace(PLACE, x=0)), mask)
        third = writer.add(pixels(3), PatchRow({"Necrosis": 1, "Tumour": 0, "Stroma": 0}, "case 2", "val"))
        assert not (root / "labels.csv").exists(), "nothing is in its place before the end"
        writer.finish()
    data = read_dataset(root)
    assert (data.mpp, data.patch_size_px, data.classes) == (0.5, 48, CLASSES)
    assert [(p.name, p.label, p.group) for p in data.train] == [
        (first, (1, 0, 0), "case 1"),
        (second, (-1, 1, -1), "case 1"),
    ]
    assert [(p.name, p.label) for p in data.val] == [(third, (0, 0, 1))]
    assert data.train[0].provenance == PLACE
    assert data.val[0].provenance is None
    np.testing.assert_array_equal(np.array(Image.open(root / first)), pixels(1))
    np.testing.assert_array_equal(data.train[1].read_truth(3), np.where(mask == 255, 3, mask))
    assert data.train[1].mask is not None
    np.testing.assert_array_equal(np.array(Image.open(data.train[1].mask)), mask)
    assert sorted(p.name for p in root.iterdir()) == ["dataset.json", "images", "labels.csv", "masks"]


def test_appending_keeps_rows_and_goes_by_name(tmp_path: Path) -> None:
    root = tmp_path / "patches"
    with begun(root) as writer:
        old = writer.add(pixels(1), PatchRow({"Tumour": 1, "Stroma": 0, "Necrosis": 0}, "a", "", PLACE))
        writer.finish()
    before = (root / "labels.csv").read_text().splitlines()
    other = ClassTable.from_names(["Necrosis", "Tumour", "Stroma"])
    with DatasetWriter(root, other, 0.5, 48) as writer:
        new = writer.add(
            pixels(2),
            PatchRow({"Necrosis": 1, "Stroma": 0}, "a", "", replace(PLACE, y=5)),
            np.zeros((48, 48), np.uint8),
        )
        writer.finish()
    assert (root / "labels.csv").read_text().splitlines()[:2] == before
    data = read_dataset(root)
    assert {p.name: p.label for p in data.train} == {old: (1, 0, 0), new: (-1, 0, 1)}, (
        "order of classes shifts no label"
    )
    assert np.unique(data.train[1].read_truth(3)).tolist() == [2], "nor a pixel: 0 was Necrosis, which is 2 here"


def test_the_same_place_replaces_and_others_never(tmp_path: Path) -> None:
    root = tmp_path / "patches"
    with begun(root) as writer:
        first = writer.add(pixels(1), PatchRow({"Tumour": 1}, "a", "", PLACE))
        assert writer.add(pixels(1), PatchRow({"Tumour": 0}, "a", "", PLACE)) == first
        alike = writer.add(pixels(2), PatchRow({"Tumour": 1}, "a", "", replace(PLACE, slide="case_1.svs")))
        assert alike != first
        writer.finish()
        writer.add(pixels(3), PatchRow({"Tumour": 1}, "a", "", replace(PLACE, x=7)))
        writer.finish()
    assert [p.label[0] for p in read_dataset(root).train] == [0, 1, 1]


def test_relabelled_and_discarded(tmp_path: Path) -> None:
    root, mask = tmp_path / "patches", np.zeros((48, 48), np.uint8)
    with begun(root) as writer:
        kept = writer.add(pixels(1), PatchRow({"Tumour": 1}, "a", "", PLACE))
        gone = writer.add(pixels(2), PatchRow({"Tumour": 1}, "a", "", replace(PLACE, x=1)), mask)
        writer.finish()
    image = (root / kept).read_bytes()
    with begun(root) as writer:
        assert writer.add(None, PatchRow({"Tumour": 0}, "a", "", PLACE)) == kept
        with pytest.raises(DatasetError, match="no image"):
            writer.add(None, PatchRow({"Tumour": 0}, "a", "", replace(PLACE, x=2)))
        writer.discard(gone)
        writer.discard("images/never.png")
        never = writer.add(pixels(3), PatchRow({"Tumour": 1}, "a", "", replace(PLACE, x=3)))
        writer.discard(never)
        writer.finish()
    assert [p.label for p in read_dataset(root).train] == [(0, -1, -1)]
    assert (root / kept).read_bytes() == image
    assert [p.name for p in root.rglob("*.png")] == [Path(kept).name]


def test_a_failure_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    root = tmp_path / "patches"
    with pytest.raises(RuntimeError), begun(root) as writer:
        writer.add(pixels(1), PatchRow({"Tumour": 1}, "a", "", PLACE))
        raise RuntimeError
    assert not root.exists()
    with begun(root) as writer:
        writer.add(pixels(1), PatchRow({"Tumour": 1}, "a", "", PLACE))
        writer.finish()
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    with pytest.raises(DatasetError), begun(root) as writer:
        writer.add(pixels(2), PatchRow({"Stroma": 1}, "a", "", replace(PLACE, x=3)))
        writer.add(pixels(2), PatchRow({"Fat": 1}, "a", "", PLACE))
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before


def test_other_folders_are_refused_by_name(tmp_path: Path) -> None:
    root = tmp_path / "patches"
    with begun(root) as writer:
        writer.add(pixels(1), PatchRow({"Tumour": 1}, "a"))
        writer.finish()
    with pytest.raises(DatasetError, match="has no class 'Fat'"):
        DatasetWriter(root, ClassTable.from_names(["Tumour", "Stroma", "Necrosis", "Fat"]), 0.5, 48)
    with pytest.raises(DatasetError, match="class 'Necrosis' as well"):
        DatasetWriter(root, ClassTable.from_names(["Tumour", "Stroma"]), 0.5, 48)
    with pytest.raises(DatasetError, match=r"0\.5 um per pixel, these are at 0\.25"):
        DatasetWriter(root, CLASSES, 0.25, 48)
    with pytest.raises(DatasetError, match="48 px, these are of 64"):
        DatasetWriter(root, CLASSES, 0.5, 64)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"no labels\.csv to append to"):
        begun(tmp_path / "other")
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="not a folder"):
        begun(tmp_path / "file")
    with pytest.raises(OutputError):
        begun(tmp_path / "file" / "below")
    for name in ("mask", "slide", "=1+1", "-Tumour"):
        with pytest.raises(OptionError):
            DatasetWriter(tmp_path / "new", ClassTable.from_names([name]), 0.5, 48)
    with begun(root), pytest.raises(OutputError, match="patches"):
        begun(root)
    with begun(root) as writer, pytest.raises(DatasetError, match="must be RGB of 48"):
        writer.add(pixels(1, 32), PatchRow({}, "a"))
    with begun(root) as writer, pytest.raises(DatasetError, match="255 for unknown, got 3"):
        writer.add(pixels(1), PatchRow({}, "a"), np.full((48, 48), 3, np.uint8))


def test_unsure_rows_stay_in_the_table_and_out_of_training(tmp_path: Path) -> None:
    root = tmp_path / "patches"
    with begun(root) as writer:
        writer.add(pixels(1), PatchRow({"Tumour": 1}, "a", "", PLACE))
        for number, status in enumerate(("unsure", "excluded", "unsure")):
            writer.add(pixels(9 + number), PatchRow({}, "a", "", replace(PLACE, x=number, status=status)))
        writer.finish()
    data = read_dataset(root)
    assert len(data.train) == 1
    assert data.notes == ("rows left out: 1 excluded, 2 unsure",)
    assert len(list(csv.DictReader((root / "labels.csv").open()))) == 4
    found = check_dataset(root)
    assert found.sound or set(found.problems) <= {"left out", "unknown", "absent", "constant class"}
    assert len(found.problems["left out"]) == 3
    assert found.class_counts()[0].splits["train"].patches == 1
    assert found.class_counts()[1].splits["train"] == ClassInSplit(0, None, 1)
    assert found.combinations() == {("Tumour", "Stroma?", "Necrosis?"): {"train": 1, "val": 0, "test": 0}}
    assert dataset_sheet(found).width > 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("images/a.png,1,,labelled,", None),
        ("images/a.png,,,labelled,", "no class is known to be there"),
        ("images/a.png,2,0,labelled,", "must be 0 or 1, or empty"),
        ("images/a.png,1,0,sure,", "status must be labelled, unsure, excluded or empty, got 'sure'"),
        ("images/a.png,1,0,labelled,far", "x must be a number, got 'far'"),
        ("images/a.png,1,0,labelled,inf", "x must be a number, got 'inf'"),
    ],
)
def test_rows_by_hand(tmp_path: Path, line: str, message: str | None) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels(1)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels.csv").write_text(f"file,Tumour,Stroma,status,x\n{line}\n")
    if message is None:
        assert [p.label for p in read_dataset(tmp_path, 0.5).train] == [(1, -1)]
        return
    with pytest.raises(DatasetError, match=message):
        read_dataset(tmp_path, 0.5)


def test_rows_of_another_resolution_are_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels(1)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels.csv").write_text("file,Tumour,mpp\nimages/a.png,1,0.25\n")
    assert read_dataset(tmp_path).mpp == 0.25
    with pytest.raises(DatasetError, match=r"rows of its table have 0\.25"):
        read_dataset(tmp_path, 0.5)


def test_a_class_may_be_called_as_a_column_where_classes_are_stated(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels(1)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels.csv").write_text("file,round,Tumour\nimages/a.png,1,0\n")
    assert read_dataset(tmp_path, 0.5, ClassTable.from_names(["round", "Tumour"])).train[0].label == (1, 0)
    assert read_dataset(tmp_path, 0.5).classes.names == ("Tumour",)
