"""The commands as a user types them, on a real slide with a small model."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.models.bundles import coarse_bundle
from tests.qupath_rules import check_qupath
from wsiseg.cli.main import main
from wsiseg.tissue_map import open_map

Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must succeed; returns what it prints."""

    def call(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        assert stop.value.code == 0, shown.err
        return shown.out + shown.err

    return call


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
        rows = {row["class"]: float(row["area_mm2"]) for row in csv.DictReader(file)}
    assert rows["(tissue)"] == pytest.approx(metadata["tissue_mm2"], abs=1e-6)
    assert sum(rows[name] for name in "ABC") == pytest.approx(rows["(tissue)"], abs=1e-5)

    again = run("predict", slide, "--out", out, "--model", bundle, "--overwrite", "--no-geojson", "--json")
    assert json.loads(again)["counts"]["read"] == metadata["tiles"]["read"]


def test_a_picture_needs_the_slide_that_the_map_was_made_from(
    run: Run, tmp_path: Path, sample_data: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "map.zarr"
    run("predict", sample_data / "CMU-1-Small-Region.svs", "--out", out, "--model", bundle, "--quiet")
    with pytest.raises(SystemExit) as stop:
        main(
            ["export", str(out), "--png", str(tmp_path / "e.png"), "--slide", str(sample_data / "OS-1-detail.ome.tif")]
        )
    assert stop.value.code == 2
    assert "was made from CMU-1-Small-Region.svs" in capsys.readouterr().err
    assert not (tmp_path / "e.png").exists()


def test_an_ome_tiff_goes_through_as_well(run: Run, tmp_path: Path, sample_data: Path, bundle: Path) -> None:
    shown = run("predict", sample_data / "OS-1-detail.ome.tif", "--out", tmp_path / "m.zarr", "--model", bundle)
    assert "m.zarr" in shown
    assert open_map(tmp_path / "m.zarr").metadata["slide"]["reader"] == "TiffSlide"


def test_models_lists_what_ships(run: Run) -> None:
    assert "tissue-brca-lite" in run("models")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_an_interrupt_leaves_nothing(
    tmp_path: Path, sample_data: Path, bundle: Path, number: signal.Signals, code: int
) -> None:
    slide = sample_data / "CMU-1-Small-Region.svs"
    # Overlapping so much that it takes long enough to be interrupted.
    options = ["--model", bundle, "--out", tmp_path / "m.zarr", "--overlap", "0.97", "--runtime", "torch"]
    command = [sys.executable, "-m", "wsiseg", "predict", slide, *options]
    with subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True) as process:
        for _ in range(6000):
            if any(tmp_path.glob(".m.zarr.*")) or process.poll() is not None:
                break
            time.sleep(0.05)
        assert any(tmp_path.glob(".m.zarr.*"))
        time.sleep(3)  # into the tiles
        process.send_signal(number)
        assert process.wait(300) == code
        assert process.stderr is not None
        lines = process.stderr.read().splitlines()
    assert any(line.startswith("wsiseg: interrupted") for line in lines)
    assert not any("Traceback" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_several_slides_get_a_map_each_and_one_that_fails_is_told(
    run: Run, tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        Image.fromarray(np.full((120, 160, 3), (150, 60, 190), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    slides = [tmp_path / f"{name}.png" for name in "abc"]
    options = ["--out", tmp_path / "maps", "--model", bundle, "--mpp", "2", "--tissue", "none"]
    with pytest.raises(SystemExit) as stop:
        main([str(part) for part in ("predict", *slides, *options, "--json", "--log", tmp_path / "log.jsonl")])
    assert stop.value.code == 2
    shown = capsys.readouterr()
    results = [json.loads(line) for line in shown.out.splitlines()]
    assert [result["error"] is None for result in results] == [True, True, False]
    assert "1 of 3 slides failed" in shown.err
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    told = [event for event in events if event["event"] in ("slide", "finished", "failed")]
    assert [event["event"] for event in told] == ["slide", "finished", "slide", "finished", "slide", "failed"]
    assert [event["slide"] for event in told if event["event"] == "slide"] == [str(slide) for slide in slides]
    assert [event["phase"] for event in events if event["event"] == "begin"].count("tiles") == 2
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
    with pytest.raises(SystemExit) as stop:
        main([str(part) for part in ("predict", *slides[:2], *options, "--geojson", tmp_path / "x.geojson")])
    assert stop.value.code == 2
    assert "one slide" in capsys.readouterr().err
