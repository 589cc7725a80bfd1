"""Reading a tissue map: classes and probabilities as lazy arrays, with their class table and scale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import zarr

from wsiseg.classes import ClassTable
from wsiseg.errors import OptionError, SlideError, WsisegError
from wsiseg.geometry import Box, Grid, Mpp, Size
from wsiseg.map_checks import check_files, check_grid, check_levels, check_metadata
from wsiseg.map_codecs import bounded
from wsiseg.ome import LABELS, MAP_FORMAT, grid_from_json
from wsiseg.shards import shards_in

_NEEDED = ("classes", "grid", "slide", "model")
"""What the tool's own metadata must hold for anything to be made from a map."""

LAZY_PX = 2048
"""Side of a piece of a lazy array, four chunks."""


class TissueMap:
    """A tissue map on disk, open for reading; nothing is read before it is asked for.

    Attributes:
        path: the store.
        classes: the class table.
        grid: the map's grid upon the slide.
        metadata: provenance: slide, model, parameters, versions, times, areas.
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
            raise SlideError(f"{path} holds no class map; it is damaged, write it anew")
        self._class_maps = _levels(labels)
        self._images = _levels(root) if self.metadata.get("probabilities") else []
        if not self._class_maps or (self.metadata.get("probabilities") and not self._images):
            raise SlideError(f"{path} lacks its class map or probabilities; it is damaged, write it anew")
        check_levels(path / "labels" / LABELS, [level.shape for level in self._class_maps], self.grid.size, ())
        check_levels(path, [level.shape for level in self._images], self.grid.size, (len(self.classes),))
        if self._images and len(self._images) != len(self._class_maps):
            raise SlideError(f"{path} has other levels of classes than of probabilities; it is damaged, write it anew")

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

    def scale_um(self, level: int = 0) -> tuple[float, float]:
        """(y, x): microns per pixel of a level, in the order of the arrays' axes."""
        mpp = self.mpp.times(2**level)
        return mpp.y, mpp.x

    def class_map(self, level: int = 0) -> da.Array:
        """Lazy (y, x) uint8: 0 is not tissue or not read, else the index of the class."""
        return _lazy(self._class_maps[level])

    def probabilities(self, level: int = 0) -> da.Array:
        """Lazy (c, y, x) uint8, 255 is 1.0; channel c belongs to the class with index c + 1.

        Raises:
            OptionError: the map was written without probabilities.
        """
        if not self._images:
            raise OptionError(
                f"{self.path.name} was written without probabilities; predict again without --no-probabilities"
            )
        return _lazy(self._images[level])

    def read(self, box: Box, level: int = 0) -> npt.NDArray[np.uint8]:
        """The classes of a box inside the map, (height, width) uint8."""
        return self._read(self._class_maps[level], box, level)

    def read_probability(self, index: int, box: Box, level: int = 0) -> npt.NDArray[np.uint8]:
        """The probability of the class with this index in a box inside the map, (height, width) uint8, 255 is 1.0.

        Raises:
            IndexError: the map was written without probabilities, see `has_probabilities`.
            SlideError: it is damaged there.
        """
        return self._read(self._images[level], box, level, index - 1)

    def _read(self, array: zarr.Array[Any], box: Box, level: int, *channel: int) -> npt.NDArray[np.uint8]:
        found = np.zeros(box.size.shape, np.uint8)
        lead: tuple[int | slice, ...] = channel
        try:
            for part in shards_in(array, box):
                found[part.slices(box)] = array[lead + part.slices()]
        except Exception as error:  # Zarr's codecs raise whatever they like on damaged data
            reason = " ".join(str(error).split())
            raise SlideError(
                f"{self.path} is damaged at {box} of level {level} ({reason:.200}); write it anew"
            ) from error
        return found

    def __repr__(self) -> str:
        return f"TissueMap({self.path.name}: {self.size} px at {self.mpp} um/px, {', '.join(self.classes.names)})"


def open_map(path: str | Path) -> TissueMap:
    """Open a tissue map.

    Raises:
        SlideError: there is none, it is not one of this program's, or it is damaged.
        OptionError: its class table or grid is none.
    """
    folder = Path(path)
    if not folder.exists():
        raise SlideError(f"{path} does not exist; expected a tissue map (a .zarr folder)")
    if not (folder / "zarr.json").is_file():
        raise SlideError(f"{path} is not a tissue map: it holds no Zarr group")
    try:
        check_files(folder)
        with bounded():
            return TissueMap(folder, zarr.open_group(folder, mode="r"))
    except WsisegError:
        raise
    except Exception as error:  # Zarr raises whatever it likes on damaged metadata
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SlideError(f"{path} is not a tissue map, or it is damaged ({reason:.200})") from error


def _own_metadata(path: Path, root: zarr.Group) -> dict[str, Any]:
    own = root.attrs.asdict().get("wsiseg")
    if not isinstance(own, dict) or "format" not in own:
        raise SlideError(f"{path} was not written by wsiseg; expected a map made by `wsiseg predict`")
    if own["format"] != MAP_FORMAT:
        raise SlideError(f"{path} has map format {own['format']}, this program reads {MAP_FORMAT}; update wsiseg")
    missing = [key for key in _NEEDED if key not in own]
    if missing:
        raise SlideError(f"{path} says nothing of its {missing[0]}; the map is damaged, write it anew")
    return own


def _levels(group: zarr.Group) -> list[zarr.Array[Any]]:
    found: list[zarr.Array[Any]] = []
    while isinstance(array := group.get(str(len(found))), zarr.Array):
        found.append(array)
    return found


def _lazy(array: zarr.Array[Any]) -> da.Array:
    chunks = (*(1 for _ in array.shape[:-2]), LAZY_PX, LAZY_PX)
    lazy: da.Array = da.from_array(array, chunks=chunks, inline_array=True)  # type: ignore[no-untyped-call]
    return lazy
