"""Which images of a DICOM series are levels of one pyramid, and by how much each is smaller than the first."""

from __future__ import annotations

from collections.abc import Sequence

from wsiseg.errors import SlideError
from wsiseg.geometry import Level, Mpp, Size
from wsiseg.slides.dicom.header import Instance

Image = Sequence[Instance]
"""The parts of one image, in order."""

_PIXELS = 1.5
"""So many pixels a level may be larger or smaller than a downsample makes it: writers round up, down, or to even."""

_SAME = 1e-3
_MAX_DOWNSAMPLE = 2**16


def chosen_levels(images: Sequence[Image]) -> tuple[tuple[Level, ...], list[Image], list[str]]:
    """The levels, the images that they are, and notes on images that are none.

    Args:
        images: the volume images, largest first.

    Raises:
        SlideError: two images have one resolution, so that it is not known which is the slide.
    """
    base = images[0][0]
    levels, kept, notes = [Level(base.size, 1.0, 1.0)], [images[0]], []
    for image in images[1:]:
        first = image[0]
        level = _level(first, base)
        if level is None:
            notes.append(f"{first.name}, {first.size} px, has another shape than level 0 and is not a level")
        elif abs(level.downsample / levels[-1].downsample - 1) < _SAME:
            raise SlideError(
                f"{kept[-1][0].name} and {first.name} are both volume images of {first.size} px: two focal planes, two "
                "optical paths, or two scans in one series; store the one that is wanted apart"
            )
        else:
            levels.append(level)
            kept.append(image)
    return tuple(levels), kept, notes


def _level(image: Instance, base: Instance) -> Level | None:
    """An image as a level upon the first, None where it cannot be one."""
    by_spacing = _ratio(image.spacing, base.spacing, base.size)
    if by_spacing is not None:
        if _fits(image.size, base.size, by_spacing):
            return Level.from_sizes(image.size, base.size)
        if _fits_padded(image, base.size, by_spacing):
            return _cut(base.size, by_spacing)
    by_size = Level.from_sizes(image.size, base.size)
    if _fits(image.size, base.size, by_size.downsample):
        return by_size
    padded = _padded_downsample(image, base.size)
    return None if padded is None else _cut(base.size, padded)


def _ratio(spacing: Mpp | None, base: Mpp | None, size: Size) -> float | None:
    """How much wider pixels are than those of level 0; None where it is not known, or differs between x and y."""
    if spacing is None or base is None:
        return None
    x, y = spacing.x / base.x, spacing.y / base.y
    if (
        min(x, y) < 1
        or abs(size.width / x - size.width / y) > _PIXELS
        or abs(size.height / x - size.height / y) > _PIXELS
    ):
        return None
    mean = (x + y) / 2
    return float(round(mean)) if abs(mean / round(mean) - 1) < _SAME else mean


def _fits(size: Size, base: Size, downsample: float) -> bool:
    return (
        abs(base.width / downsample - size.width) <= _PIXELS and abs(base.height / downsample - size.height) <= _PIXELS
    )


def _fits_padded(image: Instance, base: Size, downsample: float) -> bool:
    """Whether a level has its size rounded up to whole tiles."""
    size, tile = image.size, image.tile
    if size.width % tile.width or size.height % tile.height:
        return False
    wide, high = size.width - base.width / downsample, size.height - base.height / downsample
    return -_PIXELS < wide < tile.width and -_PIXELS < high < tile.height


def _padded_downsample(image: Instance, base: Size) -> float | None:
    """The power of two that explains a level that was rounded up to whole tiles; None where none or several do."""
    fitting, downsample = [], 1.0
    while downsample < _MAX_DOWNSAMPLE:
        if _fits_padded(image, base, downsample):
            fitting.append(downsample)
        downsample *= 2
    return fitting[0] if len(fitting) == 1 else None


def _cut(base: Size, downsample: float) -> Level:
    """A level without the padding."""
    width, height = (max(1, -int(-side // downsample)) for side in (base.width, base.height))
    return Level(Size(width, height), downsample, downsample)
