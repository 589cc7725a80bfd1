"""`wsiseg info MAP.zarr` and the rasters of `wsiseg export`, as they are called."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.helpers.stored_maps import provenance, stored_map
from wsiseg.cli.export import export
from wsiseg.cli.info import info
from wsiseg.errors import MapError, OutputError
from wsiseg.geometry import Size


@pytest.fixture(scope="module")
def tissue_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("map") / "map.zarr"
    stored_map(path, Size(701, 600), about={**provenance("a\x1b[31m.svs"), "white_mm2": 0.25})
    return path


def run(command: object, *arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False, terminal_width=200)
    assert result.exit_code == code, result.output
    return result


def test_as_json(tissue_map: Path) -> None:
    facts = json.loads(run(info, tissue_map, "--json").output)
    assert (facts["size"], facts["mpp"], facts["probabilities"]) == ([701, 600], [0.5, 0.5], True)
    assert facts["levels"] == [{"size": [701, 600], "mpp": [0.5, 0.5]}, {"size": [351, 300], "mpp": [1, 1]}]
    assert facts["classes"][1] == {
        **{"index": 2, "name": "Stroma", "color": [0, 200, 0]},
        **{"area_mm2": 0.25, "share": 0.25, "mean_probability": 0.5},
    }
    assert (facts["tissue_mm2"], facts["white_mm2"], facts["unread_mm2"]) == (1.125, 0.25, 0.125)
    assert facts["slide"]["name"] == "a\x1b[31m.svs"
    assert facts["parameters"] == {"overlap": 0.5, "gate": True}


def test_for_people(tissue_map: Path) -> None:
    output = run(info, tissue_map).output
    for words in ("701 x 600 px at 0.5", "Stroma", "#00C800", "0.2500", "white", "overlap 0.5, gate yes", "1" * 64):
        assert "".join(words.split()) in "".join(output.split())
    assert "\x1b" not in output
    assert "a\N{REPLACEMENT CHARACTER}[31m.svs" in output


def test_areas_are_shown_as_shares_of_the_tissue(tissue_map: Path) -> None:
    """Each class, white and what could not be read are parts of 1.125 mm², which is 100 %."""
    rows = [line.split() for line in run(info, tissue_map).output.splitlines()]
    assert any("% of tissue" in " ".join(row) for row in rows)
    assert [row for row in rows if row[:1] in (["white"], ["unread"], ["tissue"])] == [
        ["white", "0.2500", "22.2"],
        ["unread", "0.1250", "11.1"],
        ["tissue", "1.1250", "100.0"],
    ]
    [stroma] = [row for row in rows if row[1:2] == ["Stroma"]]
    assert stroma == ["2", "Stroma", "#00C800", "0.2500", "22.2", "0.50"]


def test_what_is_no_map_is_said(tissue_map: Path, tmp_path: Path) -> None:
    with pytest.raises(MapError, match=r"does not exist; expected a tissue map"):
        run(info, tmp_path / "m.zarr")
    (tmp_path / "m.zarr").mkdir()
    with pytest.raises(MapError, match="is not a tissue map"):
        run(info, tmp_path / "m.zarr")
    assert "are for slides" in run(info, tissue_map, "--mpp", "0.5", code=2).output


def test_rasters_are_written_and_said(tissue_map: Path, tmp_path: Path) -> None:
    outputs = {
        "--ome-tiff": tmp_path / "a.ome.tif",
        "--ome-tiff-classes": tmp_path / "b.ome.tif",
        "--ome-tiff-probabilities": tmp_path / "c.ome.tiff",
        "--ome-zarr-0.4": tmp_path / "d.zarr",
    }
    arguments = [part for pair in outputs.items() for part in pair]
    said = run(export, tissue_map, *arguments).stderr
    for path in outputs.values():
        assert path.exists()
        assert f"wrote {path} (" in said
    assert "files, " in said
    with pytest.raises(OutputError, match="exists"):
        run(export, tissue_map, *arguments)
    run(export, tissue_map, *arguments, "--overwrite")
    assert sorted(tmp_path.iterdir()) == sorted(outputs.values())


def test_nothing_is_written_where_one_output_cannot_be(tissue_map: Path, tmp_path: Path) -> None:
    (tmp_path / "d.zarr").mkdir()
    with pytest.raises(OutputError, match="exists"):
        run(export, tissue_map, "--ome-tiff", tmp_path / "a.ome.tif", "--ome-zarr-0.4", tmp_path / "d.zarr")
    assert [entry.name for entry in tmp_path.iterdir()] == ["d.zarr"]
    same = run(
        export, tissue_map, "--ome-tiff", tmp_path / "a.ome.tif", "--ome-tiff-classes", tmp_path / "a.ome.tif", code=2
    )
    assert "two outputs have the same name" in same.output
