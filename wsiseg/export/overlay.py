"""Pictures for people: the slide at a coarse scale, and the classes in colour upon it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import UInt8Array
from wsiseg.classes import WHITE_VALUE, ClassTable


def colored(class_map: UInt8Array, classes: ClassTable) -> tuple[UInt8Array, npt.NDArray[np.bool_]]:
    """Class colours (height, width, 3) and where there are any (height, width), of a class map (height, width).

    What is no tissue, not read or white has none.
    """
    table = np.zeros((256, 3), np.uint8)
    for tissue_class in classes:
        table[tissue_class.index] = tissue_class.color
    return table[class_map], (class_map > 0) & (class_map != WHITE_VALUE)


def overlay(picture: UInt8Array, class_map: UInt8Array, classes: ClassTable, opacity: float = 0.4) -> UInt8Array:
    """Class colours upon a picture of the slide, the borders of classes drawn in full colour.

    Args:
        picture: (height, width, 3).
        class_map: (height, width), the same pixels.
        classes: the class table.
        opacity: of the colours inside, 0 to 1.

    Returns:
        (height, width, 3) uint8.
    """
    colors, inside = colored(class_map, classes)
    weight = np.where(inside, opacity, 0.0).astype(np.float32)
    weight[borders(class_map) & inside] = 1.0
    mixed = picture * (1 - weight[..., None]) + colors * weight[..., None]
    return np.rint(mixed).astype(np.uint8)


def borders(class_map: UInt8Array) -> npt.NDArray[np.bool_]:
    """Pixels whose right or lower neighbour is of another class, (height, width) bool."""
    out = np.zeros(class_map.shape, np.bool_)
    out[:, :-1] |= class_map[:, :-1] != class_map[:, 1:]
    out[:-1] |= class_map[:-1] != class_map[1:]
    return out


def legend(image: UInt8Array, classes: ClassTable) -> UInt8Array:
    """The image with class colours and names below it, in as many rows as they need."""
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415  (only pictures with letters need it)

    size = max(12, min(28, image.shape[1] // 40))
    font = ImageFont.load_default(size)
    width = image.shape[1]
    places, x, y = [], size // 2, size // 2
    for tissue_class in classes:
        advance = int(size * 4 / 3 + font.getlength(tissue_class.name)) + size
        if x + advance - size > width and x > size // 2:
            x, y = size // 2, y + size * 3 // 2
        places.append((x, y))
        x += advance
    strip = Image.new("RGB", (width, y + size * 3 // 2), "white")
    draw = ImageDraw.Draw(strip)
    for tissue_class, (x, y) in zip(classes, places, strict=True):
        draw.rectangle((x, y, x + size, y + size), fill=tissue_class.color)
        draw.text((x + size * 4 // 3, y - size // 10), tissue_class.name, fill="black", font=font)
    return np.concatenate([image, np.asarray(strip)])
