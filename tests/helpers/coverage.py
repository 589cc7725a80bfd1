"""What holds of polygons that cover a map."""

from __future__ import annotations

import numpy as np
import pytest
import shapely


def assert_coverage(found: dict[int, list[shapely.Polygon]]) -> None:
    polygons = np.array([polygon for part in found.values() for polygon in part], object)
    assert shapely.is_valid(polygons).all()
    assert (shapely.area(polygons) > 0).all()
    if len(polygons):
        assert shapely.coverage_is_valid(polygons)
        total = float(shapely.area(polygons).sum())
        assert shapely.union_all(polygons).area == pytest.approx(total, rel=1e-12)  # no overlap
