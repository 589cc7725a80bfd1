"""The record of a call of `correct`: what was read, what changed, what was written."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wsiseg.corrections.changes import Changes
from wsiseg.corrections.patches import Written
from wsiseg.system.files import cannot_write, whole_file
from wsiseg.system.json_values import JsonObject
from wsiseg.tissue_map.reader import TissueMap

FOLDER, FORMAT = "corrections", 1


def record_of(tissue_map: TissueMap, changes: Changes, written: Written, about: Mapping[str, Any]) -> JsonObject:
    """Everything as plain JSON.

    Args:
        tissue_map: that was corrected.
        changes: what changed.
        written: what was made of it.
        about: the files and options.
    """
    own = tissue_map.metadata
    return {
        "format": FORMAT,
        "wsiseg": version("wsiseg"),
        "map": tissue_map.path.name,
        "slide": {"name": own["slide"]["name"], "hash": own["slide"]["quick_hash"]},
        "model": {"name": own["model"].get("name", ""), "hash": own["model"]["hash"]},
        "classes": list(tissue_map.classes.names),
        **about,
        "changes": dict(changes.counts),
        "moved": moved_areas(tissue_map, written),
        "patches": len(written.files),
        "masks": written.masked,
        "labels": label_counts(written, tissue_map.classes.names),
        "files": written.files,
    }


def moved_areas(tissue_map: TissueMap, written: Written) -> list[JsonObject]:
    """Area in µm² that went from one class to another, the largest first."""
    if written.moved is None:
        return []
    um2 = tissue_map.grid.mpp.pixel_area_um2
    names = ["no region", *tissue_map.classes.names, "none of the classes"]
    moved: list[JsonObject] = [
        {"from": names[before], "to": names[after], "area_um2": count * um2}
        for before, row in enumerate(written.moved.tolist())
        for after, count in enumerate(row)
        if count
    ]
    return sorted(moved, key=lambda row: -row["area_um2"])


def label_counts(written: Written, names: Sequence[str], patches: int | None = None) -> dict[str, dict[str, int]]:
    """Patches that have each class, that do not, and of which it is unknown; of `patches`, by default of all files."""
    counts, total = {}, len(written.files) if patches is None else patches
    for name in names:
        present, absent = written.present.get(name, 0), written.absent.get(name, 0)
        counts[name] = {"present": present, "absent": absent, "unknown": total - present - absent}
    return counts


def records_in(out: Path) -> int:
    """How many records a data set has, which is the number of the next round."""
    return len(list((out / FOLDER).glob("*.json"))) if (out / FOLDER).is_dir() else 0


def write_record(out: Path, record: Mapping[str, Any]) -> str:
    """Write a record below a data set's folder; its path below it."""
    stem = "".join(c if c.isalnum() else "-" for c in str(record["time"])[:19])
    name = f"{FOLDER}/{stem}-{secrets.token_hex(3)}.json"
    with cannot_write(out):
        (out / FOLDER).mkdir(exist_ok=True)
    with whole_file(out / name) as temporary:
        temporary.write_text(json.dumps(record, indent=2, ensure_ascii=False), encoding="utf-8")
    return name


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
