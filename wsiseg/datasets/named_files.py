"""Files that a table names: below its folder, in the spellings of other systems; and images that it does not name."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wsiseg.datasets.folders import is_image
from wsiseg.datasets.problems import Report


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file that is there.

    Attributes:
        path: its links followed.
        name: below the data set's folder, with forward slashes.
    """

    path: Path
    name: str


class NamedFiles:
    """Finds files by the names that a table gives them.

    Each name is looked up once, whatever the size of the data set: folders are resolved the first time that a name
    leads into them.

    Args:
        root: the data set's folder.

    Attributes:
        root: its links followed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._given = root.absolute()
        self._folders: dict[Path, Path] = {}
        self._named: set[Path] = set()
        self._tops: set[str] = set()

    def find(self, file: str, kind: str, where: str, report: Report) -> NamedFile | None:
        """The file that a row names; what is wrong with it is reported.

        Args:
            file: as the row says.
            kind: image or mask, for messages.
            where: in the table.
            report: takes what is wrong.
        """
        name = self._below(file)
        # The name becomes a path below other folders too, so that it must be a plain one.
        if name is None:
            report("outside", file, f"{where}: {file!r:.80} lies outside the data set's folder")
            return None
        found = [(spelt, path) for spelt in _spellings(name) if (path := self._followed(spelt)) and _is_file(path)]
        if len({path for _, path in found}) > 1:
            report("table", file, f"{where}: {file!r:.80} may be either of two files: rename one of them")
            return None
        if not found:
            report("missing", file, f"{where}: there is no {kind} {file!r:.120}, add it or remove the row")
            return None
        spelt, path = found[0]
        self._named.add(path)
        if not path.is_relative_to(self.root):
            report("outside", file, f"{where}: {file!r:.80} lies outside the data set's folder")
            return None
        if kind == "image":
            self._tops.add(path.relative_to(self.root).parts[0])
        return NamedFile(path, Path(spelt).as_posix())

    def unnamed(self) -> Iterator[Path]:
        """Images that no row names, in the folders directly below the root that hold a named one, and in the root."""
        for top in (*sorted(top for top in self._tops if (self.root / top).is_dir()), "."):
            for folder, inner, files in os.walk(self.root / top):
                inner[:] = sorted(name for name in inner if not name.startswith(".")) if top != "." else []
                for path in (Path(folder, name) for name in sorted(files) if is_image(name)):
                    if path not in self._named and (not path.is_symlink() or path.resolve() not in self._named):
                        yield path

    def _below(self, file: str) -> str | None:
        """A name relative to the root; None for one that leads elsewhere."""
        plain = file.replace("\\", "/")
        for name in {file, plain}:
            if Path(name).is_absolute():
                for root in (self.root, self._given):
                    if Path(name).is_relative_to(root):
                        file = Path(name).relative_to(root).as_posix()
        if Path(file).is_absolute() or ".." in Path(file.replace("\\", "/")).parts:
            return None
        drive = plain[1:2] == ":" and not _is_file(self.root / file)  # C:/…, of another machine
        return None if drive else file

    def _followed(self, name: str) -> Path | None:
        """A path below the root, its links followed; None for a null byte, a loop of links, a name too long."""
        path = self.root / name
        try:
            if path.is_symlink():
                return path.resolve()
            folder = self._folders.get(path.parent)
            if folder is None:
                folder = self._folders[path.parent] = path.parent.resolve()
        except (OSError, ValueError, RuntimeError):
            return None
        return folder / path.name


def _spellings(name: str) -> list[str]:
    """A name, and what it is on another system: with slashes for backslashes, accents as a Mac writes them."""
    slashed = [name, name.replace("\\", "/")]
    if name.isascii():
        return list(dict.fromkeys(slashed))
    return list(
        dict.fromkeys([*slashed, *(unicodedata.normalize(form, n) for form in ("NFC", "NFD") for n in slashed)])
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
