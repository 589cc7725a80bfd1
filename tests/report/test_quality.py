"""Flags: of maps as they say of themselves, of slides with real pixels blurred and written upon."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from tests.helpers.report_maps import S, ground, made_map, striped
from wsiseg.report.coarse import CoarseMap
from wsiseg.report.focus import SHARP, focus_of, sharpness
from wsiseg.report.quality import Flag, map_flags, slide_flags
from wsiseg.slides import open_slide
from wsiseg.tissue.find import stained_tissue
from wsiseg.tissue_map.reader import open_map


@pytest.fixture(scope="module")
def pixels(sample_data: Path) -> np.ndarray:
    """The whole of a real slide at its own 0.5 um, (h, w, 3)."""
    with open_slide(sample_data / "CMU-1-Small-Region.svs") as slide:
        grid = slide.grid(0.5)
        from wsiseg.slides.overview import read_picture

        return read_picture(slide, grid)


def saved(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    return np.rint(ndimage.gaussian_filter(pixels.astype(np.float32), (sigma, sigma, 0))).astype(np.uint8)


def by_name(flags: list[Flag] | tuple[Flag, ...]) -> dict[str, Flag]:
    return {flag.name: flag for flag in flags}


def test_sharp_and_blurred_squares_are_told_apart(pixels: np.ndarray) -> None:
    square = pixels[1800:2056, 800:1056]
    sharp = sharpness(square)
    assert sharp is not None and sharp > 1.5 * SHARP
    values = [sharpness(blurred(square, sigma)) for sigma in (1.5, 2, 3)]
    assert all(value is not None and value <= SHARP for value in values)
    # Neither paler nor darker tissue is less sharp.
    for other in (128 + square // 2, square // 2):
        assert sharpness(other.astype(np.uint8)) == pytest.approx(sharp, rel=0.1)
    assert sharpness(np.full((256, 256, 3), 240, np.uint8)) is None


def test_a_slide_out_of_focus_is_flagged(pixels: np.ndarray, tmp_path: Path) -> None:
    for name, picture, state in (("sharp", pixels, "ok"), ("blurred", blurred(pixels, 2), "flagged")):
        with open_slide(saved(tmp_path / f"{name}.png", picture), mpp=0.499) as slide:
            flag = by_name(slide_flags(slide))["blur"]
            assert flag.state == state, flag.text
            assert "squares of tissue are out of focus" in flag.text
    half = pixels.copy()
    half[1500:] = blurred(pixels, 2)[1500:]
    with open_slide(saved(tmp_path / "half.png", half), mpp=0.499) as slide:
        found = focus_of(slide, stained_tissue(slide))
        assert found is not None
        assert 0.3 < found.share < 0.8
    with open_slide(tmp_path / "sharp.png", mpp=1.0) as slide:
        assert by_name(slide_flags(slide))["blur"].state == "not judged"


@pytest.mark.parametrize("ink", [(20, 60, 160), (15, 110, 60), (25, 25, 25)])
def test_pen_marks_are_flagged(pixels: np.ndarray, tmp_path: Path, ink: tuple[int, int, int]) -> None:
    picture = Image.fromarray(pixels)
    ImageDraw.Draw(picture).line([(150, 2500), (150, 400), (1900, 200)], fill=ink, width=330)
    picture.save(tmp_path / "pen.png")
    with open_slide(tmp_path / "pen.png", mpp=0.499) as slide:
        flag = by_name(slide_flags(slide))["pen"]
    assert flag.state == "flagged"
    assert flag.value is not None
    drawn = (2100 + 1750) * 330 / (pixels.shape[0] * pixels.shape[1])
    assert flag.value == pytest.approx(drawn, rel=0.35)


def test_a_clean_slide_has_no_pen(pixels: np.ndarray, tmp_path: Path) -> None:
    with open_slide(saved(tmp_path / "clean.png", pixels), mpp=0.499) as slide:
        flags = by_name(slide_flags(slide))
    assert (flags["pen"].state, flags["pen"].text) == ("ok", "no pen marks")


def test_without_a_slide_nothing_is_judged() -> None:
    flags = slide_flags(None, "the slide was not given")
    assert {flag.state for flag in flags} == {"not judged"}
    assert [flag.name for flag in flags] == ["pen", "blur"]


def flags_of(path: Path) -> dict[str, Flag]:
    return by_name(map_flags(CoarseMap.of(open_map(path))))


def test_low_confidence_unread_and_empty(tmp_path: Path) -> None:
    sure = flags_of(made_map(tmp_path / "sure.zarr", striped(1, 1), confidence=0.9))
    assert {name for name, flag in sure.items() if flag.state != "ok"} == {"stain"}
    assert sure["stain"].state == "not judged"
    assert sure["low_confidence"].value == 0
    unsure = flags_of(made_map(tmp_path / "unsure.zarr", striped(1, 1), confidence=0.5))["low_confidence"]
    assert (unsure.state, unsure.value) == ("flagged", 1.0)
    without = flags_of(made_map(tmp_path / "without.zarr", striped(1, 1), probabilities=False))["low_confidence"]
    assert without.state == "not judged"

    def unread(about: dict[str, Any]) -> None:
        about["unread_mm2"] = 0.25

    flag = flags_of(made_map(tmp_path / "unread.zarr", striped(1, 1), change=unread))["unread"]
    assert flag.state == "flagged"
    assert flag.value == pytest.approx(0.25, rel=0.02)
    empty = flags_of(made_map(tmp_path / "empty.zarr", ground(1, 1, 0)))
    assert (empty["tissue"].state, empty["low_confidence"].value) == ("flagged", 0)


@pytest.mark.parametrize(
    ("tiles", "state", "words"),
    [
        ({"read": 80, "decided": 8, "shut": {"Tumour": 80, "Stroma": 3}}, "flagged", "it shut Tumour in every patch"),
        ({"read": 80, "decided": 79, "shut": {"Tumour": 70}}, "flagged", "one class alone in 99%"),
        ({"read": 80, "decided": 8, "shut": {"Tumour": 70}}, "ok", "one class alone in 10%"),
        ("nonsense", "not judged", "does not say"),
        ({"read": 0}, "not judged", "does not say"),
    ],
)
def test_the_gate(tmp_path: Path, tiles: object, state: str, words: str) -> None:
    def change(about: dict[str, Any]) -> None:
        about["tiles"] = tiles

    flag = flags_of(made_map(tmp_path / "m.zarr", ground(0.5, 0.5, S), change=change))["gate"]
    assert flag.state == state
    assert words in flag.text


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        ({"share": 0.62, "known": 1.0}, "flagged", "62% of the tissue looks unlike this model's training data"),
        ({"share": 0.04, "known": 1.0}, "ok", "4% of the tissue"),
        ({"share": None, "known": 0.0}, "not judged", "does not hold"),
        ({"share": 7, "known": 1.0}, "not judged", "does not hold"),
        ("nonsense", "not judged", "does not hold"),
    ],
)
def test_what_looks_unlike_the_training_data(tmp_path: Path, said: object, state: str, words: str) -> None:
    def change(about: dict[str, Any]) -> None:
        about["distance"] = said

    flag = flags_of(made_map(tmp_path / "m.zarr", ground(0.5, 0.5, S), change=change))["stain"]
    assert (flag.name, flag.state) == ("stain", state)
    assert words in flag.text
