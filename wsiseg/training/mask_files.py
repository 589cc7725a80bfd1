"""The folder of the pseudo masks: `PM_<depth>/<patch>.png`, and of what classifier, patches and options they are.

A mask has its name once it is whole, so after a run that was killed what has a name is finished. A folder that was
made of anything else than now asked for is emptied first.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import nn

from wsiseg.datasets.dataset import Patch, PatchDataset
from wsiseg.errors import DatasetError, OutputError
from wsiseg.system.files import whole_file
from wsiseg.training.config import TrainingConfig
from wsiseg.training.loading import pseudo_mask_name, read_pseudo_mask

FINGERPRINT_FILE = "made_of.json"
_VERSION = 1
"""Of the computation: another one makes all masks anew."""

Made = dict[str, str | int]


def made_of(classifier: nn.Module, data: PatchDataset, config: TrainingConfig) -> Made:
    """What decides the pseudo masks of a data set, as SHA-256 sums.

    Args:
        classifier: stage 1.
        data: the data set.
        config: of the training; how patches are normalised and masks are made count.
    """
    weights = hashlib.sha256()
    for name, tensor in classifier.state_dict().items():
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        weights.update(tensor.detach().cpu().numpy().tobytes())
    options = [part.model_dump(mode="json") for part in (config.classifier, config.pseudo_masks)]
    return {
        "version": _VERSION,
        "classifier": weights.hexdigest(),
        "dataset": data.fingerprint,
        "options": hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest(),
    }


def is_made_of(folder: Path, made: Made) -> bool:
    """Whether the masks in a folder, finished or not, are of `made`."""
    try:
        found = json.loads((folder / FINGERPRINT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return bool(found == made)


def prepare_folder(folder: Path, made: Made, depths: Sequence[str], patches: Sequence[Patch]) -> None:
    """Make a folder ready for masks: what is of something else, or was not finished, goes.

    Raises:
        DatasetError: two patches whose masks would have one name.
        OutputError: the folder cannot be written.
    """
    names: dict[str, Patch] = {}
    for patch in patches:
        if names.setdefault(pseudo_mask_name(patch), patch) is not patch:
            other = names[pseudo_mask_name(patch)]
            raise DatasetError(f"{other.path} and {patch.path} differ in their suffix alone, rename one of them")
    try:
        if folder.exists() and not is_made_of(folder, made):
            shutil.rmtree(folder)
        for parent in {(folder / f"PM_{depth}" / name).parent for depth in depths for name in names}:
            parent.mkdir(parents=True, exist_ok=True)
        for partial in folder.rglob(".*.partial"):
            partial.unlink()
        with whole_file(folder / FINGERPRINT_FILE) as temporary:
            temporary.write_text(json.dumps(made, indent=2), encoding="utf-8")
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {folder}: {error.strerror or error}; choose another place") from error


def write_mask(path: Path, mask: npt.NDArray[np.uint8], palette: list[int]) -> None:
    """Write a mask (H, W) as palette PNG.

    Raises:
        OutputError: it cannot be written; nothing is left of it.
    """
    picture = Image.fromarray(mask, mode="P")
    picture.putpalette(palette)
    with whole_file(path) as temporary:
        picture.save(temporary, format="PNG")


def finished_counts(paths: Sequence[Path], side_px: int, num_classes: int) -> npt.NDArray[np.int64] | None:
    """Pixels of each class and of background, (K + 1,), in the last of a patch's masks; None unless all are sound.

    A power cut, unlike a kill, can leave a name before its content, so a mask counts for what can be read from it.
    """
    if not all(path.is_file() for path in paths):
        return None
    try:
        masks = [read_pseudo_mask(path) for path in paths]
    except DatasetError:
        return None
    if any(mask.shape != (side_px, side_px) or mask.max() > num_classes for mask in masks):
        return None
    return class_counts(masks[-1], num_classes)


def class_counts(mask: npt.NDArray[np.uint8], num_classes: int) -> npt.NDArray[np.int64]:
    """Pixels of each class and of background in a mask, (K + 1,)."""
    return np.bincount(mask.ravel(), minlength=num_classes + 1)
