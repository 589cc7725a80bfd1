"""A cohort: what becomes of each slide is written down, and runs share the slides."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.color_model import color_model
from tests.helpers.maps import chunks, painted
from tests.helpers.servers import free_port
from wsiseg.cli.main import main
from wsiseg.cohort.names import Cohort
from wsiseg.cohort.run import CohortOptions, CohortRun
from wsiseg.cohort.slide_source import SlideSource
from wsiseg.cohort.state import FOLDER, Marks, State, latest
from wsiseg.cohort.status import Status, maps_of
from wsiseg.errors import OptionError
from wsiseg.prediction.options import PredictOptions
from wsiseg.system.durable_lines import DurableLines
from wsiseg.system.locks import lease_path, locked

OPTIONS = PredictOptions(mpp=1, tissue="none", device="cpu")


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Three slides, the second of which is none."""
    for index, name in enumerate("abc"):
        painted(tmp_path / f"{name}.png", (60 + index, 60))
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (tmp_path / "list.csv").write_text("path,name,mpp,group\na.png,,,p1\nb.png,second,,p1\nc.png,,2,p2\n")
    return Cohort(SlideSource(str(tmp_path / "list.csv")))


def run(
    cohort: Cohort, folder: Path, options: PredictOptions = OPTIONS, **how: Any
) -> tuple[list[str], dict[str, int]]:
    """What is done now, and the tally of all."""
    made = CohortRun(cohort, folder, color_model(), options, CohortOptions(polygons=False, **how))
    results = [f"{Path(found.slide).name} {found.status}" for found in made]
    return results, {name: count for name, count in made.tally.items() if count}


def states(folder: Path) -> dict[str, Any]:
    return {line["map"]: line for line in latest(folder) if "map" in line}


def test_the_same_command_goes_on_and_retries_when_asked(cohort: Cohort, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    assert run(cohort, maps) == (["a.png done", "b.png failed", "c.png done"], {"done": 2, "failed": 1})
    found = states(maps)
    assert {name: line["state"] for name, line in found.items()} == {
        "a.zarr": "done", "second.zarr": "failed", "c.zarr": "done",
    }  # fmt: skip
    assert found["second.zarr"]["cause"] == "slide"
    assert found["a.zarr"]["group"] == "p1"
    assert found["a.zarr"]["areas_mm2"].keys() == set(color_model().classes.names)
    assert found["c.zarr"]["tissue_mm2"] == pytest.approx(4 * 62 * 60 / 1e6)  # of its own mpp
    assert run(cohort, maps) == ([], {"done": 2, "failed": 1})
    painted(tmp_path / "b.png", (60, 60))
    assert run(cohort, maps) == ([], {"done": 2, "failed": 1})
    assert run(cohort, maps, retry_failed=True) == (["b.png done"], {"done": 3})
    before = chunks(maps / "a.zarr")
    (maps / "a.zarr" / "zarr.json").rename(tmp_path / "kept")
    for path in sorted((maps / "a.zarr").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (maps / "a.zarr").rmdir()
    assert run(cohort, maps)[0] == ["a.png done"]  # a map that was taken away is made anew
    assert chunks(maps / "a.zarr") == before
    assert run(cohort, maps, PredictOptions(mpp=1, tissue="none", overlap=0.5))[0] == [
        "a.png failed", "b.png failed", "c.png failed",  # maps of other options are never taken for done
    ]  # fmt: skip
    assert [path.name for path in maps_of(maps)] == []
    assert run(cohort, maps)[1] == {"done": 3}
    assert sorted(path.name for path in maps_of(maps)) == ["a.zarr", "c.zarr", "second.zarr"]
    assert [path.name for path in (maps / FOLDER).iterdir()] == ["state.jsonl"]  # put together, a line a slide
    assert len((maps / FOLDER / "state.jsonl").read_text().splitlines()) == 4


def test_parts_do_their_share(cohort: Cohort, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    assert run(cohort, maps, part=(2, 2)) == (["b.png failed"], {"failed": 1})
    status = Status.of(maps)
    assert (status.slides, status.counts["pending"], status.counts["failed"], status.left) == (3, 2, 1, 2)
    assert run(cohort, maps) == (["a.png done", "c.png done"], {"done": 2, "failed": 1})
    with pytest.raises(OptionError, match="count from 1"):
        run(cohort, maps, part=(0, 2))


def test_what_may_pass_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("urllib3")
    painted(tmp_path / "a.png", (60, 60))
    away = f"http://127.0.0.1:{free_port()}/b.svs"  # where nobody listens
    (tmp_path / "list.txt").write_text(f"a.png\n{away}?secret=1\n")
    maps, options = tmp_path / "maps", replace(OPTIONS, retry_s=0.1)
    cohort = Cohort(SlideSource(str(tmp_path / "list.txt")))
    assert run(cohort, maps, options)[1] == {"done": 1, "try again": 1}
    found = states(maps)["b.zarr"]
    assert (found["state"], found["cause"], found["slide"], found["turn"]) == ("try again", "network", away, 1)
    assert Status.of(maps).left == 1
    assert len(run(cohort, maps, options)[0]) == 1  # that slide alone
    assert states(maps)["b.zarr"]["turn"] == 2
    assert "secret" not in "".join(path.read_text() for path in (maps / FOLDER).iterdir())


def test_the_command_line_says_how_it_ended(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out + said.err

    monkeypatch.setattr("wsiseg.prediction.run.load_model", lambda *_, **__: color_model())
    maps = tmp_path / "maps"
    predict: tuple[object, ...] = (
        "predict",
        "--slides",
        tmp_path / "list.csv",
        "--out",
        maps,
        "--mpp",
        1,
        "--tissue",
        "none",
    )
    predict = (*predict, "--no-geojson", "--device", "cpu", "--runtime", "torch")
    code, said = command(*predict, "--part", "1/3")
    assert (code, "1 slides: 1 done" in said) == (0, True)
    assert command("status", maps)[0] == 75
    with locked(maps / "c.zarr"):
        code, said = command(*predict)
        assert (code, "repeat the command" in said) == (75, True)
        assert command(*predict, "--skip-locked")[0] == 2
        assert command("unlock", maps / "c.zarr")[0] == 2  # by a run that lives
    code, said = command(*predict, "--json")
    assert code == 2
    assert json.loads(said.splitlines()[-2])["summary"]["counts"] == {"done": 2, "failed": 1}
    code, said = command("status", maps, "--json")
    assert (code, json.loads(said)["counts"]["done"]) == (2, 2)
    assert "1 failed: slide" in command("status", maps)[1]
    other = ("predict", "a", "--out", maps, "--part", "1/2")
    for wrong in (("predict", "--out", maps), (*predict, "a.svs"), (*predict, "--part", "x"), other):
        assert command(*wrong)[0] == 2
    code, said = command("status", tmp_path)
    assert (code, "no folder of a cohort" in said) == (2, True)


def test_a_slide_that_another_run_does_is_left_to_it(cohort: Cohort, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    for skip in (False, True):
        with locked(maps / "a.zarr"):
            results, tally = run(cohort, maps, skip_locked=skip)
        assert "a.png done" not in results
        assert tally["locked"] == 1
    assert run(cohort, maps)[1] == {"done": 2, "failed": 1}


def test_an_interrupted_slide_is_pending_again(cohort: Cohort, tmp_path: Path) -> None:
    maps = tmp_path / "maps"

    def stop(slide: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(CohortRun(cohort, maps, color_model(), OPTIONS, began=stop))
    assert Status.of(maps).counts == {"pending": 3}
    assert not lease_path(maps / "a.zarr").exists()
    assert run(cohort, maps)[1] == {"done": 2, "failed": 1}


def test_of_two_lines_the_later_turn_counts_whatever_the_clocks_say(tmp_path: Path) -> None:
    place = tmp_path / FOLDER
    place.mkdir()
    for name, turn, state, at in (
        ("run-a", 2, "done", "2000"),
        ("run-b", 1, "failed", "2100"),
        ("run-c", 2, "running", "1"),
    ):
        lines = DurableLines(place / f"{name}.jsonl", 0)
        lines.append({"cohort": 1, "slides": 7, "at": at})
        lines.append({"map": "a.zarr", "state": state, "turn": turn, "how": name})
        lines.close()
    assert states(tmp_path)["a.zarr"]["state"] == "done"
    marks = Marks(tmp_path)
    assert (marks.of("a.zarr").state, marks.of("a.zarr").turn, marks.of("a.zarr").how) == (State.DONE, 2, "run-a")
    (place / "run-c.jsonl").open("ab").write(b'{"map":"a.zarr","state":"fai')  # what a kill leaves
    assert states(tmp_path)["a.zarr"]["state"] == "done"


DRIVER = """
import fcntl, json, socket, sys
from pathlib import Path
socket.gethostname = lambda: sys.argv[3]
fcntl.flock = lambda *_: None  # a network drive that each machine locks for itself
from wsiseg.system import leases, locks
locks._on_local_disk = lambda _: False
leases.RENEWED_S, leases.STALE_S, leases.WATCHED_S = 0.2, 5.0, 2.0
from tests.helpers.color_model import color_model
from wsiseg.cohort.names import Cohort
from wsiseg.cohort.run import CohortOptions, CohortRun
from wsiseg.cohort.slide_source import SlideSource
from wsiseg.prediction.options import PredictOptions
options = PredictOptions(mpp=1, tissue="none", device="cpu")
cohort, how = Cohort(SlideSource(sys.argv[1])), CohortOptions(polygons=False)
run = CohortRun(cohort, Path(sys.argv[2]), color_model(), options, how)
print("ready", flush=True)
sys.stdin.readline()
for found in run:
    print(found.map_path.name, found.status, flush=True)
print(json.dumps(run.tally), flush=True)
"""


def driver(slides: Path, maps: Path, host: str) -> "subprocess.Popen[str]":
    """A run on another machine, which begins when a line comes."""
    command = [sys.executable, "-c", DRIVER, str(slides), str(maps), host]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def begin(*drivers: "subprocess.Popen[str]") -> None:
    for process in drivers:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in drivers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def test_two_runs_share_a_cohort_and_finish_what_a_killed_one_left(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    for index in range(6):
        painted(tmp_path / f"{index}.png", (200, 300 + 10 * index))
    (tmp_path / "list.txt").write_text("".join(f"{index}.png\n" for index in range(6)))
    maps = tmp_path / "maps"
    one, two = (driver(tmp_path / "list.txt", maps, host) for host in ("node1", "node2"))
    begin(one, two)
    assert one.stdout is not None
    one.stdout.readline()  # it has done a slide, and is at another one
    one.send_signal(signal.SIGKILL)
    one.communicate()
    said, _ = two.communicate(timeout=120)
    *_, tally = said.splitlines()
    assert json.loads(tally)["done"] == 6  # also the one that the killed run held
    assert {name: line["turn"] for name, line in states(maps).items() if line["turn"] > 2} == {}
    alone = tmp_path / "alone"
    run(Cohort(SlideSource(str(tmp_path / "list.txt"))), alone)
    for index in range(6):
        assert chunks(maps / f"{index}.zarr") == chunks(alone / f"{index}.zarr") != {}
    assert not list(maps.glob(".*.lease"))
