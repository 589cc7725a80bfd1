"""What `dataset.json`, options and names say of a data set as a whole: classes, resolution, excluded value."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wsiseg.classes import ClassTable
from wsiseg.datasets.patch import Patch, mpp_of
from wsiseg.datasets.spreadsheet import number_of
from wsiseg.datasets.text import bytes_below, decoded
from wsiseg.errors import DatasetError, OptionError
from wsiseg.geometry import LEVEL_TOLERANCE, MPP_MAX, MPP_MIN
from wsiseg.system.json_values import JsonObject

MAX_JSON_BYTES = 16 * 2**20
MAX_TEXT_BYTES = 128 * 2**20
"""Of one table: some hundred bytes for each of a million patches."""

MPP_TOLERANCE = LEVEL_TOLERANCE
"""Of microns per pixel that count as one: as levels of a slide are read."""

DATASET_FILE, CLASSES_FILE = "dataset.json", "classes.json"

KNOWN_CLASSES: dict[str, ClassTable] = {
    "luad-histoseg": ClassTable.from_names(
        ["Tumour epithelium", "Necrosis", "Lymphocyte", "Tumour-associated stroma"],
        [(205, 51, 51), (0, 255, 0), (65, 105, 225), (255, 165, 0)],
    ),
    "bcss-wsss": ClassTable.from_names(
        ["Tumour", "Stroma", "Lymphocyte", "Necrosis"], [(255, 0, 0), (0, 255, 0), (0, 0, 255), (153, 0, 255)]
    ),
    "wsss4luad": ClassTable.from_names(
        ["Tumour epithelium", "Tumour-associated stroma", "Normal"], [(0, 64, 128), (64, 128, 0), (243, 152, 0)]
    ),
}
"""Class tables of the public data sets whose folders say nothing of their classes, in label order."""


def read_classes(value: str) -> ClassTable:
    """A class table from a name in `KNOWN_CLASSES` or from a JSON file."""
    if value in KNOWN_CLASSES:
        return KNOWN_CLASSES[value]
    path = Path(value)
    if not path.is_file():
        raise DatasetError(f"{value!r} is neither a file nor one of {', '.join(KNOWN_CLASSES)}")
    followed = path.resolve()  # what the user names may be a link
    content = _parsed(path, text_below(followed.parent, followed, MAX_JSON_BYTES))
    return _class_table(path, content.get("classes") if isinstance(content, dict) else content)


def text_below(root: Path, path: Path, most: int = MAX_TEXT_BYTES) -> str:
    """The text of a file of a data set; a byte order mark is left out.

    Raises:
        DatasetError: it is no file of the data set (a link leads out of it, a pipe), too large, or no text.
    """
    return decoded(path, bytes_below(root, path, most))


def read_about(root: Path) -> JsonObject:
    """The content of `dataset.json`, or of `classes.json`; empty where there is neither."""
    for name in (DATASET_FILE, CLASSES_FILE):
        if (root / name).is_file():
            content = _parsed(root / name, text_below(root, root / name, MAX_JSON_BYTES))
            if isinstance(content, list):
                content = {"classes": content}
            if not isinstance(content, dict):
                raise DatasetError(f"{root / name} must hold one JSON object with mpp and classes")
            mpp = content.get("mpp")
            return content | {"mpp": number_of(mpp.strip()) or mpp} if isinstance(mpp, str) else content
    return {}


def classes_of(root: Path, about: JsonObject) -> ClassTable | None:
    """The classes that `dataset.json` names, if it does."""
    return _class_table(root / DATASET_FILE, about["classes"]) if "classes" in about else None


def ignored_columns(root: Path, about: JsonObject, stated: Iterable[str] = ()) -> tuple[str, ...]:
    """Columns of a table that are no classes: those that are stated, and `ignore_columns` of `dataset.json`.

    Raises:
        DatasetError: `dataset.json` holds no list of names there.
    """
    named = about.get("ignore_columns", [])
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise DatasetError(f"{root / DATASET_FILE}: ignore_columns must be a list of names, got {named!r:.60}")
    return tuple(dict.fromkeys([*stated, *named]))


def resolution(root: Path, stated: Any, patches: Iterable[Patch]) -> tuple[float, str | None]:
    """Microns per pixel, and what to tell of where it came from if nobody stated it but the files' names.

    Raises:
        DatasetError: nothing says it, names disagree, or it is impossible.
    """
    patches = list(patches)
    rows = sorted({p.provenance.mpp for p in patches if p.provenance and p.provenance.mpp is not None})
    if stated is not None:
        if isinstance(stated, bool) or not isinstance(stated, int | float) or not MPP_MIN <= stated <= MPP_MAX:
            raise DatasetError(f"mpp must be a number from {MPP_MIN} to {MPP_MAX} um per pixel, got {stated!r:.40}")
        if other := next((mpp for mpp in rows if abs(mpp / float(stated) - 1) > MPP_TOLERANCE), None):
            raise DatasetError(
                f"{root} is said to have {stated:g} um per pixel, but rows of its table have {other:g}: put patches of "
                "different resolution into folders of their own"
            )
        return float(stated), None
    if rows and rows[0] >= MPP_MIN and rows[-1] <= min(MPP_MAX, rows[0] * (1 + MPP_TOLERANCE)):
        return rows[0], None
    named = {mpp_of(Path(patch.name).stem) for patch in patches}
    found = named.pop() if len(named) == 1 else None
    if found is not None and MPP_MIN <= found <= MPP_MAX:
        return found, f"the resolution is taken from the file names: {found:g} um per pixel; --mpp states another"
    why = "its file names disagree about" if named else "does not say"
    raise DatasetError(
        f"{root} {why} how large its pixels are: add {DATASET_FILE} with mpp, or state --mpp (um per pixel)"
    )


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON ({error!s:.80})") from error


def _class_table(path: Path, rows: Any) -> ClassTable:
    """Classes from `[{"name": …, "color": […]}, …]` or `["Tumour", …]`."""
    try:
        names = [row if isinstance(row, str) else row["name"] for row in rows]
        colors = (
            [row["color"] for row in rows] if all(isinstance(row, dict) and "color" in row for row in rows) else None
        )
        return ClassTable.from_names(names, colors)
    except (TypeError, KeyError, ValueError, IndexError, OverflowError, OptionError) as error:
        raise DatasetError(f"{path}: classes must be a list of name and color ({error!s:.80})") from error
