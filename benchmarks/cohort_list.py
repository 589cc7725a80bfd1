"""What a long list of slides costs before the first of them is opened: time and memory, and the state of a cohort.

    python -m benchmarks.cohort_list 10000 100000 1000000

prints for each number of lines: seconds to check names and to go through them once, seconds to write and to read the
state of all slides, and the largest memory of the process.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from itertools import chain, pairwise
from pathlib import Path

from wsiseg.cohort.names import Cohort
from wsiseg.cohort.slide_source import SlideSource
from wsiseg.cohort.state import FOLDER, Marks, State
from wsiseg.cohort.status import Status
from wsiseg.system.durable_lines import write_lines


def megabytes() -> float:
    """The largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(count: int) -> str:
    """A line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        table, maps = Path(folder, "list.csv"), Path(folder, "maps")
        with table.open("w", encoding="utf-8") as file:
            file.write("path;name;mpp;group\n")
            file.writelines(f"/data/site{n % 17}/slide-{n:07d}.svs;;0,25;p{n // 3}\n" for n in range(count))
        base, times = megabytes(), [time.perf_counter()]
        cohort = Cohort(SlideSource(str(table)))
        times.append(time.perf_counter())
        assert sum(1 for _ in cohort) == count
        times.append(time.perf_counter())
        listed = megabytes()
        (maps / FOLDER).mkdir(parents=True)
        areas = {"Tumour": 1.0, "Stroma": 2.0, "Lymphocytes": 3.0}
        lines = (
            {"map": named.map, "slide": named.entry.slide, "state": State.DONE.text, "turn": 1, "how": "0123456789ab",
             "seconds": 60.0, "tissue_mm2": 6.0, "areas_mm2": areas}
            for named in cohort
        )  # fmt: skip
        head = {"cohort": 1, "slides": count, "list": "list.csv"}
        write_lines(maps / FOLDER / "state.jsonl", chain([head], lines))
        times.append(time.perf_counter())
        marks = Marks(maps)
        assert marks.of("slide-0000001.zarr").state is State.DONE
        times.append(time.perf_counter())
        marked = megabytes()
        assert Status.of(maps).done == count
        times.append(time.perf_counter())
    spans = [f"{later - earlier:.1f}" for earlier, later in pairwise(times)]
    memory = f"{listed - base:.0f} | {marked - base:.0f} | {megabytes() - base:.0f}"
    return f"| {count} | {' | '.join(spans)} | {memory} |"


def main() -> None:
    """Each number in a process of its own, so that memory is that of it alone."""
    if sys.argv[1:2] == ["--one"]:
        print(measure(int(sys.argv[2])), flush=True)
        return
    print("| slides | names checked, s | gone through, s | state written, s | read by a run, s | status, s "
          "| MB: names | MB: and state | MB: and status |")  # fmt: skip
    print("|" + "---|" * 9, flush=True)
    for count in sys.argv[1:] or ["10000", "100000"]:
        subprocess.run([sys.executable, "-m", "benchmarks.cohort_list", "--one", count], check=True)


if __name__ == "__main__":
    main()
