"""The table of areas as a file: a sum over a column is what it says."""

import csv
from pathlib import Path

import pytest

from tests.helpers.stored_maps import CLASSES, provenance, stored_map
from wsiseg.classes import ClassTable
from wsiseg.errors import MapError
from wsiseg.export.drawn_polygons import DrawnClass, DrawnPolygons
from wsiseg.export.opened_map import open_map
from wsiseg.export.polygons import export_csv
from wsiseg.geometry import Size
from wsiseg.system.files import write_csv
from wsiseg.system.printable import table_cell


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_whole_maps_areas_have_columns_of_their_own(tmp_path: Path) -> None:
    stored_map(tmp_path / "m.zarr", Size(60, 50))
    export_csv(open_map(tmp_path / "m.zarr"), tmp_path / "a.csv")
    rows = rows_of(tmp_path / "a.csv")
    assert [row["class"] for row in rows] == ["Tumour", "Stroma", "Lymphocytes"]
    assert sum(float(row["area_mm2"]) for row in rows) == 1.0
    assert sum(float(row["share"]) for row in rows) == 1.0
    for row in rows:
        assert (row["slide"], row["tissue_mm2"], row["unread_mm2"]) == ("a.svs", "1.125000", "0.125000")
        assert row["white_mm2"] == row["polygons_mm2"] == ""  # nobody looked for white, or drew polygons


def test_white_and_polygons_where_they_are_known(tmp_path: Path) -> None:
    stored_map(tmp_path / "m.zarr", Size(60, 50), about={**provenance("a,\n\"b'.svs"), "white_mm2": 0.25})
    drawn = zip(CLASSES.names, (4.9e5, 0.0, 2.6e5), strict=True)
    rows = [DrawnClass(name, map_um2=5e5, polygons_um2=area) for name, area in drawn]
    export_csv(
        open_map(tmp_path / "m.zarr"),
        tmp_path / "a.csv",
        polygons=DrawnPolygons(classes=rows, annotations=2, vertices=8, repaired=0, dropped=0),
    )
    rows = rows_of(tmp_path / "a.csv")
    assert [row["polygons_mm2"] for row in rows] == ["0.490000", "0.000000", "0.260000"]
    assert {row["white_mm2"] for row in rows} == {"0.250000"}
    assert rows[0]["slide"] == "a,\n\"b'.svs"


def test_a_map_without_areas_is_refused(tmp_path: Path) -> None:
    about = {key: value for key, value in provenance().items() if key != "areas"}
    stored_map(tmp_path / "m.zarr", Size(60, 50), about=about)
    with pytest.raises(MapError, match="says nothing of its areas"):
        export_csv(open_map(tmp_path / "m.zarr"), tmp_path / "a.csv")
    assert not (tmp_path / "a.csv").exists()
    assert "a.svs" in open_map(tmp_path / "m.zarr")._repr_html_()  # and shows itself all the same


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n1", " =1", "\uff1d1+1", '=HYPERLINK("http://a","b")']


@pytest.mark.parametrize("name", FORMULAS)
def test_no_cell_is_a_formula(tmp_path: Path, name: str) -> None:
    write_csv(tmp_path / "a.csv", ["class", name], [[name, -1.5], ["Tumour-1", 2]])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["class", f"'{name}"], [f"'{name}", "-1.5"], ["Tumour-1", "2"]]


@pytest.mark.parametrize("name", ["", " ", "Tumour", "a=b", "'=1", "1-2", "\N{MICRO SIGN}m", "CD3+"])
def test_other_cells_are_as_they_are(name: str) -> None:
    assert table_cell(name) == name


def test_names_of_slide_and_classes_are_no_formulas(tmp_path: Path) -> None:
    table = ClassTable.from_names(["=cmd|' /C calc'!A0", "@x", "-Stroma"])
    about = provenance("+1.svs")
    about["areas"] = [{**row, "name": name} for row, name in zip(about["areas"], table.names, strict=True)]
    stored_map(tmp_path / "m.zarr", Size(60, 50), classes=table, about=about)
    export_csv(open_map(tmp_path / "m.zarr"), tmp_path / "a.csv")
    rows = rows_of(tmp_path / "a.csv")
    assert [row["class"] for row in rows] == [f"'{name}" for name in table.names]
    assert {row["slide"] for row in rows} == {"'+1.svs"}
