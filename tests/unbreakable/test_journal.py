"""The journal and the folder of an unfinished run: what counts after a death, and what is refused."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.errors import OutputError
from wsiseg.prediction.journal import JOURNAL_FORMAT, Journal, read_journal
from wsiseg.prediction.unfinished import check_outputs, unfinished_folder, unfinished_run

FINGERPRINT = {"slide": "abc", "overlap": 0.5, "mpp": {"x": 0.5, "y": 0.5}}
STEPS = [{"step": "piece", "index": i, "areas": {"pixels": [i, 0.1 * i]}, "name": 'Ü,"crc":1}'} for i in range(4)]


def written(path: Path, steps: list[dict] = STEPS) -> bytes:
    journal = Journal(path, FINGERPRINT)
    for step in steps:
        journal.add(step)
    journal.close()
    return path.read_bytes()


def test_steps_come_back_in_order(tmp_path: Path) -> None:
    whole = written(tmp_path / "j")
    assert read_journal(tmp_path / "j") == (FINGERPRINT, STEPS, len(whole))
    assert all(isinstance(json.loads(line), dict) for line in whole.splitlines())


@given(st.data())
def test_whatever_is_cut_off_or_altered_only_whole_lines_before_it_count(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    whole = written(path)
    place = data.draw(st.integers(0, len(whole) - 1))
    rest = data.draw(st.one_of(st.just(b""), st.just(whole[place + 1 :]), st.binary(max_size=40)))
    other = data.draw(st.integers(0, 255).filter(lambda value: value != whole[place]))
    path.write_bytes(whole[:place] + bytes([other] if rest else []) + rest)
    kept = whole[:place].count(b"\n")  # lines that are whole before the damage
    head, steps, length = read_journal(path)
    if kept == 0:
        assert (head, steps, length) == (None, [], 0)
    else:
        assert (head, steps) == (FINGERPRINT, STEPS[: kept - 1])
        assert whole[:length].endswith(b"\n")
    again = written(path, [{"step": "more"}])  # it is cut to what counts, and goes on
    assert read_journal(path)[1] == [*(steps if kept else []), {"step": "more"}]
    assert again.startswith(whole[:length])


def test_deep_garbage_of_a_right_checksum_does_not_count(tmp_path: Path) -> None:
    import zlib

    deep = b'{"a":' + b"[" * 100_000
    (tmp_path / "j").write_bytes(deep + b',"crc":%d}\n' % zlib.crc32(deep + b"}"))
    assert read_journal(tmp_path / "j") == (None, [], 0)


def test_a_journal_of_another_form_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "m.zarr"
    unfinished_folder(out).mkdir()
    monkeypatch.setattr("wsiseg.prediction.journal.JOURNAL_FORMAT", 99)
    written(unfinished_folder(out) / "journal.jsonl")
    monkeypatch.undo()
    with pytest.raises(OutputError, match=f"journal 99, this one writes {JOURNAL_FORMAT}"):
        check_outputs(out, None, overwrite=False)
    with pytest.raises(OutputError, match="--restart"), unfinished_run(out, FINGERPRINT):
        pass
    with unfinished_run(out, FINGERPRINT, restart=True) as run:
        assert not run.resumed
    assert list(tmp_path.iterdir()) == []


def begun(out: Path, fingerprint: dict = FINGERPRINT) -> None:
    """Leave a run that stopped after a step."""
    with pytest.raises(KeyboardInterrupt), unfinished_run(out, fingerprint) as run:
        run.store.mkdir(exist_ok=True)
        (run.store / "shard").write_bytes(b"1")
        run.journal.add({"step": "piece"})
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({**FINGERPRINT, "overlap": 0.25}, "had overlap 0.5, this one has 0.25"),
        ({**FINGERPRINT, "slide": "xyz"}, "had slide abc, this one has xyz"),
        ({**FINGERPRINT, "mpp": {"x": 0.5, "y": 0.25}}, 'had mpp {"x": 0.5, "y": 0.5}, this one has'),
        ({**FINGERPRINT, "new": 1}, "had new null, this one has 1"),
        ({"slide": "abc", "overlap": 0.5}, "had mpp .* this one has null"),
    ],
)
def test_another_fingerprint_is_refused_by_name_and_values(tmp_path: Path, now: dict, said: str) -> None:
    out = tmp_path / "m.zarr"
    begun(out)
    with pytest.raises(OutputError, match=said), unfinished_run(out, now):
        pass
    with pytest.raises(OutputError, match="--restart"), unfinished_run(out, now):
        pass
    with pytest.raises(KeyboardInterrupt), unfinished_run(out, FINGERPRINT) as run:  # nothing of it is lost
        assert run.resumed
        assert (run.store / "shard").exists()
        raise KeyboardInterrupt
    with unfinished_run(out, now, restart=True) as run:
        assert not run.resumed
        assert not run.store.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_map_between_two_names_comes_back_on_restart(tmp_path: Path) -> None:
    """A run that replaced a map was killed after it put the old one aside, before the new one had the name."""
    out = tmp_path / "m.zarr"
    begun(out)
    (unfinished_folder(out) / "m.old").mkdir()
    (unfinished_folder(out) / "m.old" / "mine").write_text("old")
    with unfinished_run(out, {"slide": "other"}, restart=True):
        assert (out / "mine").read_text() == "old"


HOLD = """
import sys, time
from pathlib import Path
from wsiseg.prediction.unfinished import unfinished_run
with unfinished_run(Path(sys.argv[1]), {"slide": "abc"}) as run:
    run.journal.add({"step": "piece"})
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "m.zarr"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", HOLD, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        second = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert f"another run is writing {out} (process {first.pid} on" in second.stderr
        with pytest.raises(OutputError, match="another run"), unfinished_run(out, {"slide": "abc"}, restart=True):
            pass
        first.send_signal(signal.SIGKILL)
    assert (tmp_path / ".m.zarr.lock").exists()
    with unfinished_run(out, {"slide": "abc"}) as run:
        assert run.resumed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "journal.jsonl", "m.zarr", "scratch", "m.zarr/0", ".lock"])
def test_links_are_refused_and_not_followed(tmp_path: Path, name: str) -> None:
    out, elsewhere = tmp_path / "m.zarr", tmp_path / "elsewhere"
    elsewhere.mkdir()
    written(elsewhere / "journal.jsonl")
    before = (elsewhere / "journal.jsonl").read_bytes()
    link = tmp_path / ".m.zarr.lock" if name == ".lock" else unfinished_folder(out) / name
    link.parent.mkdir(parents=True, exist_ok=True)
    target = elsewhere / "journal.jsonl" if "." in name and name != "m.zarr" else elsewhere
    link.symlink_to(target, target_is_directory=target.is_dir())
    for restart in (False, True):
        with pytest.raises(OutputError, match="is a link"), unfinished_run(out, FINGERPRINT, restart=restart):
            pass
    assert (elsewhere / "journal.jsonl").read_bytes() == before
    assert [path.name for path in elsewhere.iterdir()] == ["journal.jsonl"]


def test_what_a_kill_left_half_written_goes(tmp_path: Path) -> None:
    out = tmp_path / "m.zarr"
    begun(out)
    cut = unfinished_folder(out) / "m.zarr" / "0.1f3a.partial"
    cut.write_bytes(b"half")
    with unfinished_run(out, FINGERPRINT) as run:
        assert not cut.exists()
        assert (run.store / "shard").exists()


def test_a_full_disk_while_booking_leaves_the_journal_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "m.zarr"
    begun(out)
    real = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left on device; make room"), unfinished_run(out, FINGERPRINT) as r:
        monkeypatch.setattr(os, "fsync", full)
        r.journal.add({"step": "lost"})
    monkeypatch.setattr(os, "fsync", real)
    assert read_journal(unfinished_folder(out) / "journal.jsonl")[1] == [{"step": "piece"}]


def test_a_run_that_booked_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), unfinished_run(tmp_path / "m.zarr", FINGERPRINT):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_the_last_traces_of_a_killed_run_go_with_the_next_command(tmp_path: Path) -> None:
    out = tmp_path / "m.zarr"
    out.mkdir()
    unfinished_folder(out).mkdir()
    (tmp_path / ".m.zarr.lock").write_text("process 1 on nowhere")
    with pytest.raises(OutputError, match="exists"):
        check_outputs(out, None, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["m.zarr"]
