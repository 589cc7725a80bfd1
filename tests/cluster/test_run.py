"""Cohorts on real Dask clusters, whose processes die: the maps are those of a run alone, byte for byte."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.helpers.dask_cluster import ALIKE, begin, cut_slides, holders, same_maps
from tests.helpers.servers import free_port
from wsiseg.cohort.status import Status

pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")

WAIT_S = 300


def wait_for_holder(maps: Path, process: "subprocess.Popen[str]", other_than: int = 0) -> int:
    """A process that holds a slide, as soon as there is one."""
    limit = time.monotonic() + WAIT_S
    while time.monotonic() < limit:
        found = [one for one in holders(maps) if one != other_than]
        if found:
            return found[0]
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError


def alone(slides: Path, maps: Path) -> Path:
    """The maps of a run in one process."""
    process = begin(slides, maps, "--quiet")
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, said
    return maps


def children(process: int) -> set[int]:
    """All processes that a process began, and that these began."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == process:
                found |= {int(path.parent.name)} | children(int(path.parent.name))
    return found


def is_gone(process: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def gone_soon(processes: set[int]) -> set[int]:
    limit = time.monotonic() + 30
    while time.monotonic() < limit and not all(map(is_gone, processes)):
        time.sleep(0.2)
    return {one for one in processes if not is_gone(one)}


def test_a_worker_that_dies_is_replaced_and_its_slide_resumed(tmp_path: Path, sample_data: Path) -> None:
    slides, maps = cut_slides(tmp_path / "slides", sample_data / "CMU-1-Small-Region.svs", 3), tmp_path / "maps"
    process = begin(slides, maps, "--cluster", "local:2")
    os.kill(wait_for_holder(maps, process), signal.SIGKILL)
    said, told = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, told
    assert "3 slides: 3 done" in said
    assert told.count("its worker died") == 1
    assert "2 processes with" in told
    assert same_maps(maps, alone(slides, tmp_path / "alone")) == 3
    assert not list(maps.glob(".*.unfinished"))
    assert not list(maps.glob(".*.lease"))


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_driver_ends_and_the_same_command_goes_on(tmp_path: Path, sample_data: Path, sent: int) -> None:
    slides, maps = cut_slides(tmp_path / "slides", sample_data / "CMU-1-Small-Region.svs", 3), tmp_path / "maps"
    process = begin(slides, maps, "--cluster", "local:2", start_new_session=True)
    wait_for_holder(maps, process)
    began = children(process.pid)
    assert len(began) >= 2
    os.killpg(process.pid, sent) if sent == signal.SIGINT else process.send_signal(sent)  # a terminal tells the group
    _, told = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9}.get(sent, 130), told
    assert gone_soon(began) == set()
    if sent != signal.SIGKILL:
        assert told.splitlines()[-1].startswith("wsiseg: interrupted")
        assert "Traceback" not in told
        assert not list(maps.glob(".*.lease"))
    assert Status.of(maps).left >= 1
    process = begin(slides, maps, "--cluster", "local:2")
    _, told = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, told
    assert same_maps(maps, alone(slides, tmp_path / "alone")) == 3


class Processes:
    """A scheduler and two workers, each begun anew where it has died."""

    def __init__(self) -> None:
        self.port = free_port()
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def ensure(self) -> None:
        worker = ["worker", self.address, "--nthreads", "1", "--memory-limit", "0", "--no-dashboard"]
        wanted = {
            "scheduler": ["scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"],
            "worker 1": [*worker, "--death-timeout", "60"], "worker 2": [*worker, "--death-timeout", "60"],
        }  # fmt: skip
        for name, arguments in wanted.items():
            if name not in self.running or self.running[name].poll() is not None:
                self.running[name] = subprocess.Popen(
                    [sys.executable, "-m", "dask", *arguments], env=ALIKE, stderr=subprocess.DEVNULL
                )

    def end(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


@contextmanager
def scheduler_and_workers() -> Iterator[Processes]:
    with ExitStack() as stack:
        processes = Processes()
        stack.callback(processes.end)
        processes.ensure()
        yield processes


@pytest.mark.slow
def test_the_scheduler_dies_and_the_same_command_goes_on(tmp_path: Path, sample_data: Path) -> None:
    slides, maps = cut_slides(tmp_path / "slides", sample_data / "CMU-1-Small-Region.svs", 3), tmp_path / "maps"
    with scheduler_and_workers() as processes:
        process = begin(slides, maps, "--cluster", processes.address)
        wait_for_holder(maps, process)
        processes.running["scheduler"].kill()
        _, told = process.communicate(timeout=60)
        assert process.returncode == 75, told
        assert "the scheduler is gone" in told
        processes.ensure()
        process = begin(slides, maps, "--cluster", processes.address)
        _, told = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, told
    assert same_maps(maps, alone(slides, tmp_path / "alone")) == 3


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path: Path, sample_data: Path) -> None:
    """Of workers, schedulers and drivers; prints how many of each. The variable KILLS takes another number."""
    number, kills = 6, int(os.environ.get("KILLS", "20"))
    slides = cut_slides(tmp_path / "slides", sample_data / "CMU-1-Small-Region.svs", number)
    maps, chance, table = tmp_path / "maps", random.Random(0), dict.fromkeys(("worker", "scheduler", "driver"), 0)
    codes: dict[int, int] = {}
    with scheduler_and_workers() as processes:
        driver: subprocess.Popen[str] | None = None
        while True:
            processes.ensure()
            if driver is not None and driver.poll() is not None:
                codes[driver.returncode] = codes.get(driver.returncode, 0) + 1
                _, told = driver.communicate()
                assert driver.returncode in (0, 2, 75, -9), told
                if driver.returncode == 0:
                    break
                driver = None
            if driver is None:
                time.sleep(1)
                driver = begin(slides, maps, "--cluster", processes.address, "--retry-failed", "--quiet")
            if sum(table.values()) < kills:
                limit = time.monotonic() + 60
                while not holders(maps) and driver.poll() is None and time.monotonic() < limit:
                    time.sleep(0.2)  # most moments are those of a start, at which there is little to lose
                time.sleep(chance.uniform(0, 6))
                kind = chance.choice(list(table))
                working = holders(maps)
                if kind == "driver":
                    driver.kill()
                elif kind == "scheduler":
                    processes.running["scheduler"].kill()
                elif working:
                    with suppress(ProcessLookupError):
                        os.kill(chance.choice(working), signal.SIGKILL)
                else:
                    continue
                table[kind] += 1
            else:
                time.sleep(0.5)
    print(f"kills {table}, ends of drivers {codes}")
    assert same_maps(maps, alone(slides, tmp_path / "alone")) == number
