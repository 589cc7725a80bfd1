"""Whether a slide is still the one that was opened: files are cut off, copied over and replaced while they are read."""

from __future__ import annotations

from pathlib import Path

from wsiseg.errors import SlideError
from wsiseg.slides.base import SlideReader
from wsiseg.system.addresses import is_address


class SlideWatch:
    """Remembers what a slide's files looked like.

    A slide that changes while it is read gives damaged tiles, or tiles of two slides, and neither may become a result.

    Args:
        slide: open for reading.

    Attributes:
        hash: its quick hash.
    """

    def __init__(self, slide: SlideReader) -> None:
        self._slide = slide
        self.hash = slide.quick_hash()
        self._state = _state(slide)

    @property
    def version(self) -> str | None:
        """The state of the slide as its server describes it, None for local files."""
        return self._slide.version

    def check(self) -> None:
        """Compare the files with what they were; costs a look at each one's directory entry, or one small request.

        Raises:
            SlideError: it is gone or another one now, or its server does not answer.
        """
        if is_address(self._slide.path):
            self._slide.require_unchanged()
            return
        state = _state(self._slide)
        if state == self._state:
            return
        try:
            same = self._slide.quick_hash() == self.hash
        except OSError:
            same = False
        if not same:
            raise SlideError(
                f"{self._slide.name} changed while it was read (it was cut off, replaced or removed); "
                "put back the slide and repeat the command, which resumes from before that"
            )
        self._state = state


def _state(slide: SlideReader) -> tuple[tuple[int, int, int] | None, ...]:
    """Size, time of change and number of each file, None where it is gone; of an address, none."""
    return tuple(_file_state(path) for path in slide.files)


def _file_state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
