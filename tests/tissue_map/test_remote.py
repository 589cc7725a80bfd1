"""Maps on S3 and on a web server: read and checked as those on a disk, and faults of servers named as such."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.maps import write_map
from tests.helpers.servers import address_of, nginx, nginx_program
from wsiseg.errors import MapError, OptionError, RemoteError
from wsiseg.geometry import Box, Size
from wsiseg.tissue_map.reader import open_map


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("maps")
    write_map(folder / "m.zarr", Size(1500, 1100), piece_px=1024)
    write_map(folder / "bad.zarr", Size(300, 300))
    node = folder / "bad.zarr" / "labels" / "tissue" / "0" / "zarr.json"
    content = json.loads(node.read_text())
    content["data_type"] = "float64"
    node.write_text(json.dumps(content))
    write_map(folder / "cut.zarr", Size(300, 300))
    for shard in (folder / "cut.zarr" / "labels" / "tissue" / "0" / "c").rglob("*"):
        if shard.is_file():
            shard.write_bytes(shard.read_bytes()[:-40])
    return folder


@pytest.fixture(scope="module", params=["s3", "http"])
def base(request: pytest.FixtureRequest, stored: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with address_of(request.param, stored, tmp_path_factory.mktemp("nginx")) as address:
        yield address


def test_it_is_the_same_map(base: str, stored: Path) -> None:
    here, there = open_map(stored / "m.zarr"), open_map(f"{base}/m.zarr")
    assert (there.metadata, there.grid, there.levels) == (here.metadata, here.grid, here.levels)
    for level in range(here.levels):
        box = Box.from_size(here.grid.coarsen(2**level))
        assert np.array_equal(there.read(box, level), here.read(box, level))
        assert np.array_equal(there.read_probability(2, box, level), here.read_probability(2, box, level))
    assert np.array_equal(there.class_map(1).compute(), here.class_map(1).compute())


def test_what_is_wrong_with_it(base: str) -> None:
    with pytest.raises(RemoteError, match="is not a tissue map, or the server does not have it"):
        open_map(f"{base}/nothing.zarr")
    with pytest.raises(MapError, match="expected uint8") as caught:
        open_map(f"{base}/bad.zarr")
    assert not isinstance(caught.value, RemoteError)
    with pytest.raises(MapError, match="is damaged at") as caught:
        open_map(f"{base}/cut.zarr").read(Box(0, 0, 300, 300))
    assert not isinstance(caught.value, RemoteError)


def test_a_server_that_is_gone_is_no_damage(stored: Path, tmp_path: Path) -> None:
    if nginx_program() is None:
        pytest.skip("needs nginx")
    with nginx(stored, tmp_path) as port:
        open_map(f"http://127.0.0.1:{port}/m.zarr")
        with pytest.raises(RemoteError, match="cannot be read from its server"):
            open_map(f"http://127.0.0.1:{port}/closed/m.zarr")


def test_other_addresses() -> None:
    with pytest.raises(OptionError, match="not from ftp://"):
        open_map("ftp://host/m.zarr")
