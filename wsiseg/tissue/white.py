"""White inside tissue at the map's own resolution: lumina, cracks, what fat leaves behind. It gets no class.

The mask of the tissue is made from an overview and fills small holes. Without this rule, glass inside it would get
whatever class looks nearest. White is decided from the very pixels that the networks see: they are bright and not
coloured, as in the published pseudo masks (Han et al. 2022), but measured by the slide's own glass. Each of red, green
and blue has to be at least a share of the glass's; a coloured pixel fails this in one of them. The share depends on the
slide, see `wsiseg.tissue.light`: the paler its tissue, the higher. docs/white.md tells which other rules were tried.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import BoolArray
from wsiseg.geometry import Mpp
from wsiseg.system.json_values import JsonObject
from wsiseg.system.memory import CHUNK_PX
from wsiseg.tissue.light import Light

MIN_WHITE_UM2 = 50.0
"""Smaller parts are gaps within the tissue; the published program leaves out 50 pixels of about 1 um."""

CELL_PX = CHUNK_PX
"""Parts are measured within cells of so many map pixels a side, so that no answer depends on the pieces of a run.

It has to divide the side of every piece, and pieces are multiples of a chunk: else white would depend on --max-memory.
"""


@dataclass(frozen=True, slots=True)
class WhiteRule:
    """The rule by which pixels of one slide's map are white.

    Attributes:
        least: red, green and blue, 0 to 255, that a white pixel has at least.
        min_px: map pixels that a white part has at least.
        light: what that goes by: the slide's glass, and the share of its light.
    """

    least: tuple[int, int, int]
    min_px: int
    light: Light

    @classmethod
    def from_light(cls, light: Light, mpp: Mpp) -> WhiteRule:
        """The rule for a map of `mpp` upon a slide with that light."""
        red, green, blue = (min(255, math.ceil(light.share * value)) for value in light.glass)
        return cls((red, green, blue), max(1, math.ceil(MIN_WHITE_UM2 / mpp.pixel_area_um2)), light)

    def bright(self, pixels: npt.NDArray[np.uint8]) -> BoolArray:
        """Which pixels (…, 3) are bright and not coloured, (…); a white part may still be too small."""
        red, green, blue = self.least
        found: BoolArray = pixels[..., 0] >= red
        found &= pixels[..., 1] >= green
        found &= pixels[..., 2] >= blue
        return found

    def parts(self, bright: BoolArray) -> BoolArray:
        """Bright pixels of a piece of the map (h, w), whose corner is one of a cell, less the parts that are too small.

        Parts join along the sides of pixels, and are measured within their cell.
        """
        from scipy import ndimage  # noqa: PLC0415  (half a second that a run's first batch does not wait for)

        out = np.zeros_like(bright)
        for y in range(0, bright.shape[0], CELL_PX):
            for x in range(0, bright.shape[1], CELL_PX):
                cell = (slice(y, y + CELL_PX), slice(x, x + CELL_PX))
                if bright[cell].any():
                    labels, count = ndimage.label(bright[cell])
                    large = np.bincount(labels.ravel(), minlength=count + 1) >= self.min_px
                    large[0] = False
                    out[cell] = large[labels]
        return out

    def to_json(self) -> JsonObject:
        """The rule as a map's parameters record it."""
        return {
            "least_rgb": list(self.least),
            "min_px": self.min_px,
            "min_um2": MIN_WHITE_UM2,
            "share_of_glass": self.light.share,
            "glass_rgb": [round(value, 2) for value in self.light.glass],
            "glass_from": self.light.source,
            "glass_found": self.light.source != "assumed",
            "glass_apart": None if self.light.apart is None else round(self.light.apart, 4),
        }
