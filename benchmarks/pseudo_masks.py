"""What pseudo masks cost with ResNet-38 on the CPU: the published way against this project's, in one run.

    python benchmarks/pseudo_masks.py [--threads 1 2] [--patches 2] [--batch-size 2]

The published way is written here for the purpose, as a program around pytorch-grad-cam does it: patch by patch, for
each depth and each class one forward pass and one backward pass of the whole network, whose trainable parameters ask
for gradients. With four classes these are 12 of each a patch, about a minute on one core. Patches are the parity test's
(224 px, real), then enlarged sample patches; weights are the parity test's. Seconds are per patch, on the clock and of
the processor (on a machine that others use the second is the fairer one); ratios are to the published way. Before it is
measured each way has an untimed pass, in which torch prepares what it keeps for shapes and threads. A training has
hundreds of batches; in its first one ours takes half as long again.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from wsiseg.models.networks.resnet38 import ResNet38
from wsiseg.training.pseudo_masks import (
    Precision,
    PseudoMaskOptions,
    background_mask,
    decided_by_label,
    maps_needed,
    pseudo_masks,
)

ROOT = Path(__file__).parents[1]
PARITY, SAMPLES = ROOT / "tests" / "data" / "parity", ROOT / "sample_data" / "patches"
CLASSES, SIDE_PX, TIE = 4, 224, 1e-4
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
Masks = dict[str, npt.NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Timed:
    """Masks (N, H, W) at each depth, and what they cost a patch."""

    masks: Masks
    clock_seconds: float
    cpu_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--patches", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=2)
    args = parser.parse_args()
    classifier = parity_classifier()
    patches, labels = real_patches(args.patches)
    present = labels > 0
    default = PseudoMaskOptions()
    passes = maps_needed(present, default).sum(dim=1).masked_fill(decided_by_label(present, default), 0)
    trainable = sum(p.numel() for p in classifier.parameters() if p.requires_grad) / 1e6
    print(f"ResNet-38, {CLASSES} classes, {trainable:.0f} million trainable parameters; torch {torch.__version__}")
    print(f"{len(patches)} patches of {SIDE_PX} px, batches of {args.batch_size}")
    print(f"classes a patch: {present.sum(dim=1).tolist()}")
    print(f"backward passes a patch by the default options: {passes.tolist()}, by the published ones: {CLASSES}")
    for threads in args.threads:
        torch.set_num_threads(threads)
        print(f"\n{threads} threads{'':28} clock    CPU  ratio (clock, CPU)")
        compare(classifier, patches, labels, args.batch_size)


def compare(classifier: ResNet38, patches: Tensor, labels: Tensor, batch_size: int) -> None:
    """Measure all ways and print a line for each."""

    def ours(options: PseudoMaskOptions, precision: Precision) -> Timed:
        return timed(len(patches), lambda: ours_way(classifier, patches, labels, options, precision, batch_size))

    grad_cam(classifier, patches[:1].float() / 255, classifier.depths[0], 0)
    for precision in PRECISIONS:
        first, label = patches[:batch_size], labels[:batch_size]
        ours_way(classifier, first, label, PseudoMaskOptions(), precision, batch_size)
    margins: list[npt.NDArray[np.float32]] = []
    base = timed(len(patches), lambda: published_way(classifier, patches, labels, margins))
    show("published way", base, base)
    for precision in PRECISIONS:
        joint = ours(PseudoMaskOptions.published(), precision)
        show(f"ours, the same options, {precision}", joint, base, differences(joint.masks, base.masks, margins))
    own = ours(PseudoMaskOptions(), "float32")
    show("ours, default options, float32", own, base)
    half = ours(PseudoMaskOptions(), "bfloat16")
    show("ours, default options, bfloat16", half, base, differences(half.masks, own.masks, None))


def parity_classifier() -> ResNet38:
    """ResNet-38 with the parity test's weights, as training leaves it, in evaluation mode."""
    spec = spec_from_file_location("parity_weights", PARITY / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    network = ResNet38(CLASSES)
    network.load_state_dict({n: torch.from_numpy(module.fill(n, t.shape)) for n, t in network.state_dict().items()})
    return network.eval()


def real_patches(count: int) -> tuple[Tensor, Tensor]:
    """Patches uint8 (N, 3, 224, 224) and labels (N, 4): the parity test's, then sample patches with several classes."""
    inputs = np.load(PARITY / "inputs.npz")
    images, labels = list(inputs["images"]), [list(map(int, label)) for label in inputs["labels"]]
    with (SAMPLES / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row[1:4].count("1") > 1]
    for name, *values in rows[: max(0, count - len(images))]:
        with Image.open(SAMPLES / name) as image:
            images.append(np.array(image.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)))
        labels.append([*map(int, values[:3]), 0])
    patches = torch.from_numpy(np.stack(images[:count])).permute(0, 3, 1, 2).contiguous()
    return patches, torch.tensor(labels[:count])


def published_way(
    classifier: ResNet38, patches: Tensor, labels: Tensor, margins: list[npt.NDArray[np.float32]]
) -> Masks:
    """Masks as the published program makes them.

    `margins` gets, depth after depth, by how much the best score of each pixel exceeds the second one, (N, H, W).
    """
    scores: dict[str, list[npt.NDArray[np.float32]]] = {depth: [] for depth in classifier.depths}
    masks: dict[str, list[npt.NDArray[np.uint8]]] = {depth: [] for depth in classifier.depths}
    for patch, label in zip(patches, labels, strict=True):
        bright = background_mask(patch[None], PseudoMaskOptions.published())[0].numpy()
        for depth in classifier.depths:
            maps = np.stack([grad_cam(classifier, patch[None].float() / 255, depth, k) for k in range(CLASSES)])
            maps = (maps - maps.min()) / (maps.max() - maps.min())
            maps[label.numpy() == 0] = 0
            scores[depth].append(maps)
            with_background = np.concatenate([maps, np.where(bright, 1.000001, 0)[None]])
            masks[depth].append(with_background.argmax(axis=0).astype(np.uint8))
    for depth in classifier.depths:
        ordered = np.sort(np.stack(scores[depth]), axis=1)
        margins.append(ordered[:, -1] - ordered[:, -2])
    return {depth: np.stack(values) for depth, values in masks.items()}


def grad_cam(classifier: ResNet38, image: Tensor, depth: str, k: int) -> npt.NDArray[np.float32]:
    """Grad-CAM (H, W) without ReLU of one class at one depth: a forward and a backward pass of the whole network."""
    gradients: list[Tensor] = []
    classifier.zero_grad()
    features = classifier.features(image)
    features[depth].register_hook(gradients.append)  # type: ignore[no-untyped-call]
    classifier.head(features[classifier.depths[-1]])[0, k].backward()  # type: ignore[no-untyped-call]
    weights = gradients[0].mean(dim=(2, 3), keepdim=True)  # (1, C, 1, 1)
    small = (weights * features[depth].detach()).sum(dim=1, keepdim=True)
    whole: npt.NDArray[np.float32] = F.interpolate(small, image.shape[2:], mode="bilinear")[0, 0].numpy()
    return whole


def ours_way(
    classifier: ResNet38,
    patches: Tensor,
    labels: Tensor,
    options: PseudoMaskOptions,
    precision: Precision,
    batch_size: int,
) -> Masks:
    """Masks as `wsiseg train` makes them, less reading and writing."""
    parts = [
        pseudo_masks(classifier, some.float() / 255, some, label, options, precision)
        for some, label in zip(torch.split(patches, batch_size), torch.split(labels, batch_size), strict=True)
    ]
    return {depth: np.concatenate([part[depth].numpy() for part in parts]) for depth in classifier.depths}


def timed(count: int, make: Callable[[], Masks]) -> Timed:
    clock, cpu = time.perf_counter(), time.process_time()
    masks = make()
    return Timed(masks, (time.perf_counter() - clock) / count, (time.process_time() - cpu) / count)


def differences(masks: Masks, others: Masks, margins: list[npt.NDArray[np.float32]] | None) -> str:
    """How many pixels differ, and how many where the best score exceeds the second by more than a tie."""
    unequal = [masks[depth] != others[depth] for depth in masks]
    total = sum(different.size for different in unequal)
    text = f"{sum(int(d.sum()) for d in unequal)} of {total} px differ"
    if margins is None:
        return f"{text} ({np.mean(unequal):.2%}) from float32"
    beyond = sum(int((d & (m > TIE)).sum()) for d, m in zip(unequal, margins, strict=True))
    return f"{text} ({np.mean(unequal):.2%}), {beyond} beyond ties of {TIE:g}"


def show(name: str, measured: Timed, base: Timed, note: str = "") -> None:
    ratios = f"{base.clock_seconds / measured.clock_seconds:5.1f} x {base.cpu_seconds / measured.cpu_seconds:5.1f} x"
    print(f"{name:36} {measured.clock_seconds:6.2f} {measured.cpu_seconds:6.2f}  {ratios}  {note}".rstrip(), flush=True)


if __name__ == "__main__":
    main()
