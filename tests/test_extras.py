"""An installation for predicting alone: it predicts, and says of everything else what to install."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.maps import write_map
from wsiseg.geometry import Size

WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {names!r} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
from wsiseg.cli.main import main
main(sys.argv[1:])
"""

EXTRAS = {
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


def without(names: list[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """The program, in a process of its own to which these modules do not exist."""
    command = [sys.executable, "-c", WITHOUT.format(names=set(names)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


def refused(names: list[str], extra: str, *arguments: object) -> None:
    done = without(names, *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"pip install 'wsiseg[{extra}]'" in done.stderr


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "p.png"
    Image.fromarray(np.full((300, 300, 3), (150, 60, 120), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("name", EXTRAS["train"])
def test_training_says_what_it_needs(tmp_path: Path, sample_data: Path, name: str) -> None:
    refused([name], "train", "train", sample_data / "patches", "--out", tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_from_python_it_is_an_import_error() -> None:
    code = WITHOUT.format(names={"kornia"}).partition("from wsiseg")[0] + (
        "import wsiseg\n"
        "try: wsiseg.train\n"
        "except ImportError as error: print(isinstance(error, wsiseg.WsisegError), error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True training needs kornia: pip install 'wsiseg[train]'\n"


@pytest.mark.parametrize(
    ("extra", "arguments"),
    [
        ("openvino", ["--runtime", "openvino"]),
        ("tensorboard", ["--logger", "tensorboard"]),
    ],
)
def test_options_that_need_an_extra(
    tmp_path: Path, sample_data: Path, picture: Path, extra: str, arguments: list[str]
) -> None:
    command = (
        ["predict", picture, "--mpp", "0.5", "--out", tmp_path / "m.zarr"]
        if extra == "openvino"
        else ["train", sample_data / "patches", "--out", tmp_path / "model"]
    )
    refused(EXTRAS[extra], extra, *command, *arguments)
    assert list(tmp_path.iterdir()) == [picture]


@pytest.mark.parametrize("address", ["https://127.0.0.1:9/a.svs", "s3://bucket/a.svs"])
def test_addresses(address: str) -> None:
    refused(EXTRAS["remote"], "remote", "info", address)


def test_dicom_segmentations(tmp_path: Path, picture: Path) -> None:
    write_map(tmp_path / "m.zarr", Size(300, 300))
    out = tmp_path / "seg.dcm"
    refused(["highdicom"], "dicom", "export", tmp_path / "m.zarr", "--dicom-seg", out, "--slide", picture)
    assert not out.exists()


@pytest.mark.parametrize("name", ["matplotlib", "pyarrow"])
def test_reports(tmp_path: Path, name: str) -> None:
    write_map(tmp_path / "m.zarr", Size(300, 300))
    out = ["--out", tmp_path / "r.html", "--parquet", tmp_path / "r.parquet"]
    refused([name], "report", "report", tmp_path / "m.zarr", *out)
    assert [path.name for path in tmp_path.iterdir()] == ["m.zarr"]


def test_predicting_needs_no_extra(tmp_path: Path, picture: Path) -> None:
    """Nor what only developers have. A file of one's own for the tissue is drawn without rasterio."""
    own = tmp_path / "own.geojson"
    own.write_text('{"type": "Polygon", "coordinates": [[[0, 0], [250, 0], [250, 250], [0, 250], [0, 0]]]}')
    hidden = [*(name for names in EXTRAS.values() for name in names), *DEVELOPERS]
    out = tmp_path / "m.zarr"
    done = without(hidden, "predict", picture, "--mpp", "0.5", "--tissue", own, "--out", out, "--overlap", "0")
    assert done.returncode == 0, done.stderr
    for arguments in (["--geojson", "e.geojson"], ["--ome-tiff", "m.ome.tif"]):
        done = without(hidden, "export", out, arguments[0], tmp_path / arguments[1])
        assert done.returncode == 0, done.stderr
        assert (tmp_path / arguments[1]).stat().st_size > 0
