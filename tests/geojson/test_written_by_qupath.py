"""Annotations that QuPath's own code wrote: every kind is read as it was drawn.

The files in `tests/data/qupath` were written by qupath-core of the version in their names: a rectangle, an ellipse, a
hole, two parts, points, lines, a null class, a lock, a detection, a cell, and an annotation inside another.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsiseg.geojson.annotations import AnnotationFile, read_annotations

FILES = sorted((Path(__file__).parents[1] / "data" / "qupath").glob("annotations-*.geojson"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def file(request: pytest.FixtureRequest) -> AnnotationFile:
    return read_annotations(request.param)


def test_files_are_of_several_versions() -> None:
    assert [path.stem.removeprefix("annotations-") for path in FILES] == ["0.4.4", "0.6.0", "0.7.0"]


def test_areas(file: AnnotationFile) -> None:
    areas = [(a.class_name, a.name, a.area.bounds, a.area.area) for a in file.annotations if a.area is not None]
    assert [one[:3] for one in areas] == [
        ("Tumor", "", (100, 200, 400, 600)),
        ("Stroma", "", (1000, 100, 1400, 300)),
        ("Tumor: Positive", "", (100, 800, 500, 1200)),
        ("Immune cells", "", (700, 800, 1100, 900)),
        (None, "Reviewed", (0, 0, 2000, 1500)),
        ("Ignore*", "", (1200, 600, 1400, 750)),
        ("Region*", "", (1200, 900, 1500, 1200)),
        ("Necrosis", "", (1250, 950, 1300, 1010)),
    ]
    # QuPath writes an ellipse as a polygon, a little smaller than pi * 200 * 100.
    expected = [120_000, np.pi * 20_000, 150_000, 30_000, 3_000_000, 15_000, 90_000, 3_000]
    np.testing.assert_allclose([one[3] for one in areas], expected, rtol=1e-3)


def test_points(file: AnnotationFile) -> None:
    points = [(a.class_name, a.points.tolist()) for a in file.annotations if a.area is None]
    assert points == [("Lymphocytes", [[1500.25, 300], [1600.5, 350.75]]), (None, [[1700, 400]])]


def test_ids_locks_and_what_is_left_out(file: AnnotationFile) -> None:
    assert len({a.identifier for a in file.annotations} - {""}) == len(file.annotations) == 10
    assert [a.name for a in file.annotations if a.locked] == ["Reviewed"]
    assert file.left_out == {
        "lines, which have no area": 2,
        "objects that are no annotations (detections, cells, cores)": 2,
    }
