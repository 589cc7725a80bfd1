"""Maps of coarse probabilities: what they keep is that of a full map, and what is finer is an estimate, or refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaozarrs
import zarr
from ome_zarr_models import open_ome_zarr

from tests.helpers.maps import chunks, grid_of, write_map
from tests.helpers.stored_maps import stored_map
from wsiseg.errors import MapError, OptionError
from wsiseg.geometry import Box, Size
from wsiseg.tissue_map.ome import level_sizes
from wsiseg.tissue_map.probability_levels import COARSE, FULL, ProbabilityLevels
from wsiseg.tissue_map.pyramid import halved
from wsiseg.tissue_map.reader import TissueMap, open_map

Pair = tuple[TissueMap, TissueMap]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The same map with all probabilities and with coarse ones; smooth, with white and glass, of odd sides."""
    folder = tmp_path_factory.mktemp("maps")
    stored_map(folder / "full.zarr", Size(1301, 1103))
    stored_map(folder / "coarse.zarr", Size(1301, 1103), probabilities="coarse")
    return open_map(folder / "full.zarr"), open_map(folder / "coarse.zarr")


def whole(tissue_map: TissueMap, level: int) -> Box:
    return Box.from_size(tissue_map.grid.coarsen(2**level))


def test_the_class_map_has_the_bytes_of_a_full_map_and_the_whole_is_a_fraction(pair: Pair) -> None:
    full, coarse = pair
    assert chunks(coarse.path / "labels") == chunks(full.path / "labels") != {}
    sizes = [sum(f.stat().st_size for f in one.path.rglob("*") if f.is_file()) for one in pair]
    assert sizes[0] > 4 * sizes[1]
    assert (full.probability_levels, coarse.probability_levels) == (FULL, COARSE)


def test_kept_levels_are_those_of_a_full_map_in_steps(pair: Pair) -> None:
    full, coarse = pair
    assert coarse.levels == full.levels
    assert list(coarse.levels_with_probabilities) == [2, 3, 4]
    exact, kept = (one.probabilities(2).compute() for one in pair)
    assert np.array_equal(kept, COARSE.rounded(exact))
    assert np.abs(kept.astype(int) - exact).max() == 2  # of 255, and no more
    assert set(np.unique(kept)) <= set(range(0, 256, 5))
    for level in (3, 4):
        kept = halved(kept, labels=False)
        assert np.array_equal(coarse.probabilities(level).compute(), kept)
        assert np.array_equal(coarse.read_probability(2, whole(coarse, level), level), kept[1])


@pytest.mark.parametrize("level", [0, 1])
def test_finer_levels_are_refused_where_they_are_asked_for_as_they_are(pair: Pair, level: int) -> None:
    coarse = pair[1]
    for read in (lambda: coarse.probabilities(level), lambda: coarse.read_probability(1, Box(0, 0, 5, 5), level)):
        with pytest.raises(OptionError, match=r"coarse probabilities, at levels 2 to 4 \(2 um.*--probabilities full"):
            read()


@pytest.mark.parametrize("level", [0, 1, 2])
def test_estimates_are_near_and_zero_where_no_class_is(pair: Pair, level: int) -> None:
    full = pair[0]
    box = whole(full, level)
    classes = full.read(box, level)
    exact, found = (one.estimate_probabilities(box, level).astype(int) for one in pair)
    inside = (classes > 0) & (classes < 255)
    assert found.shape == exact.shape
    assert np.abs(found.sum(axis=0)[inside] - exact.sum(axis=0)[inside]).mean() < 3  # of 255: they add up to one
    if level == 0:
        assert not found[:, ~inside].any()
    uncertainty, estimate = (255 - values.max(axis=0)[inside] for values in (exact, found))
    assert estimate.mean() == pytest.approx(uncertainty.mean(), rel=0.02)  # of noise; real maps are in test_coarse_maps
    assert np.abs(estimate - uncertainty).mean() < 0.05 * uncertainty.mean()
    blocks = exact[:, ::4, ::4].repeat(4, 1).repeat(4, 2)[:, : box.height, : box.width]  # what is not interpolated
    assert np.abs(found - exact)[:, inside].mean() < 0.5 * np.abs(blocks - exact)[:, inside].mean()


def test_a_box_is_estimated_as_the_whole_is(pair: Pair) -> None:
    coarse = pair[1]
    values = coarse.estimate_probabilities(whole(coarse, 0)).astype(int)
    for box in (Box(611, 307, 1, 1), Box(500, 3, 203, 99), Box(1200, 1000, 101, 103), Box(1300, 1102, 1, 1)):
        found = coarse.estimate_probabilities(box)
        assert np.abs(found - values[(slice(None), *box.slices())]).max() <= 3, box  # rounding within the kernel
    with pytest.raises(OptionError):
        coarse.estimate_probabilities(Box(1300, 1100, 2, 2))


@pytest.mark.parametrize("size", [Size(1301, 2301), Size(224, 224), Size(1, 600), Size(3, 2)], ids=str)
def test_two_independent_validators_accept_it_and_its_pixels_lie_where_the_classes_are(
    tmp_path: Path, size: Size
) -> None:
    path = tmp_path / "map.zarr"
    write_map(path, size, probabilities="coarse", piece_px=1024)
    for place in (path, path / "labels" / "tissue"):
        yaozarrs.validate_zarr_store(str(place))
        assert open_ome_zarr(zarr.open_group(place, mode="r")).ome_zarr_version == "0.5"
    image, labels = (
        zarr.open_group(place, mode="r").attrs["ome"]["multiscales"][0]["datasets"]
        for place in (path, path / "labels" / "tissue")
    )
    assert len(image) == len(labels) == len(level_sizes(size))
    for index, dataset in enumerate(image):
        scale, translation = (
            dataset["coordinateTransformations"][n][k] for n, k in enumerate(("scale", "translation"))
        )
        um = 0.5 * 4 * 2**index
        assert scale == [1, um, um]
        assert translation == [0, (um - 0.5) / 2, (um - 0.5) / 2]  # a centre lies amid those of its map pixels
        shape = zarr.open_array(path / dataset["path"], mode="r").shape
        assert shape == (3, *grid_of(size).coarsen(4 * 2**index).shape)
    found = open_map(path)
    assert found.estimate_probabilities(Box.from_size(size)).shape == (3, *size.shape)


def test_older_programs_are_told_by_the_format(pair: Pair) -> None:
    full, coarse = (json.loads((one.path / "zarr.json").read_text())["attributes"]["wsiseg"] for one in pair)
    assert (full["format"], full["probabilities"]) == (2, True)
    assert (coarse["format"], coarse["probabilities"]) == (3, {"first_level": 2, "step": 5})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"first_level": 9, "step": 5}, "first_level"),
        ({"first_level": 2}, "first_level"),
        ({"first_level": True, "step": 5}, "first_level"),
        ("coarse", "first_level"),
        ({"first_level": 1, "step": 5}, "damaged|levels|px"),
        (True, "damaged|levels|px"),
    ],
)
def test_metadata_that_cannot_be_right_is_refused(tmp_path: Path, wrong: object, said: str) -> None:
    path = tmp_path / "m.zarr"
    write_map(path, Size(300, 200), probabilities="coarse")
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["wsiseg"]["probabilities"] = wrong
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(MapError, match=said):
        open_map(path)


def test_steps_keep_what_decides() -> None:
    values = np.arange(256, dtype=np.uint8)
    found = COARSE.rounded(values).astype(int)
    assert (found[0], found[255]) == (0, 255)
    assert np.abs(found - values).max() == 2
    for least in (0.5, 0.6):  # of an uncertain pixel; of the report's flag
        assert np.array_equal(found < least * 255, values < least * 255)
    for kept in (FULL, COARSE, ProbabilityLevels(3, 1)):
        assert ProbabilityLevels.from_json(kept.to_json()) == kept
