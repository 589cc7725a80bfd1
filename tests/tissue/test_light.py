"""The light of a slide's glass, and how much of it white lets pass: measured in the tissue."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.color_model import COLORS
from tests.helpers.damage import damaged_copy, no_jpeg
from wsiseg.geometry import Box, Mpp
from wsiseg.prediction.plan import plan
from wsiseg.slides import open_slide
from wsiseg.slides.array import ArrayReader
from wsiseg.tiling.grid import Tiling
from wsiseg.tissue.find import tissue_mask
from wsiseg.tissue.light import LEAST_APART, LEAST_LIGHT, MOST_LIGHT, USUAL_LIGHT, Light, light_of, measured, sample
from wsiseg.tissue.stain import DEFAULT_GLASS, Glass, find_glass
from wsiseg.tissue.white import WhiteRule

SCANNED = Glass((240.0, 238.0, 236.0), 0.01, found=True)
NONE_FOUND = Glass(DEFAULT_GLASS, 0.02, found=False)


def tissue(count: int, lowest: int, highest: int) -> np.ndarray:
    """Pink pixels, (count, 3), whose green is spread evenly over `lowest` to `highest`."""
    green = np.random.default_rng(0).integers(lowest, highest + 1, count)
    return np.stack([np.minimum(255, green + 20), green, np.minimum(255, green + 10)], axis=1).astype(np.uint8)


def lumina(count: int, level: tuple[int, int, int] = (240, 238, 236)) -> np.ndarray:
    """Pixels of glass with noise, (count, 3)."""
    noise = np.random.default_rng(1).normal(0, 1.5, (count, 3))
    return np.clip(np.rint(level + noise), 0, 255).astype(np.uint8)


def test_glass_apart_from_the_tissue_lets_white_be_darker() -> None:
    found = measured(np.concatenate([tissue(900_000, 60, 190), lumina(100_000)]), SCANNED)
    assert (found.glass, found.source, found.share) == (SCANNED.level, "outside", LEAST_LIGHT)
    assert found.apart is not None
    assert found.apart > 0.95


def test_tissue_as_bright_as_glass_asks_for_more() -> None:
    """Pale tissue reaches up to the glass: what is called white is mostly glass, by count."""
    pale, empty = tissue(900_000, 60, 238), lumina(90_000)
    found = measured(np.concatenate([pale, empty]), SCANNED)
    assert USUAL_LIGHT < found.share < MOST_LIGHT
    assert found.apart is not None
    assert found.apart >= LEAST_APART
    rule = WhiteRule.from_light(found, Mpp(1, 1))
    white_tissue, white_glass = rule.bright(pale).sum(), rule.bright(empty).sum()
    assert white_glass > 0.95 * len(empty)
    assert white_glass / (white_glass + white_tissue) == pytest.approx(found.apart, abs=0.05)
    usual = WhiteRule.from_light(Light(found.glass, "outside"), Mpp(1, 1))
    assert usual.bright(pale).sum() > 2 * white_tissue


def test_where_no_glass_is_apart_white_is_as_bright_as_can_be() -> None:
    assert measured(tissue(900_000, 60, 238), SCANNED).share >= 0.96


@pytest.mark.parametrize("count", [0, 10, 1_000_000])
def test_too_little_that_is_bright_leaves_the_usual_share(count: int) -> None:
    found = measured(np.concatenate([tissue(count, 60, 190), lumina(count // 100)]), SCANNED)
    assert found == Light(SCANNED.level, "outside", USUAL_LIGHT, None)


def test_a_filled_outside_gives_way_to_the_lumina() -> None:
    pixels = np.concatenate([tissue(900_000, 60, 190), lumina(100_000, (250, 248, 249))])
    filled = Glass((243.0, 243.0, 243.0), 0.0, found=True, filled=True)
    for outside in (filled, NONE_FOUND):
        found = measured(pixels, outside)
        assert found.source == "inside"
        assert found.glass == pytest.approx((250, 248, 249), abs=0.5)
    dark = np.concatenate([tissue(900_000, 60, 190), lumina(100_000, (200, 199, 198))])
    assert measured(dark, filled).glass == filled.level  # pale tissue is no glass
    assert measured(dark, NONE_FOUND).source == "assumed"


def test_constant_glass_is_known_from_scanned(sample_data: Path) -> None:
    picture = np.full((200, 200, 3), 243, np.uint8)
    picture[50:100, 50:100] = COLORS[1]
    assert find_glass(picture).filled
    noisy = np.clip(picture + np.random.default_rng(0).normal(0, 2, picture.shape), 0, 255).astype(np.uint8)
    assert not find_glass(noisy).filled
    with open_slide(sample_data / "CMU-1-Small-Region.svs") as slide:
        mask = tissue_mask(slide)
        assert mask.glass is not None
        assert not mask.glass.filled


def test_the_light_of_a_slide_is_the_same_however_tissue_is_found(sample_data: Path) -> None:
    with open_slide(sample_data / "CMU-1-Small-Region.svs") as slide:
        found = light_of(slide, tissue_mask(slide))
        assert light_of(slide, tissue_mask(slide, "none")) == found
        assert 0.84 <= found.share <= 0.87
        assert found.source == "outside"


def test_the_sample_is_the_tissue_without_what_is_damaged(tmp_path: Path, sample_data: Path) -> None:
    source = sample_data / "CMU-1-Small-Region.svs"
    with open_slide(source) as slide:
        mask = tissue_mask(slide)
        grid = slide.grid(1.0)
        box = Box.from_size(grid.size)
        region = slide.read(grid, box).pixels[mask.rows(grid, box)]
        found = sample(slide, mask)
        whole = light_of(slide, mask)
        assert len(found) == len(region)
        assert np.array_equal(found.sum(axis=0, dtype=np.int64), region.sum(axis=0, dtype=np.int64))
    with open_slide(damaged_copy(source, tmp_path / "d.svs", [44, 47, 84, 95], no_jpeg)) as slide:
        assert 0 < len(found) - len(sample(slide, mask)) < 4 * 125**2
        assert light_of(slide, mask).share == pytest.approx(whole.share, abs=0.011)


def pale_slide() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A slide whose outside is filled in, with tissue that reaches up to its glass; pixels, tissue, lumina."""
    random = np.random.default_rng(2)
    pixels = np.full((1400, 1400, 3), 235, np.uint8)
    inside = np.zeros((1400, 1400), bool)
    inside[100:1300, 100:1300] = True
    empty = np.zeros_like(inside)
    for y in range(200, 1200, 200):
        for x in range(200, 1200, 200):
            empty[y : y + 80, x : x + 80] = True  # small enough to lie inside the mask of the tissue
    pixels[inside] = COLORS[1]
    # Mucin: blobs of 20 px, each of one brightness up to that of glass.
    blobs = random.integers(150, 245, (60, 60)).repeat(20, axis=0).repeat(20, axis=1)
    mucin = np.zeros_like(inside)
    mucin[100:1300, 100:1300] = random.random((60, 60)).repeat(20, axis=0).repeat(20, axis=1) < 0.7
    values = np.zeros((1400, 1400), np.int64)
    values[100:1300, 100:1300] = blobs
    pixels[mucin] = np.stack([values, values - 4, values], axis=-1)[mucin]
    pixels[empty] = lumina(int(empty.sum()), (249, 248, 249))
    return pixels, inside & ~empty, empty


def test_pale_tissue_beside_lumina_keeps_its_class() -> None:
    pixels, solid, empty = pale_slide()
    with ArrayReader(pixels, path="pale.png", stated_mpp=Mpp(1.0, 1.0)) as slide:
        rule = plan(slide, 1.0, Tiling(64, 16), white=True).white
    assert rule is not None
    assert rule.light.source == "inside"
    assert rule.light.share > 0.9
    white = rule.parts(rule.bright(pixels))
    assert white[empty].mean() > 0.99
    usual = WhiteRule.from_light(Light((235.0, 235.0, 235.0), "outside"), Mpp(1.0, 1.0))
    assert white[solid].sum() < 0.6 * usual.parts(usual.bright(pixels))[solid].sum()


def test_the_white_of_a_pale_section_is_mostly_lumina(shared: Path) -> None:
    with open_slide(shared / "data" / "slides" / "colon-section.tif", mpp=0.5) as slide:
        light = light_of(slide, tissue_mask(slide))
        assert light.source == "inside"
        assert 0.93 <= light.share <= MOST_LIGHT
        grid = slide.grid(1.0)
        fields = {name: slide.read(grid, Box(x, y, 500, 500)).pixels for name, x, y in FIELDS}
    rule, usual = (WhiteRule.from_light(of, Mpp(1, 1)) for of in (light, Light((243.0, 243.0, 243.0), "outside")))
    share = {name: rule.parts(rule.bright(field)).mean() for name, field in fields.items()}
    before = {name: usual.parts(usual.bright(field)).mean() for name, field in fields.items()}
    assert share["mucin"] < 0.3 * before["mucin"]
    assert share["stroma"] < 0.35 * before["stroma"]
    assert share["cavity"] > 0.9 * before["cavity"]


FIELDS = (("mucin", 4980, 5300), ("stroma", 2560, 8000), ("cavity", 4320, 8960))
