"""Every form of a source becomes a data set that a training reads."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsiseg.classes import ClassTable
from wsiseg.cli.main import main
from wsiseg.datasets.check import check_dataset
from wsiseg.datasets.cut.run import CutOptions, cut
from wsiseg.datasets.dataset import read_dataset
from wsiseg.datasets.facts import read_classes
from wsiseg.errors import DatasetError, OptionError

TWO = ClassTable.from_names(["Tumour", "Stroma"])


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def tissue(sample_data: Path) -> np.ndarray:
    import tifffile

    return np.ascontiguousarray(tifffile.imread(sample_data / "OS-1-detail.ome.tif")[..., :3])


def test_images_with_masks(tmp_path: Path, tissue: np.ndarray) -> None:
    for n, (width, height) in enumerate([(225, 301), (96, 96), (70, 90), (40, 200)]):
        save(tmp_path / "in" / "img" / f"{n}.png", tissue[:height, :width])
        mask = np.zeros((height, width), np.uint8)
        mask[:, width // 2 :] = 1
        save(tmp_path / "in" / "mask" / f"{n}.png", mask)
    record = cut(tmp_path / "in", tmp_path / "out", CutOptions(96, 1.0, TWO))
    assert (record.images, record.small, record.masks) == (4, 1, 3 * 3 + 1 + 1)
    data = read_dataset(tmp_path / "out", val_share=0)
    assert data.patch_size_px == 96
    assert data.mpp == 1
    assert {patch.group for patch in data.train} == {"0", "1", "2"}
    first = data.train[0]
    assert first.provenance is not None
    assert (first.provenance.slide, first.provenance.x, first.provenance.y) == ("img/0.png", 0, 6)
    with Image.open(first.path) as image:
        assert (np.array(image) == tissue[6:102, :96]).all()
    assert not check_dataset(tmp_path / "out").problems.get("disagree")


def test_wsss4luad_names(tmp_path: Path, tissue: np.ndarray) -> None:
    """Its own folders and names: `1.training`, sizes of any kind."""
    names = ["436167-16477-39054-[1, 0, 0]", "436167-16478-39054-[1, 1, 0]", "436168-1-2-[0, 0, 1]"]
    for name, (width, height) in zip(names, [(280, 275), (500, 224), (170, 211)], strict=True):
        save(tmp_path / "in" / "1.training" / f"{name}.png", tissue[:height, :width])
    record = cut(tmp_path / "in", tmp_path / "out", CutOptions(224, 1.0, read_classes("wsss4luad")))
    assert record.patches == 4
    assert record.labels["Tumour-associated stroma"] == {"absent": 2, "unknown": 2}
    rows = list(csv.DictReader((tmp_path / "out" / "labels.csv").open()))
    assert [row["Tumour epithelium"] for row in rows] == ["1", "", "", "0"]
    assert [row["group"] for row in rows] == ["436167", "436167", "436167", "436168"]
    assert rows[0]["file"] == "images/436167-16477-39054_x28_y25.png"
    assert not any(row["split"] for row in rows)
    assert read_dataset(tmp_path / "out", val_share=0.3).val


def test_cell_dots_of_brca_m2c(tmp_path: Path, tissue: np.ndarray) -> None:
    root = tmp_path / "in"
    name = "TCGA-A7-A0DB-01Z-00-DX1_1_1"
    save(root / "images" / f"{name}.png", tissue[:200, :200])
    (root / "labels").mkdir()
    (root / "labels" / f"{name}_gt_class_coords.txt").write_text("10 20 2\n150 20 1\n")
    (root / "brca_ds_train.txt").write_text(f"{name}.png\n")
    record = cut(root, tmp_path / "out", CutOptions(100))
    assert (record.patches, record.mpp) == (4, 0.5)
    rows = list(csv.DictReader((tmp_path / "out" / "labels.csv").open()))
    assert [(row["Lymphocytes"], row["Tumour"], row["Stroma"]) for row in rows] == [
        ("0", "1", "0"), ("0", "0", "0"), ("1", "0", "0"), ("0", "0", "0"),
    ]  # fmt: skip
    assert {(row["group"], row["split"]) for row in rows} == {("TCGA-A7-A0DB", "train")}


def test_cell_dots_of_a_table(tmp_path: Path, tissue: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "in"
    save(root / "a.png", tissue[:100, :200])
    (root / "cells.csv").write_text("file,x,y,class,group\na.png,10,10,T,p1\na.png,150,50,L,p1\n")
    with pytest.raises(SystemExit) as stop:
        main(["dataset", "cut", str(root), "--out", str(tmp_path / "out"), "--patch", "100", "--mpp", "0.25",
              "--cell-classes", "T=Tumour", "--json"])  # fmt: skip
    assert stop.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["patches"] == 2
    assert said["labels"] == {"Tumour": {"present": 1, "absent": 1}, "L": {"absent": 1, "present": 1}}
    data = read_dataset(tmp_path / "out", val_share=0)
    assert [(patch.label, patch.group) for patch in data.train] == [((1, 0), "p1"), ((0, 1), "p1")]


def test_a_slide_with_annotations(tmp_path: Path, sample_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `dataset from-qupath` makes of them."""
    square = [[200, 200], [800, 200], [800, 800], [200, 800], [200, 200]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [square]},
        "properties": {"objectType": "annotation", "classification": {"name": "Stroma"}},
    }
    drawn = tmp_path / "drawn.geojson"
    drawn.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    slide = sample_data / "CMU-1-Small-Region.svs"
    shared = ["--patch", "128", "--mpp", "0.5", "--json"]
    found = []
    for command in (["cut", str(slide), "--annotations", str(drawn)], ["from-qupath", str(slide), str(drawn)]):
        with pytest.raises(SystemExit) as stop:
            main(["dataset", *command, "--out", str(tmp_path / command[0]), *shared])
        assert stop.value.code == 0
        found.append(json.loads(capsys.readouterr().out)["files"])
    assert found[0] == found[1] != []
    assert (tmp_path / "cut" / found[0][0]).read_bytes() == (tmp_path / "from-qupath" / found[0][0]).read_bytes()


def test_a_data_set_of_its_own_form_is_cut_smaller(tmp_path: Path, sample_data: Path) -> None:
    """A table with splits: groups and splits go with the patches."""
    source = tmp_path / "in"
    shutil.copytree(sample_data / "patches", source)
    lines = (source / "labels.csv").read_text().splitlines()
    chosen = [lines[0], *[line for line in lines if line.endswith("val")][:2], *lines[1:3]]
    (source / "labels.csv").write_text("\n".join(chosen) + "\n")
    kept = {line.split(",")[0] for line in chosen[1:]}
    for path in (source / "images").iterdir():
        if f"images/{path.name}" not in kept:
            path.unlink()
    record = cut(source, tmp_path / "out", CutOptions(48))
    assert record.images == 4
    data = read_dataset(tmp_path / "out")
    assert data.patch_size_px == 48
    assert data.classes.names == ("Tumour", "Stroma", "Lymphocytes")
    assert data.val


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ("same", OptionError, "is the folder that is cut; name another one"),
        ("missing", DatasetError, "is not a folder of images; for a slide, state its --annotations"),
        ("mpp", DatasetError, "does not say how large its pixels are: state --mpp"),
        ("classes", DatasetError, "does not name its classes"),
        ("small", DatasetError, "1 of 1 images are less than half of 512 px"),
        ("mask", DatasetError, "is 10 x 10 px, its image 96 x 96 px"),
        ("cells", DatasetError, "--cell-classes belongs to cell dots"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, tissue: np.ndarray, change: str, error: type[Exception], told: str
) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    save(root / "img" / "a.png", tissue[:96, :96])
    side = 10 if change == "mask" else 96
    save(root / "mask" / "a.png", np.zeros((side, side), np.uint8))
    options = CutOptions(
        512 if change == "small" else 96,
        None if change == "mpp" else 1.0,
        None if change == "classes" else TWO,
        cell_classes={"1": "Tumour"} if change == "cells" else None,
    )
    with pytest.raises(error, match=told) as caught:
        cut(tmp_path / "none" if change == "missing" else root, root if change == "same" else out, options)
    assert "\n" not in str(caught.value)
    assert not out.exists()
