"""OME-TIFF: the same values as the map on every level, valid against OME's schema, and read by others."""

from pathlib import Path

import numpy as np
import ome_types
import pytest
import rasterio
import tifffile
from PIL import Image

from tests.helpers.stored_maps import CLASSES, provenance, stored_map
from wsiseg.classes import ClassTable
from wsiseg.errors import MapError, OptionError, OutputError
from wsiseg.export import ome_tiff
from wsiseg.export.ome_tiff import export_ome_tiff
from wsiseg.geometry import Size
from wsiseg.tissue_map.reader import TissueMap, open_map


@pytest.fixture(scope="module")
def tissue_map(tmp_path_factory: pytest.TempPathFactory) -> TissueMap:
    path = tmp_path_factory.mktemp("map") / "map.zarr"
    stored_map(path)
    return open_map(path)


def levels_of(path: Path) -> list[np.ndarray]:
    with tifffile.TiffFile(path) as file:
        (series,) = file.series
        assert series.kind == "ome"
        return [level.asarray() for level in series.levels]


def test_each_level_has_the_values_of_the_map(tissue_map: TissueMap, tmp_path: Path) -> None:
    table = np.full((256, 3), 255, np.uint8)
    table[1:4] = [c.color for c in CLASSES]
    contents = {
        "colors": lambda level: table[tissue_map.class_map(level).compute()],
        "classes": lambda level: tissue_map.class_map(level).compute(),
        "probabilities": lambda level: tissue_map.probabilities(level).compute(),
    }
    assert {0, 1, 2, 3, 255} == set(np.unique(contents["classes"](0)))
    for content, expected in contents.items():
        path = tmp_path / f"{content}.ome.tif"
        written = export_ome_tiff(tissue_map, path, content)
        found = levels_of(path)
        assert len(found) == written.levels == tissue_map.levels == 3
        assert written.bytes == path.stat().st_size
        for level, pixels in enumerate(found):
            assert np.array_equal(pixels, expected(level)), (content, level)
    assert [entry.name for entry in sorted(tmp_path.iterdir())] == [f"{name}.ome.tif" for name in sorted(contents)]


def test_a_model_of_one_class_has_one_channel(tmp_path: Path) -> None:
    about = provenance()
    about["areas"] = about["areas"][:1]
    stored_map(tmp_path / "map.zarr", Size(31, 600), classes=ClassTable.from_names(["Glands"]), about=about)
    tissue_map = open_map(tmp_path / "map.zarr")
    export_ome_tiff(tissue_map, tmp_path / "p.ome.tif", "probabilities")
    found = levels_of(tmp_path / "p.ome.tif")
    assert len(found) == tissue_map.levels == 2
    for level, pixels in enumerate(found):
        assert np.array_equal(pixels.reshape(1, *pixels.shape[-2:]), tissue_map.probabilities(level).compute())
    (image,) = ome_types.from_xml(tifffile.tiffcomment(tmp_path / "p.ome.tif")).images
    assert [channel.name for channel in image.pixels.channels] == ["Glands"]


def test_size_names_and_colours_stand_in_valid_ome_xml(tissue_map: TissueMap, tmp_path: Path) -> None:
    export_ome_tiff(tissue_map, tmp_path / "p.ome.tif", "probabilities")
    xml = tifffile.tiffcomment(tmp_path / "p.ome.tif")
    ome_types.validate_xml(xml)
    (image,) = ome_types.from_xml(xml).images
    pixels = image.pixels
    assert (pixels.physical_size_x, pixels.physical_size_y, pixels.physical_size_x_unit.value) == (0.5, 0.5, "µm")
    assert [channel.name for channel in pixels.channels] == list(CLASSES.names)
    assert [channel.color.as_rgb_tuple() for channel in pixels.channels] == [c.color for c in CLASSES]
    (pairs,) = ome_types.from_xml(xml).structured_annotations
    named = {pair.k: pair.value for pair in pairs.value.ms}
    assert (named["slide"], named["model"]) == ("a.svs", "m")
    assert named["class 2"] == "Stroma, #00C800, 0.2500 mm2"


def test_other_readers_find_tiles_pixels_and_resolution(tissue_map: TissueMap, tmp_path: Path) -> None:
    path = tmp_path / "c.ome.tif"
    export_ome_tiff(tissue_map, path)
    with rasterio.open(path) as file:
        assert file.profile["tiled"]
        assert (file.profile["blockxsize"], file.profile["compress"]) == (512, "deflate")
        assert np.array_equal(file.read().transpose(1, 2, 0), levels_of(path)[0])
    with Image.open(path) as picture:
        assert picture.info["dpi"] == pytest.approx((50800, 50800))
    with tifffile.TiffFile(path) as file:
        assert not file.is_bigtiff
        assert [page.subfiletype for page in file.pages[0].pages] == [1, 1]
        second = file.series[0].levels[1].keyframe.tags["XResolution"].value
    assert second[0] / second[1] == pytest.approx(1e4)  # 1 um per pixel


def test_names_from_files_cannot_break_the_xml(tmp_path: Path) -> None:
    classes = ClassTable.from_names(['A"><script>&amp;', "Ü <b> 'ß' ]]>", "{x} {0} %s"])
    stored_map(tmp_path / "m.zarr", Size(60, 50), classes=classes, about=provenance("a\x1b[31m\x00 & <b>.svs", "m<&>"))
    path = tmp_path / "p.ome.tif"
    export_ome_tiff(open_map(tmp_path / "m.zarr"), path, "probabilities")
    xml = tifffile.tiffcomment(path)
    ome_types.validate_xml(xml)
    (image,) = ome_types.from_xml(xml).images
    assert [channel.name for channel in image.pixels.channels] == list(classes.names)
    assert image.name.startswith("a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER} & <b>.svs")
    assert len(levels_of(path)) == 1


def test_a_file_too_large_for_32_bits_is_bigtiff(
    tissue_map: TissueMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ome_tiff, "CLASSIC_BYTES", 10**6)
    export_ome_tiff(tissue_map, tmp_path / "a.ome.tif", "classes")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert file.is_bigtiff
    assert np.array_equal(levels_of(tmp_path / "a.ome.tif")[0], tissue_map.class_map().compute())


def test_the_same_map_gives_the_same_bytes(tissue_map: TissueMap, tmp_path: Path) -> None:
    for name in ("a.ome.tif", "b.ome.tiff"):
        export_ome_tiff(tissue_map, tmp_path / name)
    assert (tmp_path / "a.ome.tif").read_bytes() == (tmp_path / "b.ome.tiff").read_bytes()


def test_what_cannot_be_written_leaves_nothing(tissue_map: TissueMap, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"\.ome\.tif"):
        export_ome_tiff(tissue_map, tmp_path / "a.tif")
    with pytest.raises(OptionError, match="colors, classes, probabilities"):
        export_ome_tiff(tissue_map, tmp_path / "a.ome.tif", "palette")
    (tmp_path / "b.ome.tif").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        export_ome_tiff(tissue_map, tmp_path / "b.ome.tif")
    assert (tmp_path / "b.ome.tif").read_text() == "mine"
    stored_map(tmp_path / "m.zarr", Size(600, 500), probabilities=False)
    with pytest.raises(OptionError, match="without probabilities"):
        export_ome_tiff(open_map(tmp_path / "m.zarr"), tmp_path / "c.ome.tif", "probabilities")
    (shard,) = (file for file in (tmp_path / "m.zarr" / "labels" / "tissue" / "0" / "c").rglob("*") if file.is_file())
    shard.write_bytes(shard.read_bytes()[:-40] + bytes(40))
    with pytest.raises(MapError, match="damaged"):
        export_ome_tiff(open_map(tmp_path / "m.zarr"), tmp_path / "c.ome.tif")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b.ome.tif", "m.zarr"]
