"""Networks on the meta device: their shapes without memory, and without the time that first weights take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def unfilled() -> Iterator[None]:
    """What is built inside is on the meta device."""
    with torch.device("meta"), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Leaves tensors as they are where they would be filled with first weights.

    On the meta device `torch.nn.init.normal_` would fill nothing, but import torch's compiler, for seconds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or getattr(func, "__name__", None) in _FILLING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


_FILLING = {"fill_", "normal_", "uniform_", "zero_", "trunc_normal_"}
