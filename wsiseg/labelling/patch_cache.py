"""Pixels of candidates, cut ahead of time, so that a page never waits for a slide."""

from __future__ import annotations

import io
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from wsiseg.arrays import Float32Array, UInt8Array
from wsiseg.errors import OutputError, SlideError
from wsiseg.geometry import Box, Grid
from wsiseg.labelling.places import Candidate
from wsiseg.slides.base import SlideReader

CONTEXT, CONTEXT_DOWNSAMPLE = 4, 2
"""The context picture shows so many times the patch's field, each way, at so many times its mpp."""

CONTEXT_QUALITY = 85

_TABLES = """
CREATE TABLE IF NOT EXISTS patches (id TEXT PRIMARY KEY, pixels BLOB, context BLOB);
CREATE TABLE IF NOT EXISTS opinions (
    id TEXT, model TEXT, probabilities BLOB, features BLOB, PRIMARY KEY (id, model)
);
"""


class PatchCache:
    """A file with the pixels of patches, lossless, their surroundings, and what models say of them.

    Whatever is lost of it is cut again: it holds nothing that a person made. Threads may share it.

    Args:
        path: of the SQLite file, made if it is not there.

    Raises:
        OutputError: it cannot be written, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            self._base = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._base.execute("PRAGMA synchronous=OFF")
            self._base.executescript(_TABLES)
        except sqlite3.Error as error:
            raise OutputError(f"cannot use {path} ({error}); remove it, its patches are cut again") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._base.close()

    def has(self, patch: str) -> bool:
        """Whether a patch was looked at; also of one that turned out to be unreadable."""
        return bool(self._rows("SELECT 1 FROM patches WHERE id = ?", patch))

    def known(self) -> set[str]:
        """All patches that were looked at; also those that turned out to be unreadable."""
        return {row[0] for row in self._rows("SELECT id FROM patches")}

    def png(self, patch: str) -> bytes | None:
        """The patch as PNG, None where it is not there or could not be read."""
        rows = self._rows("SELECT pixels FROM patches WHERE id = ?", patch)
        return rows[0][0] if rows else None

    def context_jpeg(self, patch: str) -> bytes | None:
        """The patch in its surroundings as JPEG, `CONTEXT` times its field, (2 P, 2 P)."""
        rows = self._rows("SELECT context FROM patches WHERE id = ?", patch)
        return rows[0][0] if rows else None

    def pixels(self, patch: str) -> UInt8Array | None:
        """The patch, (P, P, 3) uint8."""
        png = self.png(patch)
        return None if png is None else np.asarray(Image.open(io.BytesIO(png)))

    def put(self, patch: str, pixels: UInt8Array | None, context: UInt8Array | None) -> None:
        """Keep a patch (P, P, 3) uint8 and its surroundings; None for one that cannot be read."""
        self._rows(
            "INSERT OR REPLACE INTO patches VALUES (?, ?, ?)",
            patch,
            None if pixels is None else _encoded(pixels, "PNG", compress_level=1),
            None if context is None else _encoded(context, "JPEG", quality=CONTEXT_QUALITY),
        )

    def opinions(self, model: str) -> dict[str, tuple[Float32Array, Float32Array]]:
        """What a model says: patch -> (probabilities (K,), features (D,))."""
        return {
            patch: (np.frombuffer(probabilities, np.float32), np.frombuffer(features, np.float32))
            for patch, probabilities, features in self._rows(
                "SELECT id, probabilities, features FROM opinions WHERE model = ?", model
            )
        }

    def put_opinion(self, patch: str, model: str, probabilities: Float32Array, features: Float32Array) -> None:
        """Keep what a model says of a patch."""
        self._rows(
            "INSERT OR REPLACE INTO opinions VALUES (?, ?, ?, ?)",
            *(patch, model, probabilities.astype(np.float32).tobytes(), features.astype(np.float32).tobytes()),
        )

    def _rows(self, query: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]  # whatever the query asks
        with self._lock:
            try:
                return self._base.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise OutputError(f"cannot use {self.path} ({error}); remove it, its patches are cut again") from error


def _encoded(pixels: UInt8Array, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


Cut = Callable[[Candidate], tuple[UInt8Array | None, UInt8Array | None]]
"""Pixels of a patch (P, P, 3) and of its surroundings, None for what is not to be had."""


class Cutter:
    """Cuts candidates in a thread of its own, in the order in which they will be shown.

    Args:
        cache: what they are put into.
        cut: gives their pixels, for instance `SlideCuts`.
    """

    def __init__(self, cache: PatchCache, cut: Cut) -> None:
        self.cache = cache
        self._cut = cut
        self._waiting: deque[Candidate] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="cutter", daemon=True)
        self._thread.start()

    def add(self, candidates: Sequence[Candidate], *, first: bool = False) -> None:
        """Cut these as well: after all others, or `first`, before them."""
        with self._changed:
            if first:
                self._waiting.extendleft(reversed(candidates))
            else:
                self._waiting.extend(candidates)
            self._changed.notify_all()

    def wait(self, patches: Iterable[str], timeout_s: float | None = None) -> bool:
        """Wait until some patches were looked at; false where the time is over before.

        Raises:
            WsisegError: what ended the cutting, a full disk for instance.
        """
        missing = [patch for patch in patches if not self.cache.has(patch)]

        def done() -> bool:
            while missing and self.cache.has(missing[-1]):
                missing.pop()
            return not missing

        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or done(), timeout_s)
            if not done() and self._error is not None:
                raise self._error
            return done()

    def close(self) -> None:
        """End the thread after the patch under way."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._cut_all()
        except BaseException as error:  # raised again where somebody waits
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _cut_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._waiting)
                if self._ended:
                    return
                candidate = self._waiting.popleft()
            if not self.cache.has(candidate.id):
                self.cache.put(candidate.id, *self._cut(candidate))
            with self._changed:
                self._changed.notify_all()


class SlideCuts:
    """Cuts patches from slides.

    Args:
        readers: of the slides, by name.
        mpp: microns per pixel of a patch.
    """

    def __init__(self, readers: Mapping[str, SlideReader], mpp: float) -> None:
        self._readers = readers
        self._grids = {
            name: (reader.grid(mpp), reader.grid(CONTEXT_DOWNSAMPLE * mpp)) for name, reader in readers.items()
        }

    def __call__(self, candidate: Candidate) -> tuple[UInt8Array | None, UInt8Array | None]:
        """The pixels of a patch and of its surroundings; nothing where the slide is damaged or cannot be read."""
        assert candidate.box is not None, "a patch of a slide"
        reader = self._readers[candidate.slide]
        grid, coarse = self._grids[candidate.slide]
        try:
            region = reader.read(grid, candidate.box)
            if region.damaged is not None and region.damaged.any():
                return None, None
            return region.pixels, reader.read(coarse, _surroundings(candidate.box, grid, coarse)).pixels
        except SlideError:
            return None, None


def _surroundings(box: Box, grid: Grid, coarse: Grid) -> Box:
    """The box of the context picture on a coarser grid, with the same centre as a patch."""
    width, height = (side * CONTEXT // CONTEXT_DOWNSAMPLE for side in (box.width, box.height))
    x = (box.x + box.width / 2) * grid.step_x / coarse.step_x - width / 2
    y = (box.y + box.height / 2) * grid.step_y / coarse.step_y - height / 2
    return Box(round(x), round(y), width, height)
