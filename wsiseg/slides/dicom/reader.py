"""Slides in DICOM, from all instances of their series; the frames are read as they lie in the files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsiseg.errors import SlideError
from wsiseg.geometry import Box, Mpp, ceil_div
from wsiseg.slides.base import WHITE
from wsiseg.slides.damage import DamageMap, UnreadableError
from wsiseg.slides.dicom.codecs import JPEG, jpeg_says
from wsiseg.slides.dicom.frames import FrameTable, JoinedSource, frame_table
from wsiseg.slides.dicom.header import Instance, read_instance
from wsiseg.slides.dicom.levels import chosen_levels
from wsiseg.slides.dicom.series import DicomSlide, slide_of
from wsiseg.slides.file import FileReader
from wsiseg.slides.likeness import shows_other
from wsiseg.slides.limits import check_picture, check_sizes, check_tiles
from wsiseg.slides.sources.source import LocalSource
from wsiseg.slides.tiff.tiles import TileSource

_SPACING_AGREES = 0.05


class DicomReader(FileReader):
    """A slide in DICOM.

    Args:
        path: any file of it, or its folder.
        stated_mpp: microns per pixel as the user states them.

    Raises:
        SlideError: files of it are missing or damaged, or it is of a kind that is not read.
    """

    reader = "pydicom"
    vendor = "dicom"

    def __init__(self, path: Path, stated_mpp: Mpp | None = None) -> None:
        self._slide = slide_of(path)
        self.path = str(path)
        self.stated_mpp = stated_mpp
        self.bounds = None
        self._require_readable()
        images, pictures = _images(self._slide)
        self._require_finest(images[0])
        self.levels, kept, notes = chosen_levels(images)
        check_sizes(self.name, [level.size for level in self.levels])
        base = self._base = kept[0][0]
        self.recorded_mpp, self.mpp_source, doubt = _recorded_mpp(base)
        self.mpp_source = "stated" if stated_mpp else self.mpp_source
        self.objective = base.objective
        self.properties = {f"dicom.{name}": value for name, value in base.text.items() if value}
        self.associated = {name: parts[0].size for name, parts in pictures.items()}
        everything = [*kept, *pictures.values()]
        check_tiles(self.name, [parts[0].tile for parts in everything])
        source = self._source = JoinedSource(self.name, [part.key.path for parts in everything for part in parts])
        try:
            tables = _tables(everything, self._source.starts)
            self._tiles = TileSource(source, [*tables])
            notes += self._leave_out_strangers(kept, source)
            tables = [table for table in self._tiles.tables if isinstance(table, FrameTable)]
            self.damage = DamageMap(self.levels, [table.tile for table in tables[: len(self.levels)]])
            notes += [
                f"{name} in the same folder is damaged DICOM, of this slide or another"
                for name in self._slide.unreadable
            ]
            self.notes = tuple(notes + doubt + _colour_doubt(tables[0], self._source))
        except BaseException:
            self._source.close()
            raise

    def _leave_out_strangers(self, images: Sequence[Sequence[Instance]], source: JoinedSource) -> list[str]:
        """Take out of the levels what has their shape by chance, and say so."""
        assert self._tiles is not None
        kept, notes = [0], []
        for index in range(1, len(self.levels)):
            level, fine = self.levels[index], kept[-1]
            if shows_other(level, self._tiles.reading(index), self.levels[fine], self._tiles.reading(fine)):
                name = images[index][0].name
                notes.append(f"{name}, {level.size} px, shows something else than level 0 and is not a level")
            else:
                kept.append(index)
        tables = [*(self._tiles.tables[index] for index in kept), *self._tiles.tables[len(self.levels) :]]
        self.levels = tuple(self.levels[index] for index in kept)
        self._tiles = TileSource(source, tables)
        return notes

    @property
    def name(self) -> str:
        """The slide's own name, whichever of its files it was opened by."""
        return self._slide.name

    @property
    def files(self) -> tuple[Path, ...]:
        """See `SlideReader.files`."""
        return self._slide.files

    @property
    def base(self) -> Instance:
        """An instance of level 0."""
        return self._base

    def _require_readable(self) -> None:
        """Refuse a folder of one slide with a damaged file, which may be the slide's finest level."""
        if self._slide.alone and self._slide.unreadable:
            raise SlideError(
                f"{self._slide.unreadable[0]}, in the folder of {self.name}, is damaged, and may be a part of it; "
                "copy it again, or move it elsewhere if it is none"
            )

    def _require_finest(self, parts: Sequence[Instance]) -> None:
        """Refuse a slide whose finest level was made from one that is not there, unless its resolution is stated."""
        if parts[0].key.resampled and self.stated_mpp is None:
            raise SlideError(
                f"{self.name} lacks its original: the finest level here, {parts[0].size} px, says that it was "
                "resampled from a finer one; copy all files of its series, or state its um per pixel with --mpp"
            )

    def read_associated(self, name: str) -> npt.NDArray[np.uint8]:
        """See `SlideReader.read_associated`."""
        self.require_open(self._open)
        index = len(self.levels) + [*self.associated].index(name) if name in self.associated else -1
        if index < 0:
            raise KeyError(name)
        assert self._tiles is not None
        table = self._tiles.tables[index]
        assert table is not None
        check_picture(self.name, table.size)
        pixels = np.full((*table.size.shape, 3), WHITE, np.uint8)
        whole = Box.from_size(table.size)
        for cell in ((x, y) for y in range(table.rows) for x in range(table.columns)):
            try:
                pixels[table.box(cell).slices(whole)] = self._tiles.read(index, cell)
            except UnreadableError as error:
                raise SlideError(f"{self.name}: the picture {name!r} cannot be read ({error})") from error
        return pixels

    def _read_box(self, level: int, box: Box) -> npt.NDArray[np.uint8]:
        raise UnreadableError(f"level {level} has no frames at {box}")

    def quick_hash(self) -> str:
        """SHA-256 of samples of all instances, in the order of their UIDs, whatever the files are called."""
        digest = hashlib.sha256()
        for path in self.files:
            with closing(LocalSource(path)) as source:
                digest.update(source.quick_hash().encode())
        return digest.hexdigest()

    def close(self) -> None:
        """See `SlideReader.close`."""
        self._open = False
        if self._tiles is not None:
            self._tiles.close()


def _images(slide: DicomSlide) -> tuple[list[list[Instance]], dict[str, list[Instance]]]:
    """The volume images, largest first, each with its parts in order; and the other pictures by their names."""
    groups: dict[tuple[str, str], list[Instance]] = {}
    for key in slide.instances:
        try:
            part = read_instance(key.path)
        except SlideError:
            if key.flavor == "VOLUME":
                raise
            continue  # a label in grey does not keep a slide from being read
        groups.setdefault((key.flavor, part.concatenation or key.sop_uid), []).append(part)
    images, pictures = [], {}
    for (flavor, _), group in groups.items():
        parts = sorted(group, key=lambda part: part.part)
        if flavor == "VOLUME":
            _require_whole(parts)
            images.append(parts)
        elif _is_picture(parts):
            name = flavor.lower() or "picture"
            while name in pictures:
                name += "+"
            pictures[name] = parts
    images.sort(key=lambda parts: (-parts[0].size.area, parts[0].number, parts[0].key.sop_uid))
    return images, pictures


def _is_picture(parts: Sequence[Instance]) -> bool:
    size, tile = parts[0].size, parts[0].tile
    try:
        check_picture("", size)
        columns, rows = ceil_div(size.width, tile.width), ceil_div(size.height, tile.height)
        return sum(part.frames for part in parts) == columns * rows
    except SlideError:
        return False


def _require_whole(parts: Sequence[Instance]) -> None:
    """Refuse a concatenation that lacks parts, or whose parts do not fit."""
    first = parts[0]
    stated = max(part.parts for part in parts)
    missing = sorted(set(range(1, (stated or len(parts)) + 1)) - {part.part for part in parts})
    if first.concatenation and (missing or len(parts) > (stated or len(parts))):
        listed = ", ".join(map(str, missing[:10]))
        raise SlideError(
            f"{first.name} is one of {stated or 'several'} files of a level, of which part {listed} is missing; "
            "copy all files of its series"
        )
    for part in parts:
        same = ("size", "tile", "syntax", "photometric", "planar")
        if any(getattr(part, name) != getattr(first, name) for name in same):
            raise SlideError(f"{part.name} does not fit {first.name}, of the same level; copy all files again")


def _tables(images: Sequence[Sequence[Instance]], starts: Sequence[int]) -> list[FrameTable]:
    tables, used = [], 0
    for parts in images:
        tables.append(frame_table(parts, starts[used : used + len(parts)]))
        used += len(parts)
    return tables


def _recorded_mpp(base: Instance) -> tuple[Mpp | None, str, list[str]]:
    """The resolution, the property that records it, and a note where another one says otherwise."""
    spacing, volume = base.spacing, base.volume_mpp
    if spacing is None:
        return volume, "ImagedVolumeWidth" if volume else "", []
    note = []
    if volume and max(abs(volume.x / spacing.x - 1), abs(volume.y / spacing.y - 1)) > _SPACING_AGREES:
        note = [f"PixelSpacing gives {spacing} um per pixel, ImagedVolumeWidth and Height {volume}; the former counts"]
    return spacing, "PixelSpacing", note


def _colour_doubt(table: FrameTable, source: JoinedSource) -> list[str]:
    """A note where the JPEGs of a slide state other colours than its header; the JPEGs count."""
    stated = "RGB" if table.instance.photometric == "RGB" else "YBR"
    present = np.flatnonzero(np.asarray(table.planes[0].counts))
    if table.instance.syntax not in JPEG or not len(present):
        return []
    index = int(present[len(present) // 2])
    cell = (index % table.columns, index // table.columns)
    ranges = table.ranges(cell, source.length)
    try:
        says = jpeg_says(table.frame(source.read_many(ranges or [])[0]))
    except UnreadableError:
        return []
    if says in ("", stated):
        return []
    return [f"the header states {table.instance.photometric}, the JPEGs themselves {says}; they are read as {says}"]
