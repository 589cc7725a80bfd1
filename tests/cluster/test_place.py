"""What `--cluster` and its file may say; who gets what of a machine."""

from pathlib import Path
from typing import Any

import pytest

from wsiseg.cluster import order
from wsiseg.cluster.place import Local, Scheduler, Slurm, parse_place
from wsiseg.cohort.names import Named
from wsiseg.cohort.slide_source import Entry
from wsiseg.errors import OptionError

SMALLEST = "cores: 4\nmemory: 8GB\njobs: 10\n"


def test_what_may_be_given(tmp_path: Path) -> None:
    assert parse_place("local:2") == Local(2)
    assert parse_place("tcp://node1:8786") == Scheduler("tcp://node1:8786")
    assert parse_place("tls://[::1]:1").address == "tls://[::1]:1"  # type: ignore[union-attr]
    path = tmp_path / "slurm.yaml"
    path.write_text(SMALLEST)
    assert parse_place(str(path)) == Slurm(cores=4, memory="8GB", jobs=10)
    path.write_text(SMALLEST + "walltime: '2-12:00:00'\ndirectives: ['--gres=gpu:1']\n")
    assert parse_place(str(path)) == Slurm(
        cores=4, memory="8GB", jobs=10, walltime="2-12:00:00", directives=("--gres=gpu:1",)
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("local", "local:4"), ("local:0", "local:4"), ("local:x", "local:4"), ("http://a:1", "tcp://"),
        ("tcp://a", "tcp://node1:8786"), ("tcp://a:0", "tcp://"), ("tcp://a:99999", "tcp://"),
        ("node1:8786", "expected"), ("", "expected"), ("away.yaml", "cannot read"),
    ],
)  # fmt: skip
def test_values_that_mean_nothing_are_refused(value: str, said: str) -> None:
    with pytest.raises(OptionError, match=said) as refused:
        parse_place(value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected lines"), ("- a", "expected lines"), ("a: [", "no YAML"), (SMALLEST + "job: 3\n", "'job'"),
        ("cores: 4\n", "lacks memory, jobs"), (SMALLEST.replace("4", "0"), "cores expected"),
        (SMALLEST.replace("10", "many"), "jobs expected"), (SMALLEST.replace("8GB", "much"), "memory"),
        (SMALLEST + "walltime: 2:00:00\n", "quotes"), (SMALLEST + "walltime: soon\n", "walltime"),
        (SMALLEST + "directives: --gres=gpu:1\n", "list of lines"), (SMALLEST.replace("4", "true"), "cores expected"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_are_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "slurm.yaml"
    path.write_text(text)
    with pytest.raises(OptionError, match=said) as refused:
        parse_place(str(path))
    assert "\n" not in str(refused.value)


def test_the_largest_of_some_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 3, 2, 5, 4):
        (tmp_path / str(size)).write_bytes(bytes(size))
    entries = [Entry(str(tmp_path / name)) for name in ("1", "3", "away", "2", "5", "4")]
    slides = [Named(entry, "", place) for place, entry in enumerate([*entries, Entry("s3://bucket/a.svs")])]

    def names(**_: Any) -> list[str]:
        return [Path(named.entry.slide).name for named in order.largest_first(slides)]

    assert names() == ["5", "4", "3", "2", "1", "away", "a.svs"]
    monkeypatch.setattr(order, "AT_ONCE", 3)
    assert names() == ["3", "1", "away", "5", "4", "2", "a.svs"]


def test_shares_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    start = pytest.importorskip("wsiseg.cluster.start")
    worker = pytest.importorskip("wsiseg.cluster.worker")
    gb = 2**30
    monkeypatch.setattr(start, "usable_cpus", lambda: 8)
    monkeypatch.setattr(start, "available_bytes", lambda: 32 * gb)
    monkeypatch.setattr(start, "default_max_memory", lambda: 4 * gb)
    assert start.share_of(Local(4), None) == start.Share(2, 2, None)
    assert start.share_of(Local(8), None).max_memory == 32 * gb // 8 - start.LIBRARIES_BYTES
    for place, most in ((Local(16), None), (Local(8), 3 * gb), (Slurm(cores=4, memory="2G", jobs=1), None)):
        with pytest.raises(OptionError, match="--max-memory"):
            start.share_of(place, most)
    assert start.share_of(Slurm(cores=4, memory="16G", jobs=1), None) == start.Share(4, 4, 4 * gb)
    assert start.share_of(Scheduler("tcp://a:1"), None) == start.Share()
    assert [worker.device_of("auto", name, 2) for name in (0, 1, 2, "tcp://a")] == [
        "cuda:0",
        "cuda:1",
        "cuda:0",
        "auto",
    ]
    assert [worker.device_of(name, 1, gpus) for name, gpus in (("cpu", 2), ("cuda", 1))] == ["cpu", "cuda"]
