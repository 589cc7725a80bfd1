"""Runs damaged files through the program and keeps those that it does not refuse in its own words.

    python -m tests.fuzz.worker --target slide --minutes 10 --keep found --log fuzz.jsonl
    python -m tests.fuzz.worker --target slide --replay tests/fuzz/corpus/slide

Cases run in a process of their own, whose address space is bounded, so that a crash or a hang inside a C library is
seen: the case is kept, and another process goes on behind it. A case is a defect where anything but a `WsisegError`
is raised, where the error has no words or more than one line, where it takes longer than `SLOW_S` of CPU time or waits
for ever, or where the process needs more than `MOST_BYTES` of memory for it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.cases import copy_case, unpack

ROOT = Path(__file__).parents[2]
ADDRESS_SPACE = 4 * 2**30
"""What a case may map on top of what the program holds before."""

MOST_BYTES = 2**30
SLOW_S = 10.0
HANG_S = 20.0
POLL_S = 5.0


def main() -> None:
    """Fuzz or replay one target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other cases")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"), help="folder for the cases that broke")
    parser.add_argument("--log", type=Path, help="append one line of JSON: cases, outcomes, CPU time")
    parser.add_argument("--replay", type=Path, help="run the cases in this folder instead of new ones")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    options = parser.parse_args()
    if options.child:
        _child(options)
        return
    with tempfile.TemporaryDirectory(prefix="wsiseg-fuzz-") as work:
        result = _supervise(options, Path(work))
    print(json.dumps(result))
    if options.log:
        with options.log.open("a") as log:
            log.write(json.dumps(result) + "\n")
    sys.exit(1 if result["found"] else 0)


# The process that watches.


def _supervise(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    found: Counter[str] = Counter()
    started, number, ends = time.time(), options.first, time.time() + 60 * options.minutes
    while number is not None:
        number = _one_child(options, work, number, ends, outcomes, found)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "target": options.target,
        "seed": options.seed,
        "cases": sum(outcomes.values()),
        "cpu_s": round(spent.ru_utime + spent.ru_stime, 1),
        "wall_s": round(time.time() - started, 1),
        "outcomes": dict(outcomes.most_common()),
        "found": dict(found.most_common()),
    }


def _one_child(
    options: argparse.Namespace, work: Path, number: int, ends: float, outcomes: Counter[str], found: Counter[str]
) -> int | None:
    """Run cases from `number` on until a process ends; the number to go on with, None where all is done."""
    command = [sys.executable, "-m", "tests.fuzz.worker", "--target", options.target, "--seed", str(options.seed)]
    command += ["--first", str(number), "--child", str(work), "--minutes", str(max(0.0, (ends - time.time()) / 60))]
    command += ["--keep", str(options.keep)] + (["--replay", str(options.replay)] if options.replay else [])
    environment = {**os.environ, "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    with (work / "stderr").open("wb") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT, env=environment)
    assert child.stdout is not None
    current, buffer, end, still = number, b"", "died", _Stillness(child.pid)
    while True:
        ready, _, _ = select.select([child.stdout], [], [], POLL_S)
        if not ready and not still.hangs():
            continue
        piece = os.read(child.stdout.fileno(), 65536) if ready else b""
        if not piece:
            if not ready:
                end = "hangs"
                child.kill()
            break
        still = _Stillness(child.pid)
        *lines, buffer = (buffer + piece).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "start" in said:
                current, end = said["start"], "died"
            elif "outcome" in said:
                outcomes[said["outcome"]] += 1
                found.update([said["found"]] if said.get("found") else [])
                current, end = current + 1, "between"
            else:
                end = "finished"
    child.wait()
    if end == "finished":
        return None
    if end == "between" and child.returncode == 0:
        return current
    kind = end if end == "hangs" else f"signal {-child.returncode}" if child.returncode < 0 else "exit"
    outcomes[kind] += 1
    trace = (work / "stderr").read_text("utf-8", "replace")
    where = next((line for line in trace.splitlines() if "/wsiseg/" in line and "/tests/" not in line), "")
    where = where.rpartition("/")[2].replace('"', "")
    found[f"{kind} {where}"] += 1
    if (work / "case").is_dir():
        _keep(options, work / "case", f"{kind} {where}", trace)
    return current + 1


class _Stillness:
    """Tells a process that hangs from one that only waits for a busy machine: since when nothing was heard of it."""

    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._first = self._last = self._cpu_s()
        self._idle = 0

    def _cpu_s(self) -> float:
        fields = self._stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def hangs(self) -> bool:
        """Called every `POLL_S`: it computed for `HANG_S`, or did nothing for as long, waiting for what never comes."""
        now = self._cpu_s()
        waits = self._stat.read_text().rpartition(")")[2].split()[0] == "S"
        self._idle = self._idle + 1 if waits and now - self._last < 0.02 else 0
        self._last = now
        return now - self._first > HANG_S or self._idle * POLL_S >= HANG_S


def _keep(options: argparse.Namespace, case: Path, title: str, trace: str) -> None:
    """Copy a case, the smallest of each title."""
    if options.replay:
        return
    name = hashlib.sha256(title.encode()).hexdigest()[:8]
    folder = options.keep / options.target / name
    if not folder.exists() or _bytes(case) < _bytes(folder / "case"):
        shutil.rmtree(folder, ignore_errors=True)
        copy_case(case, folder / "case")
        (folder / "title.txt").write_text(f"{title}\n\n{trace}", errors="replace")


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))


# The process that runs cases.


def _child(options: argparse.Namespace) -> None:
    sys.stdout.flush()
    out = os.fdopen(os.dup(1), "w")  # what libraries print does not get in between
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def say(**values: Any) -> None:
        out.write(json.dumps(values) + "\n")
        out.flush()

    from tests.fuzz.targets import TARGETS

    target = TARGETS[options.target]
    seed_folder, case = options.child / "seeds", options.child / "case"
    if not seed_folder.is_dir():
        seed_folder.mkdir()
        target.seeds(seed_folder)
    target.prepare()
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESS_SPACE,) * 2)
    replayed = sorted(options.replay.iterdir()) if options.replay else []
    number, ends = options.first, time.time() + 60 * options.minutes
    while number < len(replayed) if options.replay else time.time() < ends:
        shutil.rmtree(case, ignore_errors=True)
        case.mkdir()
        if options.replay:
            unpack(replayed[number], seed_folder, case)
        else:
            target.make(seed_folder, case, Random(f"{options.target} {options.seed} {number}"))
        say(start=number)
        outcome, title, trace = judge(target.run, case)
        if title:
            _keep(options, case, title, trace)
        shown = replayed[number].name + ": " if options.replay and title else ""
        say(outcome=outcome, found=shown + title)
        number += 1
    say(finished=True)


def judge(run: Any, case: Path) -> tuple[str, str, str]:
    """Run a case: its outcome, the title of the defect or nothing, and its trace."""
    from wsiseg.errors import WsisegError

    began, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome, title, trace = "read", "", ""
    try:
        run(case)
    except WsisegError as error:
        outcome = type(error).__name__
        message = str(error)
        if not message.strip() or len(message) > 2000:
            title = f"message of {len(message)} letters, {_place(error)}"
            trace = traceback.format_exc()
    except BaseException as error:
        outcome, title = "defect", f"{type(error).__name__} {_place(error)}"
        trace = traceback.format_exc()
    spent = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
    if not title and spent > SLOW_S:
        title, trace = f"slow {outcome}", f"{spent:.1f} s of CPU time"
    if not title and grown > MOST_BYTES:
        title, trace = f"memory {outcome}", f"{grown / 2**20:.0f} MiB more than before"
    return outcome, title, trace


def _place(error: BaseException) -> str:
    """The line of the program that the error passed last, and of the library that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/wsiseg/" in f.filename and "site-packages" not in f.filename]
    shown = [f"{Path(f.filename).name}:{f.name}" for f in ([ours[-1]] if ours else []) + [frames[-1]]]
    return " ".join(dict.fromkeys(shown))


if __name__ == "__main__":
    main()
