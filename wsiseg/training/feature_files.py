"""Rows of feature maps on the disk: one .npy file for each map, written from the first row to the last, read mapped.

Rows are appended, not written through a mapping: a full disk is then an error with a reason, and what a killed process
left is as many whole rows as the shortest file has.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.system.files import whole_file
from wsiseg.system.json_values import JsonObject

FACTS_FILE = "made_of.json"


@dataclass(frozen=True, slots=True)
class Layer:
    """What one file holds of each row.

    Attributes:
        name: of the file, without its ending.
        shape: of a row.
        dtype: of its values, as NumPy calls it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


class FeatureFiles:
    """A folder of layers, each with the same rows.

    Args:
        folder: of the files.
        layers: that each row has.
        rows: how many there will be.
    """

    def __init__(self, folder: Path, layers: Sequence[Layer], rows: int) -> None:
        self.folder, self.layers, self.rows = folder, tuple(layers), rows
        self._mapped: dict[str, npt.NDArray[Any]] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_mapped": {}}  # a mapping would be sent to other processes as all its values

    @property
    def total_bytes(self) -> int:
        """Of all rows."""
        return self.rows * sum(layer.row_bytes for layer in self.layers)

    def begin(self, facts: JsonObject) -> int:
        """How many rows are there already; those of other facts are removed.

        Args:
            facts: what decides the values.
        """
        path, wanted = self.folder / FACTS_FILE, json.dumps(facts, sort_keys=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != wanted:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            with whole_file(path) as part:
                part.write_text(wanted, encoding="utf-8")
        return min(self.rows, *(self._rows_of(layer) for layer in self.layers))

    def _rows_of(self, layer: Layer) -> int:
        path = self._path(layer)
        size = path.stat().st_size if path.is_file() else 0
        return max(0, size - len(self._head(layer))) // layer.row_bytes

    def cut(self, rows: int) -> None:
        """Leave so many rows of each layer, behind a whole head."""
        for layer in self.layers:
            head = self._head(layer)
            with self._path(layer).open("r+b" if self._path(layer).is_file() else "w+b") as file:
                file.write(head)
                file.truncate(len(head) + rows * layer.row_bytes)

    def append(self, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write rows behind those that are there.

        Args:
            values: of each layer by its name, (n, *shape).
        """
        with ExitStack() as held:
            for layer in self.layers:
                file = held.enter_context(self._path(layer).open("ab"))
                file.write(np.ascontiguousarray(values[layer.name], layer.dtype).tobytes())

    def read(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Rows of a layer, (n, *shape), a copy."""
        if name not in self._mapped:
            self._mapped[name] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return np.asarray(self._mapped[name][rows])

    def remove(self) -> None:
        """Remove the folder."""
        self._mapped.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, layer: Layer) -> Path:
        return self.folder / f"{layer.name}.npy"

    def _head(self, layer: Layer) -> bytes:
        head = io.BytesIO()
        facts = {"descr": np.dtype(layer.dtype).str, "fortran_order": False, "shape": (self.rows, *layer.shape)}
        np.lib.format.write_array_header_1_0(head, facts)
        return head.getvalue()
