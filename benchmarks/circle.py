"""The whole circle in commands, timed: label, train, predict, look, correct, train again, report.

    python -m benchmarks.circle [SLIDE…] [--patches 72] [--epochs 1] [--keep FOLDER]

Slides are those of sample_data by default. What stands in for a person is a rule: the darker third of the patches is
Tumour, the brighter third Stroma, what lies between is both; answers are sent as the page sends them, one a key. The
correction calls the middle of the first slide Stroma. The labels mean nothing; the seconds do, and each command is the
one that a user types. Ratios of steps hold on other machines, seconds only on a quiet one of the same kind.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from wsiseg.slides import open_slide

SAMPLES = Path(__file__).parents[1] / "sample_data"
CLASSES = ("Tumour", "Stroma")
THIRDS = (1 / 3, 2 / 3)


@dataclass
class Page:
    """What a page is asked and sent, as a browser does."""

    port: int
    cookie: str

    def ask(self, path: str, body: object = None) -> bytes:
        """The body of an answer; POST where there is something to send."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Cookie": self.cookie, "Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, content, headers)
        answer = connection.getresponse()
        found = answer.read()
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"{path} answered {answer.status}: {found[:200]!r}")
        return found


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", nargs="*")
    parser.add_argument("--patches", type=int, default=72)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for what is made; a temporary one by default")
    args = parser.parse_args()
    slides = args.slides or [str(SAMPLES / "CMU-1-Small-Region.svs"), str(SAMPLES / "OS-1-detail.ome.tif")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run_circle(slides, folder, args.patches, args.epochs)


def run_circle(slides: Sequence[str], folder: Path, patches: int, epochs: int) -> None:
    """All steps, each printed as it ends."""
    labels, fixes = folder / "patches", folder / "corrections"
    first, second = folder / "model", folder / "model-2"
    begun = time.perf_counter()
    label(slides, labels, patches)
    command("dataset", "check", labels)
    command("train", labels, "--out", first, "--epochs", epochs, "--quiet")
    maps = predict(slides, first, folder, "")
    look(maps[0], slides[0])
    corrected = draw(slides[0], maps[0], folder / "corrected.geojson")
    command("correct", maps[0], "--corrected", corrected, "--slide", slides[0], "--out", fixes, "--quiet")
    command("train", fixes, "--from", first, "--with", labels, "--out", second, "--epochs", epochs, "--quiet")
    after = predict(slides, second, folder, "-2")
    folders = {str(Path(slide).parent) for slide in slides}  # report takes one folder of all slides
    given = ["--slides", *folders] if len(folders) == 1 else []
    command("report", *after, *given, "--out", folder / "report.html", "--quiet")
    print(f"{time.perf_counter() - begun:7.1f} s  all")


def command(*arguments: object) -> None:
    """Run a command of wsiseg, and print how long it took."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "wsiseg", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"wsiseg {' '.join(map(str, arguments))} failed: {done.stderr[-2000:]}")
    _print(begun, arguments)


def _print(begun: float, arguments: Sequence[object], note: str = "") -> None:
    words = " ".join(Path(str(part)).name if "/" in str(part) else str(part) for part in arguments)
    print(f"{time.perf_counter() - begun:7.1f} s  wsiseg {words}{note}", flush=True)


def predict(slides: Sequence[str], model: Path, folder: Path, ending: str) -> list[Path]:
    """Maps of all slides."""
    maps = []
    for slide in slides:
        out = folder / f"{Path(slide).name.split('.')[0]}{ending}.zarr"
        command("predict", slide, "--model", model, "--out", out, "--quiet")
        maps.append(out)
    return maps


@contextmanager
def served(*arguments: object) -> Iterator[Page]:
    """A command that serves a page, until the context ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "wsiseg", *map(str, arguments), "--no-browser", "--quiet"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline().strip())
        connection = http.client.HTTPConnection("127.0.0.1", address.port or 0, timeout=60)
        connection.request("GET", f"{address.path}?{address.query}")
        cookie = connection.getresponse().getheader("set-cookie") or ""
        connection.close()
        yield Page(address.port or 0, cookie.partition(";")[0])
        process.send_signal(signal.SIGINT)
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def label(slides: Sequence[str], out: Path, patches: int) -> None:
    """Label so many patches by the rule, key by key."""
    arguments = ("label", *slides, "--classes", ",".join(CLASSES), "--out", out, "--candidates", 4 * patches)
    begun = time.perf_counter()
    with served(*arguments) as page:
        _print(begun, ("label", "…"), ", until the first page can be asked for")
        begun = time.perf_counter()
        items: list[dict[str, str]] = []
        while len(items) < patches:
            items += json.loads(page.ask(f"/api/page?number={len(items) // 24}"))["items"]
        looks = [float(np.asarray(Image.open(io.BytesIO(page.ask(item["patch"])))).mean()) for item in items]
        dark, bright = np.quantile(looks, THIRDS)
        for item, mean in list(zip(items, looks, strict=True))[:patches]:
            names = [CLASSES[0]] * bool(mean < bright) + [CLASSES[1]] * bool(mean > dark)
            for count in range(1, len(names) + 1):
                answer(page, item, names[:count], "draft")
            answer(page, item, names, "labelled")
        _print(begun, ("label", "…"), f", {patches} patches answered")
        begun = time.perf_counter()
    _print(begun, ("label", "…"), ", data set written, ended by Ctrl-C")


def answer(page: Page, item: dict[str, str], names: Sequence[str], status: str) -> None:
    """What a key sends."""
    page.ask("/api/answer", {"answers": {str(item["place"]): list(names)}, "status": status, "round": 1})


def look(map_path: Path, slide: str) -> None:
    """The viewer, until its page is there."""
    begun = time.perf_counter()
    with served("view", map_path, "--slide", slide) as page:
        page.ask("/")
        _print(begun, ("view", map_path, "--slide", slide), ", until the page is there")


def draw(slide: str, map_path: Path, path: Path) -> Path:
    """The map's regions as a user exports them, and one that was drawn."""
    with open_slide(slide) as opened:
        width, height = opened.size.width, opened.size.height
    corners = [(0.3, 0.3), (0.7, 0.3), (0.7, 0.7), (0.3, 0.7), (0.3, 0.3)]
    tree = json.loads(map_path.with_suffix(".geojson").read_text())
    tree["features"].append({
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[round(x * width), round(y * height)] for x, y in corners]]},
        "properties": {"objectType": "annotation", "classification": {"name": CLASSES[1]}},
    })  # fmt: skip
    path.write_text(json.dumps(tree))
    return path


if __name__ == "__main__":
    main()
