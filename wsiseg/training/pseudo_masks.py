"""Pseudo masks: what a classifier that only ever saw patch labels says about pixels.

Han et al. 2022, section 3.3: Grad-CAM at three depths of the classifier, bilinear to the patch's size, normalised,
classes that the patch label excludes taken out, then the best class of each pixel. A mask holds class channels
0 … K - 1, and K where the pixel is background.

The published program runs 3 K forward and backward passes for each patch. Networks in evaluation mode treat the
patches of a batch independently, so one backward pass of the sum over patches serves a whole batch and all depths,
and at the deepest one, which is averaged and multiplied by the class weights, the gradient is known without any.
What no mask depends on is not computed: maps of absent classes where each class is normalised by itself, and any map
where the patch label alone decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from wsiseg.choices import Background, half
from wsiseg.errors import OptionError
from wsiseg.models.networks.classifier import Classifier

Normalisation = Literal["per_class", "joint"]
Precision = Literal["float32", "bfloat16"]

_NEGATIVE_SCALE = 1e-6


@dataclass(frozen=True, slots=True)
class PseudoMaskOptions:
    """How activation maps become masks. The defaults are this project's; see `published` for the paper's program.

    Attributes:
        normalisation: "per_class" brings each class's positive activations of a patch to [0, 1] by its own maximum;
            "joint" stretches all classes, absent ones included, from one minimum to one maximum, so that an absent or
            a loud class sets the range.
        absent_score: score of a class that the patch label excludes. At -1 it never wins; at 0 (published) it wins
            by its order where all present classes are at the joint minimum.
        background: "bright" sets pixels aside whose grey value exceeds `bright_above`, "none" takes every pixel as
            tissue (in breast, say, fat is one of the tissues).
        bright_above: grey value, 0 to 255, above which a pixel is background.
        min_background_px: 4-connected pieces of background with fewer pixels are tissue.
    """

    normalisation: Normalisation = "per_class"
    absent_score: float = -1.0
    background: Background = "bright"
    bright_above: int = 200
    min_background_px: int = 50

    def __post_init__(self) -> None:
        if self.normalisation not in ("per_class", "joint"):
            raise OptionError(f"normalisation must be per_class or joint, got {self.normalisation!r}")
        if self.background not in ("bright", "none"):
            raise OptionError(f"background must be bright or none, got {self.background!r}")
        if not -1 <= self.absent_score <= 0:
            raise OptionError(f"absent_score must be -1 to 0, got {self.absent_score}")
        if not 0 <= self.bright_above <= 255 or self.min_background_px < 0:
            raise OptionError("bright_above must be 0 to 255, min_background_px not negative")

    @classmethod
    def published(cls, background: Background = "bright") -> Self:
        """As the published program computes it: "bright" for LUAD-HistoSeg, "none" for BCSS-WSSS.

        It asks scikit-image to remove objects smaller than 50 px; scikit-image 0.26, with which the parity masks were
        made, removes those of exactly 50 as well, earlier versions keep them.
        """
        return cls(normalisation="joint", absent_score=0.0, background=background, min_background_px=51)


def pseudo_masks(
    classifier: Classifier,
    images: Tensor,
    patches: Tensor,
    labels: Tensor,
    options: PseudoMaskOptions,
    precision: Precision = "float32",
) -> dict[str, Tensor]:
    """Pseudo masks of a batch at each of the classifier's depths: {depth: uint8 (N, H, W)}, on the images' device.

    Args:
        classifier: stage 1, in evaluation mode.
        images: normalised patches, float (N, 3, H, W).
        patches: the same as uint8 (N, 3, H, W), to tell the background.
        labels: which classes each patch has, (N, K); a patch without any is all background.
        options: see `PseudoMaskOptions`.
        precision: of the network, see `gradient_maps`.
    """
    present = labels.to(images.device) > 0
    background = background_mask(patches, options).to(images.device)
    nothing = background | ~present.any(dim=1)[:, None, None]
    by_label = present.int().argmax(dim=1)[:, None, None].masked_fill(nothing, present.shape[1]).to(torch.uint8)
    open_rows = (~decided_by_label(present, options)).nonzero().flatten()
    masks = {depth: by_label.clone() for depth in classifier.depths}
    if len(open_rows):
        some, dark = present[open_rows], background[open_rows]
        maps = gradient_maps(classifier, images[open_rows], maps_needed(some, options), precision)
        for depth, values in maps.items():
            masks[depth][open_rows] = masks_from_maps(values, some, dark, options)
    return masks


def decided_by_label(present: Tensor, options: PseudoMaskOptions) -> Tensor:
    """Which patches' masks depend on no map, bool (N,).

    Those without a class, and those with a single one where a present class never scores as low as an absent one.

    Args:
        present: which classes the patch labels have, bool (N, K).
        options: see `PseudoMaskOptions`.
    """
    lowest = {"joint": 0.0, "per_class": -_NEGATIVE_SCALE}.get(options.normalisation, float("-inf"))
    return present.sum(dim=1) <= int(options.absent_score < lowest)


def maps_needed(present: Tensor, options: PseudoMaskOptions) -> Tensor:
    """Which maps the masks depend on, bool (N, K): of present classes, or of all where they set a common range."""
    return present if options.normalisation == "per_class" else torch.ones_like(present)


def gradient_maps(
    classifier: Classifier, images: Tensor, wanted: Tensor | None = None, precision: Precision = "float32"
) -> dict[str, Tensor]:
    """Grad-CAM without ReLU for every class at each depth: {depth: float32 (N, K, h, w)}.

    alpha_kc is the mean over space of d z_k / d F_c, and map_k = sum_c alpha_kc F_c (Selvaraju et al. 2017). One
    forward pass for the whole batch, and as many backward passes, down to the shallowest depth, as the patch with
    most wanted classes has of them.

    Args:
        classifier: stage 1, in evaluation mode: BatchNorm on batch statistics would mix the patches.
        images: normalised patches, float (N, 3, H, W).
        wanted: which maps are asked for, bool (N, K), all by default; the others are zero.
        precision: "float32"; or "bfloat16" for the network's passes, faster where the processor has it, and not
            quite equal. Means and sums of its features are float32 in both.
    """
    if classifier.training:
        raise ValueError("activation maps need a classifier in evaluation mode, call eval() first")
    *shallow, deepest = classifier.depths
    device = images.device.type
    with torch.enable_grad(), _frozen(classifier):
        with torch.autocast(device, torch.bfloat16, enabled=half(precision)):
            features = classifier.features(images.detach().requires_grad_(not classifier.taps))
            logits = classifier.head(features[deepest])  # (N, K)
        every = torch.ones_like(logits, dtype=torch.bool)
        wanted = every if wanted is None else wanted.to(logits.device)
        weights = _channel_weights(logits, [features[depth] for depth in shallow], wanted)
    with torch.no_grad(), torch.autocast(device, enabled=False):
        maps = {
            depth: torch.einsum("nkc,nchw->nkhw", weight, features[depth].float())
            for depth, weight in zip(shallow, weights, strict=True)
        }
        last = features[deepest].float()
        maps[deepest] = classifier.fc8(last).where(wanted[:, :, None, None], 0) / last[0, 0].numel()
    return {depth: value.detach() for depth, value in maps.items()}


def _channel_weights(logits: Tensor, features: list[Tensor], wanted: Tensor) -> list[Tensor]:
    """Mean over space of d z_k / d F_c, float32 (N, K, C) for each of `features`; zero where not `wanted`, (N, K).

    Patches do not depend on each other, so that one backward pass may ask each of them for another class: pass j asks
    for the j-th one that it wants.
    """
    weights = [torch.zeros(*logits.shape, feature.shape[1], device=logits.device) for feature in features]
    counts = wanted.sum(dim=1)
    order = wanted.int().argsort(dim=1, descending=True, stable=True)  # (N, K), wanted ones first
    passes = int(counts.max())
    for j in range(passes):
        rows = (counts > j).nonzero().flatten()
        classes = order[rows, j]
        asked = torch.zeros_like(logits)
        asked[rows, classes] = 1
        gradients = torch.autograd.grad(logits, features, asked, retain_graph=j < passes - 1)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight[rows, classes] = gradient[rows].float().mean(dim=(2, 3))  # (n, C)
    return weights


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient inside, so that no pass computes or keeps what only training needs."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def class_scores(maps: Tensor, present: Tensor, size: tuple[int, int], options: PseudoMaskOptions) -> Tensor:
    """Scores in [-1, 1], float (N, K, H, W), of each class at each pixel; the highest one names the pixel.

    Args:
        maps: activation maps of one depth, (N, K, h, w).
        present: which classes the patch labels have, bool (N, K).
        size: height and width of the patch; maps are interpolated bilinearly between pixel centres.
        options: see `PseudoMaskOptions`.
    """
    scores = normalised_maps(F.interpolate(maps, size, mode="bilinear", align_corners=False), options.normalisation)
    return torch.where(present[:, :, None, None], scores, options.absent_score)


def normalised_maps(maps: Tensor, normalisation: Normalisation) -> Tensor:
    """Activation maps (N, K, H, W), each patch's brought to a common range; a flat map becomes zero.

    "joint" gives [0, 1]. "per_class" gives [0, 1] for positive activations; negative ones, which a ReLU would make
    one large tie that the first class wins, become [-1e-6, 0], so that they lose to any positive one, yet order
    pixels where no class is active.
    """
    if normalisation == "joint":
        low = maps.amin(dim=(1, 2, 3), keepdim=True)
        span = maps.amax(dim=(1, 2, 3), keepdim=True) - low
        return torch.where(span > 0, (maps - low) / span.where(span > 0, 1), 0)
    positive = maps.clamp_min(0)
    negative = maps.clamp_max(0)
    top = positive.amax(dim=(2, 3), keepdim=True)
    bottom = -negative.amin(dim=(2, 3), keepdim=True)
    return positive / top.where(top > 0, 1) + _NEGATIVE_SCALE * negative / bottom.where(bottom > 0, 1)


def masks_from_maps(maps: Tensor, present: Tensor, background: Tensor, options: PseudoMaskOptions) -> Tensor:
    """Pseudo masks, uint8 (N, H, W): the class of the highest score, the first one in a tie; K for background.

    The published program appends background as one more score, 1.000001 or 0. As scores lie in [0, 1] there and
    background comes last, that is the same.

    Args:
        maps: activation maps of one depth, (N, K, h, w).
        present: which classes the patch labels have, bool (N, K); a patch without any is all background.
        background: bool (N, H, W).
        options: see `PseudoMaskOptions`.
    """
    height, width = background.shape[1:]
    best = class_scores(maps, present, (height, width), options).max(dim=1).indices
    nothing = ~present.any(dim=1)[:, None, None]
    return best.masked_fill(background | nothing, maps.shape[1]).to(torch.uint8)


def background_mask(patches: Tensor, options: PseudoMaskOptions) -> Tensor:
    """Which pixels of patches (N, 3, H, W), uint8, are background: bool (N, H, W), on the CPU."""
    count, _, height, width = patches.shape
    if options.background == "none":
        return torch.zeros((count, height, width), dtype=torch.bool)
    grey = grey_values(patches.cpu().numpy())
    return torch.from_numpy(
        np.stack([_without_specks(g > options.bright_above, options.min_background_px) for g in grey])
    )


def grey_values(patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma (ITU-R BT.601) of RGB patches (N, 3, H, W), rounded as OpenCV rounds it: uint8 (N, H, W)."""
    red, green, blue = (patches[:, i].astype(np.uint32) for i in range(3))
    return ((red * 4899 + green * 9617 + blue * 1868 + (1 << 13)) >> 14).astype(np.uint8)


def _without_specks(mask: NDArray[np.bool_], min_px: int) -> NDArray[np.bool_]:
    """A mask (H, W) less its 4-connected components of fewer than `min_px` pixels."""
    components, _ = ndimage.label(mask)
    large = np.bincount(components.ravel()) >= min_px
    large[0] = False
    kept: NDArray[np.bool_] = large[components]
    return kept
