"""An installation for predicting alone: it predicts, and says of everything else what to install."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.maps import write_map
from tests.helpers.program import HIDING, Command, run_all
from wsiseg.geometry import Size

EXTRAS = {
    "app": ["starlette", "uvicorn"],
    "cluster": ["distributed", "dask_jobqueue"],
    "train": ["lightning", "kornia", "torchmetrics"],
    "openvino": ["openvino"],
    "dicom": ["highdicom"],
    "remote": ["boto3", "obstore", "urllib3"],
    "python": ["geopandas", "pandas", "xarray"],
    "report": ["matplotlib", "pyarrow"],
    "tensorboard": ["tensorboard", "tensorboardX"],
}
"""What each extra brings, as the code imports it. (Jinja2 comes with PyTorch as well.)"""

DEVELOPERS = ["rasterio", "moto", "hypothesis", "pytest"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture and a map, and room for what must not be written."""
    path = tmp_path_factory.mktemp("extras")
    Image.fromarray(np.full((300, 300, 3), (150, 60, 120), np.uint8)).save(path / "p.png")
    write_map(path / "m.zarr", Size(300, 300))
    (path / "out").mkdir()
    return path


def refused_commands(folder: Path, sample_data: Path) -> list[tuple[str, Command]]:
    """An extra, and a command that needs it where what it brings does not exist."""
    out, picture, stored = folder / "out", folder / "p.png", folder / "m.zarr"
    predict = ["predict", picture, "--mpp", "0.5", "--out", out / "m.zarr", "--runtime", "openvino"]
    listed = ["predict", "--slides", folder, "--out", out / "maps"]
    train = ["train", sample_data / "patches", "--out", out / "model"]
    segmentation = ["export", stored, "--dicom-seg", out / "s.dcm", "--slide", picture]
    report = ["report", stored, "--out", out / "r.html", "--parquet", out / "r.parquet"]
    return [
        ("app", Command(["view", stored], EXTRAS["app"])),
        ("app", Command(["label", picture, "--classes", "A", "--out", out / "p"], EXTRAS["app"])),
        ("remote", Command(["info", "https://127.0.0.1:9/a.svs"], EXTRAS["remote"])),
        ("remote", Command(["info", "s3://bucket/a.svs"], EXTRAS["remote"])),
        ("remote", Command(["view", "s3://bucket/m.zarr"], EXTRAS["remote"])),
        (
            "cluster",
            Command(["predict", "--slides", folder, "--out", out / "maps", "--cluster", "local:2"], EXTRAS["cluster"]),
        ),
        ("cluster", Command([*listed, "--cluster", "local:2"], EXTRAS["cluster"])),
        ("dicom", Command(segmentation, EXTRAS["dicom"])),
        ("openvino", Command(predict, EXTRAS["openvino"])),
        *(("report", Command(report, [name])) for name in EXTRAS["report"]),
        *(("train", Command(train, [name])) for name in EXTRAS["train"]),
        ("tensorboard", Command([*train, "--logger", "tensorboard"], EXTRAS["tensorboard"])),  # loads matplotlib
    ]


def test_commands_say_which_extra_they_need(folder: Path, sample_data: Path) -> None:
    wanted = refused_commands(folder, sample_data)
    for (extra, command), said in zip(wanted, run_all([command for _, command in wanted]), strict=True):
        assert said.code == 2, (command, said)
        assert said.err.count(b"\n") == 1, said
        assert f"pip install 'wsiseg[{extra}]'" in said.err.decode(), (command, said)
    assert not list((folder / "out").iterdir())


def test_from_python_it_is_an_import_error() -> None:
    code = HIDING + (
        "import wsiseg\n"
        "hidden.add('kornia')\n"
        "try: wsiseg.train\n"
        "except ImportError as error: print(isinstance(error, wsiseg.WsisegError), error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True training needs kornia: pip install 'wsiseg[train]'\n"


def test_predicting_needs_no_extra(folder: Path, tmp_path: Path) -> None:
    """Nor what only developers have. A file of one's own for the tissue is drawn without rasterio."""
    own = tmp_path / "own.geojson"
    own.write_text('{"type": "Polygon", "coordinates": [[[0, 0], [250, 0], [250, 250], [0, 250], [0, 0]]]}')
    hidden = [*(name for names in EXTRAS.values() for name in names), *DEVELOPERS]
    out = tmp_path / "m.zarr"
    predict = ["predict", folder / "p.png", "--mpp", "0.5", "--tissue", own, "--out", out, "--overlap", "0"]
    exports = {"--geojson": "e.geojson", "--ome-tiff": "m.ome.tif"}
    commands = [predict, *(["export", out, option, tmp_path / name] for option, name in exports.items())]
    for said in run_all([Command(command, hidden) for command in commands]):
        assert said.code == 0, said
    assert all((tmp_path / name).stat().st_size > 0 for name in exports.values())
