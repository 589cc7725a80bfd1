"""Nothing in a bundle, a data set, a map or a slide leads outside of it, and nothing is unpickled at prediction."""

import ast
import json
import os
import pickle
import shutil
from pathlib import Path

import google_crc32c
import numcodecs.zstd
import numpy as np
import pytest
import tifffile
from PIL import Image

from wsiseg.classes import ClassTable
from wsiseg.datasets.dataset import read_classes, read_dataset
from wsiseg.errors import BundleError, DatasetError, MapError, OptionError, SlideError, WsisegError
from wsiseg.evaluation.truth import open_source
from wsiseg.geometry import Box
from wsiseg.models.folder import BUNDLES_FOLDER
from wsiseg.models.spec import read_spec
from wsiseg.slides import open_slide
from wsiseg.tissue_map.codecs import frame_bytes
from wsiseg.tissue_map.reader import open_map

PACKAGE = Path(__file__).parents[1] / "wsiseg"
MAP = Path(__file__).parent / "fuzz" / "maps" / "probabilities.zarr"
OUTSIDE = [
    *("../secret.png", "{outside}", "..\\secret.png", "images\\..\\..\\secret.png", "C:\\secret.png", "//secret.png"),
    *("images/out.png", "linked/secret.png", "images/../../secret.png", "~/secret.png", "\0", "loop.png"),
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A data set, and beside it a picture that it has no business with."""
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    for path in (tmp_path / "secret.png", root / "images" / "0.png"):
        image.save(path)
    (root / "images" / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "linked").symlink_to(tmp_path)
    (root / "loop.png").symlink_to(root / "loop.png")
    return root


@pytest.mark.parametrize("column", ["file", "mask"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_names_in_labels_csv(table: Path, name: str, column: str) -> None:
    name = name.format(outside=table.parent / "secret.png")
    row = f"{name},1," if column == "file" else f"images/0.png,1,{name}"
    (table / "labels.csv").write_text(f"file,A,mask\n{row}\n")
    (table / "dataset.json").write_text('{"mpp": 0.5}')
    with pytest.raises(DatasetError) as caught:
        read_dataset(table)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_in_cells_csv(table: Path, name: str) -> None:
    name = name.format(outside=table.parent / "secret.png")
    (table / "cells.csv").write_text(f"file,x,y,class\n{name},1,1,A\n")
    with pytest.raises(DatasetError):
        open_source(table, "test", ClassTable.from_names(["A"]), mpp=0.5)


@pytest.mark.parametrize("file", ["labels.csv", "dataset.json", "cells.csv", "classes.json"])
@pytest.mark.parametrize("kind", ["link", "loop", "pipe"])
def test_tables_that_are_links_or_pipes(table: Path, file: str, kind: str) -> None:
    (table.parent / file).write_text(
        "file,A\nimages/0.png,1\n" if file.endswith("csv") else '{"mpp": 1, "classes": ["A"]}'
    )
    (table / "labels.csv").write_text("file,A\nimages/0.png,1\n")
    (table / file).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(table / file)
    else:
        (table / file).symlink_to(table.parent / file if kind == "link" else table / file)
    with pytest.raises(DatasetError):
        open_source(table, "train", ClassTable.from_names(["A"]), mpp=0.5 if file == "cells.csv" else None)


def test_a_table_of_one_endless_field(table: Path) -> None:
    for file in ("labels.csv", "cells.csv"):
        (table / file).write_text("file,x,y,class," + "x" * 200_000 + "\nimages/0.png,1,1,A\n")
        with pytest.raises(DatasetError, match="CSV"):
            open_source(table, "test", ClassTable.from_names(["A"]), mpp=0.5)
        (table / file).unlink()


def test_pictures_that_would_start_other_programs_are_none(table: Path) -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n"
    (table / "images" / "0.png").write_bytes(eps)
    for link in (table / "images" / "out.png", table / "loop.png"):
        link.unlink()
    (table / "labels.csv").write_text("file,A\nimages/0.png,1\n")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_dataset(table, 1)


def test_class_names_that_no_file_could_hold(tmp_path: Path) -> None:
    for name in ("\ud800", "a\x00", "x" * 1000, "a\nb"):
        (tmp_path / "c.json").write_text(json.dumps([name]))
        with pytest.raises(DatasetError):
            read_classes(str(tmp_path / "c.json"))


WEIGHTS = [
    *("..\\w.safetensors", "C:\\w.safetensors", "a\\w.safetensors", "w.safetensors\n", "..", "\u202ew.safetensors"),
    *("w.safetensors\0", "-w.safetensors", ".w.safetensors"),
]


@pytest.mark.parametrize("name", WEIGHTS)
def test_names_in_model_json(tmp_path: Path, name: str) -> None:
    spec = json.loads((BUNDLES_FOLDER / "tissue-brca-lite" / "model.json").read_text())
    spec["networks"]["segmenter"]["file"] = name
    (tmp_path / "model.json").write_text(json.dumps(spec))
    with pytest.raises(BundleError, match=r"networks\.segmenter\.file"):
        read_spec(tmp_path)


@pytest.mark.parametrize("kind", ["link", "loop", "pipe", "folder"])
def test_a_model_json_that_is_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(BUNDLES_FOLDER / "tissue-brca-lite" / "model.json" if kind == "link" else path)
    with pytest.raises(BundleError):
        read_spec(tmp_path)


@pytest.mark.parametrize("place", ["zarr.json", "0/zarr.json", "labels/tissue/0/c/0/0", "labels"])
@pytest.mark.parametrize("kind", ["link", "loop", "pipe"])
def test_a_map_holds_files_only(tmp_path: Path, place: str, kind: str) -> None:
    path = tmp_path / "a.zarr" / place
    shutil.copytree(MAP, tmp_path / "a.zarr")
    path.rename(tmp_path / "moved")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "moved" if kind == "link" else path)
    with pytest.raises(MapError):
        open_map(tmp_path / "a.zarr")


def test_a_link_to_a_map_is_a_map(tmp_path: Path) -> None:
    (tmp_path / "link.zarr").symlink_to(MAP)
    assert open_map(tmp_path / "link.zarr").levels == 2


@pytest.mark.parametrize("kind", ["pipe", "loop", "null", "long", "device"])
def test_a_slide_that_is_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.svs"
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "loop":
        path.symlink_to(path)
    for tissue in (path, tmp_path / "a\0.svs", tmp_path / ("a" * 5000), Path("/dev/zero"))[
        {"pipe": 0, "loop": 0, "null": 1, "long": 2, "device": 3}[kind] :
    ][:1]:
        with pytest.raises(SlideError) as caught:
            open_slide(tissue)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000


def test_an_ome_tiff_reads_no_other_file(tmp_path: Path) -> None:
    """OME-XML can say that planes lie in other files; this reads the one that it was given, or refuses it."""
    pixels = np.full((64, 64, 3), 77, np.uint8)
    tifffile.imwrite(tmp_path / "secret.ome.tif", pixels, photometric="rgb", metadata={"axes": "YXS"})
    (tmp_path / "in").mkdir()
    ome = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="64" SizeY="64" SizeC="3" '
        'SizeZ="1" SizeT="1" Interleaved="true"><Channel ID="Channel:0:0" SamplesPerPixel="3"/>'
        '<TiffData IFD="0" PlaneCount="1"><UUID FileName="../secret.ome.tif">urn:uuid:2</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    path = tmp_path / "in" / "a.ome.tif"
    tifffile.imwrite(path, pixels * 0, photometric="rgb", description=ome, metadata=None)
    try:
        with open_slide(path, mpp=0.5, reader="tiffslide") as slide:
            assert not (slide.read_level(0, Box(0, 0, 64, 64)).pixels == 77).any()
    except WsisegError:
        pass


@pytest.mark.parametrize("value", [float("inf"), 10**400, -1, 0, None, "1", [1]])
@pytest.mark.parametrize("place", ["size.width", "mpp.x", "step_x", "level", "zoom_y"])
def test_a_grid_that_no_map_has(tmp_path: Path, place: str, value: object) -> None:
    if value == "1" or (place == "level" and value == 0):
        pytest.skip("a number as text is read")
    shutil.copytree(MAP, tmp_path / "a.zarr")
    node = json.loads((MAP / "zarr.json").read_text())
    part = node["attributes"]["wsiseg"]["grid"]
    *outer, last = place.split(".")
    for key in outer:
        part = part[key]
    part[last] = value
    (tmp_path / "a.zarr" / "zarr.json").write_text(json.dumps(node))
    with pytest.raises((MapError, OptionError)):
        open_map(tmp_path / "a.zarr")


@pytest.mark.parametrize("change", [
    {"shape": [300, 701]}, {"data_type": "uint16"}, {"data_type": "object"}, {"node_type": "group"}, {"zarr_format": 2},
    {"codecs": [{"name": "pickle"}]}, {"codecs": [{"name": "numcodecs.pickle"}]}, {"codecs": []}, {"codecs": None},
    {"codecs": [{"name": "vlen-bytes"}]}, {"storage_transformers": [{"name": "x"}]}, {"shape": [-300, 700]},
    {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 0]}}},
    {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [512, 2**40]}}},
    {"chunk_key_encoding": {"name": "../../x"}}, {"chunk_grid": "../.."},
], ids=str)  # fmt: skip
def test_an_array_that_no_map_has(tmp_path: Path, change: dict[str, object]) -> None:
    shutil.copytree(MAP, tmp_path / "a.zarr")
    node = tmp_path / "a.zarr" / "labels" / "tissue" / "0" / "zarr.json"
    node.write_text(json.dumps({**json.loads(node.read_text()), **change}))
    with pytest.raises(MapError) as caught:
        open_map(tmp_path / "a.zarr")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("size", [1, 255, 256, 257, 65_791, 65_792, 2**20, 2**24])
def test_the_size_of_a_zstandard_frame(size: int) -> None:
    packed = numcodecs.zstd.compress(bytes(size), 3)
    assert frame_bytes(packed[:18]) == size
    assert frame_bytes(b"\x00" + packed[:17]) is None
    assert frame_bytes(packed[:5]) is None


def test_a_chunk_that_unpacks_to_more_than_its_shape(tmp_path: Path) -> None:
    """One chunk of the shard is replaced by a few kilobytes that unpack to 64 MB."""
    shutil.copytree(MAP, tmp_path / "a.zarr")
    shard = tmp_path / "a.zarr" / "labels" / "tissue" / "0" / "c" / "0" / "0"
    data, bomb = shard.read_bytes(), numcodecs.zstd.compress(bytes(2**26), 3)
    index = np.frombuffer(data[-4 - 32 : -4], "<u8").reshape(2, 2).copy()  # two chunks: place and length
    index[0] = len(data), len(bomb)
    packed = index.tobytes()
    shard.write_bytes(data + bomb + packed + google_crc32c.value(packed).to_bytes(4, "little"))
    for box in (Box(0, 0, 10, 10), Box(0, 0, 700, 300)):
        with pytest.raises(MapError, match="unpacks to 67108864 bytes"):
            open_map(tmp_path / "a.zarr").read(box)


def test_a_damaged_shard(tmp_path: Path) -> None:
    shutil.copytree(MAP, tmp_path / "a.zarr")
    shard = tmp_path / "a.zarr" / "labels" / "tissue" / "0" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[::-1])
    with pytest.raises(MapError, match="damaged"):
        open_map(tmp_path / "a.zarr").read(Box(0, 0, 100, 100))


def test_prediction_unpickles_nothing(monkeypatch: pytest.MonkeyPatch, sample_data: Path) -> None:
    import torch

    from wsiseg.geometry import Box
    from wsiseg.models.bundle import load_model

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    model = load_model("tissue-brca-lite", runtime="torch")
    with open_slide(sample_data / "CMU-1-Small-Region.svs") as slide:
        pixels = slide.read_level(0, Box(500, 500, 96, 96)).pixels
    patches = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
    with torch.inference_mode():
        model.classify(patches)
        model.segment(patches)
    open_map(MAP).read(Box(0, 0, 10, 10))


def test_pickles_are_only_read_as_weights() -> None:
    """`torch.load` stands where training and import read checkpoints, always with weights_only; pickle nowhere."""
    places = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "dill", "joblib", "cloudpickle"} & set(names), path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                places.append(path.name)
                assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords), path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", path
    assert sorted(places) == ["checkpoints.py", "lite.py", "trainer.py"]


def test_names_from_files_do_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from wsiseg.cli.main import main

    (tmp_path / "labels.csv").write_text("file,A\x1b[31m,A\x1b[31m\nx,1,1\n")
    with pytest.raises(SystemExit):
        main(["train", str(tmp_path), "--mpp", "1", "--out", str(tmp_path / "m")])
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert shown.count("\n") == 1


def test_a_bundle_that_is_cut_off_while_it_is_used(tmp_path: Path) -> None:
    """Weights are no view of their file: that would kill the process, or change the model behind its hash."""
    import torch

    from wsiseg.models.bundle import load_model

    folder = shutil.copytree(BUNDLES_FOLDER / "tissue-brca-lite", tmp_path / "m")
    model = load_model(folder, runtime="torch")
    assert str(tmp_path) not in Path("/proc/self/maps").read_text(), "what follows would kill this process"
    patches = torch.full((1, 3, 96, 96), 150, dtype=torch.uint8)
    before = model.segment(patches)
    for path in folder.glob("*.safetensors"):
        os.truncate(path, 0)
    assert torch.equal(model.segment(patches), before)
    model.classify(patches)
