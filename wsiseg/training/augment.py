"""Random changes of a batch, on the device that trains, the same for a seed whatever the number of workers.

What is done to pixels is kornia's: its functions, each with one parameter a patch. The parameters are drawn here from
a generator of our own: kornia's `Random…` modules draw from torch's global one, which is dropout's, and on the CPU
several take ten times as long as the functions (a quarter turn is a warp there, saturation a detour by HSV).
"""

from __future__ import annotations

import math

import torch
from kornia.enhance import (
    adjust_brightness,
    adjust_contrast_with_mean_subtraction,
    adjust_saturation_with_gray_subtraction,
)
from kornia.filters import gaussian_blur2d
from kornia.geometry import hflip, scale, vflip
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Generator, Tensor

from wsiseg.training.config import AugmentationConfig

_DENSITY_SCALE, _DENSITY_SHIFT = 0.3, 0.05
_BRIGHTNESS, _CONTRAST, _SATURATION, _CHANNEL = 0.08, 0.2, 0.3, 0.05


class Augmentation:
    """Augments images, and masks along with them, with random numbers of its own.

    Args:
        config: what is changed and how much.
    """

    def __init__(self, config: AugmentationConfig) -> None:
        self.config = config
        self._to_stains = torch.as_tensor(hed_from_rgb, dtype=torch.float32)
        self._from_stains = torch.as_tensor(rgb_from_hed, dtype=torch.float32)

    def __call__(self, images: Tensor, masks: Tensor | None, generator: Generator) -> tuple[Tensor, Tensor | None]:
        """Augmented images (N, 3, H, W) in [0, 1] and masks (N, L, H, W), uint8.

        Args:
            images: float, in [0, 1], of square patches.
            masks: moved as the images are, nearest neighbour; None for none.
            generator: of the CPU, whatever the images' device; torch's global one is left as it is.
        """
        with torch.autocast(images.device.type, enabled=False):  # pixels keep their 32 bits where networks take 16
            return self._change(images, masks, generator)

    def _change(self, images: Tensor, masks: Tensor | None, generator: Generator) -> tuple[Tensor, Tensor | None]:
        config = self.config
        if config.stain:
            images = self.change_stain(images, generator)
        if config.blur:
            images = self._blur(images, generator)
        if config.horizontal_flip or config.vertical_flip or config.transpose:
            images, masks = self._turn(images, masks, generator)
        if config.zoom:
            images, masks = self._zoom(images, masks, generator)
        return images, masks

    def change_stain(self, images: Tensor, generator: Generator) -> Tensor:
        """Images in [0, 1] as another laboratory's stain and another scanner would show them.

        The optical densities of haematoxylin, eosin and DAB (Tellez et al. 2018) by scikit-image's matrices, as kornia
        has no stains; then kornia's saturation, contrast and brightness; then a gain for each colour channel.
        """
        strength, count = self.config.stain, len(images)

        def noise(*shape: int) -> Tensor:
            return (torch.rand(count, *shape, generator=generator) * 2 - 1).to(images.device) * strength

        to_stains, from_stains = self._to_stains.to(images.device), self._from_stains.to(images.device)
        factor, shift = 1 + _DENSITY_SCALE * noise(3), _DENSITY_SHIFT * noise(3)
        density = -torch.log(images.clamp_min(1 / 255))  # (N, 3, H, W)
        mixing = (to_stains * factor[:, None, :]) @ from_stains  # (N, 3, 3): to stains, scaled, and back
        density = torch.einsum("nchw,ncd->ndhw", density, mixing) + (shift @ from_stains)[:, :, None, None]
        images = torch.exp(-density)
        images = adjust_saturation_with_gray_subtraction(images, (1 + _SATURATION * noise()).clamp_min(0))
        images = adjust_contrast_with_mean_subtraction(images, (1 + _CONTRAST * noise()).clamp_min(0))
        images = adjust_brightness(images, _BRIGHTNESS * noise())
        return (images * (1 + _CHANNEL * noise(3, 1, 1))).clamp(0, 1)

    def _blur(self, images: Tensor, generator: Generator) -> Tensor:
        """Gaussian blur of some images, each with its own standard deviation, mirrored at the edge."""
        chosen = _chance(self.config.blur, images, generator)
        sigma = (torch.rand(len(images), generator=generator) * self.config.blur_sigma_px).clamp_min(1e-3)
        if not chosen.any():
            return images
        side = 2 * max(1, math.ceil(3 * self.config.blur_sigma_px)) + 1
        each = sigma.to(images.device)[chosen, None].expand(-1, 2)
        return images.index_put((chosen,), gaussian_blur2d(images[chosen], (side, side), each, border_type="reflect"))

    def _turn(self, images: Tensor, masks: Tensor | None, generator: Generator) -> tuple[Tensor, Tensor | None]:
        """Flips and transposition: pixels change places, none changes its value."""
        config = self.config
        images, masks = images.clone(), None if masks is None else masks.clone()
        moves = (
            (config.horizontal_flip, hflip),
            (config.vertical_flip, vflip),
            (config.transpose, lambda patches: patches.mT),
        )
        for probability, move in moves:
            if not probability:
                continue
            chosen = _chance(probability, images, generator).nonzero().flatten()
            images.index_copy_(0, chosen, move(images[chosen]))
            if masks is not None:
                masks.index_copy_(0, chosen, move(masks[chosen]))
        return images, masks

    def _zoom(self, images: Tensor, masks: Tensor | None, generator: Generator) -> tuple[Tensor, Tensor | None]:
        """Enlarged or reduced about the centre, mirrored outside the patch."""
        log_factor = (torch.rand(len(images), generator=generator) * 2 - 1) * self.config.zoom
        factor = torch.exp(log_factor).to(images.device)[:, None].expand(-1, 2)
        moved = scale(images, factor, mode="bilinear", padding_mode="reflection", align_corners=False)
        if masks is None:
            return moved, None
        warped = scale(masks.float(), factor, mode="nearest", padding_mode="reflection", align_corners=False)
        return moved, warped.to(torch.uint8)


def _chance(probability: float, images: Tensor, generator: Generator) -> Tensor:
    """Which patches are changed, bool (N,), on the images' device."""
    return (torch.rand(len(images), generator=generator) < probability).to(images.device)
