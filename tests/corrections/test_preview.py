"""`correct --dry-run` says what `correct` then does, correction by correction, and writes nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from tests.helpers.commands import Run, run  # noqa: F401
from tests.helpers.corrections import TISSUE, area_of, drawn, exported, regions
from tests.helpers.stored_maps import CLASSES
from wsiseg.cli.main import main
from wsiseg.corrections.run import CorrectOptions, correct
from wsiseg.datasets.dataset import read_dataset
from wsiseg.slides import open_slide
from wsiseg.tissue_map.reader import open_map

PATCH = 96


def square(x: int, y: int, side: int) -> Any:
    return shapely.box(x, y, x + side, y + side)


@pytest.fixture
def features(mapped: Path) -> list[dict[str, Any]]:
    """Whole patches of another class, a sliver, a region that is gone, one of another class, points."""
    found = regions(mapped)
    names = list(CLASSES.names)
    own = found[1]["properties"]["classification"]
    own["name"] = next(name for name in names if name != own["name"])
    left, top = (PATCH * (value // PATCH + 1) for value in (TISSUE.x, TISSUE.y))  # a level-0 pixel is a map's, nearly
    deleted = next(i for i in range(2, len(found)) if area_of(found[i]).area > 100)
    return [
        *found[:deleted], *found[deleted + 1 :],
        drawn(square(left, top, 4 * PATCH), names[0]),
        drawn(square(left + 10 * PATCH, top + 10 * PATCH, 2), names[0]),
        drawn(shapely.MultiPoint([(50, 50)]), names[2]),
    ]  # fmt: skip


def test_it_says_what_correct_then_does(
    mapped: Path,
    slide: Path,
    features: list[dict[str, Any]],
    tmp_path: Path,
    run: Run,  # noqa: F811
) -> None:
    file = exported(tmp_path / "corrected.geojson", features, "0.7")
    before = sorted(tmp_path.rglob("*"))
    output = run(
        "correct", mapped / "map.zarr", "--corrected", file, "--slide", slide, "--dry-run", "--json",
        "--out", tmp_path / "out",
    )  # fmt: skip
    told = json.loads(output)
    assert sorted(tmp_path.rglob("*")) == before
    with open_slide(slide) as opened:
        record = correct(open_map(mapped / "map.zarr"), file, opened, tmp_path / "out", CorrectOptions())
    for key in ("changes", "moved", "patches", "masks", "notes", "patch_px", "partial"):
        assert told[key] == record[key], key
    masks = [patch.read_truth(3) for patch in read_dataset(tmp_path / "out").train if patch.mask is not None]
    um2 = open_map(mapped / "map.zarr").grid.mpp.pixel_area_um2
    for channel, name in enumerate(CLASSES.names):
        own = dict(told["labels"][name])
        pixels = sum(int((mask == channel).sum()) for mask in masks)
        assert own.pop("mask_um2") == pytest.approx(pixels * um2)
        assert own == record["labels"][name]


def test_each_correction_has_its_row(
    mapped: Path,
    slide: Path,
    features: list[dict[str, Any]],
    tmp_path: Path,
    run: Run,  # noqa: F811
) -> None:
    file = exported(tmp_path / "corrected.geojson", features, "0.7")
    command = ("correct", mapped / "map.zarr", "--corrected", file, "--slide", slide, "--dry-run")
    rows = json.loads(run(*command, "--json"))["regions"]
    kinds = [row["kind"] for row in rows]
    assert sorted(kinds) == sorted(["class changed", "new", "new", "points", "deleted"])
    changed, whole, sliver, points, deleted = (rows[i] for i in np.argsort([row["feature"] or 1e9 for row in rows]))
    assert changed["from"] != changed["to"] and changed["feature"] == 2
    grid = open_map(mapped / "map.zarr").grid
    assert whole["labels"] == 4 * 4
    assert 4 * 4 <= whole["masks"] <= 5 * 5
    assert whole["strength"] == "labels and masks"
    assert whole["area_um2"] == pytest.approx((4 * PATCH) ** 2 * grid.mpp.pixel_area_um2 / grid.step_x**2)
    assert sliver["labels"] == 0
    assert (points["labels"], points["masks"], points["strength"]) == (1, 0, "labels")
    assert deleted["feature"] is None and deleted["to"] is None
    text = run(*command)
    assert text.count("\n") > len(rows) and "wrote nothing" in text


def test_what_correct_refuses_is_refused(
    mapped: Path, slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = exported(tmp_path / "corrected.geojson", regions(mapped), "0.7")
    command = ["correct", str(mapped / "map.zarr"), "--corrected", str(file), "--slide", str(slide)]
    for arguments, message in ((["--dry-run"], "as they were"), ([], "or --dry-run to see")):
        with pytest.raises(SystemExit) as stop:
            main([*command, *arguments])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
