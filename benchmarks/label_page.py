"""How quick the labelling page is, and how many patches a minute a journal holds.

    python -m benchmarks.label_page SLIDE [--patches 240]     drives the page in Chromium, key by key
    python -m benchmarks.label_page --journal FILE.jsonl      what a person did: patches a minute, without pauses

The first prints milliseconds as the page itself sees them: from a key to its dot, which means that the answer is on the
disk, and from the key that turns the page to the frame that shows all pictures of the next one. Between keys are
`--pause` milliseconds; with 0 its patches a minute are the page's limit, not a person's pace.
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

TIMER = """
window.taken = { saved: [], turned: [] };
let pressed = null;
addEventListener("keydown", (event) => {
  if (event.key === "Enter") pressed = { at: event.timeStamp, where: where() };
}, true);
const where = () => document.querySelector("#where").textContent;
const painted = (then) => requestAnimationFrame(() => setTimeout(then, 0));
function look() {
  const now = pressed;
  if (now !== null) {
    const pictures = [...document.querySelectorAll(".patch img")];
    const shown = pictures.length > 0 && pictures.every((one) => one.complete && one.naturalWidth > 0);
    const turned = where() !== now.where;
    if (turned ? shown : document.querySelector(".mark.pending") === null) {
      pressed = null;
      painted(() => window.taken[turned ? "turned" : "saved"].push(performance.now() - now.at));
    }
  }
  requestAnimationFrame(look);
}
addEventListener("DOMContentLoaded", () => requestAnimationFrame(look));
"""
"""Counts in the page: from the key's own time to the task behind the frame that shows what it led to."""


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", nargs="?")
    parser.add_argument("--patches", type=int, default=240)
    parser.add_argument("--pause", type=int, default=100, help="milliseconds between keys")
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("--journal", type=Path)
    args = parser.parse_args()
    if args.journal is not None:
        print_pace(args.journal)
    elif args.slide is not None:
        print_latency(args.slide, args.patches, args.pause, args.chromium)
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


def print_latency(slide: str, patches: int, pause_ms: int, chromium: str) -> None:
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
        page.add_init_script(TIMER)
        page.goto(address)
        page.wait_for_selector(".patch img")
        page.wait_for_timeout(2000)
        begun = time.perf_counter()
        for number in range(patches):
            for key in ("1", "2", "Enter"):
                page.keyboard.press(key)
                page.wait_for_timeout(pause_ms)
            if number % PER_PAGE == PER_PAGE - 1:
                _wait_for_turns(page, (number + 1) // PER_PAGE)
        seconds = time.perf_counter() - begun
        page.wait_for_timeout(500)
        taken = page.evaluate("window.taken")
        browser.close()
        process.terminate()
        process.wait()
    _print("key to saved", taken["saved"])
    _print("key to next page shown", taken["turned"])
    print(f"{60 * patches / seconds:.0f} patches a minute with two classes each, {pause_ms} ms between keys")


def _print(what: str, values: list[float]) -> None:
    if values:
        ordered = sorted(values)
        tenth = ordered[int(0.9 * (len(ordered) - 1))]
        print(
            f"{what}: median {median(ordered):.0f} ms, 90 % under {tenth:.0f}, worst {ordered[-1]:.0f} ({len(ordered)})"
        )


def _wait_for_turns(page: Any, count: int) -> None:
    for _ in range(1000):
        if page.evaluate("window.taken.turned.length") >= count:
            return
        page.wait_for_timeout(10)
    raise SystemExit("the next page did not come within ten seconds")


def _found(name: str) -> str:
    return shutil.which(name) or name


if __name__ == "__main__":
    main()
