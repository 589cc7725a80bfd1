"""Random changes of a batch, on the device that trains, the same for a seed whatever the number of workers."""

from __future__ import annotations

import math

import torch
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Generator, Tensor
from torch.nn import functional as F

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
            generator: of the CPU, whatever the images' device.
        """
        config = self.config
        if config.stain:
            images = self.change_stain(images, generator)
        if config.blur:
            images = self._blur(images, generator)
        if config.zoom or config.horizontal_flip or config.vertical_flip or config.transpose:
            images, masks = self._move(images, masks, generator)
        return images, masks

    def change_stain(self, images: Tensor, generator: Generator) -> Tensor:
        """Images in [0, 1] as another laboratory's stain and another scanner would show them."""
        strength, count = self.config.stain, len(images)

        def noise(*shape: int) -> Tensor:
            return (torch.rand(count, *shape, generator=generator) * 2 - 1).to(images.device) * strength

        to_stains, from_stains = self._to_stains.to(images.device), self._from_stains.to(images.device)
        scale, shift = 1 + _DENSITY_SCALE * noise(3), _DENSITY_SHIFT * noise(3)
        density = -torch.log(images.clamp_min(1 / 255))  # (N, 3, H, W)
        mixing = (to_stains * scale[:, None, :]) @ from_stains  # (N, 3, 3): to stains, scaled, and back
        density = torch.einsum("nchw,ncd->ndhw", density, mixing) + (shift @ from_stains)[:, :, None, None]
        images = torch.exp(-density)
        grey = images.mean(dim=1, keepdim=True)
        images = grey + (images - grey) * (1 + _SATURATION * noise(1, 1, 1))
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = (images - mean) * (1 + _CONTRAST * noise(1, 1, 1)) + mean + _BRIGHTNESS * noise(1, 1, 1)
        return (images * (1 + _CHANNEL * noise(3, 1, 1))).clamp(0, 1)

    def _blur(self, images: Tensor, generator: Generator) -> Tensor:
        """Gaussian blur of some images, each with its own standard deviation; separable, mirrored at the edge."""
        count = len(images)
        chosen = torch.rand(count, generator=generator) < self.config.blur
        sigma = (torch.rand(count, generator=generator) * self.config.blur_sigma_px).clamp_min(1e-3)[chosen]
        if not chosen.any():
            return images
        radius = max(1, math.ceil(3 * self.config.blur_sigma_px))
        offsets = torch.arange(-radius, radius + 1)
        kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)  # (n, 2 r + 1)
        kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0).to(images.device)
        x = images[chosen].flatten(0, 1)[None]  # (1, n * 3, H, W)
        x = F.conv2d(F.pad(x, (0, 0, radius, radius), mode="reflect"), kernel[:, None, :, None], groups=len(kernel))
        x = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="reflect"), kernel[:, None, None, :], groups=len(kernel))
        return images.index_put((chosen.to(images.device),), x[0].reshape(-1, *images.shape[1:]))

    def _move(self, images: Tensor, masks: Tensor | None, generator: Generator) -> tuple[Tensor, Tensor | None]:
        """Flips, transposition and zoom as one affine map for each patch, mirrored outside the patch."""
        config, count = self.config, len(images)

        def chance(probability: float) -> Tensor:
            return torch.rand(count, generator=generator) < probability

        zoom = torch.exp((torch.rand(count, generator=generator) * 2 - 1) * config.zoom)
        x = torch.where(chance(config.horizontal_flip), -1.0, 1.0) * zoom
        y = torch.where(chance(config.vertical_flip), -1.0, 1.0) * zoom
        turned = chance(config.transpose)
        affine = torch.zeros(count, 2, 3)
        affine[:, 0, 0], affine[:, 0, 1] = torch.where(turned, 0, x), torch.where(turned, x, 0)
        affine[:, 1, 1], affine[:, 1, 0] = torch.where(turned, 0, y), torch.where(turned, y, 0)
        grid = F.affine_grid(affine, [count, 1, *images.shape[2:]], align_corners=False).to(images.device)
        mode = "bilinear" if config.zoom else "nearest"
        moved = F.grid_sample(images, grid, mode=mode, padding_mode="reflection", align_corners=False)
        if masks is None:
            return moved, None
        warped = F.grid_sample(masks.float(), grid, mode="nearest", padding_mode="reflection", align_corners=False)
        return moved, warped.to(torch.uint8)
