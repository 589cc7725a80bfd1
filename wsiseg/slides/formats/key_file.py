"""The text files of keys and values in which MIRAX and Hamamatsu slides name their parts."""

from __future__ import annotations

from pathlib import Path

_MAX_BYTES = 2**20
_LFS = b"version https://git-lfs.github.com/"


def read_key_file(path: Path) -> dict[str, dict[str, str]]:
    """Sections, keys and values of a file; lines that are neither are passed over, as OpenSlide does.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        text = file.read(_MAX_BYTES).decode("utf-8-sig", "replace")
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in text.splitlines():
        line = line.strip()  # noqa: PLW2901
        if line.startswith("[") and line.endswith("]"):
            section = sections.setdefault(line[1:-1], {})
        elif "=" in line:
            key, _, value = line.partition("=")
            section[key.strip()] = value.strip()
    return sections


def missing(folder: Path, name: str) -> str | None:
    """Why a part of a slide is not at its place, None where it is there; names one that differs in case only."""
    if (folder / name).is_file():
        with (folder / name).open("rb") as file:
            is_pointer = file.read(len(_LFS)) == _LFS
        return f"{name} is a pointer of git-LFS (run git lfs pull)" if is_pointer else None
    if (folder / name).is_symlink():
        return f"{name} is a link that leads nowhere"
    try:
        other = next((one.name for one in folder.iterdir() if one.name.lower() == name.lower()), None)
    except OSError:
        other = None
    return f"{name} is missing" if other is None else f"{name} is missing ({other} is there: rename it)"
