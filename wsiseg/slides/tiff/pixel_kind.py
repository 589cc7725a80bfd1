"""One rule for the pixels of TIFFs, whatever their layout: what is read as red, green and blue, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tifffile

from wsiseg.slides.base import WHITE
from wsiseg.slides.claims import transforms_colours

_WHITE_IS_ZERO, _GREY, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_NAMES = {
    **{_WHITE_IS_ZERO: "grey (white is zero)", _GREY: "grey", _CMYK: "CMYK", _LAB: "CIE L*a*b*", 4: "a mask"},
    **{9: "ICC L*a*b*", 10: "ITU L*a*b*", 32803: "raw camera data", 34892: "raw camera data"},
}
_OLD_JPEG, _JPEG = 6, 7
_SEPARATE, _REVERSED = 2, 2
_APERIO_YCBCR = 33003
_CONVERTED = (_JPEG, 33007, 33004, 33005, 34712, 34927, 50001, 50002, 52546, 22610, 34934)
"""Codecs whose decoders give red, green and blue where a TIFF says YCbCr."""

_JPEG_2000 = (33004, 34712)
"""Those of them that do so only where the stream itself says that colours were transformed."""

_HEAD_BYTES, _LOOKED_AT = 4096, 64

CONVERT = "convert it to 8-bit RGB (QuPath, Bio-Formats, vips)"


@dataclass(frozen=True)
class PixelKind:
    """How the samples of a page become red, green and blue.

    Attributes:
        bits: of a sample, 8 or 16.
        samples: of a pixel, over all planes.
        alpha: what the fourth sample is.
        palette: (n, 3) uint8 where samples are numbers of colours.
        is_ycbcr: whether samples are still to be converted.
        order: which sample is red, green, and blue.
        declared: whether the page itself says that it is in colour.
    """

    bits: int
    samples: int
    alpha: Literal["none", "straight", "premultiplied"] = "none"
    palette: npt.NDArray[np.uint8] | None = field(default=None, compare=False)
    is_ycbcr: bool = False
    order: tuple[int, int, int] = (0, 1, 2)
    declared: bool = True

    @property
    def said(self) -> str:
        """Colour and depth, for people."""
        return f"{self.bits} bits{', a palette' if self.palette is not None else ''}"

    def matches(self, other: PixelKind) -> bool:
        """Whether two pages have the same colour and depth."""
        return self.bits == other.bits and (self.palette is None) == (other.palette is None)

    def rgb(self, samples: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """(h, w, 3) uint8 from samples (h, w, s), what is transparent on white."""
        if self.palette is not None:
            found: npt.NDArray[np.uint8] = self.palette[np.minimum(samples[..., 0], len(self.palette) - 1)]
            return found
        if self.bits == 16:  # exact for both usual ways to make 16 bits of 8
            samples = samples >> 8
        pixels = np.ascontiguousarray(samples[..., list(self.order)] if self.order != (0, 1, 2) else samples[..., :3])
        pixels = pixels.astype(np.uint8, copy=False)
        if self.is_ycbcr:
            pixels = _from_ycbcr(pixels)
        if self.alpha == "none":
            return pixels
        return _on_white(pixels, samples[..., 3:4], self.alpha == "premultiplied")


def pixel_kind(page: Any) -> PixelKind | str:  # noqa: PLR0911  (one rule after the other)
    """How the pixels of a tifffile page are read, or what they are where they are not read."""
    photometric, samples, bits = int(page.photometric), int(page.samplesperpixel), page.bitspersample
    refused = _layout_fault(page)
    if refused is not None:
        return refused
    if photometric == _PALETTE and samples == 1 and page.dtype == np.uint8:
        return _palette(page)
    if page.dtype is None or page.dtype.kind == "f":
        return f"pixels of {'no known type' if page.dtype is None else f'floating point ({page.dtype})'}"
    if page.dtype not in (np.uint8, np.uint16):
        return f"pixels of type {page.dtype}"
    if bits not in (8, 16):
        return f"{bits} bits a sample" if isinstance(bits, int) else "samples of different depths"
    if page.dtype == np.uint16 and _stated_maximum(page) < 2**15:
        return f"16-bit pixels of which only values up to {_stated_maximum(page)} are used"
    if photometric in (_GREY, _WHITE_IS_ZERO) and samples < 3:
        return f"{_NAMES[photometric]}, one channel" if samples == 1 else f"{samples} channels"
    if photometric in (_RGB, _YCBCR, _GREY) and samples in (3, 4):
        declared = photometric != _GREY
        if not declared and samples == 4:
            return "4 channels"
        alpha = _alpha(page) if samples == 4 else "none"
        return PixelKind(bits, samples, alpha, is_ycbcr=_is_raw_ycbcr(page), declared=declared)
    if photometric in (_RGB, _YCBCR, _GREY):
        return f"{samples} channels"
    return f"{_NAMES.get(photometric, f'of a colour space ({photometric})')} that is not read"


def grey_kind(page: Any) -> PixelKind | str:
    """How a page that holds one of several channels is read."""
    fault = _layout_fault(page)
    if fault is not None:
        return fault
    if int(page.samplesperpixel) != 1 or int(page.photometric) not in (_GREY, _RGB):
        return "channels that are not grey each"
    if page.dtype not in (np.uint8, np.uint16) or page.bitspersample not in (8, 16):
        return f"pixels of type {page.dtype}"
    if page.dtype == np.uint16 and _stated_maximum(page) < 2**15:
        return f"16-bit pixels of which only values up to {_stated_maximum(page)} are used"
    return PixelKind(int(page.bitspersample), 1, declared=False)


def _layout_fault(page: Any) -> str | None:  # noqa: PLR0911
    """What about a page cannot be decoded, or would be decoded wrongly."""
    compression = int(page.compression)
    if compression == _OLD_JPEG:
        return "JPEG in the old style (compression 6)"
    if compression != 1 and compression not in tifffile.TIFF.DECOMPRESSORS:
        return f"a compression that is not read ({compression})"
    if page.imagedepth != 1 or page.tiledepth != 1:
        return f"volumes ({page.imagedepth} pixels deep)"
    if (fill := page.tags.get(266)) is not None and fill.value == _REVERSED and compression not in _CONVERTED:
        return "bits in reverse order (FillOrder 2)"
    subsampling = page.subsampling or (1, 1)
    if int(page.photometric) == _YCBCR and compression not in _CONVERTED and tuple(subsampling) != (1, 1):
        if compression == _APERIO_YCBCR:
            return "JPEG 2000 in YCbCr with fewer pixels of colour"
        return "YCbCr with fewer pixels of colour, without JPEG"
    turned = page.tags.get(274)
    if turned is not None and turned.value not in (0, 1):
        return f"pixels stored turned or mirrored (orientation {turned.value}), which viewers show differently"
    return None


def _alpha(page: Any) -> Literal["none", "straight", "premultiplied"]:
    """What the fourth sample is; one that the file does not call alpha is no colour, and is left out, as in Pillow."""
    kinds = page.tags.get(338)
    stated = kinds.value if kinds is not None else ()
    first = (stated if isinstance(stated, tuple) else (stated,))[:1]
    return "premultiplied" if first == (1,) else "straight" if first == (2,) else "none"


def _stated_maximum(page: Any) -> int:
    """MaxSampleValue, 65535 where it is not stated."""
    tag = page.tags.get(281)
    value = tag.value if tag is not None else 65535
    try:
        return int(max(value) if isinstance(value, tuple) else value) or 65535
    except (TypeError, ValueError):
        return 65535


def _is_raw_ycbcr(page: Any) -> bool:
    if int(page.compression) == _APERIO_YCBCR:  # whatever the page says
        return True
    if int(page.photometric) != _YCBCR:
        return False
    if int(page.planarconfig) == _SEPARATE:  # a decoder has one plane at a time, and converts nothing
        return True
    if int(page.compression) in _JPEG_2000:
        return not transforms_colours(_first_stream(page))
    return int(page.compression) not in _CONVERTED


def _first_stream(page: Any) -> bytes:
    """The head of the first tile or strip of a page that is there."""
    file = page.parent.filehandle
    for offset, count in zip(page.dataoffsets[:_LOOKED_AT], page.databytecounts[:_LOOKED_AT], strict=False):
        if offset and count:
            file.seek(offset)
            return bytes(file.read(min(count, _HEAD_BYTES)))
    return b""


def _palette(page: Any) -> PixelKind | str:
    colours = np.asarray(page.colormap)
    if colours.ndim != 2 or colours.shape[0] != 3 or colours.shape[1] < 2:
        return "a palette that is not whole"
    if colours.max() > 255:  # some writers fill in 8 bits
        colours = colours >> 8
    return PixelKind(8, 1, palette=np.ascontiguousarray(colours.T.astype(np.uint8)))


def _from_ycbcr(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Full-range BT.601, as JPEG and TIFF have it."""
    y, cb, cr = (pixels[..., channel].astype(np.float32) for channel in range(3))
    cb, cr = cb - 128, cr - 128
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
    out: npt.NDArray[np.uint8] = np.rint(rgb).clip(0, 255).astype(np.uint8)
    return out


def _on_white(pixels: npt.NDArray[np.uint8], alpha: npt.NDArray[Any], premultiplied: bool) -> npt.NDArray[np.uint8]:
    if (alpha == 255).all():
        return pixels
    share = alpha.astype(np.float32) / 255
    mixed = (pixels if premultiplied else pixels * share) + WHITE * (1 - share)
    return np.rint(mixed).clip(0, 255).astype(np.uint8)
