"""What `wsiseg predict` does before its first batch of patches, and what commands that load no network take.

    python -m benchmarks.startup sample_data/CMU-1-Small-Region.svs

Each row is a fresh process of its own; rows alternate with `python -c "import torch"`, and figures are the least CPU
seconds of several rounds, and their ratio to torch's, which another load of the machine does not change much. The
program itself runs, unchanged: the process ends when the network is asked for its first batch of tiles (not when a
blank patch makes it ready), told by a profile hook on that one function. Compiled modules (`.pyc`) are kept in a
folder of the benchmark's own, so that rounds after the first find them, as an installation does.

    --map MAP.zarr  also measures `wsiseg info` of a tissue map
    --modules 15    also prints which packages take longest to import (seconds of wall time, `-X importtime`)
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter

PREDICT = """
import json, os, resource, sys, threading
from importlib.machinery import PathFinder
laps, once = {}, threading.Lock()
def lap(name):
    used = resource.getrusage(resource.RUSAGE_SELF)
    laps.setdefault(name, used.ru_utime + used.ru_stime)
def ended():
    once.acquire()  # another thread may come here with the next batch
    lap("first batch")
    names = sorted(sys.modules)
    print(json.dumps({"laps": laps, "modules": names}), flush=True)
    os._exit(0)
class Watch:
    # Watches imports end, since every step of a start begins by importing what it needs.
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            lap("slide opened and checked")
        elif name == "wsiseg.models.bundle":
            lap("torch")
        elif name == "wsiseg.prediction.run":
            spec = PathFinder.find_spec(name, path)
            loaded = spec.loader.exec_module
            def load_and_watch(module):
                loaded(module)
                sys.setprofile(trace)
                threading.setprofile(trace)
            spec.loader.exec_module = load_and_watch
            return spec
        return None
sys.meta_path.insert(0, Watch())
def trace(frame, event, argument):
    if event == "call" and frame.f_code.co_name in WATCHED:
        name = frame.f_code.co_filename.replace(os.sep, "/")
        known = WATCHED[frame.f_code.co_name]
        if name.endswith(known[0]):
            lap(known[1]) if known[1] else ended()
WATCHED = {
    "load_model": ("models/bundle.py", "modules"),
    "prepare": ("prediction/run.py", "model loaded"),
    "fingerprint": ("prediction/job.py", "networks ready"),
    "_pieces": ("prediction/job.py", "tissue found, store begun"),
    "batch_tensor": ("prediction/gated.py", ""),
}
from wsiseg.cli.main import main
main(sys.argv[1:])
"""
"""A process that runs the command line and says how many CPU seconds had gone at each step. The
hook begins when everything is imported, since it would slow that down."""


COMPILED = tempfile.TemporaryDirectory(prefix="wsiseg-startup-")


def spent(command: list[str]) -> tuple[float, str, str]:
    """CPU seconds of a process, and what it printed."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": COMPILED.name}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    after = os.times()
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, done.stdout, done.stderr


def predict_until_first_batch(slide: str, runtime: str) -> dict[str, object]:
    """CPU seconds by step, and the modules that were loaded by then."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["predict", slide, "--out", f"{folder}/map.zarr", "--runtime", runtime, "--quiet"]
        _, out, _ = spent([sys.executable, "-c", PREDICT, *arguments])
    found: dict[str, object] = json.loads(out.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide")
    parser.add_argument("--runtimes", default="torch,openvino")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--map")
    parser.add_argument("--modules", type=int, default=0)
    asked = parser.parse_args()
    runtimes = asked.runtimes.split(",")
    light = [
        ["--version"],
        ["--help"],
        ["models"],
        ["info", asked.slide],
        *([["info", asked.map]] if asked.map else []),
    ]
    torch: list[float] = []
    took: dict[str, list[float]] = {" ".join(arguments): [] for arguments in light}
    laps: dict[str, list[dict[str, float]]] = {runtime: [] for runtime in runtimes}
    for _ in range(asked.rounds):
        torch.append(spent([sys.executable, "-c", "import torch"])[0])
        for arguments in light:
            took[" ".join(arguments)].append(spent([sys.executable, "-m", "wsiseg", *arguments])[0])
        for runtime in runtimes:
            laps[runtime].append(predict_until_first_batch(asked.slide, runtime)["laps"])  # type: ignore[arg-type]
    unit = min(torch)
    print(f"import torch{'':<22} {unit:6.2f} s")
    for command, seconds in took.items():
        print(f"wsiseg {command[:26]:<27} {min(seconds):6.2f} s {min(seconds) / unit:5.2f} of import torch")
    for runtime in runtimes:
        print(f"wsiseg predict --runtime {runtime}")
        best, before = min(laps[runtime], key=lambda run: run["first batch"]), 0.0
        for step, until in best.items():
            print(f"  + {step:<30} {until - before:6.2f} s")
            before = until
        print(f"  = {'first batch':<30} {before:6.2f} s {before / unit:5.2f} of import torch")
    if asked.modules:
        slowest_imports(asked.slide, runtimes[0], asked.modules)


def slowest_imports(slide: str, runtime: str, count: int) -> None:
    """Print which packages' own modules take longest, all of the command included."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["predict", slide, "--out", f"{folder}/map.zarr", "--runtime", runtime, "--quiet"]
        _, _, told = spent([sys.executable, "-X", "importtime", "-c", PREDICT, *arguments])
    own: Counter[str] = Counter()
    for line in told.splitlines():
        if match := re.match(r"import time:\s+(\d+) \|\s+\d+ \| *([^.\s]+)", line):
            own[match[2]] += int(match[1])
    for package, microseconds in own.most_common(count):
        print(f"  {package:<30} {microseconds / 1e6:6.2f} s")


if __name__ == "__main__":
    main()
