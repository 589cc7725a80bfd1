"""Whether a slide is still the one that was opened: files are cut off, copied over and replaced while they are read."""

from __future__ import annotations

from pathlib import Path

from wsiseg.addresses import is_address
from wsiseg.errors import SlideError
from wsiseg.slides.base import SlideReader
from wsiseg.slides.companions import companion_files


class SlideWatch:
    """Remembers what a slide's file looked like.

    A slide that changes while it is read gives damaged tiles, or tiles of two slides, and neither may become a result.

    Args:
        slide: open for reading.

    Attributes:
        hash: its quick hash.
    """

    def __init__(self, slide: SlideReader) -> None:
        self._slide = slide
        self.hash = slide.quick_hash()
        self._files = [] if is_address(slide.path) else _files(Path(slide.path))
        self._state = [_state(file) for file in self._files]

    @property
    def version(self) -> str | None:
        """What a server says of the slide's state, None for files of this machine."""
        return self._slide.version

    def check(self) -> None:
        """Compare the file with what it was; costs one look at each file, or one small request.

        Raises:
            SlideError: it is gone or another one now, or its server does not answer.
        """
        if is_address(self._slide.path):
            self._slide.require_unchanged()
            return
        state = [_state(file) for file in self._files]
        if state == self._state:
            return
        try:
            same = self._slide.quick_hash() == self.hash
        except OSError:
            same = False
        if not same:
            raise SlideError(
                f"{self._slide.name} changed while it was read (it was cut off, replaced or removed); "
                "put back the slide and repeat the command, which goes on from before that"
            )
        self._state = state


def _files(path: Path) -> list[Path]:
    """What is watched: the file that was opened, and its companions where the format has them."""
    return [path, *companion_files(path)] if path.is_file() else [path]


def _state(path: Path) -> tuple[int, int, int] | None:
    """Size, time of change and number of a file; None where it is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
