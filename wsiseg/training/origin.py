"""Going on from a finished model: its networks, its settings, and what must agree with the data set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import JsonValue, ValidationError
from torch import Tensor

from wsiseg.datasets.dataset import PatchDataset, read_dataset
from wsiseg.errors import DatasetError, OptionError
from wsiseg.geometry import LEVEL_TOLERANCE
from wsiseg.models.bundle import load_model
from wsiseg.models.folder import find_bundle
from wsiseg.models.spec import BundleSpec, bundle_hash, read_spec
from wsiseg.models.tissue_model import TissueModel
from wsiseg.training.config import TrainingConfig, lite_config

GENTLER = 0.3
"""What the learning rates of a training from the start are multiplied by, so that little is forgotten."""

EPOCHS = 3

SHARED_GATE = "shared_gate"


@dataclass(frozen=True, slots=True)
class Origin:
    """The model that a training goes on from.

    Attributes:
        folder: of its bundle.
        spec: what it says of itself.
        hash: of the bundle.
    """

    folder: Path
    spec: BundleSpec
    hash: str

    @classmethod
    def of(cls, name_or_path: str | Path) -> Origin:
        """From a shipped model's name or a bundle's folder; raises `BundleError` where there is none."""
        folder = find_bundle(name_or_path)
        return cls(folder, read_spec(folder), bundle_hash(folder))

    def model(self) -> TissueModel:
        """The model itself, on the CPU."""
        return load_model(self.folder, runtime="torch")

    def state(self, kind: Literal["classifier", "segmenter"]) -> dict[str, Tensor]:
        """The weights of one network, without a gate on its encoder, which is learned anew where it is used."""
        network = getattr(self.model(), kind)
        return {name: t for name, t in network.state_dict().items() if not name.startswith(f"{SHARED_GATE}.")}

    def config(self) -> TrainingConfig:
        """The settings that the model was trained with, its own networks, and gentler steps in fewer epochs."""
        known = {k: v for k, v in self.spec.training.items() if k in TrainingConfig.model_fields}
        try:
            config = TrainingConfig.model_validate(known)
        except ValidationError:  # an imported model, or one of a program with other settings
            config = lite_config().changed(preset="continued")
        networks = {}
        for kind in ("classifier", "segmenter"):
            spec = getattr(self.spec.networks, kind)
            arguments: dict[str, JsonValue] = {k: v for k, v in spec.arguments.items() if k != SHARED_GATE}
            networks[kind] = {
                "architecture": spec.architecture, "arguments": arguments, "mean": spec.mean, "std": spec.std,
                "initial_weights": "none",
            }  # fmt: skip
        gate = {
            "rule": self.spec.gate_rule,
            "context": self.spec.gate_context,
            "floor": self.spec.gate_floor,
            "mode": self.spec.gate_mode,
        }
        stages = {
            name: {"learning_rate": part.learning_rate * GENTLER, "epochs": EPOCHS}
            for name, part in (("stage1", config.stage1), ("stage2", config.stage2))
        }
        return config.changed(**networks, **stages, gate=gate, overlap=self.spec.overlap, start_from_classifier=False)

    def require_fits(self, data: PatchDataset) -> None:
        """Refuse a data set of other classes, patch size or resolution.

        Raises:
            DatasetError: with what differs.
        """
        ours, theirs = self.spec.classes.names, data.classes.names
        if ours != theirs:
            how = "in another order" if set(ours) == set(theirs) else "others"
            raise DatasetError(
                f"{data.root} has the classes {', '.join(theirs)}, the model has {how}: {', '.join(ours)}; a training "
                "goes on with the same classes in the same order"
            )
        if data.patch_size_px != self.spec.patch_size_px or abs(data.mpp / self.spec.mpp - 1) > LEVEL_TOLERANCE:
            raise DatasetError(
                f"{data.root} has patches of {data.patch_size_px} px at {data.mpp:g} um/px, the model sees "
                f"{self.spec.patch_size_px} px at {self.spec.mpp:g}; give patches like those"
            )


def with_old(data: PatchDataset, root: str | Path, config: TrainingConfig) -> PatchDataset:
    """A data set and the patches of an older one: its training patches beside, its validation in place of none.

    Raises:
        DatasetError: it cannot be read, or has other classes or patches.
        OptionError: it is the same folder.
    """
    if Path(root).resolve() == data.root.resolve():
        raise OptionError(f"{root} is the data set itself; --with names another one, or is left out")
    old = read_dataset(root, None, None, config.val_share, config.seed)
    if old.classes.names != data.classes.names:
        raise DatasetError(
            f"{old.root} has the classes {', '.join(old.classes.names)}, {data.root} has "
            f"{', '.join(data.classes.names)}; both must have the same in the same order"
        )
    if old.patch_size_px != data.patch_size_px or abs(old.mpp / data.mpp - 1) > LEVEL_TOLERANCE:
        raise DatasetError(
            f"{old.root} has patches of {old.patch_size_px} px at {old.mpp:g} um/px, {data.root} of "
            f"{data.patch_size_px} px at {data.mpp:g}; give patches alike"
        )
    # Pseudo masks are called as patches are, and both folders may have the same names.
    train, val = (tuple(replace(patch, name=f"with/{patch.name}") for patch in part) for part in (old.train, old.val))
    notes = (*data.notes, *old.notes)
    return replace(data, train=(*data.train, *train), val=(*data.val, *val), notes=notes)
