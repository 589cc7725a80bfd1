"""Each fault through the whole program, with its stated result; see `docs/running.md`."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.helpers.color_model import color_model
from tests.helpers.damage import damaged_copy, no_jpeg
from tests.unbreakable.faults import DIED
from tests.unbreakable.runs import Server, assert_same, contents, facts
from wsiseg.cli.main import main
from wsiseg.prediction.unfinished import unfinished_folder

MORE = {"piece_px": 512, "colors": True}
PIECES = 9
"""Of the sample slide at the model's 1 um, in squares of 512 px."""

HANGS_S = 600
"""Within this time a run ends on the slowest machine; a reader that hangs does so for hours."""


def slide_in(folder: Path, sample_data: Path) -> Path:
    folder.mkdir()
    return Path(shutil.copy(sample_data / "CMU-1-Small-Region.svs", folder / "s.svs"))


@pytest.fixture
def slide(tmp_path: Path, sample_data: Path) -> Path:
    """A slide that may be harmed, as may its folder."""
    return slide_in(tmp_path / "slides", sample_data)


def command(slide: Path, folder: Path, *more: object) -> list:
    return ["predict", slide, "--out", folder / "m.zarr", "--tissue", "none", "--quiet", *more]


def left_alone(server: Server, place: Path, sample_data: Path, *more: str) -> Path:
    folder = place / "whole"
    folder.mkdir()
    slide = slide_in(place / "slides", sample_data)
    assert server.run(command(slide, folder, *more), **MORE) == (0, "")
    return folder


@pytest.fixture(scope="module")
def whole(server: Server, sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run left alone, not to be changed."""
    return left_alone(server, tmp_path_factory.mktemp("alone"), sample_data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    return path


def assert_fails(result: tuple[int, str], folder: Path, said: str, code: int = 2) -> None:
    """One line, an exit code, and no map."""
    assert result[0] == code, result[1]
    assert len(result[1].strip().splitlines()) == 1, result[1]
    assert said in result[1]
    assert not (folder / "m.zarr").exists()


def booked(folder: Path) -> int:
    """Pieces that an unfinished run has booked."""
    journal = unfinished_folder(folder / "m.zarr") / "journal.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    return sum(json.loads(line).get("step") == "piece" for line in lines if line.endswith("}"))


@pytest.mark.parametrize("more", [[], pytest.param(["--gate-context", "1"], marks=pytest.mark.slow)])
def test_a_full_disk(
    server: Server, slide: Path, tmp_path: Path, mounted: Callable[[str], Path], more: list[str]
) -> None:
    """Of every size, from one that has no room for the first file to one where polygons do not fit."""
    whole = tmp_path / "whole"
    whole.mkdir()
    assert server.run(command(slide, whole, *more), **MORE)[0] == 0
    need = sum(path.stat().st_size for path in whole.rglob("*"))
    place = mounted(f"size={2 * need}")
    (place / "out").mkdir()
    failed = committed = 0
    for part in range(1, 12):
        folder = place / "out" / str(part)
        mounted(f"remount,size={2 * need}")
        folder.mkdir()
        mounted(f"remount,size={part * need // 5 // 4096 * 4096 + 4096}")
        code, said = server.run(command(slide, folder, *more), **MORE)
        if code == 0:
            break
        failed += 1
        assert code == 2, said
        assert len(said.splitlines()) == 1
        assert "No space left on device" in said
        if (folder / "m.zarr").exists():  # only the polygons had no room
            committed += 1
            assert not (folder / "m.geojson").exists()
        mounted(f"remount,size={4 * need}")
        assert server.run(command(slide, folder, *more), **MORE)[0] == 0
        assert_same(folder, whole)
        shutil.rmtree(folder)
    assert code == 0
    assert failed >= 3
    assert_same(folder, whole)


def test_a_read_only_folder(server: Server, slide: Path, mounted: Callable[[str], Path]) -> None:
    place = mounted("size=1m")
    mounted("remount,ro")
    result = server.run(command(slide, place), **MORE, fault="hang", fault_arguments=[1])  # it comes to no tile
    assert_fails(result, place, "cannot write into")
    assert list(place.iterdir()) == []


def test_damaged_tiles_are_left_out_and_counted_once_whoever_died(
    server: Server, slide: Path, tmp_path: Path, folder: Path
) -> None:
    damaged_copy(slide, slide, list(range(10, 110, 2)), no_jpeg)
    whole = tmp_path / "whole"
    whole.mkdir()
    assert server.run(command(slide, whole), **MORE) == (0, "")
    for pieces in (1, 3, 2):
        killed = server.run(command(slide, folder), **MORE, fault="die_after_pieces", fault_arguments=[pieces])
        assert killed[0] == DIED
    assert server.run(command(slide, folder), **MORE) == (0, "")
    assert_same(folder, whole)
    metadata = json.loads((folder / "m.zarr" / "zarr.json").read_text())["attributes"]["wsiseg"]
    assert metadata["damage"]["tiles"] == 50
    assert metadata["unread_mm2"] == pytest.approx(metadata["damage"]["area_mm2"], rel=0.02)


@pytest.mark.parametrize(("reads", "share"), [(1, 0.0), (4, 0.3), (9, 0.9), (5, 0.6)])
def test_a_slide_cut_off_while_it_is_read(
    server: Server, slide: Path, sample_data: Path, whole: Path, folder: Path, reads: int, share: float
) -> None:
    result = server.run(command(slide, folder), **MORE, fault="cut_slide", fault_arguments=[str(slide), reads, share])
    assert_fails(result, folder, "s.svs")
    assert "Traceback" not in result[1]
    shutil.copy(sample_data / "CMU-1-Small-Region.svs", slide)
    assert server.run(command(slide, folder), **MORE) == (0, "")
    assert_same(folder, whole)


@pytest.mark.parametrize("reads", [1, 40, 100])
def test_a_reader_that_hangs(server: Server, slide: Path, whole: Path, folder: Path, reads: int) -> None:
    started = time.monotonic()
    options = ["--read-timeout", "0.5"]
    result = server.run(command(slide, folder, *options), **MORE, fault="hang", fault_arguments=[reads])
    assert time.monotonic() - started < HANGS_S
    assert_fails(result, folder, "--read-timeout sets the limit")
    assert server.run(command(slide, folder), **MORE) == (0, "")
    assert_same(folder, whole)


def wait_until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + HANGS_S
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_keeps_what_is_finished(
    server: Server, slide: Path, whole: Path, folder: Path, number: signal.Signals
) -> None:
    go_on = folder.parent / "go on"
    run = server.start(command(slide, folder), **MORE, fault="wait_after_pieces", fault_arguments=[2, str(go_on)])
    wait_until(lambda: booked(folder) == 2)
    os.kill(run.pid, number)
    go_on.touch()  # what writes in the background comes to its end
    code = run.wait()
    assert_fails((code, server.log.read_text()), folder, "interrupted; finished parts of the map are kept", 130)
    assert 2 <= booked(folder) < PIECES
    assert not (folder / ".m.zarr.lock").exists()
    assert server.run(command(slide, folder), **MORE) == (0, "")
    assert_same(folder, whole)


def test_polygons_of_a_batch_that_was_killed_are_those_of_a_run_left_alone(
    server: Server, slide: Path, whole: Path, folder: Path
) -> None:
    """As a shell gives `predict slides/*.svs --out folder` where one slide matches."""
    batch = ["predict", slide, "--out", folder, "--tissue", "none", "--quiet"]
    killed = server.run(batch, **MORE, fault="die_after_pieces", fault_arguments=[3])
    assert killed[0] == DIED
    polygons, expected = folder / "s.geojson", (whole / "m.geojson").read_bytes()
    assert not polygons.exists()
    assert server.run(batch, **MORE) == (0, "")
    assert polygons.read_bytes() == expected


def test_an_interrupt_of_a_run_whose_reader_hangs(server: Server, slide: Path, folder: Path) -> None:
    hangs = folder.parent / "hangs"
    run = server.start(command(slide, folder), **MORE, fault="hang", fault_arguments=[60, str(hangs)])
    wait_until(hangs.exists)
    os.kill(run.pid, signal.SIGINT)
    started = time.monotonic()
    assert run.wait() == 130
    assert time.monotonic() - started < HANGS_S


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_before_anything_is_finished_leaves_nothing(
    server: Server, slide: Path, folder: Path, number: signal.Signals
) -> None:
    log = folder.parent / "log.jsonl"
    # Overlapping so much that it goes on for long.
    run = server.start(["predict", slide, "--out", folder / "m.zarr", "--overlap", "0.9", "--log", log], colors=True)
    wait_until(lambda: log.exists() and '"event": "begin", "phase": "tiles"' in log.read_text())
    os.kill(run.pid, number)
    assert run.wait() == 130
    lines = server.log.read_text().splitlines()
    assert any(line.startswith("wsiseg: interrupted") for line in lines)
    assert not any("Traceback" in line for line in lines)
    assert list(folder.iterdir()) == []


def test_two_runs_into_one_output(
    server: Server, slide: Path, whole: Path, folder: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    go_on = folder.parent / "go on"
    run = server.start(command(slide, folder), **MORE, fault="wait_after_pieces", fault_arguments=[1, str(go_on)])
    wait_until(lambda: booked(folder) == 1)
    monkeypatch.setattr("wsiseg.prediction.run.load_model", lambda *_, **__: color_model())
    monkeypatch.setattr("wsiseg.system.memory.PIECE_PX", 512)
    for more in ([], ["--overwrite"], ["--restart"]):
        with pytest.raises(SystemExit) as stop:
            main([str(part) for part in command(slide, folder, *more)])
        said = capsys.readouterr().err
        assert stop.value.code == 2
        assert f"another run is writing {folder / 'm.zarr'} (process {run.pid} on" in said
    go_on.touch()
    assert run.wait() == 0
    assert_same(folder, whole)


def test_pieces_of_a_previous_version_are_not_mixed_in(server: Server, slide: Path, whole: Path, folder: Path) -> None:
    old = server.run(command(slide, folder), **MORE, fault="older_version", fault_arguments=["0.0.9", 2])
    assert old[0] == DIED
    assert booked(folder) == 2
    result = server.run(command(slide, folder), **MORE)
    assert_fails(result, folder, f"had version of wsiseg 0.0.9, this one has {version('wsiseg')}")
    assert booked(folder) == 2
    assert server.run(command(slide, folder, "--restart"), **MORE) == (0, "")
    assert_same(folder, whole)


def test_another_parameter_is_refused_and_overwrite_goes_on(
    server: Server, slide: Path, whole: Path, folder: Path
) -> None:
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    begun = server.run(command(slide, folder, "--overwrite"), **MORE, fault="die_after_pieces", fault_arguments=[4])
    assert begun[0] == DIED
    assert (folder / "m.zarr" / "zarr.json").exists()  # the old one stays until the new one is whole
    code, said = server.run(command(slide, folder, "--overwrite", "--overlap", "0"), **MORE)
    assert code == 2
    assert "had overlap 0.25, this one has 0.0" in said
    assert server.run(command(slide, folder, "--overwrite", "--log", folder.parent / "log"), **MORE) == (0, "")
    assert_same(folder, whole)
    events = [json.loads(line) for line in (folder.parent / "log").read_text().splitlines()]
    assert [event["share"] > 0.3 for event in events if event["event"] == "resumed"] == [True]


@pytest.fixture(scope="module")
def ungated(server: Server, sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a run in which the segmenter sees every patch."""
    return left_alone(server, tmp_path_factory.mktemp("ungated"), sample_data, "--no-gate")


def test_a_network_that_gives_no_numbers(server: Server, slide: Path, ungated: Path, folder: Path) -> None:
    run = command(slide, folder, "--no-gate")
    assert_fails(server.run(run, **MORE, fault="no_numbers", fault_arguments=[8]), folder, "no finite numbers")
    assert server.run(run, **MORE) == (0, "")
    assert_same(folder, ungated)


def test_memory_of_the_device_that_is_too_small(server: Server, slide: Path, ungated: Path, folder: Path) -> None:
    run = command(slide, folder, "--no-gate")
    code, said = server.run(run, **MORE, fault="small_memory", fault_arguments=[5])
    assert code == 0, said
    assert contents(folder) == contents(ungated)
    found, expected = facts(folder / "m.zarr"), facts(ungated / "m.zarr")
    assert {name for name in expected if found[name] != expected[name]} == {"notes"}
    (note,) = set(found["notes"]) - set(expected["notes"])
    assert "batch" in note  # what was done about it
