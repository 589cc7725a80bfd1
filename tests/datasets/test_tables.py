"""Tables of labels as people have them: every spelling that can mean one thing alone, and all others by name."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from PIL import Image

from wsiseg.classes import ClassTable
from wsiseg.datasets.dataset import read_dataset
from wsiseg.datasets.write import DatasetWriter, PatchRow
from wsiseg.errors import DatasetError

PLAIN = "file,Tumour,Stroma,group\nimages/a.png,1,0,s1\nimages/b.png,0,1,s2\nimages/c.png,,1,s3\n"
EXPECTED = {"images/a.png": (1, 0), "images/b.png": (0, 1), "images/c.png": (-1, 1)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three patches at 0.5 um, without table."""
    (tmp_path / "images").mkdir()
    for number, name in enumerate("abc"):
        Image.fromarray(np.full((32, 32, 3), 90 + number, np.uint8)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "dataset.json").write_text('{"mpp": "0.5"}')
    return tmp_path


def labels(folder: Path, ignore: tuple[str, ...] = ()) -> dict[str, tuple[int, ...]]:
    data = read_dataset(folder, val_share=0, ignore=ignore)
    assert data.mpp == 0.5
    assert data.classes.names == ("Tumour", "Stroma")
    return {patch.name: patch.label for patch in data.train}


def excel(folder: Path, rows: list[list[object]], name: str = "labels.xlsx") -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(folder / name)
    return folder / name


ROWS: list[list[object]] = [
    ["file", "Tumour", "Stroma", "group"],
    ["images/a.png", 1, False, "s1"],
    ["images/b.png", 0.0, True, "s2"],
    ["images/c.png", None, "yes", "s3"],
    [None, None, None, None],
]

SPELLINGS: dict[str, Callable[[Path], str | bytes]] = {
    "plain": lambda f: PLAIN,
    "semicolons": lambda f: PLAIN.replace(",", ";"),
    "tabs": lambda f: PLAIN.replace(",", "\t"),
    "sep line": lambda f: "sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n"),
    "capitals": lambda f: PLAIN.replace("file", "File").replace("group", "GROUP"),
    "true and false": lambda f: PLAIN.replace(",1", ",TRUE").replace(",0", ",False"),
    "yes and no": lambda f: PLAIN.replace(",1", ",Yes").replace(",0", ",no"),
    "1.0 and 0.0": lambda f: PLAIN.replace(",1", ",1.0").replace(",0", ",0.00"),
    "decimal commas": lambda f: PLAIN.replace(",", ";").replace(";1", ";1,0").replace(";0", ";0,0"),
    "quoted decimal commas": lambda f: PLAIN.replace(",0", ',"0,0"').replace(",1", ',"1,0"'),
    "byte order mark": lambda f: PLAIN.encode("utf-8-sig"),
    "UTF-16": lambda f: PLAIN.encode("utf-16"),
    "UTF-16 without mark": lambda f: PLAIN.encode("utf-16-le"),
    "UTF-16 big-endian": lambda f: PLAIN.encode("utf-16-be"),
    "CRLF": lambda f: PLAIN.replace("\n", "\r\n"),
    "CR": lambda f: PLAIN.replace("\n", "\r"),
    "no last line end": lambda f: PLAIN.rstrip(),
    "empty rows": lambda f: PLAIN + "\n,,,\n , , ,\n\n",
    "empty rows between": lambda f: PLAIN.replace("\nimages/b", "\n\n,,,\nimages/b"),
    "empty columns": lambda f: PLAIN.replace("\n", ",,\n"),
    "empty columns in rows alone": lambda f: PLAIN.replace(",s1\n", ",s1,,\n"),
    "quotes": lambda f: "\n".join(",".join(f'"{c}"' for c in row.split(",")) for row in PLAIN.splitlines()),
    "blanks": lambda f: PLAIN.replace(",", " , "),
    "backslashes": lambda f: PLAIN.replace("images/", "images\\"),
    "dot and slash": lambda f: PLAIN.replace("images/", "./images/"),
    "absolute": lambda f: PLAIN.replace("images/", f"{f}/images/"),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_means_the_same(folder: Path, name: str) -> None:
    text = SPELLINGS[name](folder)
    (folder / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert labels(folder) == EXPECTED
    (folder / "labels.csv").rename(folder / "Labels.CSV")
    assert labels(folder) == EXPECTED


def test_tables_of_tabs_and_of_excel(folder: Path) -> None:
    (folder / "labels.tsv").write_text(PLAIN.replace(",", "\t"))
    assert labels(folder) == EXPECTED
    (folder / "labels.tsv").unlink()
    excel(folder, ROWS)
    assert labels(folder) == EXPECTED
    (folder / "labels.csv").write_text(PLAIN)
    with pytest.raises(DatasetError, match=r"labels\.csv and labels\.xlsx: keep one"):
        labels(folder)


def test_excel_files_that_say_less_than_they_seem_to(folder: Path) -> None:
    path = excel(folder, [*ROWS[:3], ["images/c.png", "=1-1", 1, "s3"]])
    with pytest.raises(DatasetError, match="line 4: a formula has no value yet"):
        labels(folder)
    book = openpyxl.Workbook()
    book.active.append(["file"])
    book.create_sheet("second").append(["file"])
    book.save(path)
    with pytest.raises(DatasetError, match="several sheets"):
        labels(folder)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DatasetError, match="cannot be read as an Excel file"):
        labels(folder)


def test_latin_1_and_the_accents_of_a_mac(folder: Path) -> None:
    (folder / "images" / "a.png").rename(folder / "images" / "ä.png")
    table = PLAIN.replace("a.png", "ä.png")
    (folder / "labels.csv").write_text(table, encoding="latin-1")
    assert labels(folder)["images/ä.png"] == (1, 0)
    (folder / "images" / "ä.png").rename(folder / "images" / unicodedata.normalize("NFD", "ä.png"))
    (folder / "labels.csv").write_text(table, encoding="utf-8")
    assert len(labels(folder)) == 3
    (folder / "labels.csv").write_bytes(table.encode("mac-roman"))
    with pytest.raises(DatasetError, match="UTF-8, UTF-16 or Latin-1"):
        labels(folder)


def test_splits_and_states_in_any_case(folder: Path) -> None:
    (folder / "labels.csv").write_text(
        "FILE;Tumour;Stroma;Split;Status;mpp\nimages/a.png;1;0;TRAIN;Labelled;0,5\n"
        "images/b.png;0;1;Validation;;0,5\nimages/c.png;;1;;Unsure;0,5\n"
    )
    data = read_dataset(folder)
    assert [p.name for p in data.train] == ["images/a.png"]
    assert [p.name for p in data.val] == ["images/b.png"]
    assert data.notes == ("rows left out: 1 unsure",)


def test_what_systems_leave_in_folders_is_no_image(folder: Path) -> None:
    (folder / "labels.csv").write_text(PLAIN)
    for name in ("images/._a.png", "._labels.csv", "images/.DS_Store", "images/Thumbs.db", "images/desktop.ini"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    (folder / "images" / ".thumbnails").mkdir()
    (folder / "images" / ".thumbnails" / "a.png").write_bytes(b"x")
    assert labels(folder) == EXPECTED


def test_columns_that_are_no_classes(folder: Path) -> None:
    text = PLAIN.splitlines()
    table = "\n".join(f"{row},{cell}" for row, cell in zip(text, ("age", "61", "58", "70"), strict=True))
    (folder / "labels.csv").write_text(table)
    with pytest.raises(DatasetError, match=r"column 'age' holds '61', which is no label.*--ignore-columns age"):
        labels(folder)
    assert labels(folder, ("age",)) == EXPECTED
    (folder / "dataset.json").write_text('{"mpp": 0.5, "ignore_columns": ["age"]}')
    assert labels(folder) == EXPECTED
    (folder / "dataset.json").write_text('{"mpp": 0.5, "classes": ["Tumour", "Stroma"]}')
    with pytest.raises(DatasetError, match=r"unknown class 'age', expected Tumour, Stroma.*--ignore-columns age"):
        labels(folder)
    assert labels(folder, ("age",)) == EXPECTED
    with pytest.raises(DatasetError, match="no column 'years' to leave out"):
        labels(folder, ("years",))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (PLAIN.replace("a.png,1", "a.png,2"), "line 2: the label of Tumour must be 0 or 1"),
        (PLAIN.replace("a.png,1", "a.png,0.5"), "line 2: the label of Tumour must be 0 or 1"),
        (PLAIN.replace("a.png,1", "a.png,maybe"), "line 2: the label of Tumour must be 0 or 1"),
        (PLAIN.replace("a.png,1,0", "a.png,1,0,0,0"), "line 2: more values than columns"),
        (PLAIN.replace("b.png,0,1,s2", "b.png,0"), "line 3: fewer values than columns"),
        (PLAIN.replace("Stroma", "tumour").replace("Tumour", "File"), "two columns 'file'"),
        (PLAIN.replace("Stroma", "Tumour"), "two columns 'Tumour'"),
        (PLAIN.replace("Stroma", ""), "column 3 has no name"),
        (PLAIN + "images/a.png,1,0,s1\n", "two rows for images/a.png"),
        (PLAIN + "images\\a.png,0,1,s1\n", "two rows for images/a.png"),
        (PLAIN.replace("images/c.png", "C:\\data\\images\\c.png"), "lies outside"),
        (PLAIN.replace("images/c.png,,1,s3\n", ""), "c.png has no label"),
        (PLAIN.replace("file", "image"), "must begin with file"),
        ("", "must begin with file"),
    ],
)
def test_what_may_mean_two_things_is_named(folder: Path, table: str, message: str) -> None:
    (folder / "labels.csv").write_text(table)
    with pytest.raises(DatasetError, match=message) as caught:
        read_dataset(folder)
    assert "\n" not in str(caught.value)


def test_a_number_that_may_be_thousands_is_refused(folder: Path) -> None:
    rows = PLAIN.replace(",", ";").replace("group", "x").replace("s1", "1,5").replace("s2", "0,125")
    (folder / "labels.csv").write_text(rows.replace("s3", "1,234"))
    with pytest.raises(DatasetError, match="line 4: x must be a number, got '1,234'"):
        read_dataset(folder)


def test_a_name_of_two_files_is_refused(folder: Path) -> None:
    (folder / "images\\a.png").write_bytes((folder / "images" / "a.png").read_bytes())
    (folder / "labels.csv").write_text(PLAIN.replace("images/a", "images\\a"))
    with pytest.raises(DatasetError, match="may be either of two files"):
        read_dataset(folder)


def test_a_table_of_semicolons_can_be_appended_to(folder: Path) -> None:
    (folder / "labels.csv").write_text(PLAIN.replace(",", ";").replace(";1", ";TRUE"))
    with DatasetWriter(folder, ClassTable.from_names(["Tumour", "Stroma"]), 0.5, 32) as writer:
        writer.add(np.zeros((32, 32, 3), np.uint8), PatchRow({"Tumour": 1}, "s4", name="d"))
        writer.finish()
    assert labels(folder) == EXPECTED | {"images/d.png": (1, -1)}
