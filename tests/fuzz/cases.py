"""Cases as they are kept: whole where they are small, else as what differs from a sound file of the project.

A folder of the corpus holds a case as it lies, or `case.json`: the name of a seed, and for each file of it that was
changed what to do: "remove", "pipe", "folder", "file" (it lies under `files/`), {"link": to}, or
{"length": n, "edits": [[place, hexadecimal], …]}.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

MOST_EDITS = 64
SMALL = 6000
WHOLE = 20_000


def copy_case(source: Path, target: Path) -> None:
    """Copy a folder with its links; a pipe becomes an empty file `NAME.pipe`, and such a file a pipe."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        copy = target / path.name
        if path.is_symlink():
            copy.symlink_to(path.readlink())
        elif path.is_dir():
            copy_case(path, copy)
        elif path.suffix == ".pipe":
            os.mkfifo(copy.with_suffix(""))
        elif path.is_fifo():
            copy.with_name(f"{copy.name}.pipe").touch()
        else:
            shutil.copy(path, copy)


def unpack(kept: Path, seeds: Path, case: Path) -> None:
    """Write a case of the corpus into an empty folder."""
    if not (kept / "case.json").is_file():
        copy_case(kept, case)
        return
    about = json.loads((kept / "case.json").read_text())
    seed = seeds / about["seed"]
    whole = case / about["seed"]
    shutil.copytree(seed, whole) if seed.is_dir() else shutil.copy(seed, whole)
    for name, change in about["changes"].items():
        path = whole / name if name else whole
        if isinstance(change, dict) and "edits" in change:
            path.write_bytes(_edited(path.read_bytes(), change))
            continue
        if path.is_file() or path.is_symlink():
            path.unlink()
        if change == "pipe":
            os.mkfifo(path)
        elif change == "folder":
            path.mkdir()
        elif change == "file":
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(kept / "files" / name, path)
        elif isinstance(change, dict):
            path.symlink_to(change["link"])


def pack(case: Path, seeds: Path, kept: Path) -> None:
    """Keep a case: the inverse of `unpack`."""
    whole = next(path for path in case.iterdir() if (seeds / path.name).exists())
    seed = seeds / whole.name
    if not whole.is_dir() and whole.stat().st_size < WHOLE:
        copy_case(case, kept)
        return
    changes: dict[str, Any] = {}
    names = {p.relative_to(f).as_posix() for f in (seed, whole) for p in (f.rglob("*") if f.is_dir() else [f])}
    for name in sorted(names - {"."}) or [""]:
        _compare(name, seed / name, whole / name, kept, changes)
    if not whole.is_dir():
        _compare("", seed, whole, kept, changes)
        changes.pop(".", None)
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "case.json").write_text(json.dumps({"seed": whole.name, "changes": changes}, indent=1) + "\n")


def _compare(name: str, old: Path, new: Path, kept: Path, changes: dict[str, Any]) -> None:
    if new.is_symlink():
        changes[name] = {"link": str(new.readlink())}
    elif new.is_fifo() or name.endswith(".pipe"):
        changes[name.removesuffix(".pipe")] = "pipe"
    elif new.is_dir():
        if not old.is_dir():
            changes[name] = "folder"
    elif not new.exists():
        if not old.is_dir() and name not in changes:
            changes[name] = "remove"
    elif not old.is_file() or new.read_bytes() != old.read_bytes():
        data = new.read_bytes()
        edits = _edits(old.read_bytes(), data) if old.is_file() and len(data) > SMALL else None
        if edits is not None:
            changes[name] = {"length": len(data), "edits": edits}
        else:
            changes[name] = "file"
            (kept / "files" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(new, kept / "files" / name)


def _edited(data: bytes, change: dict[str, Any]) -> bytes:
    out = bytearray(data[: change["length"]].ljust(change["length"], b"\0"))
    for place, piece in change["edits"]:
        out[place : place + len(piece) // 2] = bytes.fromhex(piece)
    return bytes(out)


def _edits(old: bytes, new: bytes) -> list[tuple[int, str]] | None:
    """Where two contents differ, None where that is in too many places."""
    edits: list[tuple[int, str]] = []
    old = old[: len(new)].ljust(len(new), b"\0")
    start = 0
    while start < len(new):
        if old[start : start + 4096] == new[start : start + 4096]:
            start += 4096
            continue
        odd = [i for i in range(start, min(start + 4096, len(new))) if old[i] != new[i]]
        edits += [(i, f"{new[i]:02x}") for i in odd]
        start += 4096
        if len(edits) > MOST_EDITS:
            return None
    return edits
