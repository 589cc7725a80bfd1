"""What commands tell of a model: read without what checks a whole `model.json`, which takes longer than all else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from wsiseg.errors import WsisegError
from wsiseg.models.folder import list_bundles, read_fields
from wsiseg.models.tile_shape import tiling
from wsiseg.system.json_values import JsonObject
from wsiseg.tiling.grid import Tiling


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A model in a few words.

    Attributes:
        name: of the model.
        classes: names of the tissue classes, in the order of the networks' channels.
        mpp: microns per pixel of the patches that the networks see.
        patch_size_px: side of those patches.
        tiling: what is read and segmented at once.
        licence: of the weights.
        training_data: what the model was trained on.
    """

    name: str
    classes: tuple[str, ...]
    mpp: float
    patch_size_px: int
    tiling: Tiling
    licence: str
    training_data: str

    @classmethod
    def _of_shipped(cls, fields: JsonObject) -> Self:
        """From a `model.json` of this package, which the package's own tests have checked."""
        return cls(
            name=fields["name"],
            classes=tuple(one["name"] for one in fields["classes"]),
            mpp=fields["mpp"],
            patch_size_px=fields["patch_size_px"],
            tiling=tiling(
                fields.get("gate_mode", "patches"),
                fields["patch_size_px"],
                fields.get("overlap", 0.25),
                fields.get("tile_px"),
                fields.get("tile_margin_px", 0),
            ),
            licence=fields["licence"],
            training_data=fields["training_data"],
        )


def read_summary(name_or_path: str | Path) -> ModelSummary:
    """What the bundle of a shipped name, or in a folder, says about itself; one in a folder is checked as a whole.

    Raises:
        BundleError: where there is no such bundle, or its `model.json` is missing, damaged or newer.
    """
    if name_or_path in list_bundles():
        try:
            return ModelSummary._of_shipped(read_fields(name_or_path)[1])
        except (LookupError, TypeError, ArithmeticError, WsisegError):
            pass  # somebody altered it: what is wrong is told below
    from wsiseg.models.spec import read_spec  # noqa: PLC0415  (Pydantic takes longer than all else that info does)

    spec = read_spec(name_or_path)
    return ModelSummary(
        name=spec.name,
        classes=tuple(spec.classes.names),
        mpp=spec.mpp,
        patch_size_px=spec.patch_size_px,
        tiling=spec.tiling(),
        licence=spec.licence,
        training_data=spec.training_data,
    )
