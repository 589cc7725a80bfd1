"""OME-Zarr 0.4: what two validators accept and Zarr 2 reads, the same values as the map on every level."""

from pathlib import Path

import numpy as np
import pytest
import yaozarrs
import zarr
from ome_zarr_models import open_ome_zarr

from tests.helpers.stored_maps import CLASSES, stored_map
from wsiseg.errors import MapError, OptionError, OutputError
from wsiseg.export.ome_zarr_v2 import MOST_FILES, PLANES, chunk_px, export_ome_zarr_v2
from wsiseg.geometry import Size, ceil_div
from wsiseg.tissue_map.reader import TissueMap, open_map


@pytest.fixture(scope="module")
def tissue_map(tmp_path_factory: pytest.TempPathFactory) -> TissueMap:
    path = tmp_path_factory.mktemp("map") / "map.zarr"
    stored_map(path, Size(1301, 2100))
    return open_map(path)


def test_each_level_has_the_values_of_the_map(tissue_map: TissueMap, tmp_path: Path) -> None:
    written = export_ome_zarr_v2(tissue_map, tmp_path / "a.zarr")
    files = [file for file in (tmp_path / "a.zarr").rglob("*") if file.is_file()]
    assert (written.files, written.levels) == (len(files), tissue_map.levels)
    assert written.bytes == sum(file.stat().st_size for file in files)
    assert not list((tmp_path / "a.zarr").rglob("zarr.json"))
    root = zarr.open_group(tmp_path / "a.zarr", mode="r", zarr_format=2)
    table = np.full((256, 3), 255, np.uint8)
    table[1:4] = [c.color for c in CLASSES]
    for level in range(tissue_map.levels):
        expected = tissue_map.class_map(level).compute()
        assert np.array_equal(root[f"labels/tissue/{level}"][:], expected)
        assert np.array_equal(root[str(level)][:], table[expected].transpose(2, 0, 1))
    assert (tmp_path / "a.zarr" / "0" / "0" / "1" / "1").is_file()  # "/" between the places of a chunk
    assert not [entry for entry in tmp_path.iterdir() if entry.name != "a.zarr"]


def test_two_validators_accept_picture_and_labels(tissue_map: TissueMap, tmp_path: Path) -> None:
    export_ome_zarr_v2(tissue_map, tmp_path / "a.zarr")
    for place in (tmp_path / "a.zarr", tmp_path / "a.zarr" / "labels" / "tissue"):
        yaozarrs.validate_zarr_store(str(place))
        assert open_ome_zarr(zarr.open_group(place, mode="r")).ome_zarr_version == "0.4"
    root = zarr.open_group(tmp_path / "a.zarr", mode="r")
    label = root["labels/tissue"].attrs["image-label"]
    assert root["labels"].attrs["labels"] == ["tissue"]
    assert label["properties"][2] == {"label-value": 2, "class": "Stroma"}
    assert label["colors"][1] == {"label-value": 1, "rgba": [200, 0, 0, 255]}
    assert label["colors"][-1] == {"label-value": 255, "rgba": [255, 255, 255, 0]}
    for level, dataset in enumerate(root.attrs["multiscales"][0]["datasets"]):
        steps = {step["type"]: step[step["type"]] for step in dataset["coordinateTransformations"]}
        placed = tissue_map.transform(level)
        assert steps["scale"] == [1, *placed.scale]
        assert tuple(steps.get("translation", [0, 0, 0])[1:]) == placed.translation
    assert [channel["label"] for channel in root.attrs["omero"]["channels"]] == ["Red", "Green", "Blue"]


def test_glass_takes_no_file_and_chunks_grow_with_the_map(tmp_path: Path) -> None:
    stored_map(tmp_path / "m.zarr", Size(100, 60))
    written = export_ome_zarr_v2(open_map(tmp_path / "m.zarr"), tmp_path / "a.zarr")
    assert written.chunk_px == 1024
    for side, chunk in ((20_000, 1024), (100_000, 2048), (200_000, 4096)):
        sizes = [Size(side // 2**level, side // 2**level) for level in range(8)]
        assert chunk_px(sizes) == chunk
        count = PLANES * sum(ceil_div(size.width, chunk) * ceil_div(size.height, chunk) for size in sizes)
        assert count <= MOST_FILES


def test_only_exports_are_replaced(tissue_map: TissueMap, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    export_ome_zarr_v2(tissue_map, path)
    with pytest.raises(OutputError, match="exists"):
        export_ome_zarr_v2(tissue_map, path)
    export_ome_zarr_v2(tissue_map, path, overwrite=True)
    for name in ("mine.zarr", "map.zarr"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine.zarr" / "chapter.txt").write_text("years")
    (tmp_path / "mine.zarr" / ".zattrs").write_text("{no json")
    zarr.open_group(tmp_path / "map.zarr", mode="w", zarr_format=2)
    for name in ("mine.zarr", "map.zarr"):
        with pytest.raises(OutputError, match=r"not a store in OME-Zarr 0\.4"):
            export_ome_zarr_v2(tissue_map, tmp_path / name, overwrite=True)
    with pytest.raises(OutputError):  # the map itself
        export_ome_zarr_v2(tissue_map, tissue_map.path, overwrite=True)
    with pytest.raises(OptionError, match=r"\.zarr"):
        export_ome_zarr_v2(tissue_map, tmp_path / "a.ome")


def test_a_damaged_map_leaves_nothing(tmp_path: Path) -> None:
    stored_map(tmp_path / "m.zarr", Size(600, 500))
    (shard,) = (file for file in (tmp_path / "m.zarr" / "labels" / "tissue" / "1" / "c").rglob("*") if file.is_file())
    shard.write_bytes(shard.read_bytes()[:-40] + bytes(40))
    with pytest.raises(MapError, match="damaged"):
        export_ome_zarr_v2(open_map(tmp_path / "m.zarr"), tmp_path / "a.zarr")
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.zarr"]
