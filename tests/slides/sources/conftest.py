"""Slides on real servers behind the proxy; what needs nginx or moto skips without it."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.helpers.proxy import Proxy
from tests.helpers.servers import BUCKET, KEYS, nginx, nginx_program, s3
from wsiseg.geometry import Box
from wsiseg.slides import open_slide
from wsiseg.slides.sources import remote

TILED, STRIPED = "tiled.svs", "striped.tif"


@pytest.fixture(scope="session")
def served(sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a slide of tiles and one of strips: each is read in another way."""
    folder = tmp_path_factory.mktemp("served")
    (folder / TILED).write_bytes((sample_data / "CMU-1-Small-Region.svs").read_bytes())
    with open_slide(folder / TILED) as slide:
        pixels = slide.read_level(0, Box(0, 1000, 1200, 1200)).pixels
    tifffile.imwrite(
        folder / STRIPED, pixels, photometric="rgb", rowsperstrip=64, compression="zlib",
        resolution=(20000, 20000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def nginx_port(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    if nginx_program() is None:
        pytest.skip("needs nginx, which `apt-get install nginx` brings")
    with nginx(served, tmp_path_factory.mktemp("nginx")) as port:
        yield port


@pytest.fixture(scope="session")
def s3_port(served: Path) -> Iterator[int]:
    pytest.importorskip("moto")
    with s3({name: served / name for name in (TILED, STRIPED)}) as port:
        yield port


class Network:
    """A server behind the proxy.

    Attributes:
        kind: "http" or "s3".
        proxy: counts, delays and breaks.
    """

    def __init__(self, kind: str, proxy: Proxy) -> None:
        self.kind, self.proxy = kind, proxy

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.proxy.port}/{name}" if self.kind == "http" else f"s3://{BUCKET}/{name}"


@pytest.fixture(params=["http", "s3"])
def network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """Slides on nginx and on S3, each behind a proxy of its own."""
    port = request.getfixturevalue("nginx_port" if request.param == "http" else "s3_port")
    remote._directories.clear()  # what another test had read would not be asked for
    with Proxy("127.0.0.1", port) as proxy:
        for name, value in KEYS.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        yield Network(request.param, proxy)


@cache
def pixels_of(path: Path) -> np.ndarray:
    """Level 0 of a slide that lies here."""
    with open_slide(path) as slide:
        return slide.read_level(0, Box.from_size(slide.size)).pixels
