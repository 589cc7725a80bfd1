"""A run that is killed (SIGKILL) at random moments, again and again, ends as one that was left alone: to the byte."""

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import tifffile

from tests.helpers.bundles import coarse_bundle
from tests.unbreakable.runs import Server, assert_same

KILLS, OF_A_RUN = 30, 4
"""Kills in all at least, and of one run at most until it is left to end."""

PHASES = ("tissue", "gate", "tiles", "pyramid", "vectors")


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> Path:
    """Four copies of a real slide, two by two."""
    with tifffile.TiffFile(sample_data / "CMU-1-Small-Region.svs") as tiff:
        pixels = tiff.pages[0].asarray()[:2880, :2160]
    path = tmp_path_factory.mktemp("slide") / "s.tif"
    two = [pixels, pixels[:, ::-1]]
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            (part for row in (0, 1) for part in tiles_of(two, row)),
            shape=(2 * 2880, 2 * 2160, 3), dtype="uint8", tile=(240, 240), photometric="rgb", compression="jpeg",
            resolution=(1e4 / 0.5, 1e4 / 0.5), resolutionunit="CENTIMETER",
        )  # fmt: skip
    return path


def tiles_of(copies: list, row: int) -> Iterator:
    for y in range(0, 2880, 240):
        for copy in copies[:: 1 - 2 * row]:
            for x in range(0, 2160, 240):
                yield copy[y : y + 240, x : x + 240]


def phase_of(log: Path) -> str:
    """The phase that a killed run was in."""
    events = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    begun = [event["phase"] for event in events if event["event"] == "begin"]
    return begun[-1] if begun else "start"


def seconds_of(log: Path) -> dict[str, float]:
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return {
        event["phase"]: event["seconds"] for event in events if event["event"] == "end" and event["phase"] != "start"
    }


def wait_for(run_pid: int, log: Path, phase: str) -> None:
    """Until a run is in a phase, or past it, or over."""
    while Path(f"/proc/{run_pid}/exe").exists() or not log.exists():
        if log.exists() and PHASES.index(phase) <= max(
            (PHASES.index(found) for found in [phase_of(log)] if found in PHASES), default=-1
        ):
            return
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_at_random_moments_of_every_phase(server: Server, slide: Path, tmp_path: Path) -> None:
    whole, dying, log = tmp_path / "whole", tmp_path / "dying", tmp_path / "log.jsonl"
    model = coarse_bundle(tmp_path / "coarse", mpp=2.0)
    more = {"piece_px": 512}

    def command(folder: Path) -> list:
        return ["predict", slide, "--model", model, "--out", folder / "m.zarr", "--gate-context", "1", "--log", log]

    whole.mkdir()
    assert server.run(command(whole), **more)[0] == 0
    seconds = seconds_of(log)
    chance = random.Random(0)
    hit: Counter[str] = Counter()
    while hit.total() < KILLS:
        shutil.rmtree(dying, ignore_errors=True)
        dying.mkdir()
        # Half of the moments anywhere in a run, half in a phase of its own, so that short ones have their turn.
        for kill in range(OF_A_RUN):
            log.unlink(missing_ok=True)
            run = server.start(command(dying), **more)
            phase = PHASES[kill + 1] if chance.random() < 0.5 else "tissue"
            length = seconds[phase] if phase != "tissue" else sum(seconds.values())
            wait_for(run.pid, log, phase)
            time.sleep(chance.random() * length)
            run.kill()
            code = run.wait()
            if code == 0 or (code == 2 and "m.zarr exists" in server.log.read_text()):
                break  # it was quicker, or the one before had ended but for its lock
            assert code == -9, server.log.read_text()
            left = {path.name for path in dying.iterdir()}
            named = "m.zarr" in left
            hit["after the commit" if named and phase_of(log) != "vectors" else phase_of(log)] += 1
            assert named or not (dying / "m.geojson").exists()
        else:
            code, said = server.run(command(dying), **more)
            assert code == 0 or "m.zarr exists" in said, said
        assert_same(dying, whole)
        print(f"{hit.total()} kills: {dict(hit)}", flush=True)
    print(f"{hit.total()} kills: {dict(hit)}")
    assert {"gate", "tiles", "vectors"} <= hit.keys()
