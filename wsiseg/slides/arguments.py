"""Slides as they are given on a command line: those whose format is many files of a folder, DICOM, become one each.

Loads nothing heavy unless there is DICOM among them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

_MAGIC_AT, _MAGIC = 128, b"DICM"

DICOMDIR = "DICOMDIR"
"""Name of the file that lists the DICOM files of a disk, itself one."""


def slides_of(arguments: Sequence[str]) -> list[str]:
    """Each DICOM slide once, however many of its files, or its folder, are named; everything else as it is.

    A folder with several DICOM slides becomes as many. DICOM files that are no part of a slide are left out where
    slides of the same folder are among the arguments.

    Args:
        arguments: paths and addresses.

    Returns:
        Paths and addresses, in the order of their first mention, each of which `open_slide` opens.
    """
    if not any(is_dicom_slide(argument) for argument in arguments):
        return list(arguments)
    from wsiseg.slides.dicom.series import each_once  # noqa: PLC0415

    return each_once(arguments)


def slide_name(path: str | Path) -> str | None:
    """What the DICOM slide at a path is called, whichever of its files is given; None where there is no such."""
    if not is_dicom_slide(path):
        return None
    from wsiseg.slides.dicom.series import name_of  # noqa: PLC0415

    return name_of(Path(path))


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
