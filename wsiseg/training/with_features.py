"""A stage whose encoder is frozen, given features from the disk in place of pixels, where that was asked for."""

from __future__ import annotations

from pathlib import Path

from wsiseg.models.networks.lite import LiteClassifier, LiteSegmenter
from wsiseg.system.json_values import JsonObject
from wsiseg.training.feature_cache import Encoding, StageFeatures, prepared
from wsiseg.training.loading import PatchImages
from wsiseg.training.processes import is_first, wait_for_all
from wsiseg.training.run_folder import Run
from wsiseg.training.stage import Stage

FOLDER = "features"


def use_features(
    run: Run, stage: Stage, train: PatchImages, val: PatchImages | None, folder: Path, about: JsonObject
) -> None:
    """Compute a stage's features and have it learn from them; or leave it as it is, where that is not wanted.

    Args:
        run: of the training.
        stage: whose encoder is not learned.
        train: training patches.
        val: validation patches; None for none.
        folder: of the stage.
        about: what decides the features besides encoder, augmentation and patches.
    """
    network = stage.network
    if not run.config.feature_cache or not isinstance(network, LiteClassifier | LiteSegmenter):
        return
    if any(parameter.requires_grad for parameter in network.extractor.parameters()):
        return
    config, encoding = (
        run.config,
        Encoding(network, stage.augmentation, stage.mean, stage.std, stage.seed, run.config.feature_views, run.device),
    )
    about = {"dataset": run.data.fingerprint, **about}
    if not is_first():
        wait_for_all()
    found = prepared(encoding, train, val, folder / FOLDER, config.feature_cache, about, run.progress)
    if is_first():
        wait_for_all()
    if isinstance(found, StageFeatures):
        stage.features = found
        size = found.train.total_bytes + (found.val.total_bytes if found.val is not None else 0)
        run.say(f"Features of the frozen encoder: {config.feature_views} views of each patch, {size / 2**20:.0f} MiB")
    else:
        run.say(f"note: {found}")


def drop_features(stage: Stage) -> None:
    """Remove the files of a finished stage."""
    if stage.features is not None and is_first():
        stage.features.remove()
