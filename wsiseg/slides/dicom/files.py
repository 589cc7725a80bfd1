"""DICOM files by what they begin with, and those of a folder. Loads nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_MAGIC_AT, _MAGIC = 128, b"DICM"

DICOMDIR = "DICOMDIR"
"""Name of the file that lists the DICOM files of a disk, itself one."""


def is_dicom_slide(path: str | Path) -> bool:
    """Whether something is a DICOM file, whatever its name, or a folder in which such lie."""
    if "://" in str(path):
        return False
    local = Path(path)
    try:
        return next(dicom_files(local), None) is not None if local.is_dir() else local.is_file() and is_dicom(local)
    except (OSError, ValueError):
        return False


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    try:
        with path.open("rb") as file:
            return file.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
    except (OSError, ValueError):
        return False


def dicom_files(folder: Path) -> Iterator[Path]:
    """The DICOM files of a folder by name; hidden ones, its directory, and those in folders within it are left out."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
    except OSError:
        return
    for name in names:
        if name.upper() != DICOMDIR and is_dicom(folder / name):
            yield folder / name
