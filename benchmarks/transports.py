"""Which library asks for ranges of a file at the least cost: seconds, processor seconds, requests for the same tiles.

    python -m benchmarks.transports SLIDE [--level N] [--tiles N] [--delay MS] [--repeat N]

A square of neighbouring tiles is fetched from nginx (as HTTP, and as S3 without signatures being checked), sixteen
requests at once, without decoding. `ours` are the transports of wsiseg with ranges joined as wsiseg joins them; the
others get the tiles one by one, as the libraries themselves offer it. Libraries that are not installed are left out
(async-tiff, s3fs and aiohttp are no dependencies).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from tests.helpers.servers import BUCKET, KEYS, nginx, proxied
from wsiseg.slides import open_slide
from wsiseg.slides.sources.remote import CONNECTIONS, RemoteSource

Range = tuple[int, int]
Cell = tuple[int, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide")
    parser.add_argument("--level", type=int, default=0)
    parser.add_argument("--tiles", type=int, default=1024, help="at most so many")
    parser.add_argument("--delay", type=float, default=50.0, help="milliseconds before each answer")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each, of which the quickest is shown")
    asked = parser.parse_args()
    slide = Path(asked.slide).resolve()
    cells, ranges = tiles_of(slide, asked.level, asked.tiles)
    print(f"{len(ranges)} tiles, {sum(count for _, count in ranges) / 1e6:.1f} MB, {asked.delay:g} ms")
    print(f"{'':24}{'requests':>9}{'seconds':>9}{'CPU s':>8}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "served" / BUCKET).mkdir(parents=True)
        for place in (folder / "served", folder / "served" / BUCKET):
            (place / slide.name).symlink_to(slide)
        port = stack.enter_context(nginx(folder / "served", folder))
        for name, package, fetch in ways(slide.name, asked.level, cells, ranges):
            if find_spec(package) is None:
                print(f"{name:24}{'not installed':>20}")
                continue
            found = []
            for _ in range(asked.repeat):
                with proxied(port, asked.delay / 1000) as (through, told):
                    os.environ.update({**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{through}"})
                    start, before = time.perf_counter(), time.process_time()
                    sizes = fetch(through)
                    found.append((time.perf_counter() - start, time.process_time() - before, told()["requests"]))
                    assert sizes == [count for _, count in ranges], name
            seconds, processor, requests = min(found)
            print(f"{name:24}{requests:9}{seconds:9.2f}{processor:8.2f}", flush=True)


def tiles_of(slide: Path, level: int, most: int) -> tuple[list[Cell], list[Range]]:
    """Tiles of a square in the middle of a level, and where their bytes lie."""
    with open_slide(slide, mpp=0.5, reader="tiff") as opened:
        tiles = opened._tiles  # type: ignore[attr-defined]
        table, length = tiles.tables[level], tiles._source.length
        side = int(most**0.5)
        left, top = max(0, (table.columns - side) // 2), max(0, (table.rows - side) // 2)
        rows, columns = range(top, min(top + side, table.rows)), range(left, min(left + side, table.columns))
        square = [(x, y) for y in rows for x in columns]
        found = [(cell, table.ranges(cell, length)) for cell in square]
        return [cell for cell, one in found if one], [one[0] for _, one in found if one]


def ways(
    name: str, level: int, cells: list[Cell], ranges: list[Range]
) -> list[tuple[str, str, Callable[[int], list[int]]]]:
    """Name, package, and what fetches all tiles from a port and returns their lengths."""
    starts = [start for start, _ in ranges]
    ends = [start + count for start, count in ranges]

    def ours(address: str) -> list[int]:
        source = RemoteSource(address)
        try:
            return [len(part) for part in source.read_many(ranges)]
        finally:
            source.close()

    def obstore_http(port: int) -> list[int]:
        from obstore.store import HTTPStore  # noqa: PLC0415  (as below: only where it is installed)

        store = HTTPStore.from_url(f"http://127.0.0.1:{port}", client_options={"allow_http": True})
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return list(pool.map(lambda one: len(store.get_range(name, start=one[0], length=one[1])), ranges))

    def fsspec_http(port: int) -> list[int]:
        import fsspec  # noqa: PLC0415

        found = fsspec.filesystem("http", skip_instance_cache=True).cat_ranges(
            [f"http://127.0.0.1:{port}/{name}"] * len(starts), starts, ends, batch_size=CONNECTIONS
        )
        return [len(part) for part in found]

    def s3fs(port: int) -> list[int]:
        import fsspec  # noqa: PLC0415

        files = fsspec.filesystem("s3", endpoint_url=f"http://127.0.0.1:{port}", skip_instance_cache=True)
        found = files.cat_ranges([f"{BUCKET}/{name}"] * len(starts), starts, ends, batch_size=CONNECTIONS)
        return [len(part) for part in found]

    def async_tiff(port: int) -> list[int]:
        from async_tiff import TIFF  # noqa: PLC0415
        from async_tiff.store import HTTPStore  # noqa: PLC0415

        async def fetch() -> list[int]:
            store = HTTPStore.from_url(f"http://127.0.0.1:{port}", client_options={"allow_http": True})
            tiff = await TIFF.open(name, store=store)
            found = await tiff.fetch_tiles(cells, level)
            return [len(tile.compressed_bytes) for tile in found]

        return asyncio.run(fetch())

    return [
        ("ours, http (urllib3)", "urllib3", lambda port: ours(f"http://127.0.0.1:{port}/{name}")),
        ("ours, s3 (obstore)", "obstore", lambda _: ours(f"s3://{BUCKET}/{name}")),
        ("obstore, http", "obstore", obstore_http),
        ("fsspec, http (aiohttp)", "aiohttp", fsspec_http),
        ("fsspec, s3 (s3fs)", "s3fs", s3fs),
        ("async-tiff, http", "async_tiff", async_tiff),
    ]


if __name__ == "__main__":
    main()
