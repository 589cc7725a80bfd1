"""Reading a tissue map: classes and probabilities as lazy arrays, with their class table and scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import zarr

from wsiseg.classes import ClassTable
from wsiseg.errors import MapError, OptionError, WsisegError
from wsiseg.geometry import Box, Grid, Mpp, Size
from wsiseg.system.addresses import as_address, without_secrets
from wsiseg.system.json_values import JsonObject
from wsiseg.tissue_map.arrays import damaged, lazy, levels_of
from wsiseg.tissue_map.checks import check_files, check_grid, check_levels, check_metadata
from wsiseg.tissue_map.codecs import bounded
from wsiseg.tissue_map.distance import DISTANCE, DistanceGrid
from wsiseg.tissue_map.finer import channels, probabilities_of
from wsiseg.tissue_map.gate import GateWindows
from wsiseg.tissue_map.ome import LABELS, READ_FORMATS, grid_from_json
from wsiseg.tissue_map.placement import MapRegion, Transform, box_of_slide, transform_of
from wsiseg.tissue_map.probability_levels import FULL, ProbabilityLevels
from wsiseg.tissue_map.records import records_of
from wsiseg.tissue_map.shards import shards_in

if TYPE_CHECKING:
    import dask.array as da

    from wsiseg.tissue_map.area_table import AreaTable

_NEEDED = ("classes", "grid", "slide", "model")
"""What the tool's own metadata must hold for anything to be made from a map."""


class TissueMap:
    """A tissue map on disk, open for reading. Pixels are read when you ask for them.

    Attributes:
        path: the store.
        classes: the class table.
        grid: where the map's pixels are on the slide.
        metadata: provenance: slide, model, parameters, versions, times, areas.
        probability_levels: at which levels the map keeps probabilities, and how; None where it keeps none.
    """

    def __init__(self, path: Path, root: zarr.Group) -> None:
        self.path = path
        self.metadata: Mapping[str, Any] = _own_metadata(path, root)
        self.classes = ClassTable.from_json(self.metadata["classes"])
        self.grid: Grid = grid_from_json(self.metadata["grid"])
        check_grid(path, self.grid)
        check_metadata(path, self.metadata)
        labels = root.get(f"labels/{LABELS}")
        if not isinstance(labels, zarr.Group):
            raise MapError(f"{path} holds no class map; it is damaged, write it anew")
        self._attributes = labels.attrs.asdict()
        self._class_maps = levels_of(labels)
        self.probability_levels = ProbabilityLevels.from_json(self.metadata.get("probabilities"))
        self._images = levels_of(root) if self.probability_levels else []
        if not self._class_maps or (self.probability_levels and not self._images):
            raise MapError(f"{path} lacks its class map or probabilities; it is damaged, write it anew")
        check_levels(path / "labels" / LABELS, [level.shape for level in self._class_maps], self.grid.size, ())
        size = self.grid.coarsen((self.probability_levels or FULL).factor)
        check_levels(path, [level.shape for level in self._images], size, (len(self.classes),))
        if self._images and len(self._images) != len(self._class_maps):
            raise MapError(f"{path} has other levels of classes than of probabilities; it is damaged, write it anew")
        self._unread, self._gate = records_of(
            path, root, self.metadata, self.grid.size, len(self._class_maps), len(self.classes)
        )
        self._distances = root.get(f"{DISTANCE}/0")

    @property
    def size(self) -> Size:
        """Size in map pixels."""
        return self.grid.size

    @property
    def mpp(self) -> Mpp:
        """Microns per map pixel."""
        return self.grid.mpp

    @property
    def levels(self) -> int:
        """Levels of the pyramid; level n has pixels of mpp * 2**n."""
        return len(self._class_maps)

    @property
    def has_probabilities(self) -> bool:
        """Whether probabilities were stored."""
        return bool(self._images)

    @property
    def levels_with_probabilities(self) -> range:
        """The levels at which the map keeps probabilities. Coarse ones go further than the levels of the class map."""
        first = self.probability_levels.first if self.probability_levels is not None else 0
        return range(first, first + len(self._images))

    @property
    def records_unread(self) -> bool:
        """Whether the map records where the slide could not be read; those of earlier versions do not."""
        return bool(self._unread)

    @property
    def records_gate(self) -> bool:
        """Whether the map records where the gate shut classes; those of earlier versions, or without a gate, do not."""
        return self._gate is not None

    def scale_um(self, level: int = 0) -> tuple[float, float]:
        """(y, x): microns per pixel of a level, in the order of the arrays' axes."""
        self._check_level(level)
        mpp = self.mpp.times(2**level)
        return mpp.y, mpp.x

    def transform(self, level: int = 0) -> Transform:
        """Where a level's pixels are, in um, as recorded in the store."""
        self._check_level(level)
        return transform_of(self.path, self._attributes, level, self.mpp)

    def class_map(self, level: int = 0) -> da.Array:
        """Lazy (y, x) uint8: 0 is not tissue or not read, 255 is white (`WHITE_VALUE`), any other value is a class."""
        self._check_level(level)
        return lazy(self.path, self._class_maps[level], level)

    def probabilities(self, level: int = 0) -> da.Array:
        """Lazy (c, y, x) uint8, 255 is 1.0; channel c belongs to the class with index c + 1.

        Args:
            level: of the pyramid, from `probability_levels.first` on.

        Raises:
            OptionError: the map was written without probabilities, or keeps none at this level.
        """
        return lazy(self.path, self._image(level), level)

    def read(self, box: Box, level: int = 0) -> npt.NDArray[np.uint8]:
        """The classes of a box inside a level of the map, (height, width) uint8.

        Raises:
            OptionError: the box is not inside, or there is no such level.
            MapError: the map is damaged there.
        """
        self._check_level(level)
        return self._read(self._class_maps[level], box, level)

    def read_probability(self, index: int, box: Box, level: int = 0) -> npt.NDArray[np.uint8]:
        """The probability of class `index` (from 1) in a box inside a level, (height, width) uint8, 255 is 1.0.

        Raises:
            OptionError: the box is not inside, or there is no such class, or the map keeps no probabilities at this
                level; see `estimate_probabilities`.
            MapError: the map is damaged there.
        """
        image = self._image(level)
        if not 1 <= index <= len(self.classes):
            raise OptionError(f"expected a class from 1 to {len(self.classes)}, got {index}")
        return self._read(image, box, level, index - 1)

    def estimate_probabilities(self, box: Box, level: int = 0) -> npt.NDArray[np.uint8]:
        """The probabilities of all classes in a box inside a level, (K, height, width) uint8, 255 is 1.0.

        They are what the map holds from the level `probability_levels.first` on. At finer ones they are interpolated
        from that level, and 0 where the class map has no class.

        Raises:
            OptionError: the box is not inside, there is no such level, or there are no probabilities.
            MapError: the map is damaged there.
        """
        return np.stack(list(self.channels(box, level)))

    def channels(self, box: Box, level: int = 0) -> Iterator[npt.NDArray[np.uint8]]:
        """As `estimate_probabilities`, class by class; what the map has of the level is read one class at a time."""
        self._check_level(level)
        self._check_inside(box, self.grid.coarsen(2**level), level)
        return channels(self, box, level)

    def _read(self, array: zarr.Array[Any], box: Box, level: int, channel: int | None = None) -> npt.NDArray[np.uint8]:
        self._check_inside(box, Size(array.shape[-1], array.shape[-2]), level)
        found = np.zeros(box.size.shape, np.uint8)
        try:
            for part in shards_in(array, box):
                found[part.slices(box)] = array[part.slices()] if channel is None else array[(channel, *part.slices())]
        except Exception as error:  # Zarr's codecs raise whatever they like on damaged data
            raise damaged(self.path, f"at {box} of level {level}", error) from error
        return found

    def unread(self, level: int = 0) -> da.Array:
        """Lazy (y, x) uint8: 1 could not be read, as the slide's file is damaged there.

        A pixel of a coarser level is 1 where any pixel under it is.

        Raises:
            OptionError: the map does not record it, or has no such level.
        """
        return lazy(self.path, self._unread_level(level), level)

    def read_unread(self, box: Box, level: int = 0) -> npt.NDArray[np.uint8]:
        """What could not be read in a box inside a level, (height, width) uint8; see `unread`.

        Raises:
            OptionError: the map does not record it, there is no such level, or the box is not inside.
            MapError: the map is damaged there.
        """
        return self._read(self._unread_level(level), box, level)

    @property
    def gate(self) -> GateWindows:
        """What the gate decided, window by window.

        Raises:
            OptionError: the map does not record it.
        """
        if self._gate is None:
            asked = (self.metadata.get("parameters") or {}).get("gate", True)
            why = "does not record where the gate shut classes; predict again" if asked else "was made without a gate"
            raise OptionError(f"{self.path.name} {why}")
        return self._gate

    def read_gate(self, index: int, box: Box, level: int = 0) -> npt.NDArray[np.uint8]:
        """Where the gate shut class `index` (from 1), in a box inside a level; with 0, where it left at most one open.

        Returns:
            (height, width) uint8: 0 where it was not asked (no tissue), 1 where the class was open, 2 where some of the
            windows over a pixel were shut and some open, 3 where all were shut, so that the class's probability is 0.

        Raises:
            OptionError: the map does not record it, there is no such level or class, or the box is not inside.
            MapError: the map is damaged there.
        """
        self._check_level(level)
        gate = self.gate
        if isinstance(index, bool) or not 0 <= index <= len(self.classes):
            raise OptionError(f"expected a class from 1 to {len(self.classes)}, or 0, got {index}")
        self._check_inside(box, self.grid.coarsen(2**level), level)
        try:
            return gate.pixels(index, box, level)
        except Exception as error:  # Zarr's codecs raise whatever they like on damaged data
            raise damaged(self.path, f"in what the gate decided at {box} of level {level}", error) from error

    def _unread_level(self, level: int) -> zarr.Array[Any]:
        self._check_level(level)
        if not self._unread:
            raise OptionError(f"{self.path.name} does not record where the slide could not be read; predict again")
        return self._unread[level]

    def class_map_at(self, box: Box, level: int = 0) -> MapRegion:
        """The classes under a part of the slide.

        Args:
            box: in level-0 pixels of the slide, counted from the corner of its bounds (as QuPath does).
            level: of the map's pyramid.

        Returns:
            All map pixels that the box touches, and where they are on the slide.

        Raises:
            OptionError: the box does not touch the map, or there is no such level.
        """
        self._check_level(level)
        pixels, placed = box_of_slide(box, self.grid, level)
        return MapRegion(self.read(pixels, level), level, pixels, *placed)

    def distances(self) -> tuple[DistanceGrid, npt.NDArray[np.uint8]] | None:
        """How far from the model's training data each patch looks: where they lie, and (rows, columns) uint8.

        100 is the model's limit, 0 a patch that was not measured. None where the model does not know.

        Raises:
            MapError: the map is damaged there.
        """
        found, said = self._distances, self.metadata.get(DISTANCE)
        if said is None and found is None:
            return None
        try:
            grid = DistanceGrid.from_json(said["grid"] if isinstance(said, Mapping) else said)
            return grid, grid.checked(found)[:]
        except Exception as error:  # Zarr's codecs raise whatever they like on damaged data
            raise damaged(self.path, "in its distances", error) from error

    @property
    def areas(self) -> AreaTable:
        """The area of each class, as a table; `metadata["areas"]` has them as plain values."""
        from wsiseg.tissue_map.area_table import AreaTable  # noqa: PLC0415  (it is not needed for reading)

        return AreaTable.from_metadata(self.path, self.metadata)

    def _check_level(self, level: int) -> None:
        if not _is_number(level) or not 0 <= level < self.levels:
            raise OptionError(f"{self.path.name} has the levels 0 to {self.levels - 1}, got {level!r:.40}")

    def _check_inside(self, box: Box, size: Size, level: int) -> None:
        if box.x < 0 or box.y < 0 or box.right > size.width or box.bottom > size.height:
            raise OptionError(
                f"a box of {box.size} px at ({box.x}, {box.y}) is not inside level {level} of {self.path.name}, "
                f"which is of {size} px; give one that is, or cut it with Box.intersect"
            )

    def _image(self, level: int) -> zarr.Array[Any]:
        """The probabilities of a level. Of coarse ones there are also levels behind the last of the class map."""
        kept = probabilities_of(self)
        if not kept.first:
            self._check_level(level)
        elif not _is_number(level) or level not in (there := self.levels_with_probabilities):
            finest = self.mpp.times(kept.factor)
            raise OptionError(
                f"{self.path.name} keeps coarse probabilities, at levels {there[0]} to {there[-1]} ({finest} um per "
                f"pixel and more), got {level!r:.40}; predict again with --probabilities full for finer ones"
            )
        return self._images[level - kept.first]


def _is_number(level: object) -> bool:
    return isinstance(level, int | np.integer) and not isinstance(level, bool)


AnyMap = TypeVar("AnyMap", bound=TissueMap)


def open_map(path: str | Path) -> TissueMap:
    """Open a tissue map; see `opened`."""
    return opened(path, TissueMap)


def opened(path: str | Path, kind: type[AnyMap]) -> AnyMap:
    """A tissue map as a kind of `TissueMap`: `wsiseg.open_map` opens one that can do more.

    Args:
        path: a folder, or an address: `s3://`, `gs://`, `az://`, `https://`.
        kind: what it is opened as.

    Raises:
        MapError: there is none, it is not one of this program's, or it is damaged.
        RemoteError: its server does not give it.
        OptionError: its class table or grid is none, or its address is of another kind.
    """
    if (address := as_address(path)) is not None:
        from wsiseg.tissue_map.remote import open_remote  # noqa: PLC0415  (addresses need an extra)

        return _checked(Path(without_secrets(address)), partial(open_remote, address), kind)
    folder = Path(path)
    if not folder.exists():
        raise MapError(f"{path} does not exist; expected a tissue map (a .zarr folder)")
    if not (folder / "zarr.json").is_file():
        raise MapError(f"{path} is not a tissue map: it holds no Zarr group")

    def checked() -> zarr.Group:
        check_files(folder)
        return zarr.open_group(folder, mode="r")

    return _checked(folder, checked, kind)


def _checked(path: Path, open_root: Callable[[], zarr.Group], kind: type[AnyMap]) -> AnyMap:
    try:
        with bounded():
            return kind(path, open_root())
    except WsisegError:
        raise
    except Exception as error:  # Zarr raises whatever it likes on damaged metadata
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MapError(f"{path} is not a tissue map, or it is damaged ({reason:.200})") from error


def _own_metadata(path: Path, root: zarr.Group) -> JsonObject:
    own = root.attrs.asdict().get("wsiseg")
    if not isinstance(own, dict) or "format" not in own:
        raise MapError(f"{path} was not written by wsiseg; expected a map made by `wsiseg predict`")
    if isinstance(own["format"], bool) or own["format"] not in READ_FORMATS:
        raise MapError(
            f"{path} has map format {own['format']!r:.40}, this program reads up to {READ_FORMATS[-1]}; update wsiseg"
        )
    missing = [key for key in _NEEDED if key not in own]
    if missing:
        raise MapError(f"{path} says nothing of its {missing[0]}; the map is damaged, write it anew")
    return own
