"""How far this program is from the published one: every array of the parity files, on the CPU in float32.

    python benchmarks/parity.py [FOLDER]

FOLDER is `tests/data/parity` by default. The published program's arrays were measured on three real patches with
weights made from names and shapes; see the README there. Printed for each array is the largest absolute difference, for
masks and label maps the number of pixels that differ, and how far apart the best two scores are there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsiseg.metrics import confusion_matrix, segmentation_scores
from wsiseg.models.gate import allowed_classes, gate_logits, gate_published
from wsiseg.models.networks.deeplab import DeepLabV3Plus
from wsiseg.models.networks.resnet38 import ResNet38
from wsiseg.models.weights.mxnet import read_params
from wsiseg.training.losses import SupervisionOptions, layer_losses, multilayer_loss
from wsiseg.training.pseudo_masks import (
    PseudoMaskOptions,
    background_mask,
    class_scores,
    gradient_maps,
    masks_from_maps,
    normalised_maps,
)

FOLDER = Path(__file__).parents[1] / "tests" / "data" / "parity"
DEPTHS = ("b4_5", "b5_2", "bn7")
SIZE = (224, 224)

Values = npt.NDArray[Any]
Computed = tuple[Values, Tensor | None]
"""An array, and the scores (N, K, H, W) that its labels are the largest of, where it is one of labels."""


def filled(folder: Path, network: Callable[[int], nn.Module]) -> nn.Module:
    """A network of four classes with the parity weights, in evaluation mode."""
    spec = spec_from_file_location("parity_weights", folder / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    weights = module_from_spec(spec)
    spec.loader.exec_module(weights)
    with torch.device("meta"):
        built = network(4)
    state = {name: torch.from_numpy(weights.fill(name, t.shape)) for name, t in built.state_dict().items()}
    built.load_state_dict(state, assign=True)
    return built.eval()


def stage1(folder: Path, patches: Tensor, present: Tensor) -> Iterator[tuple[str, Computed]]:
    """Every array of `stage1_expected.npz`, computed here."""
    network = filled(folder, ResNet38)
    assert isinstance(network, ResNet38)
    images = patches.float() / 255
    with torch.inference_mode():
        deepest = network.features(images)["bn7"]
        logits = network.head(deepest)
        yield "logits", (logits.numpy(), None)
        yield "prob", (torch.sigmoid(logits).numpy(), None)
        yield "cam", (network.activation_maps(deepest).numpy(), None)
        for mu in (1.0, 0.9, 0.7):
            yield f"pda_logits_{mu}", (network.head(deepest, mu).numpy(), None)
    maps = gradient_maps(network, images)
    for depth in DEPTHS:
        whole = F.interpolate(maps[depth], SIZE, mode="bilinear", align_corners=False)
        yield f"cam_{depth}", (normalised_maps(whole, "joint")[:, :, ::4, ::4].numpy(), None)
        for name, options in (
            ("luad", PseudoMaskOptions.published("bright")),
            ("bcss", PseudoMaskOptions.published("none")),
        ):
            mask = masks_from_maps(maps[depth], present, background_mask(patches, options), options)
            yield f"mask_{name}_{depth}", (mask.numpy(), class_scores(maps[depth], present, SIZE, options))


@torch.inference_mode()
def stage2(folder: Path, patches: Tensor, first: dict[str, Values], threshold: float) -> Iterator[tuple[str, Computed]]:
    """Every array of `stage2_expected.npz`, computed here from what was computed of stage 1."""
    logits: Tensor = filled(folder, DeepLabV3Plus)(patches.float() / 255)
    labels = logits.max(1).indices.numpy()
    yield "logits", (logits[:, :, ::4, ::4].numpy(), None)
    yield "labels", (labels, logits)
    probabilities, limit = torch.from_numpy(first["prob"]), torch.tensor(threshold)
    for name, gated in (
        ("labels_gated", gate_logits(logits, allowed_classes(probabilities, limit))),
        ("labels_gated_published", gate_published(logits, probabilities, limit)),
    ):
        yield name, (gated.max(1).indices.numpy(), gated)
    masks = [torch.from_numpy(first[f"mask_luad_{depth}"]) for depth in ("bn7", "b5_2", "b4_5")]
    options = SupervisionOptions.published()
    yield "loss_terms", (layer_losses(logits, masks, options).numpy(), None)
    yield "loss", (multilayer_loss(logits, masks, options).numpy(), None)
    scores = segmentation_scores(confusion_matrix(first["mask_luad_bn7"], labels, 4))
    overall = (scores.pixel_accuracy, scores.class_accuracy, scores.mean_iou, scores.frequency_weighted_iou)
    yield "metrics", (np.array(overall), None)
    yield "class_iou", (scores.class_iou, None)


def mxnet(folder: Path) -> Iterator[tuple[str, Values, Values]]:
    """MXNet's files: name, all values of one as they were read here, and as MXNet read them."""
    for file, expected in (
        *((layout, "expected") for layout in ("v2", "v1", "legacy")),
        ("dtypes", "dtypes_expected"),
    ):
        wanted = np.load(folder / f"{expected}.npz")
        got = read_params(folder / f"{file}.params")
        assert sorted(got) == sorted(wanted.files)
        assert all(got[name].dtype == wanted[name].dtype for name in wanted.files)
        assert all(got[name].shape == wanted[name].shape for name in wanted.files)
        values, expected_values = (
            np.concatenate([np.ravel(arrays[name]).astype(np.float64) for name in wanted.files])
            for arrays in (got, wanted)
        )
        yield f"mxnet/{file}.params, {len(wanted.files)} arrays", values, expected_values


def row(name: str, got: Values, wanted: Values, scores: Tensor | None = None) -> str:
    """A line of the table."""
    assert got.shape == wanted.shape, f"{name} is {got.shape}, expected {wanted.shape}"
    if scores is None:
        difference = np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max()
        return f"| {name} | {difference:.1e} | |"
    differs = got != wanted
    best, second = scores.topk(2, dim=1).values.unbind(1)
    gap = float((best - second)[torch.from_numpy(differs)].max()) if differs.any() else 0.0
    apart = f", the best two scores there at most {gap:.0e} apart" if differs.any() else ""
    return f"| {name} | | {int(differs.sum())} of {differs.size}{apart} |"


def main(folder: Path) -> None:
    inputs = np.load(folder / "inputs.npz")
    patches = torch.from_numpy(inputs["images"]).permute(0, 3, 1, 2).contiguous()
    present = torch.from_numpy(inputs["labels"]) > 0
    print("| array | largest absolute difference | pixels that differ |\n|---|---|---|")
    wanted = np.load(folder / "stage1_expected.npz")
    first: dict[str, Values] = {}
    for name, (got, scores) in stage1(folder, patches, present):
        first[name] = got
        print(row(f"stage 1: {name}", got, wanted[name], scores))
    assert set(first) == set(wanted.files), "an array of stage 1 is not compared"
    wanted = np.load(folder / "stage2_expected.npz")
    seen = {"gate_threshold"}  # an input
    for name, (got, scores) in stage2(folder, patches, first, float(wanted["gate_threshold"])):
        seen.add(name)
        print(row(f"stage 2: {name}", got, wanted[name], scores))
    assert seen == set(wanted.files), "an array of stage 2 is not compared"
    for name, got, expected in mxnet(folder / "mxnet"):
        print(row(name, got, expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
