"""The reader contract: any box of a slide, of any level or at any mpp, white outside, damage reported."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from wsiseg.errors import MissingMppError, SlideError
from wsiseg.geometry import MPP_MAX, MPP_MIN, Box, Grid, Level, Mpp, Size, plan_grid
from wsiseg.slides.damage import DamageMap
from wsiseg.slides.resample import axis_weights, resample
from wsiseg.system.addresses import last_part, without_secrets
from wsiseg.system.printable import readable

WHITE = 255

CLOSE_S = 20.0
"""How long to wait for a slide to be closed after an error, where a thread may hang in a read of it."""

OBJECTIVE_UM = 10.0
"""Microns per pixel times magnification: cameras of scanners have pixels of about so many microns."""

MOST_APART = 2.5
"""How many times a slide's resolution may be what its objective usually gives, or that be the resolution."""

ROUNDING = 1e-6
"""A weight this small is none: rounding gives it to a neighbour that an output pixel does not cover."""


@dataclass(frozen=True, slots=True)
class Region:
    """Pixels read from a slide.

    Attributes:
        pixels: (height, width, 3) uint8, RGB, white outside the slide and where it is damaged.
        damaged: (height, width) bool, true where the file could not be decoded; None where nothing was damaged.
    """

    pixels: npt.NDArray[np.uint8]
    damaged: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class ImageInFile:
    """One of the images that a file holds.

    Attributes:
        index: its number, for `--series`.
        name: its name, "" where it has none.
        role: "slide" for the one that is read; "macro", "label", "thumbnail" or "overview"; else "image".
        size: its pixels.
        mpp: microns per pixel, None where they are not recorded.
        refused: what its pixels are where they are not read, else None.
    """

    index: int
    name: str
    role: str
    size: Size
    mpp: Mpp | None
    refused: str | None = None


class SlideReader(ABC):
    """A slide that is open for reading; several threads may read from it at once.

    Level-0 coordinates begin at the corner of the slide's bounds where it has them (as in QuPath), and `levels`
    are the sizes inside them.

    Attributes:
        path: where it was opened from.
        vendor: the format of the file, in the words of the library that reads it.
        levels: the pyramid, finest first.
        recorded_mpp: microns per level-0 pixel as the file records it, None where it does not.
        mpp_source: the property that recorded it, or "stated" if the user gave it.
        objective: magnification of the objective, None where it is not recorded.
        bounds: the part of the file's own level 0 that holds the scan, None where that is all of it.
        properties: everything the file says about itself, as text.
        associated: names and sizes of label, macro and thumbnail pictures.
        damage: the source tiles found damaged so far.
        stated_mpp: microns per pixel that the user gave, otherwise None.
        notes: what users of the slide should know, one sentence each: what its reader found, and whether its objective
            and its resolution contradict each other.
        version: the state of the file as its server describes it, None for local files.
        images: all images of the file, where it may hold several.
        left_out: pictures in the file that look like levels but are not, and why.
    """

    reader: str
    """Name of the library that reads."""

    path: str
    vendor: str
    levels: tuple[Level, ...]
    recorded_mpp: Mpp | None
    mpp_source: str
    objective: float | None
    bounds: Box | None
    properties: Mapping[str, str]
    associated: Mapping[str, Size]
    damage: DamageMap

    stated_mpp: Mpp | None = None
    _notes: tuple[str, ...] = ()
    version: str | None = None
    images: tuple[ImageInFile, ...] = ()
    left_out: tuple[str, ...] = ()

    @abstractmethod
    def read_level(self, level: int, box: Box) -> Region:
        """The pixels of `box`, in pixels of `level`; what lies outside the slide is white.

        A damaged part of the file is white and marked in `Region.damaged`; it does not raise an error.

        Raises:
            SlideError: the file as a whole can no longer be read.
        """

    @abstractmethod
    def read_associated(self, name: str) -> npt.NDArray[np.uint8]:
        """An associated picture, (height, width, 3) uint8. Raises `KeyError` on an unknown name."""

    def require_unchanged(self) -> None:  # noqa: B027  (files of this machine are watched by their directory entry)
        """Ask the server whether the slide is still the one that was opened; nothing for files of this machine.

        Raises:
            SlideError: it is another one now, or gone.
        """

    def expect(self, grid: Grid, boxes: Sequence[Box]) -> None:  # noqa: B027  (a disk needs no notice)
        """Have the bytes of boxes that `read` is asked for soon fetched meanwhile. Never waits, and raises nothing.

        Args:
            grid: as `read` will get it.
            boxes: in map pixels of `grid`.
        """

    def forget(self) -> None:  # noqa: B027  (a reader may keep nothing)
        """Free the memory of pixels that are kept for boxes to come; they are read again where one needs them."""

    @abstractmethod
    def close(self) -> None:
        """Give back the file. Reading afterwards is an error."""

    @abstractmethod
    def quick_hash(self) -> str:
        """A hexadecimal SHA-256 that tells this file from others without reading all of it."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What users of the slide should know. A reader assigns its own sentences; that on the objective is added."""
        return tuple(dict.fromkeys((*self._notes, *self._objective_notes())))

    @notes.setter
    def notes(self, notes: tuple[str, ...]) -> None:
        self._notes = tuple(notes)

    def _objective_notes(self) -> tuple[str, ...]:
        mpp = self.stated_mpp or self.recorded_mpp
        if mpp is None or self.objective is None or not 0 < self.objective < math.inf:
            return ()
        usual = OBJECTIVE_UM / self.objective
        if usual / MOST_APART <= mpp.mean <= usual * MOST_APART:
            return ()
        origin = "that was stated" if self.stated_mpp else "that the slide records"
        return (
            f"{mpp} um per pixel {origin} and its objective of {self.objective:g}x do not go together, about "
            f"{usual:.3g} is usual; if the resolution is wrong, so are the map and its areas, state the right one with "
            "--mpp",
        )

    @property
    def name(self) -> str:
        """Last part of the path, or of the address without its query."""
        return readable(last_part(self.path))

    @property
    def shown_path(self) -> str:
        """The path, or the address without its secrets, for everything that is printed or stored."""
        return readable(without_secrets(self.path))

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the slide consists of; none for a slide behind an address."""
        return () if "://" in self.path else (Path(self.path),)

    @property
    def size(self) -> Size:
        """Size of level 0."""
        return self.levels[0].size

    @property
    def mpp(self) -> Mpp:
        """Microns per level-0 pixel: the value given when opening, otherwise the one that the file records.

        Raises:
            MissingMppError: neither is there, or the value is implausible.
        """
        mpp = self.stated_mpp or self.recorded_mpp
        if mpp is None:
            raise MissingMppError(
                f"{self.name} does not record its resolution; state it with --mpp (um per pixel of level 0)"
            )
        if not mpp.is_plausible:
            raise MissingMppError(
                f"{self.name}: {mpp} um per pixel (from {self.mpp_source}) is not plausible, "
                f"expected {MPP_MIN} to {MPP_MAX}; state the right value with --mpp"
            )
        return mpp

    @property
    def damaged_tiles(self) -> int:
        """How many tiles of the file were found damaged so far; each counts once."""
        return self.damage.count

    @property
    def damaged_area(self) -> frozenset[Box]:
        """The boxes that the damaged tiles cover, in level-0 pixels."""
        return self.damage.boxes

    @property
    def damaged_area_um2(self) -> float:
        """The area that the damaged tiles cover, in um2; raises `MissingMppError` if the slide has no resolution."""
        return self.damage.area_px * self.mpp.pixel_area_um2

    def grid(self, mpp: float) -> Grid:
        """The grid of a map of this slide at `mpp` microns per map pixel; see `plan_grid`."""
        return plan_grid(self.levels, self.mpp, mpp)

    def read(self, grid: Grid, box: Box) -> Region:
        """The pixels of `box`, in map pixels of `grid`: area-weighted means of the level, or its own pixels.

        The value of a map pixel does not depend on the box it is read with.
        """
        source = grid.source(box)
        region = self.read_level(grid.level, source)
        if not grid.resamples:
            return region
        return Region(
            resample(region.pixels, source, box, grid),
            None if region.damaged is None else _any_damaged(region.damaged, source, box, grid),
        )

    def require_open(self, is_open: bool) -> None:
        """Raise `SlideError` on a slide that was closed."""
        if not is_open:
            raise SlideError(f"{self.name} was closed; open it again")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, TimeoutError):
            return  # a thread that hangs in a read holds the file
        closing = threading.Thread(target=self.close, daemon=True)  # so it may after an interrupt
        closing.start()
        closing.join(None if kind is None else CLOSE_S)


def _any_damaged(damaged: npt.NDArray[np.bool_], source: Box, box: Box, grid: Grid) -> npt.NDArray[np.bool_]:
    """A map pixel is damaged as soon as a source pixel under it is, however small its share."""
    rows = axis_weights(box.y, box.height, grid.zoom_y, source.y, source.height)
    columns = axis_weights(box.x, box.width, grid.zoom_x, source.x, source.width)
    share = columns @ (rows @ damaged.astype(np.float32)).T  # (w, h)
    return np.ascontiguousarray(share.T > ROUNDING)
