"""Which pictures of a file are levels of one pyramid, and by how much each is smaller than the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wsiseg.geometry import Level, Size

_FACTORS = (2, 4, 8, 3, 16)
_POWERS = [2.0**exponent for exponent in range(1, 22)]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture that may be a level.

    Attributes:
        size: its pixels.
        tile: size of its tiles, None where it has none, so that it cannot be padded to whole ones.
    """

    size: Size
    tile: Size | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """A picture that is a level.

    Attributes:
        index: its place among the candidates.
        level: its size inside the slide, and its downsample.
        padded: whether it is larger than that: filled up to whole tiles.
    """

    index: int
    level: Level
    padded: bool = False


def fit_levels(candidates: Sequence[Candidate], tolerance_px: float = 1) -> tuple[list[Fitted], dict[int, str]]:
    """The levels, finest first, and of each other candidate why it is none.

    A level has one downsample that explains both its sides to a pixel's worth. Where its sides are whole tiles, what
    lies behind the slide's edge may be filling: its downsample is then the one that continues the others' factor.

    Args:
        candidates: the first is level 0.
        tolerance_px: how many pixels of a level a side may differ.
    """
    base = candidates[0].size
    out: dict[int, str] = {}
    fits: dict[int, _Fit] = {}
    for index, candidate in enumerate(candidates[1:], 1):
        fit = _fit(base, candidate, tolerance_px)
        if isinstance(fit, str):
            out[index] = fit
        else:
            fits[index] = fit
    order = sorted(fits, key=lambda i: (-candidates[i].size.area, i))
    downsamples = _settle(order, fits)
    levels = [Fitted(0, Level(base, 1.0, 1.0))]
    for index in order:
        downsample, padded = downsamples[index]
        size = candidates[index].size
        if downsample is None:
            out[index] = f"of {size} px, padded to whole tiles, and its downsample cannot be told"
            continue
        if padded:
            inside = Size(math.ceil(base.width / downsample), math.ceil(base.height / downsample))
            level = Level(inside, downsample, downsample)
        elif downsample == round(downsample):
            level = Level(size, downsample, downsample)
        else:
            level = Level(size, base.width / size.width, base.height / size.height)
        if level.downsample <= levels[-1].level.downsample * 1.001:
            out[index] = f"of {size} px, as large as another level"
        else:
            levels.append(Fitted(index, level, padded and level.size != size))
    return levels, out


@dataclass(frozen=True, slots=True)
class _Fit:
    """The downsample of a picture that is not padded (None: it must be), and the open interval of one that is."""

    plain: float | None
    least: float
    below: float

    @property
    def is_whole(self) -> bool:
        return self.plain is not None and self.plain == round(self.plain)

    @property
    def is_filled(self) -> bool:
        """Whether it may be filled up to whole tiles."""
        return self.least < self.below

    def allows(self, downsample: float) -> bool:
        if self.is_whole:
            return self.plain == downsample
        return self.least <= downsample < self.below


def _fit(base: Size, candidate: Candidate, tolerance: float) -> _Fit | str:
    size, tile = candidate.size, candidate.tile
    if size == base:
        return f"of {size} px, as large as level 0"
    if size.width > base.width or size.height > base.height:
        return f"of {size} px, larger than level 0"
    sides = [(base.width, size.width), (base.height, size.height)]
    low = max(whole / (part + tolerance) for whole, part in sides)
    high = min(whole / (part - tolerance) if part > tolerance else math.inf for whole, part in sides)
    plain: float | None = None
    if low <= high:
        quotient = math.sqrt(base.width / size.width * base.height / size.height)
        near = float(round(quotient))
        plain = near if near >= 1 and low <= near <= high else min(max(quotient, low), high)
        if plain <= 1:
            plain = None
    least, below = math.inf, 0.0
    whole_base = tile is not None and base.width % tile.width == 0 and base.height % tile.height == 0
    if (
        tile is not None
        and size.width % tile.width == 0
        and size.height % tile.height == 0
        and (plain is None or not whole_base)
    ):
        least = max(base.width / size.width, base.height / size.height)
        rest = [(base.width, size.width - tile.width), (base.height, size.height - tile.height)]
        below = min([min(base.shape) + 1.0, *(whole / part for whole, part in rest if part > 0)])
        if max(least, 1.0) == 1.0:
            least = math.nextafter(1.0, 2)
    if plain is None and not least < below:
        return f"of {size} px, whose sides are not those of level 0 ({base} px) by one downsample"
    return _Fit(plain, least, below)


def _settle(order: list[int], fits: dict[int, _Fit]) -> dict[int, tuple[float | None, bool]]:
    """For each picture its downsample, None where it cannot be told, and whether it is padded."""
    chain = [index for index in order if fits[index].is_whole or fits[index].is_filled]
    for factor in _FACTORS:
        steps = [float(factor) ** (place + 1) for place in range(len(chain))]
        if all(fits[index].allows(step) for index, step in zip(chain, steps, strict=True)):
            settled = dict(zip(chain, steps, strict=True))
            break
    else:
        settled = {}
    found: dict[int, tuple[float | None, bool]] = {}
    doubles = all(any(fits[index].allows(power) for power in _POWERS) for index in chain)
    before = 1.0
    for index in order:
        fit = fits[index]
        if fit.is_whole:
            found[index] = fit.plain, False
        elif index in settled:
            found[index] = settled[index], True
        else:
            powers = [power for power in _POWERS if power > before and fit.allows(power)] if doubles else []
            # Sides that are whole tiles by chance are rare, and filling changes the downsample that they seem to have.
            found[index] = (powers[0], True) if len(powers) == 1 else (None if fit.is_filled else fit.plain, False)
        before = found[index][0] or before
    return found
