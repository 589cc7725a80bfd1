"""Formats that are read, in kinds that are not: each is named, with the way out, and never called damaged."""

from pathlib import Path

import numpy as np
import pytest

from wsiseg.errors import SlideError
from wsiseg.geometry import Box
from wsiseg.slides import open_slide
from wsiseg.slides.causes import plain

CZI = Path(__file__).parents[1] / "data" / "czi"
KINDS = {
    "focal_planes": "it has focal planes (dimension Z)",
    "grey": "its pixels are of type GRAY8, expected 8-bit colour",
    "channels": "it has several channels, as fluorescence has",
    "no_attachments": "it has no directory of attachments",
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_czi(kind):
    with pytest.raises(SlideError) as caught:
        open_slide(CZI / f"{kind}.czi", mpp=0.5)
    message = str(caught.value)
    assert message.startswith(f"{kind}.czi is of a kind that is not read: {KINDS[kind]}")
    assert message.endswith("export it as an RGB OME-TIFF, with QuPath or Bio-Formats' bfconvert")
    assert "damaged" not in message


def test_a_czi_in_colour(sample_data, tmp_path):
    with open_slide(sample_data / "CMU-1-Small-Region.svs") as slide:
        pixels = slide.read_level(0, Box(1000, 900, 96, 64)).pixels
    with open_slide(CZI / "colour.czi") as slide:
        assert (slide.vendor, slide.mpp.x) == ("zeiss", pytest.approx(0.5))
        assert np.array_equal(slide.read_level(0, Box(0, 0, 96, 64)).pixels, pixels)
    cut = tmp_path / "cut.czi"
    cut.write_bytes((CZI / "colour.czi").read_bytes()[:9000])
    with pytest.raises(SlideError, match=r"cut\.czi cannot be opened, it may be cut off or damaged"):
        open_slide(cut)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("not a TIFF file: header=b'\\x89PNG'"), "not a TIFF file"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (KeyError(), "no cause is given"),
        (RuntimeError("<zarr.Array object at 0x7f> of\n dtype('uint8')"), "of uint8"),
        (MemoryError(), "there is not enough memory for what it states"),
    ],
)
def test_causes_without_words_of_a_programming_language(error, expected):
    said = plain(error)
    assert expected in said
    assert not any(word in said for word in ("b'", "0x", "dtype", "Errno", "\n", "object at"))
