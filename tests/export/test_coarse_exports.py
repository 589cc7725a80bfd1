"""What is made of a map of coarse probabilities: at the levels it has, estimated and said so, or refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from ome_zarr_models import open_ome_zarr

from tests.helpers.stored_maps import stored_map
from wsiseg import TissueMap, open_map
from wsiseg.cli.main import main
from wsiseg.export.ome_tiff import export_ome_tiff
from wsiseg.export.ome_zarr_v2 import export_ome_zarr_v2
from wsiseg.geometry import Size

SIZE = Size(1301, 1103)
Pair = tuple[TissueMap, TissueMap]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """One map with all probabilities and with coarse ones."""
    folder = tmp_path_factory.mktemp("maps")
    for choice in ("full", "coarse"):
        stored_map(folder / f"{choice}.zarr", SIZE, probabilities=choice)
    return open_map(folder / "full.zarr"), open_map(folder / "coarse.zarr")


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_an_ome_tiff_has_the_levels_that_are_kept_at_their_resolution(pair: Pair, tmp_path: Path) -> None:
    coarse, path = pair[1], tmp_path / "p.ome.tif"
    written = export_ome_tiff(coarse, path, "probabilities")
    assert (written.width, written.height, written.levels) == (326, 276, 3)
    with tifffile.TiffFile(path) as file:
        (series,) = file.series
        for level, pixels in zip(coarse.levels_with_probabilities, series.levels, strict=True):
            assert np.array_equal(pixels.asarray(), coarse.probabilities(level).compute())
        (pixels,) = (tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"],)
    assert (pixels["PhysicalSizeX"], pixels["SizeX"], pixels["SizeC"]) == (2.0, 326, 3)
    export_ome_tiff(coarse, tmp_path / "c.ome.tif", "classes")
    assert tifffile.imread(tmp_path / "c.ome.tif").shape == SIZE.shape


def test_polygons_are_the_same_and_measures_say_that_they_are_estimates(pair: Pair, tmp_path: Path) -> None:
    documents = []
    for one in pair:
        assert command("export", one.path, "--geojson", tmp_path / "p.geojson", "--overwrite", "--quiet") == 0
        documents.append(json.loads((tmp_path / "p.geojson").read_text()))
    full, coarse = ({f["id"]: f for f in document["features"]} for document in documents)
    assert [f["geometry"] for f in full.values()] == [f["geometry"] for f in coarse.values()] != []
    means = [[f["properties"]["measurements"]["Mean probability"] for f in some.values()] for some in (full, coarse)]
    assert np.abs(np.subtract(*means)).max() < 0.03
    texts = [json.dumps(document) for document in documents]
    assert ["interpolated_from_um" in text for text in texts] == [False, True]


def test_ome_zarr_04_of_it_is_valid_and_that_of_a_full_map(pair: Pair, tmp_path: Path) -> None:
    for one in pair:
        export_ome_zarr_v2(one, tmp_path / one.path.name)
    full, coarse = (zarr.open_group(tmp_path / one.path.name, mode="r") for one in pair)
    assert open_ome_zarr(coarse).ome_zarr_version == "0.4"
    assert coarse.attrs["multiscales"][0]["datasets"] == full.attrs["multiscales"][0]["datasets"]
    for name in ("0", "2", "labels/tissue/0"):
        assert np.array_equal(coarse[name][:], full[name][:])


def test_python_objects_have_what_is_kept(pair: Pair) -> None:
    pytest.importorskip("xarray")
    full, coarse = pair
    assert "probabilities" in full.to_xarray(0)
    for level in (0, 1):
        assert "probabilities" not in coarse.to_xarray(level)
    assert np.array_equal(coarse.to_xarray(2)["probabilities"], coarse.probabilities(2).compute())


def test_info_says_how_they_are_kept(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    coarse = pair[1]
    assert command("info", coarse.path) == 0
    said = capsys.readouterr().out
    assert any("probabilities" in line and "coarse, 2" in line and "level 2" in line for line in said.splitlines())
    assert command("info", coarse.path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["probabilities"] == {"first_level": 2, "step": 5}
    assert "coarse" in repr(coarse) + coarse._repr_html_()
