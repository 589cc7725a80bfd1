"""What files record, as numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.errors import SlideError
from wsiseg.geometry import Mpp

_ROWS = 512
_UM_PER_UNIT = {"centimeter": 1e4, "cm": 1e4, "inch": 25400.0}


def number(value: object) -> float | None:
    """A finite number from a property, None where it is none."""
    try:
        result = float(str(value))
    except ValueError:
        return None
    return result if math.isfinite(result) else None


def tiff_mpp(x: object, y: object, unit: object) -> Mpp | None:
    """Microns per pixel from a TIFF's resolution: only with a unit, and only what a slide can have (not 72 dpi)."""
    um = _UM_PER_UNIT.get(str(unit).rsplit(".", 1)[-1].lower())
    per_x, per_y = number(x), number(y)
    if um is None or not per_x or not per_y or per_x < 0 or per_y < 0:
        return None
    mpp = Mpp(um / per_x, um / per_y)
    return mpp if mpp.is_plausible else None


def associated_rgb(image: Any) -> npt.NDArray[np.uint8]:
    """(h, w, 3) uint8 from a Pillow image, what is transparent on white.

    Raises:
        SlideError: it has more than 8 bits a channel, which Pillow would cut off at white.
    """
    from PIL import Image  # noqa: PLC0415

    if image.mode.startswith(("I", "F")):
        raise SlideError(f"expected a picture of 8 bits a channel, got mode {image.mode}; convert it to 8 bits first")
    transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    out = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _ROWS):  # a picture may be large, and each conversion is a copy of it
        rows = image.crop((0, top, image.width, min(image.height, top + _ROWS)))
        if transparent:
            rgba = rows.convert("RGBA")
            rows = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
        out[top : top + _ROWS] = np.asarray(rows.convert("RGB"))
    return out
