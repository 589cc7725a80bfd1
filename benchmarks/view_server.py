"""The server of `wsiseg view`: time to the first view, latency of tiles, and its memory over many of them.

    python benchmarks/view_server.py MAP.zarr --slide SLIDE --tiles 10000

Prints the seconds from start to address, those from opening the page to all tiles of the first view (with Chromium,
where there is one), the median and 95th percentile of a tile's latency cold and warm, and the memory of the server
before and after. Other work on the machine makes all of these worse.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wsiseg.geometry import ceil_div

READY_S = 120
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


class Client:
    """Requests on one connection, as the page sends them."""

    def __init__(self, address: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", urlsplit(address).port, timeout=60)
        self.headers = {"Sec-Fetch-Site": "same-origin"}
        self.connection.request("GET", "/?" + urlsplit(address).query, headers=self.headers)
        answer = self.connection.getresponse()
        answer.read()
        self.headers["Cookie"] = str(answer.headers["Set-Cookie"]).partition(";")[0]

    def get(self, path: str) -> bytes:
        """The content of an address."""
        try:
            self.connection.request("GET", path, headers=self.headers)
            answer = self.connection.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError):  # it was idle for too long
            self.connection.close()
            self.connection.request("GET", path, headers=self.headers)
            answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {content[:200]!r}")
        return content


def start(arguments: argparse.Namespace) -> tuple[subprocess.Popen[str], str, float]:
    command = [sys.executable, "-m", "wsiseg", "view", *arguments.maps, "--no-browser"]
    if arguments.slide:
        command += ["--slide", arguments.slide]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip(), time.perf_counter() - began


def tile_paths(case: dict[str, Any]) -> list[str]:
    """Every tile of slide and first map, all levels."""
    found, shown, side = [], case["maps"][0], case["tile"]
    kinds = [f"/m/{shown['id']}/classes"]
    if shown["probabilities"]:
        kinds += [f"/m/{shown['id']}/probability/1", f"/m/{shown['id']}/uncertainty"]
    if shown["records"]["gate"]:
        kinds += [f"/m/{shown['id']}/gate/0"]
    for level in range(shown["levels"]):
        columns, rows = (ceil_div(ceil_div(shown[key], 2**level), side) for key in ("width", "height"))
        found += [f"{kind}/{level}/{x}_{y}.png" for kind in kinds for x in range(columns) for y in range(rows)]
    level = 0
    while case["slide"]:
        width, height = (ceil_div(case[key], 2**level) for key in ("width", "height"))
        columns, rows = ceil_div(width, side), ceil_div(height, side)
        found += [f"/s/{case['id']}/{level}/{x}_{y}.jpg" for x in range(columns) for y in range(rows)]
        if max(width, height) <= side:
            break
        level += 1
    return found


def latency(client: Client, paths: list[str]) -> list[float]:
    """Milliseconds of each."""
    times = []
    for path in paths:
        began = time.perf_counter()
        client.get(path)
        times.append(1000 * (time.perf_counter() - began))
    return times


def tell(name: str, times: list[float]) -> None:
    high = statistics.quantiles(times, n=20)[-1] if len(times) > 1 else times[0]
    print(f"{name}: median {statistics.median(times):.1f} ms, 95 % {high:.1f} ms, {len(times)} tiles")


def memory_mb(process: subprocess.Popen[str]) -> float:
    """Resident memory, on Linux."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def first_view(arguments: argparse.Namespace) -> None:
    """Seconds from opening the page until every tile of the first view is drawn; the second time is without a start."""
    program = shutil.which("chromium")
    if program is None:
        print("first view: not measured, there is no Chromium")
        return
    from playwright.sync_api import Request, sync_playwright  # noqa: PLC0415

    process, address, _ = start(arguments)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        ended = [0.0]

        def finished(request: Request) -> None:
            if request.url.endswith((".png", ".jpg")):  # areas in view are asked for later, when the view rests
                ended.append(time.perf_counter())

        page.on("requestfinished", finished)
        for name in ("first view", "first view, opened again"):
            began = time.perf_counter()
            page.goto(address, timeout=1000 * READY_S)
            page.wait_for_selector("body[data-ready]", timeout=1000 * READY_S)
            tiles = 0
            while tiles != len(ended):
                tiles = len(ended)
                page.wait_for_timeout(700)
            ready = page.evaluate("performance.getEntriesByName('ready')[0].startTime") / 1000
            print(f"{name}: {ended[-1] - began:.2f} s; the page itself stood after {ready:.2f} s", flush=True)
            address = address.partition("?")[0]
        browser.close()
    process.send_signal(signal.SIGINT)
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", nargs="+")
    parser.add_argument("--slide")
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=200, help="tiles whose latency is measured, of each kind")
    parser.add_argument("--no-first-view", action="store_true", help="no browser")
    arguments = parser.parse_args()
    if not arguments.no_first_view:
        first_view(arguments)
    process, address, seconds = start(arguments)
    print(f"start to address: {seconds:.2f} s")
    client = Client(address)
    case = json.loads(client.get("/cases"))["cases"][0]
    paths = tile_paths(case)
    random.Random(0).shuffle(paths)
    print(f"{len(paths)} tiles in all")
    for name, part in (
        ("slide", "/s/"),
        ("classes", "/classes/"),
        ("probability", "/probability/"),
        ("gate", "/gate/"),
    ):
        sample = [path for path in paths if part in path][: arguments.sample]
        if sample:
            tell(f"{name}, cold", latency(client, sample))
            tell(f"{name}, warm", latency(client, sample))
    print(f"memory: {memory_mb(process):.0f} MB before", flush=True)
    for begin in range(0, arguments.tiles, 1000):
        part = [paths[i % len(paths)] for i in range(begin, min(begin + 1000, arguments.tiles))]
        latency(client, part)
        print(f"memory: {memory_mb(process):.0f} MB after {begin + len(part)} tiles", flush=True)
    process.send_signal(signal.SIGINT)
    process.wait()


if __name__ == "__main__":
    main()
