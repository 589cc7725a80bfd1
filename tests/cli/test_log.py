"""`--log`: one JSON line an event, whatever becomes of the run."""

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from tests.helpers.color_model import color_model
from tests.helpers.maps import painted
from wsiseg.cli.main import main

OPTIONS = ["--mpp", "1", "--tissue", "none", "--runtime", "torch", "--quiet"]


@pytest.fixture(autouse=True)
def colors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsiseg.prediction.run.load_model", lambda *_, **__: color_model())


def events(path: Path) -> list[dict]:
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert all(datetime.fromisoformat(event["time"]).utcoffset().total_seconds() == 0 for event in found)
    return found


def predict(tmp_path: Path, *more: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(tmp_path / "p.png"), "--out", str(tmp_path / "m.zarr"), *OPTIONS, *more])
    return int(stop.value.code or 0)


def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    painted(tmp_path / "p.png")
    log = tmp_path / "log.jsonl"
    assert predict(tmp_path, "--log", str(log)) == 0
    found = events(log)
    assert [event["event"] for event in found[:2]] == ["start", "begin"]
    assert found[0]["slide"].endswith("p.png")
    assert found[0]["options"]["mpp"] == 1
    assert {"wsiseg", "torch"} <= found[0]["versions"].keys()
    phases = ["start", "tissue", "tiles", "pyramid", "vectors"]
    for name in ("begin", "end"):
        assert [event["phase"] for event in found if event["event"] == name] == phases
    assert all(event["seconds"] >= 0 for event in found if event["event"] == "end")
    last = found[-1]
    assert last["event"] == "finished"
    assert last["areas_mm2"].keys() == {"Red", "Green", "Blue"}
    areas = sum(last["areas_mm2"].values()) + last["white_mm2"] + last["unread_mm2"]
    assert areas == pytest.approx(last["tissue_mm2"], abs=1e-6)
    assert last["peak_memory"] > 2**20
    assert last["bytes_written"] > (tmp_path / "m.geojson").stat().st_size


def test_a_run_that_is_refused_is_appended(tmp_path: Path) -> None:
    painted(tmp_path / "p.png")
    log = tmp_path / "log.jsonl"
    log.write_text('{"cut": "in the midd')
    (tmp_path / "m.geojson").write_text("mine")
    assert predict(tmp_path, "--log", str(log)) == 2
    head, *rest = log.read_text().splitlines()
    assert head == '{"cut": "in the midd'
    error = json.loads(rest[-1])
    assert (error["event"], error["kind"], error["exit_code"]) == ("error", "OutputError", 2)
    assert "m.geojson exists" in error["message"]


@pytest.mark.parametrize(
    ("raised", "code", "name"),
    [(KeyboardInterrupt(), 130, "KeyboardInterrupt"), (ZeroDivisionError("a defect"), 1, "ZeroDivisionError")],
)
def test_an_interrupt_and_a_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, name: str
) -> None:
    painted(tmp_path / "p.png")

    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr("wsiseg.tissue_map.writer.MapWriter.write_levels", fail)
    log = tmp_path / "log.jsonl"
    if code == 1:
        with pytest.raises(ZeroDivisionError):
            main(["predict", str(tmp_path / "p.png"), "--out", str(tmp_path / "m.zarr"), *OPTIONS, "--log", str(log)])
    else:
        assert predict(tmp_path, "--log", str(log)) == code
    *_, ended, error = events(log)
    assert (ended["event"], ended["phase"]) == ("end", "tiles")
    assert (error["event"], error["kind"], error["exit_code"]) == ("error", name, code)

    monkeypatch.undo()
    monkeypatch.setattr("wsiseg.prediction.run.load_model", lambda *_, **__: color_model())
    assert predict(tmp_path, "--log", str(log)) == 0
    assert [event["share"] for event in events(log) if event["event"] == "resumed"] == [1]


def test_a_log_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for log in (tmp_path, tmp_path / "missing" / "log.jsonl"):
        assert predict(tmp_path, "--log", str(log)) == 2  # the slide is not even there
        assert "cannot write the log" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_log_on_a_full_disk_ends_and_the_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    painted(tmp_path / "p.png")
    assert predict(tmp_path, "--log", str(full)) == 0
    assert capsys.readouterr().err.count("the log ends here") == 1
    assert (tmp_path / "m.zarr").is_dir()


@pytest.mark.slow
def test_the_time_left_is_right_after_a_tenth(tmp_path: Path, sample_data: Path) -> None:
    """A whole run of the shipped model, whose predictions are held against what came."""
    log, out = tmp_path / "log.jsonl", tmp_path / "m.zarr"
    command = ["-m", "wsiseg", "predict", sample_data / "CMU-1-Small-Region.svs", "--out", out, "--log", log]
    command += ["--overlap", "0.75"]  # long enough for the time to be told in every tenth
    subprocess.run([sys.executable, *map(str, command)], check=True)
    found = events(log)
    times = [datetime.fromisoformat(event["time"]).timestamp() for event in found]
    first = next(i for i, event in enumerate(found) if event.get("phase") == "tissue")
    whole = times[-1] - times[first]
    errors = {}
    for event, at in zip(found, times, strict=True):
        if event["event"] == "progress" and event["seconds_left"] is not None:
            share, left = (at - times[first]) / whole, times[-1] - at
            if 0.1 <= share <= 0.9:
                errors.setdefault(int(10 * share), (event["seconds_left"], left))
    for tenth, (said, left) in errors.items():
        print(f"after {tenth}0 %: said {said:.1f} s, took {left:.1f} s, {said / left - 1:+.0%}")
    assert len(errors) >= 7
    # What is left near the end is mostly polygons, which are a guess until they are under way.
    assert all(abs(said - left) <= max(0.2 * left, 0.05 * whole) for said, left in errors.values())
