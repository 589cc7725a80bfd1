"""The tumour bulk: the ground that an invasive tumour holds, stroma, lymphocytes and necrosis between its nests too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wsiseg.arrays import BoolArray
from wsiseg.errors import OptionError
from wsiseg.geometry import Mpp
from wsiseg.report.discs import closed, eroded, filled, opened, within, without_small

Specimen = Literal["resection", "biopsy"]

BEYOND_UM = 100.0
"""How far outside the outline tissue has to go on for the outline to be that of the tumour and not of the tissue."""

DIAMETERS_UM: dict[Specimen, float] = {"resection": 1000.0, "biopsy": 500.0}
LEAST_MM2: dict[Specimen, float] = {"resection": 1.0, "biopsy": 0.25}


@dataclass(frozen=True, slots=True)
class BulkOptions:
    """How the bulk is found, after the baseline of the TIGER challenge.

    Attributes:
        specimen: "resection" or "biopsy"; there is no invasive margin on a biopsy.
        diameter_um: of the disc by which tumour is closed, then opened.
        speck_mm2: tumour regions below this are left out before.
        least_mm2: parts below this are left out behind.
        buffer_um: how far the bulk reaches beyond the outline.
        margin_um: half of the invasive margin's width.
    """

    specimen: Specimen = "resection"
    diameter_um: float = DIAMETERS_UM["resection"]
    speck_mm2: float = 0.005
    least_mm2: float = LEAST_MM2["resection"]
    buffer_um: float = 250.0
    margin_um: float = 500.0

    def __post_init__(self) -> None:
        for name, most in (("diameter_um", 5000), ("buffer_um", 5000), ("margin_um", 5000)):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= most) or (value == 0 and name != "buffer_um"):
                raise OptionError(
                    f"the bulk's {name.removesuffix('_um')} must be above 0 and at most {most} um, got {value}"
                )
        for value in (self.speck_mm2, self.least_mm2):
            if not (math.isfinite(value) and 0 <= value <= 1e4):
                raise OptionError(f"a smallest area must be 0 to 10000 mm2, got {value}")

    @classmethod
    def of(
        cls,
        specimen: Specimen = "resection",
        diameter_um: float | None = None,
        least_mm2: float | None = None,
        margin_um: float = 500.0,
        buffer_um: float = 250.0,
    ) -> BulkOptions:
        """Those of a specimen, but for what is stated."""
        return cls(
            specimen,
            DIAMETERS_UM[specimen] if diameter_um is None else diameter_um,
            least_mm2=LEAST_MM2[specimen] if least_mm2 is None else least_mm2,
            buffer_um=buffer_um,
            margin_um=margin_um,
        )


@dataclass(frozen=True, eq=False)
class Bulk:
    """The tumour bulk of a map, in its cells, and what lies around its outline.

    Attributes:
        bulk: (height, width) bool, the buffer included.
        outline: (height, width) bool, what lies inside the outline, without the buffer.
        core: inside, farther from the outline than the margin.
        inner: inside, as near to the outline as the margin.
        outer: outside, as near.
        real_outline: share of the outline, 0 to 1, outside of which tissue goes on; NaN without an outline.
    """

    bulk: BoolArray
    outline: BoolArray
    core: BoolArray
    inner: BoolArray
    outer: BoolArray
    real_outline: float


def find_bulk(tumour: BoolArray, tissue: BoolArray, mpp: Mpp, options: BulkOptions) -> Bulk | None:
    """The bulk; None where the map has none that is large enough.

    Tumour is freed of specks, closed and opened by a disc, freed of what is small, and its holes are filled. A closing
    by a disc is the hull that an alpha shape of the disc's radius draws with straight edges. All that is within
    `buffer_um` belongs to the bulk. The map's edge has no say: the plane goes on without tumour.

    Args:
        tumour: (height, width) bool.
        tissue: where there is tissue, white inside it as well; outer bands end with it.
        mpp: microns along a cell.
        options: see `BulkOptions`.
    """
    reach_um = options.diameter_um + max(options.buffer_um, options.margin_um, 2 * BEYOND_UM)
    rim_x, rim_y = math.ceil(reach_um / mpp.x) + 2, math.ceil(reach_um / mpp.y) + 2
    rim = ((rim_y, rim_y), (rim_x, rim_x))
    mask = without_small(np.pad(tumour, rim), options.speck_mm2, mpp)
    if not mask.any():
        return None
    mask = opened(closed(mask, options.diameter_um, mpp), options.diameter_um, mpp)
    mask = filled(without_small(mask, options.least_mm2, mpp))
    if not mask.any():
        return None
    inside = slice(rim_y, rim_y + tumour.shape[0]), slice(rim_x, rim_x + tumour.shape[1])
    core = eroded(mask, options.margin_um, mpp)[inside]
    outline = mask[inside]
    return Bulk(
        bulk=within(mask, options.buffer_um, mpp)[inside],
        outline=outline,
        core=core,
        inner=outline & ~core,
        outer=within(mask, options.margin_um, mpp)[inside] & ~outline & tissue,
        real_outline=_real_share(mask, np.pad(tissue, rim), mpp),
    )


def _real_share(mask: BoolArray, tissue: BoolArray, mpp: Mpp) -> float:
    """Share of a line `BEYOND_UM` outside the outline that lies on tissue."""
    line = within(mask, BEYOND_UM + mpp.mean, mpp) & ~within(mask, BEYOND_UM, mpp)
    count = np.count_nonzero(line)
    return float(np.count_nonzero(line & tissue) / count) if count else math.nan
