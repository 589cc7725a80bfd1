"""Grids and files of polygons that several tests use."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, settings

from wsiseg.geojson.write import Identity
from wsiseg.geometry import Grid, Mpp, Size

IDENTITY = Identity("aa" * 32, "bb" * 32)


WRITTEN_ONCE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def grid_of(classes: np.ndarray, step_x: float = 2.0, step_y: float | None = None, mpp0: float = 0.25) -> Grid:
    step_y = step_x if step_y is None else step_y
    return Grid(
        Size(classes.shape[1], classes.shape[0]), Mpp(mpp0 * step_x, mpp0 * step_y), step_x, step_y, 0, step_x, step_y
    )
