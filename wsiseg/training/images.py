"""Patches and masks from image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsiseg.errors import DatasetError


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """An image as RGB uint8 (H, W, 3)."""
    try:
        with Image.open(path) as image:
            mode, pixels = image.mode, np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{path} cannot be read as an image ({reason:.100}), replace or remove it") from error
    if mode.startswith(("I", "F")):  # Pillow would cut it off at white
        raise DatasetError(f"{path} has more than 8 bits a channel (mode {mode}), convert it to 8 bits first")
    return pixels


def read_mask(path: Path, num_classes: int) -> npt.NDArray[np.uint8]:
    """A mask of class channels as uint8 (H, W); K stands for excluded pixels."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1"):
                raise DatasetError(f"{path} must be a single-channel or palette image, got mode {image.mode}")
            mask = np.array(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path} cannot be read as a mask, replace or remove it") from error
    mask = mask.astype(np.uint8)
    mask[mask == 255] = num_classes
    if mask.max(initial=0) > num_classes:
        raise DatasetError(
            f"{path}: unknown class {mask.max()}, expected 0 to {num_classes - 1}, or {num_classes} for excluded"
        )
    return mask
