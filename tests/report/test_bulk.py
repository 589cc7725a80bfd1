"""The bulk of tumours of known shape: areas within 1 %, whatever the scale of the map."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tests.helpers.report_maps import S, T, disc, ground, made_map
from wsiseg.errors import OptionError
from wsiseg.geometry import Mpp
from wsiseg.report.bulk import Bulk, BulkOptions, find_bulk
from wsiseg.report.coarse import CoarseMap
from wsiseg.report.discs import closed, eroded, filled, opened, within, without_small
from wsiseg.tissue_map.reader import open_map

CELLS = Mpp(8, 8)
MM2 = 64 / 1e6


def bulk_of(classes: np.ndarray, options: BulkOptions | None = None) -> Bulk:
    found = find_bulk(classes == T, classes > 0, CELLS, options or BulkOptions())
    assert found is not None
    return found


def mm2(mask: np.ndarray) -> float:
    return float(np.count_nonzero(mask)) * MM2


@pytest.mark.parametrize("mpp", [Mpp(8, 8), Mpp(7.9, 8.3)])
@pytest.mark.parametrize("distance", [8.0, 104.0, 500.0])
def test_within_is_the_distance_transform(mpp: Mpp, distance: float) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((1300, 1100)), 20)
    mask = noise > 0.03
    wanted = ndimage.distance_transform_edt(~mask, sampling=(mpp.y, mpp.x)) <= distance
    assert (within(mask, distance, mpp) == wanted).all()
    assert (eroded(mask, distance, mpp) == (ndimage.distance_transform_edt(mask, sampling=(mpp.y, mpp.x)) > distance)
            )[100:-100, 100:-100].all()  # fmt: skip


def test_closing_only_adds_and_opening_only_takes() -> None:
    mask = np.pad(ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((300, 300)), 6) > 0.02, 130)
    assert not (mask & ~closed(mask, 1000, CELLS)).any()
    assert not (opened(mask, 160, CELLS) & ~mask).any()
    assert np.array_equal(closed(closed(mask, 400, CELLS), 400, CELLS), closed(mask, 400, CELLS))


def test_small_parts_and_holes() -> None:
    classes = ground(4, 4, 0)
    ring = disc(classes, 2, 2, 1.5) & ~disc(classes, 2, 2, 1)
    speck = disc(classes, 0.2, 0.2, 0.1)
    assert np.array_equal(without_small(ring | speck, 0.1, CELLS), ring)
    assert np.array_equal(filled(ring), disc(classes, 2, 2, 1.5))


def test_a_disc_of_tumour_in_stroma() -> None:
    classes = ground(9, 10, S)
    classes[disc(classes, 5, 4.5, 2)] = T
    found = bulk_of(classes)
    assert mm2(found.outline) == pytest.approx(math.pi * 4, rel=0.01)
    assert mm2(found.bulk) == pytest.approx(math.pi * 2.25**2, rel=0.01)
    assert mm2(found.core) == pytest.approx(math.pi * 1.5**2, rel=0.01)
    assert mm2(found.inner) == pytest.approx(math.pi * (4 - 1.5**2), rel=0.01)
    assert mm2(found.outer) == pytest.approx(math.pi * (2.5**2 - 4), rel=0.01)
    assert found.real_outline == 1


def test_nests_of_tumour_make_one_bulk() -> None:
    """Nests of 0.1 mm, 0.3 mm apart, are less than a tenth of a tumour of 5 mm, and all of it is the bulk."""
    classes = ground(7, 7, S)
    y, x = np.indices(classes.shape)
    nests = ((y % 38) - 19) ** 2 + ((x % 38) - 19) ** 2 <= 6**2
    whole = disc(classes, 3.5, 3.5, 2.5)
    classes[nests & whole] = T
    assert 0.05 < (classes == T).sum() / whole.sum() < 0.1
    assert mm2(bulk_of(classes).outline) == pytest.approx(math.pi * 2.5**2, rel=0.12)
    assert mm2(bulk_of(classes).outline) < math.pi * 2.5**2


def test_specks_are_no_tumour_and_make_no_bulk() -> None:
    classes = ground(6, 6, S)
    classes[::40, ::40] = T
    assert find_bulk(classes == T, classes > 0, CELLS, BulkOptions()) is None
    classes[disc(classes, 3, 3, 0.5)] = T
    assert find_bulk(classes == T, classes > 0, CELLS, BulkOptions()) is None, "0.8 mm2 are below the smallest part"
    assert mm2(bulk_of(classes, BulkOptions.of("biopsy")).outline) == pytest.approx(math.pi / 4, rel=0.02)


def test_an_outline_at_the_tissues_edge_is_not_real() -> None:
    classes = ground(8, 8, S)
    classes[disc(classes, 4, 4, 2)] = T
    classes[:, classes.shape[1] // 2 :] = 0  # the right half is glass: a straight cut through the middle
    found = bulk_of(classes)
    # Half a circle of 6.6 mm is on tissue; the straight edge is not, 4 mm less two corners that the disc rounds off.
    assert 0.62 < found.real_outline < 0.7
    assert not found.outer[:, classes.shape[1] // 2 :].any()


def test_the_maps_edge_is_no_edge_of_the_tumour() -> None:
    """A tumour cut by the map's edge keeps its area, and the cut is not counted as outline."""
    classes = ground(4, 8, S)
    classes[disc(classes, 4, 0, 2)] = T
    found = bulk_of(classes)
    assert mm2(found.outline) == pytest.approx(math.pi * 2, rel=0.03)
    assert found.real_outline < 0.7


def test_a_scale_of_the_pyramid_is_chosen(tmp_path: Path) -> None:
    classes = ground(4, 6, S, mpp=2)
    classes[disc(classes, 3, 2, 1.2, mpp=2)] = T
    coarse = CoarseMap.of(open_map(made_map(tmp_path / "m.zarr", classes, mpp=2)))
    assert (coarse.level, coarse.mpp) == (1, Mpp(4, 4)) or (coarse.level, coarse.mpp) == (2, Mpp(8, 8))
    found = find_bulk(coarse.mask(T), coarse.tissue, coarse.mpp, BulkOptions())
    assert found is not None
    assert np.count_nonzero(found.outline) * coarse.cell_mm2 == pytest.approx(math.pi * 1.44, rel=0.01)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, 0.0, 1e6])
def test_impossible_options(value: float) -> None:
    with pytest.raises(OptionError, match="um, got"):
        BulkOptions(diameter_um=value)
    if value:
        with pytest.raises(OptionError):
            BulkOptions(least_mm2=value if value < 0 or not math.isfinite(value) else 1e5)


def test_the_buffer_is_an_option() -> None:
    classes = ground(6, 6, S)
    classes[disc(classes, 3, 3, 1)] = T
    for buffer_mm in (0.0, 0.5):
        found = bulk_of(classes, BulkOptions.of(buffer_um=1000 * buffer_mm))
        assert mm2(found.bulk) == pytest.approx(math.pi * (1 + buffer_mm) ** 2, rel=0.01)
