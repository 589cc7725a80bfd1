"""Pseudo masks: what a classifier that only ever saw patch labels says about pixels.

Han et al. 2022, section 3.3: Grad-CAM at three depths of the classifier, bilinear to the patch's size, normalised,
classes that the patch label excludes taken out, then the best class of each pixel. A mask holds class channels
0 … K - 1, and K where the pixel is background.

The published program runs 3 K forward and backward passes for each patch. Networks in evaluation mode treat the
patches of a batch independently, so one backward pass of the sum over patches serves a whole batch and all depths,
and at the deepest one, which is averaged and multiplied by the class weights, the gradient is known without any.
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

from wsiseg.errors import OptionError
from wsiseg.models.classifier import Classifier

Normalisation = Literal["per_class", "joint"]
Background = Literal["bright", "none"]

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
    classifier: Classifier, images: Tensor, patches: Tensor, labels: Tensor, options: PseudoMaskOptions
) -> dict[str, Tensor]:
    """Pseudo masks of a batch at each of the classifier's depths: {depth: uint8 (N, H, W)}, on the images' device.

    Args:
        classifier: stage 1, in evaluation mode.
        images: normalised patches, float (N, 3, H, W).
        patches: the same as uint8 (N, 3, H, W), to tell the background.
        labels: which classes each patch has, (N, K); a patch without any is all background.
        options: see `PseudoMaskOptions`.
    """
    present = labels.to(images.device) > 0
    background = background_mask(patches, options).to(images.device)
    return {
        depth: masks_from_maps(maps, present, background, options)
        for depth, maps in gradient_maps(classifier, images).items()
    }


def gradient_maps(classifier: Classifier, images: Tensor) -> dict[str, Tensor]:
    """Grad-CAM without ReLU for every class at each depth: {depth: float32 (N, K, h, w)}.

    alpha_kc is the mean over space of d z_k / d F_c, and map_k = sum_c alpha_kc F_c (Selvaraju et al. 2017). One
    forward pass and K backward passes, down to the shallowest depth, for the whole batch.

    Args:
        classifier: stage 1, in evaluation mode: BatchNorm on batch statistics would mix the patches.
        images: normalised patches, float (N, 3, H, W).
    """
    if classifier.training:
        raise ValueError("activation maps need a classifier in evaluation mode, call eval() first")
    *shallow, deepest = classifier.depths
    with torch.enable_grad(), _frozen(classifier):
        features = classifier.features(images.detach().requires_grad_(not classifier.taps))
        logits = classifier.head(features[deepest])  # (N, K)
        inputs = [features[depth] for depth in shallow]
        weights: dict[str, list[Tensor]] = {depth: [] for depth in shallow}
        last = logits.shape[1] - 1
        for k, total in enumerate(logits.sum(dim=0)):
            gradients = torch.autograd.grad(total, inputs, retain_graph=k < last)
            for depth, gradient in zip(shallow, gradients, strict=True):
                weights[depth].append(gradient.mean(dim=(2, 3)))  # (N, C)
    with torch.no_grad():
        maps = {
            depth: torch.einsum("nkc,nchw->nkhw", torch.stack(weights[depth], dim=1), features[depth])
            for depth in shallow
        }
        maps[deepest] = classifier.fc8(features[deepest]) / features[deepest][0, 0].numel()
    return {depth: value.detach().float() for depth, value in maps.items()}


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
