"""Arrays of a map that is open for reading: its levels, lazily, and damage told in this program's own words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import zarr

from wsiseg.errors import MapError, WsisegError
from wsiseg.system.addresses import names_elsewhere

if TYPE_CHECKING:
    import dask.array as da

LAZY_PX = 2048
"""Side of a piece of a lazy array, four chunks."""


def levels_of(group: zarr.Group) -> list[zarr.Array[Any]]:
    """The arrays `0`, `1`, … of a group, as far as they go."""
    found: list[zarr.Array[Any]] = []
    while isinstance(array := group.get(str(len(found))), zarr.Array):
        found.append(array)
    return found


def lazy(path: Path, array: zarr.Array[Any], level: int) -> da.Array:
    """An array of a map, read as it is asked for."""
    import dask.array as da  # noqa: PLC0415  (only who asks for lazy arrays waits for it)

    chunks = (*(1 for _ in array.shape[:-2]), LAZY_PX, LAZY_PX)
    checked = _Checked(path, array, level)
    found: da.Array = da.from_array(checked, chunks=chunks, inline_array=True)  # type: ignore[no-untyped-call]
    return found


class _Checked:
    """An array of a map whose damage is told in this program's own words, whenever it is read."""

    def __init__(self, path: Path, array: zarr.Array[Any], level: int) -> None:
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self._path, self._array, self._level = path, array, level

    def __getitem__(self, place: Any) -> npt.NDArray[np.uint8]:
        try:
            return np.asarray(self._array[place])
        except Exception as error:  # Zarr's codecs raise whatever they like on damaged data
            raise damaged(self._path, f"in level {self._level}", error) from error


def damaged(path: Path, where: str, error: Exception) -> WsisegError:
    """What to say of an error in reading: its server's fault, or damage of the map."""
    if names_elsewhere(path):
        from wsiseg.tissue_map.remote import is_fault_of_server, unreachable  # noqa: PLC0415

        if is_fault_of_server(error):
            return unreachable(path, error)
    reason = " ".join(str(error).split()) or type(error).__name__
    return MapError(f"{path} is damaged {where} ({reason:.200}); write it anew")
