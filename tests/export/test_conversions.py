"""Maps as xarray, geopandas, shapely and spatialdata have them: values, places, names."""

import sys
from pathlib import Path

import numpy as np
import pytest
from rasterio.features import rasterize

from tests.helpers.stored_maps import CLASSES, STEP, provenance, stored_map
from wsiseg.classes import WHITE_VALUE
from wsiseg.errors import MissingExtraError
from wsiseg.export.conversions import ClassPolygon
from wsiseg.export.opened_map import TissueMap, open_map
from wsiseg.export.polygons import VectorOptions
from wsiseg.geometry import Size

SIZE = Size(701, 600)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[TissueMap, np.ndarray, np.ndarray]:
    path = tmp_path_factory.mktemp("map") / "map.zarr"
    about = provenance()
    about["slide"] |= {"width": 1401, "height": 1200}  # ends within the last column of the map
    classes, values = stored_map(path, SIZE, about=about)
    return open_map(path), classes, values


def test_xarray_has_values_names_and_um(stored: tuple[TissueMap, np.ndarray, np.ndarray]) -> None:
    tissue_map, classes, values = stored
    found = tissue_map.to_xarray()
    assert found.classes.dims == ("y", "x")
    assert found.probabilities.dims == ("c", "y", "x")
    assert np.array_equal(found.classes, classes)
    assert np.array_equal(found.probabilities.sel(c="Stroma"), values[1])
    assert found.classes.attrs["class_names"] == list(CLASSES.names)
    assert found.classes.chunks is not None  # lazy
    assert (found.x.attrs["units"], float(found.x[3] - found.x[2])) == ("micrometer", 0.5)
    for level in range(tissue_map.levels):
        placed, coarse = tissue_map.transform(level), tissue_map.to_xarray(level)
        assert float(coarse.y[0]) == placed.translation[0]
        assert float(coarse.x[5]) == pytest.approx(placed.translation[1] + 5 * placed.scale[1])
        assert np.array_equal(coarse.classes, tissue_map.class_map(level).compute())


def of_a_slide(path: Path) -> TissueMap:
    """A map with white, of a slide that ends within a map pixel."""
    about = provenance()
    about["slide"] |= {"width": 1401, "height": 1200}
    stored_map(path, SIZE, about=about)
    return open_map(path)


def test_polygons_lie_on_the_slide(tmp_path: Path) -> None:
    tissue_map = of_a_slide(tmp_path / "m.zarr")
    classes = tissue_map.class_map().compute()
    exact = tissue_map.polygons(VectorOptions(exact=True))
    assert exact.crs is None
    assert list(exact["class"]) == ["Tumour", "Stroma", "Lymphocytes"]
    shapes = list(zip(exact.geometry, exact.value.tolist(), strict=True))
    drawn = rasterize(shapes, out_shape=(1200, 1402), fill=0, dtype=np.uint8)
    assert (classes == WHITE_VALUE).any()
    expected = np.kron(np.where(classes == WHITE_VALUE, 0, classes), np.ones((int(STEP), int(STEP)), np.uint8))
    expected[:, 1401:] = 0  # the slide has no such column
    assert np.array_equal(drawn, expected)
    counts = [(expected == c.index).sum() * 0.25**2 / 1e6 for c in CLASSES]
    assert exact.area_mm2.tolist() == pytest.approx(counts)
    simple = tissue_map.polygons(VectorOptions(min_area_um2=0))
    assert len(simple) > 3
    assert simple.attrs["summary"]["polygons"] == len(simple)
    assert simple.total_bounds[2] <= 1401
    by_class = simple.groupby("class").area_mm2.sum()
    assert [by_class[name] for name in CLASSES.names] == pytest.approx(counts, rel=0.05)


def test_without_geopandas_polygons_are_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tissue_map = of_a_slide(tmp_path / "m.zarr")
    frame = tissue_map.polygons(VectorOptions(exact=True))
    monkeypatch.setitem(sys.modules, "geopandas", None)
    rows = tissue_map.polygons(VectorOptions(exact=True))
    assert [type(row) for row in rows] == [ClassPolygon] * 3
    assert [(row.index, row.name) for row in rows] == [(c.index, c.name) for c in CLASSES]
    assert [row.geometry.area for row in rows] == frame.geometry.area.tolist()


@pytest.mark.parametrize(
    ("library", "call", "how"),
    [
        ("xarray", lambda tissue_map: tissue_map.to_xarray(), r"wsiseg\[python\]"),
        ("pandas", lambda tissue_map: tissue_map.areas.to_pandas(), r"wsiseg\[python\]"),
        ("spatialdata", lambda tissue_map: tissue_map.to_spatialdata(), "pip install spatialdata"),
    ],
)
def test_a_missing_library_is_named(
    stored: tuple[TissueMap, np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    library: str,
    call: object,
    how: str,
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=how):
        call(stored[0])


def test_spatialdata_writes_and_reads_it(tmp_path: Path) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    tissue_map = of_a_slide(tmp_path / "m.zarr")
    made = tissue_map.to_spatialdata()
    made.write(tmp_path / "sd.zarr")
    found = spatialdata.read_zarr(tmp_path / "sd.zarr")
    classes = tissue_map.class_map().compute()
    assert np.array_equal(found["tissue"]["scale0"]["image"].data.compute(), classes)
    assert np.array_equal(
        found["probabilities"]["scale1"]["image"].data.compute(), tissue_map.probabilities(1).compute()
    )
    assert found["classes"].obs["class"].tolist() == list(CLASSES.names)
    labels, shapes = (spatialdata.get_extent(found[name]) for name in ("tissue", "polygons"))
    assert labels["x"] == (0, 350.5)  # um
    assert shapes["x"][1] == pytest.approx(1401 * 0.25)
    cut = spatialdata.bounding_box_query(
        found,
        axes=("x", "y"),
        min_coordinate=[100, 50],
        max_coordinate=[200, 150],
        target_coordinate_system="global",
    )
    assert np.array_equal(cut["tissue"]["scale0"]["image"], classes[100:300, 200:400])
