"""The whole circle on one slide, by the commands that a user types: from labels to a report, over a correction."""

import csv
import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.helpers.browser import done, page_of, place_in_view, settled, wait_until
from tests.helpers.pages import require_static, served
from wsiseg.cli.main import main
from wsiseg.datasets.dataset import read_dataset
from wsiseg.geometry import Box
from wsiseg.models.spec import read_spec
from wsiseg.slides import open_slide
from wsiseg.tissue_map.reader import open_map

CLASSES = ("Tumour", "Stroma")


def run(*arguments: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 0, arguments


@pytest.fixture
def slide(sample_data: Path, tmp_path: Path) -> Path:
    """A small slide, so that two trainings and two maps take seconds."""
    with open_slide(sample_data / "CMU-1-Small-Region.svs") as opened:
        pixels = opened.read_level(0, Box(600, 600, 896, 640)).pixels
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, pixels, tile=(128, 128), resolution=(1e4 / 0.5, 1e4 / 0.5), resolutionunit="CENTIMETER")
    return path


def dark(pixels: np.ndarray) -> bool:
    """What stands in for a pathologist's eye: nuclei close together look dark."""
    return float(pixels.mean()) < 165


def label(slide: Path, out: Path) -> None:
    """Answer all patches on the page's own routes."""
    command = ("-m", "wsiseg", "label", slide, "--out", out, "--classes", ",".join(CLASSES), "--patch-px", 64)
    with served(*command, "--candidates", 48, "--port", 0, "--no-browser") as server:
        server.enter()
        for number in range(server.get("/api/page?number=0").json["pages"]):
            page = server.get(f"/api/page?number={number}").json
            answers = {}
            for item in page["items"]:
                pixels = np.asarray(Image.open(io.BytesIO(server.get(item["patch"]).body)))
                answers[str(item["place"])] = [CLASSES[0] if dark(pixels) else CLASSES[1]]
            body = {"answers": answers, "status": "labelled", "round": page["round"]}
            assert server.post("/api/answer", body).status == 200
        code, said = server.end()
        assert code == 0, said


@pytest.mark.slow
def test_label_train_predict_look_correct_train_report(slide: Path, tmp_path: Path) -> None:
    require_static()
    patches, first, second = tmp_path / "patches", tmp_path / "first", tmp_path / "second"
    label(slide, patches)
    data = read_dataset(patches, val_share=0)
    assert {patch.label for patch in data.train} == {(1, 0), (0, 1)}

    run("train", patches, "--out", first, "--epochs", 1, "--val-share", 0, "--device", "cpu", "--quiet")
    map_path = tmp_path / "map.zarr"
    run("predict", slide, "--model", first, "--out", map_path, "--runtime", "torch", "--quiet")

    with served("-m", "wsiseg", "view", map_path, "--slide", slide, "--port", 0, "--no-browser") as server:
        server.enter()
        assert b"<html" in server.get("/").body
        assert server.end()[0] == 0

    corrected = tmp_path / "corrected.geojson"
    tree = json.loads((tmp_path / "map.geojson").read_text())
    ring = [[64, 64], [576, 64], [576, 448], [64, 448], [64, 64]]
    tree["features"].append({
        "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": CLASSES[0]}},
    })  # fmt: skip
    corrected.write_text(json.dumps(tree))
    fixes = tmp_path / "fixes"
    run("correct", map_path, "--corrected", corrected, "--slide", slide, "--out", fixes, "--model", first, "--quiet")
    assert any(patch.mask for patch in read_dataset(fixes, val_share=0).train)

    run(
        *("train", fixes, "--from", first, "--with", patches, "--out", second, "--epochs", 1),
        *("--val-share", 0, "--device", "cpu", "--quiet"),
    )
    assert read_spec(second).classes.names == CLASSES
    after = tmp_path / "after.zarr"
    run("predict", slide, "--model", second, "--out", after, "--runtime", "torch", "--quiet")
    assert open_map(after).metadata["model"]["hash"] != open_map(map_path).metadata["model"]["hash"]

    page = tmp_path / "report.html"
    run("report", map_path, after, "--out", page, "--csv", tmp_path / "report.csv", "--quiet")
    text = page.read_text()
    assert "map.zarr" in text or "slide.tif" in text
    assert 'src="http' not in text


LOOK = """image => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const values = context.getImageData(0, 0, canvas.width, canvas.height).data;
  return values.reduce((sum, value, at) => (at % 4 === 3 ? sum : sum + value), 0) / (0.75 * values.length);
}"""
"""The mean of the colours of a picture on the page."""

PAINTED = """() => {
  const canvas = document.querySelector("canvas.map");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.reduce((count, value, at) => count + (at % 4 === 3 && value > 0), 0);
}"""
"""How many pixels of the viewer show a class."""


def answer_by_key(page: Any, count: int) -> None:
    """Label so many patches, each as it looks on the page."""
    here = page.locator(".patch.here img")
    for _ in range(count):
        wait_until(lambda: bool(here.evaluate("image => image.complete && image.naturalWidth > 0")))
        page.keyboard.press("1" if here.evaluate(LOOK) < 165 else "2")
        page.keyboard.press("Enter")


def label_in_the_browser(slide: Path, out: Path) -> None:
    """Thirty patches by key, a kill in the middle, and undo over the restart."""
    command = ("-m", "wsiseg", "label", slide, "--out", out, "--patch-px", 64, "--candidates", 40, "--no-browser")
    with served(*command, "--classes", ",".join(CLASSES)) as server, page_of(server) as page:
        answer_by_key(page, 20)
        settled(page)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    with served(*command) as server:
        with page_of(server) as page:
            assert done(page) == 20
            for _ in range(4):  # the keys of two patches
                page.keyboard.press("u")
                settled(page)
            assert done(page) == 18
            for _ in range(4):
                page.keyboard.press("U")
                settled(page)
            assert done(page) == 20
            page.keyboard.press("ArrowRight")
            answer_by_key(page, 10)
            settled(page)
            assert done(page) == 30
        assert server.end(signal.SIGINT)[0] == 0


def look_and_correct(map_path: Path, slide: Path, keys: str = "12") -> Path:
    """Toggle all classes by their keys, measure, draw around a region and say what it is; the file that this leaves."""
    with served("-m", "wsiseg", "view", map_path, "--slide", slide, "--no-browser") as server:
        with page_of(server, "body[data-ready]") as page:
            wait_until(lambda: "at=" in page.url and page.evaluate(PAINTED) > 0)
            for key in keys:
                page.keyboard.press(key)
            wait_until(lambda: page.evaluate(PAINTED) == 0)
            for key in keys:
                page.keyboard.press(key)
            wait_until(lambda: page.evaluate(PAINTED) > 0)
            page.keyboard.press("m")
            page.mouse.click(*place_in_view(page, 100, 200))
            page.mouse.click(*place_in_view(page, 300, 200))
            assert page.locator("#message").inner_text() == "distance: 100 µm"
            page.keyboard.press("Escape")
            page.keyboard.press("Escape")
            page.keyboard.press("e")
            page.mouse.move(*place_in_view(page, 64, 64))
            page.mouse.down()
            for corner in ((320, 64), (320, 256), (64, 256)):
                page.mouse.move(*place_in_view(page, *corner), steps=10)
            page.mouse.up()
            page.keyboard.press("1")
            wait_until(lambda: page.locator("#message").inner_text().startswith("saved: 1 in "))
        assert server.end(signal.SIGINT)[0] == 0
    return map_path.with_name("map.corrected.geojson")


def test_the_circle_in_a_browser(slide: Path, tmp_path: Path) -> None:
    """What a pathologist does in an afternoon, with the smallest training there is."""
    require_static()
    patches, model, map_path = tmp_path / "patches", tmp_path / "model", tmp_path / "map.zarr"
    label_in_the_browser(slide, patches)
    with (patches / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    for row in rows:
        expected = ("1", "0") if dark(np.asarray(Image.open(patches / row["file"]))) else ("0", "1")
        assert (row["Tumour"], row["Stroma"]) == expected
    run("train", patches, "--out", model, "--epochs", 1, "--val-share", 0, "--device", "cpu", "--quiet")
    run("predict", slide, "--model", model, "--out", map_path, "--runtime", "torch", "--overlap", 0, "--quiet")
    corrected, fixes = look_and_correct(map_path, slide), tmp_path / "fixes"
    run(
        *("correct", map_path, "--corrected", corrected, "--slide", slide, "--out", fixes),
        *("--model", model, "--quiet"),
    )
    masks = [patch for patch in read_dataset(fixes, val_share=0).train if patch.mask]
    assert masks
    assert all(patch.label[0] == 1 for patch in masks)
    page = tmp_path / "report.html"
    run("report", map_path, "--out", page, "--quiet")
    assert "slide.tif" in page.read_text() or "map.zarr" in page.read_text()
