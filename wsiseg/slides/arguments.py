"""Slides as they are given on a command line: those whose format is many files of a folder, DICOM, become one each.

Loads nothing heavy unless there is DICOM among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsiseg.slides.dicom.files import is_dicom_slide


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
