"""The commands as a user types them, on a real slide with a small model."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.bundles import coarse_bundle
from tests.helpers.commands import Run, run
from tests.helpers.qupath_rules import check_qupath
from wsiseg.cli.main import main
from wsiseg.tissue_map.reader import open_map

__all__ = ["run"]  # a fixture

TORCH = ("--runtime", "torch")
"""Without the seconds that OpenVINO takes to compile networks; the first test is one of it."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coarse_bundle(tmp_path_factory.mktemp("bundle") / "coarse")


def test_predict_then_export(run: Run, tmp_path: Path, sample_data: Path, bundle: Path) -> None:
    slide, out = sample_data / "CMU-1-Small-Region.svs", tmp_path / "map.zarr"
    shown = run("predict", slide, "--out", out, "--model", bundle)
    for part in (
        "mm²",
        "mm² in polygons",
        "% of tissue",
        "tissue",
        "read",
        "skipped",
        "gated",
        "seconds",
        "map.zarr",
        "map.geojson",
    ):
        assert part in shown
    check_qupath(tmp_path / "map.geojson")
    metadata = open_map(out).metadata

    run("export", out, "--geojson", tmp_path / "e.geojson.gz", "--exact")
    check_qupath(tmp_path / "e.geojson.gz")
    asked = ("--min-area", 100, "--qupath-names", "--csv", tmp_path / "a.csv")
    said = run("export", out, "--geojson", tmp_path / "a.geojson", *asked)
    assert "with the --min-area and --tolerance given, areas of polygons differ" in said
    assert "polygons_mm2" in (tmp_path / "a.csv").read_text()
    run("export", out, "--png", tmp_path / "e.png", "--slide", slide, "--csv", tmp_path / "e.csv")
    picture = np.asarray(Image.open(tmp_path / "e.png"))
    height, width = open_map(out).size.shape
    assert picture.shape[1] == width
    assert picture.shape[0] > height  # the legend below
    with (tmp_path / "e.csv").open() as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["A", "B", "C"]
    tissue = [float(row["tissue_mm2"]) for row in rows.values()]
    assert tissue == pytest.approx([metadata["tissue_mm2"]] * 3, abs=1e-6)
    assert sum(float(row["area_mm2"]) for row in rows.values()) == pytest.approx(
        metadata["tissue_mm2"] - metadata["white_mm2"], abs=1e-5
    )

    again = run("predict", slide, "--out", out, *TORCH, "--model", bundle, "--overwrite", "--no-geojson", "--json")
    assert json.loads(again)["counts"]["read"] == metadata["tiles"]["read"]


def test_a_picture_needs_the_slide_that_the_map_was_made_from(
    run: Run, tmp_path: Path, sample_data: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "map.zarr"
    run("predict", sample_data / "CMU-1-Small-Region.svs", "--out", out, *TORCH, "--model", bundle, "--quiet")
    with pytest.raises(SystemExit) as stop:
        main(
            ["export", str(out), "--png", str(tmp_path / "e.png"), "--slide", str(sample_data / "OS-1-detail.ome.tif")]
        )
    assert stop.value.code == 2
    assert "was made from CMU-1-Small-Region.svs" in capsys.readouterr().err
    assert not (tmp_path / "e.png").exists()


def test_an_ome_tiff_goes_through_as_well(run: Run, tmp_path: Path, sample_data: Path, bundle: Path) -> None:
    shown = run("predict", sample_data / "OS-1-detail.ome.tif", "--out", tmp_path / "m.zarr", *TORCH, "--model", bundle)
    assert "m.zarr" in shown
    assert open_map(tmp_path / "m.zarr").metadata["slide"]["reader"] == "tifffile"


def test_models_lists_what_ships(run: Run) -> None:
    assert "tissue-brca-lite" in run("models")


def test_several_slides_get_a_map_each_and_one_that_fails_is_told(
    run: Run, tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        Image.fromarray(np.full((120, 160, 3), (150, 60, 190), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    slides = [tmp_path / f"{name}.png" for name in "abc"]
    options = ["--out", tmp_path / "maps", *TORCH, "--model", bundle, "--mpp", "2", "--tissue", "none"]
    with pytest.raises(SystemExit) as stop:
        main([str(part) for part in ("predict", *slides, *options, "--json", "--log", tmp_path / "log.jsonl")])
    assert stop.value.code == 2
    shown = capsys.readouterr()
    *results, last = [json.loads(line) for line in shown.out.splitlines()]
    assert [result["error"] is None for result in results] == [True, True, False]
    assert [result["status"] for result in results] == ["done", "done", "failed"]
    assert last["summary"]["counts"] | {"done": 2, "failed": 1} == last["summary"]["counts"]
    assert last["summary"]["failed"][0]["slide"] == str(slides[2])
    assert "1 of 3 slides failed" in shown.err
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    told = [event for event in events if event["event"] in ("slide", "finished", "failed")]
    assert [event["event"] for event in told] == ["slide", "finished", "slide", "finished", "slide", "failed"]
    assert [event["slide"] for event in told if event["event"] == "slide"] == [str(slide) for slide in slides]
    assert [event["phase"] for event in events if event["event"] == "begin"].count("tiles") == 2
    assert [event["counts"] for event in events if event["event"] == "summary"] == [last["summary"]["counts"]]
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {"a.zarr", "a.geojson", "b.zarr", "b.geojson"}
    assert not [line for line in shown.err.splitlines() if line.startswith("tiles")]  # JSON is for programs
    (tmp_path / "maps" / "a.geojson").unlink()
    shutil.rmtree(tmp_path / "maps" / "a.zarr")
    lines = run("predict", *slides[:2], *options).splitlines()
    assert str(slides[0]) in lines
    assert str(slides[1]) not in lines
    assert any(line.startswith("tiles") for line in lines)
    again = run("predict", *slides[:2], *options)
    assert again.count("had its map already") == 2
    assert "2 slides: 0 done, 2 had their map already, 0 failed" in again
    other = [*options, "--overlap", "0"]
    with pytest.raises(SystemExit) as stop:
        main([str(part) for part in ("predict", *slides[:2], *other)])
    assert stop.value.code == 2
    assert "exists and was made with overlap" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main([str(part) for part in ("predict", *slides[:2], *options, "--geojson", tmp_path / "x.geojson")])
    assert stop.value.code == 2
    assert "one map" in capsys.readouterr().err


def test_one_slide_into_a_folder_and_what_lies_beside_it(
    run: Run, tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `slides/*.png` and `slides/*` mean does not depend on how many slides there are."""
    (tmp_path / "slides").mkdir()
    Image.fromarray(np.full((120, 160, 3), (150, 60, 190), np.uint8)).save(tmp_path / "slides" / "a.png")
    (tmp_path / "slides" / "._a.png").write_bytes(b"of a Mac")
    options = [*TORCH, "--model", bundle, "--mpp", "2", "--tissue", "none"]
    shown = run("predict", tmp_path / "slides" / "a.png", "--out", tmp_path / "maps", *options)
    assert "1 slides: 1 done" in shown
    assert open_map(tmp_path / "maps" / "a.zarr").metadata["slide"]["name"] == "a.png"
    shown = run("predict", *sorted((tmp_path / "slides").iterdir()), "--out", tmp_path / "maps", *options)
    assert "had its map already" in shown
    assert "._a.png: skipped, a hidden file" in shown
    assert "1 names skipped" in shown
    for out, slides, message in (
        ("map.zar", ["a.png"], "ends in .zarr, or a folder, got"),
        ("map.zarr", ["a.png", "b.png"], "2 slides need a folder"),
        ("new", ["._a.png"], "none of the 1 names is a slide"),
    ):
        given = [tmp_path / "slides" / name for name in slides]
        with pytest.raises(SystemExit) as stop:
            main([str(part) for part in ("predict", *given, "--out", tmp_path / out, *options)])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / out).exists()


def test_a_map_without_polygons_says_how_to_draw_them(
    run: Run, tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.full((120, 160, 3), (150, 60, 190), np.uint8)).save(tmp_path / "a.png")
    command = ["predict", tmp_path / "a.png", "--out", tmp_path / "m.zarr", *TORCH, "--model", bundle, "--mpp", "2"]
    run(*command, "--no-geojson", "--tissue", "none")
    with pytest.raises(SystemExit) as stop:
        main([str(part) for part in command])
    assert stop.value.code == 2
    assert "wsiseg export" in capsys.readouterr().err


def test_a_defect_in_one_slide_does_not_end_a_batch_and_shows_in_the_exit_code(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsiseg.prediction import many

    for name in "ab":
        Image.fromarray(np.full((120, 160, 3), (150, 60, 190), np.uint8)).save(tmp_path / f"{name}.png")
    predicted = many.predict_opened

    def fail(job: Any, *rest: Any, **options: Any) -> Any:
        if job.slide.name == "a.png":
            raise ZeroDivisionError("division by zero")
        return predicted(job, *rest, **options)

    monkeypatch.setattr(many, "predict_opened", fail)
    options = ["--out", tmp_path / "maps", *TORCH, "--model", bundle, "--mpp", "2", "--tissue", "none"]
    with pytest.raises(SystemExit) as stop:
        main([str(part) for part in ("predict", tmp_path / "a.png", tmp_path / "b.png", *options)])
    assert stop.value.code == 1
    shown = capsys.readouterr()
    assert "Traceback" in shown.err
    assert "please report it" in shown.err
    assert (tmp_path / "maps" / "b.zarr").is_dir()
