"""A slide by path and by address is the same slide: size, levels, resolution, pixels, white, damage, notes, hash."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pytest
import tifffile

from wsiseg.errors import SlideError
from wsiseg.geometry import Box
from wsiseg.slides import open_slide
from wsiseg.slides.base import SlideReader
from wsiseg.system.addresses import is_address, last_part, local_path, names_elsewhere, without_secrets

CMU, OS1 = "CMU-1-Small-Region.svs", "OS-1-detail.ome.tif"
COMPARED = ("size", "levels", "recorded_mpp", "objective", "bounds", "notes", "damaged_area", "damaged_tiles", "name")


@pytest.fixture(scope="module")
def pixels(sample_data: Path) -> np.ndarray:
    with open_slide(sample_data / CMU) as slide:
        return slide.read_level(0, Box(300, 1000, 900, 700)).pixels


def tiled(path: Path, pixels: np.ndarray, **more) -> None:
    resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, photometric="rgb", **{"tile": (256, 256), "compression": "jpeg"} | resolution | more)


def with_levels(path: Path, pixels: np.ndarray, **more) -> None:
    with tifffile.TiffWriter(path, **more) as tiff:
        options = {"photometric": "rgb", "tile": (128, 128), "compression": "deflate"}
        tiff.write(pixels, subifds=1, resolution=(20000, 20000), resolutionunit="CENTIMETER", **options)
        tiff.write(pixels[::2, ::2], subfiletype=1, resolution=(10000, 10000), resolutionunit="CENTIMETER", **options)


def altered(path: Path, pixels: np.ndarray, *, offset: int | None, count: int | None) -> None:
    """A slide one of whose tiles is left out, or leads nowhere."""
    tiled(path, pixels, compression="deflate")
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0]
        for name, value in (("TileOffsets", offset), ("TileByteCounts", count)):
            if value is not None:
                values = list(page.tags[name].value)
                values[2] = value
                page.tags[name].overwrite(tuple(values))


MADE = {
    "tiled.tif": tiled,
    "big.tif": partial(tiled, bigtiff=True),
    "j2k.tif": partial(tiled, compression="jpeg2000"),
    "strips.tif": partial(tiled, tile=None, rowsperstrip=64, compression="zlib"),
    "planar.tif": lambda path, pixels: tiled(
        path, np.ascontiguousarray(pixels.transpose(2, 0, 1)), planarconfig="separate", compression="deflate"
    ),
    "pyramid.tif": with_levels,
    "pyramid.ome.tif": partial(with_levels, ome=True),
    "left-out.tif": partial(altered, offset=0, count=0),
    "damaged.tif": partial(altered, offset=2**31, count=None),
}


@pytest.fixture(scope="module")
def folder(sample_data: Path, tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> Path:
    """All samples, those that are shipped and those that are made."""
    found = tmp_path_factory.mktemp("samples")
    for name in (CMU, OS1):
        (found / name).write_bytes((sample_data / name).read_bytes())
    for name, make in MADE.items():
        make(found / name, pixels)
    return found


@pytest.fixture
def addresses(folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict]:
    """From a kind of address to what stands before the name."""
    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe(f"/samples/{path.name}", path.read_bytes())
    yield {"memory": "memory://samples/", "file": folder.as_uri() + "/"}
    memory.rm("/samples", recursive=True)


def test_bytes_that_look_like_another_codec(tmp_path: Path, sample_data: Path) -> None:
    """A tile of deflate with the first marker of JPEG 2000 somewhere in it: of these pixels the last one has it."""
    with open_slide(sample_data / CMU) as slide:
        pixels = slide.read_level(0, Box(300, 1000, 900, 700)).pixels
    tiled(tmp_path / "a.tif", pixels, compression="deflate")
    with open_slide(tmp_path / "a.tif", mpp=0.5) as slide:
        assert np.array_equal(slide.read_level(0, Box.from_size(slide.size)).pixels, pixels)
        assert slide.damaged_tiles == 0


def same(here: SlideReader, there: SlideReader) -> None:
    for level in range(len(here.levels)):
        size = here.levels[level].size
        box = Box(-7, -5, size.width + 20, size.height + 20)
        mine, other = here.read_level(level, box), there.read_level(level, box)
        assert np.array_equal(mine.pixels, other.pixels)
        assert (mine.damaged is None) == (other.damaged is None)
        assert mine.damaged is None or np.array_equal(mine.damaged, other.damaged)
    for name in COMPARED:
        assert getattr(here, name) == getattr(there, name), name
    assert here.associated == there.associated or here.vendor == "aperio"
    assert here.quick_hash() == there.quick_hash()


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("name", [CMU, OS1, *MADE])
def test_by_path_and_by_address(folder: Path, addresses: dict, name: str, kind: str) -> None:
    with open_slide(folder / name, mpp=0.5) as here, open_slide(addresses[kind] + name, mpp=0.5) as there:
        same(here, there)
        assert here.damaged_tiles == (1 if name == "damaged.tif" else 0)
        if kind == "file":
            assert there.path == str(folder / name), "an address of this machine is a path"


def test_slides_for_this_machine_alone_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    """What OpenSlide puts together from its own rules, or from several files."""
    memory = fsspec.filesystem("memory")
    description = '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"></scn>'
    tiled(tmp_path / "a.scn", pixels[:512, :512], description=description)
    content = {"a.scn": (tmp_path / "a.scn").read_bytes(), "a.mrxs": b"\xff\xd8\xff", "a.dcm": bytes(128) + b"DICM"}
    for name, data in content.items():
        memory.pipe(f"/refused/{name}", data)
        with pytest.raises(SlideError, match=f"{name} is .*(copy it here|copy it to this machine|download)"):
            open_slide(f"memory://refused/{name}")
    memory.rm("/refused", recursive=True)


@pytest.mark.parametrize(
    ("address", "shown", "name"),
    [
        ("https://me:pass@host:8/a/b%20c.svs?X-Sig=1&b=2#f", "https://host:8/a/b%20c.svs", "b c.svs"),
        ("https://me:p@ss@host/a.svs", "https://host/a.svs", "a.svs"),
        ("s3://bucket/a b/c#1.svs", "s3://bucket/a b/c#1.svs", "c#1.svs"),
        ("abfs://box@account.dfs.core.windows.net/a.svs?sig=1", "abfs://account.dfs.core.windows.net/a.svs", "a.svs"),
        ("simplecache::https://u:p@h/a.svs?s=1", "simplecache::https://h/a.svs", "a.svs"),
        ("/data/a?b#c@d.svs", "/data/a?b#c@d.svs", "a?b#c@d.svs"),
        ("https://h/a%2Fb.svs", "https://h/a%2Fb.svs", "b.svs"),
    ],
)
def test_what_is_shown_of_an_address(address: str, shown: str, name: str) -> None:
    assert (without_secrets(address), last_part(address)) == (shown, name)
    assert "pass" not in without_secrets(f"cannot read '{address}' today")


def test_paths_and_addresses() -> None:
    assert is_address("s3://b/a")
    assert not is_address("/a/b:c")
    assert local_path("file:///a/b%20c#1?.svs") == "/a/b c#1?.svs"
    assert local_path("s3://a") == "s3://a"
    assert all(names_elsewhere(Path(out)) for out in ("s3://b/a.zarr", "https://h/a", "file:///a"))
    assert not any(names_elsewhere(Path(out)) for out in ("a.zarr", "/s3:/a", "C:/a.zarr", "a/s3:/b", "a:b.zarr"))
