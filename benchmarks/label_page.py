"""How quick the labelling page is, and how many patches a minute a journal holds.

    python -m benchmarks.label_page SLIDE [--patches 96]      drives the page in Chromium, key by key
    python -m benchmarks.label_page --journal FILE.jsonl      what a person did: patches a minute, without pauses

The first prints milliseconds from a key to its dot, which means that the answer is on the disk, and from the key that
turns the page to the last picture of the next one. Keys come one after the other without a person's thinking, so that
its patches a minute are the page's limit, not a person's pace.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import sync_playwright

from wsiseg.labelling.answers import Answers
from wsiseg.labelling.status import PAUSE_S
from wsiseg.system.durable_lines import read_lines

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
PER_PAGE = 24


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", nargs="?")
    parser.add_argument("--patches", type=int, default=96)
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("--journal", type=Path)
    args = parser.parse_args()
    if args.journal is not None:
        print_pace(args.journal)
    elif args.slide is not None:
        print_latency(args.slide, args.patches, args.chromium)
    else:
        parser.error("give a slide or a journal")


def print_pace(path: Path) -> None:
    """Patches a minute of a journal, and classes a patch."""
    lines, _ = read_lines(path)
    confirmed = [a for a in Answers.from_lines(lines, "replayed").all().values() if a.status != "draft"]
    working = [answer.seconds for answer in confirmed if answer.seconds <= PAUSE_S]
    classes = [sum(answer.classes.values()) for answer in confirmed if answer.status == "labelled"]
    minutes = sum(working) / 60
    print(f"{len(confirmed)} patches, {len(confirmed) - len(working)} after pauses of more than {PAUSE_S:g} s")
    if minutes:
        print(f"{len(working) / minutes:.1f} patches a minute over {minutes:.1f} minutes")
    if classes:
        print(f"{sum(classes) / len(classes):.2f} classes a labelled patch")


def print_latency(slide: str, patches: int, chromium: str) -> None:
    """Drive the page."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "wsiseg", "label", slide, "--classes", "Tumour,Stroma,Lymphocytes"),
                *("--out", f"{folder}/patches", "--port", "0", "--no-browser", "--quiet"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        browser = started.chromium.launch(executable_path=_found(chromium), args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 860})
        page.goto(address)
        _all_shown(page)
        saved, turned = [], []
        begun = time.perf_counter()
        for number in range(patches):
            page.keyboard.press("1")
            page.keyboard.press("2")
            before = time.perf_counter()
            page.keyboard.press("Enter")
            last = number % PER_PAGE == PER_PAGE - 1
            if last:
                _all_shown(page, f"page {number // PER_PAGE + 2} ")
                turned.append(1000 * (time.perf_counter() - before))
            else:
                page.locator(".mark.pending").first.wait_for(state="detached")
                saved.append(1000 * (time.perf_counter() - before))
        seconds = time.perf_counter() - begun
        browser.close()
        process.terminate()
        process.wait()
    print(f"key to saved: median {median(saved):.0f} ms, worst {max(saved):.0f} ms, {len(saved)} keys")
    if turned:
        print(f"next page shown: median {median(turned):.0f} ms, worst {max(turned):.0f} ms, {len(turned)} pages")
    print(f"{60 * patches / seconds:.0f} patches a minute with two classes each, keys without thinking")


def _found(name: str) -> str:
    return shutil.which(name) or name


def _all_shown(page: Any, where: str = "") -> None:
    """Wait until every picture of the page is there."""
    while where not in page.locator("#where").inner_text() + " ":
        time.sleep(0.001)
    shown = "all => all.length > 0 && all.every(one => one.complete && one.naturalWidth > 0)"
    while not page.locator(".patch img").evaluate_all(shown):
        time.sleep(0.001)


if __name__ == "__main__":
    main()
