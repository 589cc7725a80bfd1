"""The whole circle on one slide, by the commands that a user types: from labels to a report, over a correction."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

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
