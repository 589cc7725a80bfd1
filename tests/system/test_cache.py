"""What is kept from run to run: whole, bounded, the user's own, and never in the way."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wsiseg.system.cache import Cache, cache_folder


def test_what_was_kept_is_read_by_another(tmp_path: Path) -> None:
    Cache(tmp_path / "a" / "b", 1000).write("one", b"content")
    assert Cache(tmp_path / "a" / "b", 1000).read("one") == b"content"
    assert Cache(tmp_path / "a" / "b", 1000).read("two") is None
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["one"]


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_damage_is_noticed(tmp_path: Path, damage: str) -> None:
    kept = Cache(tmp_path / "kept", 1000)
    kept.write("one", b"content")
    file = tmp_path / "kept" / "one"
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[:-1], "changed": whole[:-1] + b"x", "empty": b""}[damage])
    assert kept.read("one") is None
    kept.write("one", b"content")
    assert kept.read("one") == b"content"


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    kept = Cache(tmp_path / "kept", 400)
    for age, name in ((30, "a"), (20, "b"), (10, "c")):
        kept.write(name, name.encode() * 90)
        os.utime(tmp_path / "kept" / name, (1e9 - age, 1e9 - age))
    assert kept.read("a") == b"a" * 90  # used now
    kept.write("d", b"d" * 90)
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"a", "c", "d"}
    kept.write("huge", b"x" * 300)
    assert kept.read("huge") is None


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="owners are POSIX's")
def test_a_folder_that_others_may_write_is_not_believed(tmp_path: Path) -> None:
    kept = Cache(tmp_path / "kept", 1000)
    kept.write("one", b"content")
    (tmp_path / "kept").chmod(0o777)
    assert kept.read("one") is None
    kept.write("two", b"content")
    assert not (tmp_path / "kept" / "two").exists()


def test_where_nothing_can_be_kept_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (None, tmp_path / "file" / "folder", tmp_path / "file"):
        kept = Cache(folder, 1000)
        kept.write("one", b"content")
        assert kept.read("one") is None
        kept.forget("one")


def test_many_write_the_same_at_once(tmp_path: Path) -> None:
    contents = [bytes([number]) * 10_000 for number in range(8)]

    def write_and_read(content: bytes) -> bytes | None:
        Cache(tmp_path / "kept", 10**6).write("one", content)
        return Cache(tmp_path / "kept", 10**6).read("one")

    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            assert set(pool.map(write_and_read, contents)) <= set(contents)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["one"]


def test_folder_follows_the_standard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "wsiseg"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    found = cache_folder()
    assert found is not None
    assert tmp_path in found.parents
