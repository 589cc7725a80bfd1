"""MXNet's `.params` files, and the ImageNet weights of ResNet-38 in them.

Wu, Shen and van den Hengel published their network in MXNet's format, and MXNet no longer installs beside a current
numpy, so it is parsed here. Everything is little-endian: u64 0x112, u64 reserved, u64 count, that many arrays, u64
count, that many names (u64 length, bytes). An array begins with a u32, which tells its layout; see `_shape`.

A file comes from outside and is treated as hostile: nothing is allocated that the file does not hold.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from wsiseg.errors import OptionError

MAGIC = struct.pack("<Q", 0x112)
"""The first eight bytes of a file."""

_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_TYPES = tuple(np.dtype(name) for name in ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8"))
_MAX_ARRAYS, _MAX_DIMENSIONS, _MAX_NAME_BYTES = 100_000, 32, 1024

_LAST = re.compile(r"bn7_(?P<tensor>gamma|beta|moving_mean|moving_var)")
_LAYER = re.compile(
    r"(?:res(?=.*_weight$)|bn(?!.*_weight$))(?P<stage>[2-7])(?:a|b(?P<repeat>[1-5]))_branch"
    r"(?:(?P<conv>1|2a|2b1|2b2)_weight|(?P<bn>2a|2b1|2b2)_(?P<tensor>gamma|beta|moving_mean|moving_var))"
)
_TENSORS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_var": "running_var"}


def read_params(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a `.params` file by their names, as they stand there (`arg:conv1a_weight`).

    Raises:
        OptionError: where the file is missing, damaged, of another kind, or holds what no weights are.
    """
    try:
        with path.open("rb") as file:
            return _Parser(file, path).content()
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror or error}") from error


def resnet38_name(name: str) -> str | None:
    """The name in our ResNet-38 of a tensor of MXNet's; None for one that has no place there.

    `res` and `bn` are convolutions and BatchNorm of the block whose name follows (`2a` is b2, `2b1` is b2_1). In MXNet
    BatchNorm has gamma and beta among the arguments (`arg:`) and moving statistics among the auxiliary states (`aux:`).
    ImageNet's classifier (`linear1000`) has no place here. Files that Gluon wrote have no prefixes.
    """
    kind, colon, layer = name.rpartition(":")
    if colon and kind != ("aux" if layer.endswith(("_moving_mean", "_moving_var")) else "arg"):
        return None
    if layer == "conv1a_weight":
        return "conv1a.weight"
    if found := _LAST.fullmatch(layer):
        return f"bn7.{_TENSORS[found['tensor']]}"
    if found := _LAYER.fullmatch(layer):
        block = f"b{found['stage']}" + (f"_{found['repeat']}" if found["repeat"] else "")
        if found["conv"]:
            return f"{block}.conv_branch{found['conv']}.weight"
        return f"{block}.bn_branch{found['bn']}.{_TENSORS[found['tensor']]}"
    return None


def resnet38_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Those of MXNet's arrays that belong to ResNet-38, under the names of its state dict."""
    named = ((resnet38_name(name), array) for name, array in arrays.items())
    return {name: array for name, array in named if name is not None}


class _Parser:
    """Reads a file from front to back and never more than it has."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path = file, path
        self.left = file.seek(0, 2)
        file.seek(0)

    def content(self) -> dict[str, npt.NDArray[Any]]:
        if self.left < len(MAGIC) or self._bytes(8, "the magic number") != MAGIC:
            raise OptionError(f"{self.path} is no MXNet file of parameters, it does not begin with 0x112")
        self._number("<Q", "the reserved field")
        count = self._count("arrays")
        arrays = [self._array(f"array {i + 1} of {count}") for i in range(count)]
        names = [self._name(f"name {i + 1}") for i in range(self._count("names"))]
        if len(names) != count:
            raise OptionError(f"{self.path} has {count} arrays but {len(names)} names, each array needs one")
        if len(set(names)) != count:
            raise OptionError(f"{self.path} has two arrays of the name {max(names, key=names.count)!r:.80}")
        if self.left:
            raise OptionError(f"{self.path} goes on for {self.left} bytes after its end: it is damaged")
        return dict(zip(names, arrays, strict=True))

    def _bytes(self, count: int, what: str) -> bytes:
        if count > self.left:
            raise OptionError(
                f"{self.path} ends within {what} ({count} bytes are due, {self.left} left): "
                "it is damaged or incomplete, download it again"
            )
        self.left -= count
        return self.file.read(count)

    def _number(self, layout: str, what: str) -> int:
        return int(struct.unpack(layout, self._bytes(struct.calcsize(layout), what))[0])

    def _count(self, what: str) -> int:
        count = self._number("<Q", f"the number of {what}")
        if not 1 <= count <= _MAX_ARRAYS:
            raise OptionError(f"{self.path} must have 1 to {_MAX_ARRAYS} {what}, it states {count}")
        return count

    def _name(self, what: str) -> str:
        length = self._number("<Q", what)
        if length > _MAX_NAME_BYTES:
            raise OptionError(f"{self.path}: {what} has {length} bytes, more than {_MAX_NAME_BYTES}: it is damaged")
        try:
            return self._bytes(length, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise OptionError(f"{self.path}: {what} is not UTF-8: it is damaged") from error

    def _array(self, what: str) -> npt.NDArray[Any]:
        shape = self._shape(what)
        self._bytes(8, what)  # type and number of the device that it was on
        code = self._number("<i", what)
        if not 0 <= code < len(_TYPES):
            raise OptionError(f"{self.path}: {what} is of type {code}, expected 0 to {len(_TYPES) - 1}")
        data = self._bytes(math.prod(shape) * _TYPES[code].itemsize, f"{what}, of shape {shape}"[:120])
        return np.frombuffer(data, _TYPES[code]).reshape(shape)

    def _shape(self, what: str) -> tuple[int, ...]:
        """The shape, at the beginning of an array.

        V2: u32 0xF993FAC9, i32 storage type (0 is dense), u32 ndim, ndim x i64. V1: u32 0xF993FAC8, u32 ndim, ndim x
        i64. Legacy: u32 ndim, ndim x u32.
        """
        first = self._number("<I", what)
        if first == _V3:
            raise OptionError(f"{self.path}: {what} is in MXNet 2's layout, save it with MXNet 1")
        if first == _V2 and (storage := self._number("<i", what)) != 0:
            raise OptionError(f"{self.path}: {what} is sparse (storage type {storage}), expected a dense array")
        dimensions = self._number("<I", what) if first in (_V1, _V2) else first
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise OptionError(f"{self.path}: {what} has {dimensions} dimensions, expected 1 to {_MAX_DIMENSIONS}")
        each = "q" if first in (_V1, _V2) else "I"
        layout = f"<{dimensions}{each}"
        shape = struct.unpack(layout, self._bytes(struct.calcsize(layout), what))
        if min(shape) < 1:
            raise OptionError(f"{self.path}: {what} has no size ({shape!s:.80}), expected dimensions from 1")
        return shape
