"""Looking at a map of coarse probabilities: what is interpolated is near what a full map has, and is said to be so."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.helpers.stored_maps import stored_map
from wsiseg.errors import OptionError
from wsiseg.geometry import Box, Size
from wsiseg.server.view.cases import ShownMap
from wsiseg.server.view.facts import map_facts
from wsiseg.server.view.map_tiles import uncertainty, value_tile
from wsiseg.server.view.places import at, uncertain_regions
from wsiseg.tissue_map.reader import TissueMap, open_map

SIZE = Size(1301, 1107)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[TissueMap, TissueMap]:
    """The same map with all of its probabilities, and with coarse ones."""
    folder = tmp_path_factory.mktemp("coarse")
    stored_map(folder / "full.zarr", SIZE)
    stored_map(folder / "coarse.zarr", SIZE, probabilities="coarse")
    return open_map(folder / "full.zarr"), open_map(folder / "coarse.zarr")


def test_the_page_is_told_that_probabilities_are_interpolated(both: tuple[TissueMap, TissueMap]) -> None:
    found = [map_facts(ShownMap("0", one)) for one in both]
    assert [one["probabilities"] for one in found] == [True, True]
    assert [one["interpolated_from_um"] for one in found] == [None, 2.0]


def test_under_the_pointer(both: tuple[TissueMap, TissueMap]) -> None:
    full, coarse = both
    rng = np.random.default_rng(1)
    errors = []
    for x, y in rng.uniform((0, 0), (SIZE.width * full.grid.step_x, SIZE.height * full.grid.step_y), (40, 2)):
        truth, found = at(full, x, y), at(coarse, x, y)
        assert truth is not None and found is not None
        assert found["class"] == truth["class"]
        if found["class"] in (0, 255):
            assert found["probabilities"] == [0.0, 0.0, 0.0]
        else:
            assert sum(found["probabilities"]) == pytest.approx(1, abs=0.01)
            errors.append(np.abs(np.subtract(found["probabilities"], truth["probabilities"])).max())
    assert len(errors) > 20
    assert max(errors) < 0.05


@pytest.mark.parametrize("level", [0, 1, 2])
def test_heat_maps(both: tuple[TissueMap, TissueMap], level: int) -> None:
    box = Box(300, 200, 512, 300).intersect(Box.from_size(both[0].grid.coarsen(2**level)))
    classes = both[0].read(box, level)
    inside = (classes > 0) & (classes != 255)
    assert inside.any()
    for values in (1, 3, "uncertainty"):
        full, coarse = (
            np.asarray(Image.open(io.BytesIO(value_tile(one, values, level, box)))).astype(int) for one in both
        )
        assert np.abs(full - coarse)[inside].mean() < 2
    with pytest.raises(OptionError, match="a class from 1 to 3, got 4"):
        value_tile(both[1], 4, level, box)


def test_mean_uncertainty_and_the_least_certain_regions(both: tuple[TissueMap, TissueMap]) -> None:
    """The borders of these drawn classes are sharper than those of any network: on slides it is 1 %."""
    box = Box.from_size(SIZE)
    classes = both[0].read(box)
    inside = (classes > 0) & (classes != 255)
    truth, found = (uncertainty(one, box, 0)[inside].mean() for one in both)
    assert found == pytest.approx(truth, rel=0.02)
    regions = [{(one["x"], one["y"]): one["mean"] for one in uncertain_regions(source)} for source in both]
    assert regions[0].keys() == regions[1].keys()
    for place, mean in regions[0].items():
        assert regions[1][place] == pytest.approx(mean, rel=0.02)
