"""Where the gate shut classes: the map's places are those of the patches that it counts, also in context."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.color_model import color_model
from tests.helpers.maps import painted
from wsiseg.errors import BundleError, OptionError
from wsiseg.geometry import Box
from wsiseg.prediction.gate_places import PiecePlaces, decisions, owned, packed
from wsiseg.prediction.plan import Plan
from wsiseg.prediction.run import PredictOptions, predict
from wsiseg.tiling.grid import TileGrid
from wsiseg.tiling.pieces import pieces_of
from wsiseg.tissue_map.gate import NOT_ASKED, OPEN, SHUT, SHUT_ALL_OVER
from wsiseg.tissue_map.reader import open_map


@pytest.mark.parametrize("context", [0.0, 0.5])
def test_places_explain_the_probabilities(tmp_path: Path, context: float) -> None:
    """Of three colours in rectangles, far patches hold one alone: the others are shut there."""
    painted(tmp_path / "p.png", (400, 600))
    options = PredictOptions(mpp=1, tissue="none", white=False, gate_context=context)
    result = predict(tmp_path / "p.png", tmp_path / "m.zarr", color_model(gate=0.2), options)
    found = open_map(tmp_path / "m.zarr")
    box = Box.from_size(found.size)
    for index, count in enumerate(result.counts.shut, start=1):
        assert (found.gate.decisions(index) == SHUT).sum() == count
        shut = found.read_gate(index, box) == SHUT_ALL_OVER
        assert (found.read_probability(index, box)[shut] == 0).all()
    assert sum(result.counts.shut) > 0
    assert (found.gate.decisions(0) == SHUT).sum() == result.counts.decided


def test_a_floor_opens_what_a_threshold_shuts(tmp_path: Path) -> None:
    """With thresholds that nothing reaches, the most probable class alone is left, or all that come near enough."""
    painted(tmp_path / "p.png", (400, 600))
    options = PredictOptions(mpp=1, tissue="none", white=False, gate_threshold=1.0)
    shut = {}
    for floor in (None, 1.0, 1e-3, 1e-30):
        asked = replace(options, gate_floor=floor)
        found = predict(tmp_path / "p.png", tmp_path / f"{floor}.zarr", color_model(gate=0.2), asked)
        shut[floor] = found.counts.shut
        parameters = open_map(tmp_path / f"{floor}.zarr").metadata["parameters"]
        assert parameters["gate_floor"] == floor
    assert all(a >= b for a, b in zip(shut[None], shut[1.0], strict=True))  # a floor of 1 leaves equals
    assert sum(shut[1.0]) > sum(shut[1e-3]) > sum(shut[1e-30]) == 0


def test_the_published_rule_has_no_floor() -> None:
    spec = color_model(gate=0.2).spec
    floored = spec.model_copy(update={"gate_floor": 0.6})
    assert PredictOptions().resolved_by(floored, "cpu").gate_floor == 0.6
    assert PredictOptions(faithful=True).resolved_by(floored, "cpu").gate_floor is None
    with pytest.raises(BundleError, match="has no floor"):
        PredictOptions(faithful=True, gate_floor=0.6).resolved_by(spec, "cpu")
    with pytest.raises(OptionError, match="above 0 up to 1, got 0"):
        PredictOptions(gate_floor=0.0)


@pytest.mark.parametrize(("stride", "per_tile"), [(48, 1), (160, 3)])
@pytest.mark.parametrize("piece_px", [512, 1024])
def test_pieces_give_back_what_was_decided_whatever_their_size(stride: int, per_tile: int, piece_px: int) -> None:
    """Cells of the gate and pieces of the map share no borders; each patch is known to one piece."""
    rng = np.random.default_rng(2)
    patch = 96 if per_tile == 1 else 192
    size = Box(0, 0, 2300, 1700).size
    tiles = TileGrid(size, patch, patch - stride)
    selected = rng.random((tiles.rows, tiles.columns)) < 0.6
    opened = rng.random((tiles.rows, tiles.columns, per_tile**2, 4)) < 0.5
    plan = Plan(None, None, tiles, selected)  # type: ignore[arg-type]  (neither slide nor tissue is looked at)
    pieces, booked = pieces_of(tiles, selected, piece_px), {}
    for piece in pieces:
        places = PiecePlaces(piece, tiles)
        rows, columns = owned(piece, tiles)
        mine = [tile for tile in tiles.tiles(selected) if piece.owns(tile)]
        assert all(tile.row in rows and tile.column in columns for tile in mine)
        if mine:
            places.add(mine, np.array([opened[tile.row, tile.column] for tile in mine]))
        booked[piece.index] = packed(places.opened)
    for index, found in enumerate(decisions(pieces, plan, booked, per_tile, 4)):
        for row in range(tiles.rows):
            for column in range(tiles.columns):
                cell = found[row * per_tile : (row + 1) * per_tile, column * per_tile : (column + 1) * per_tile]
                wanted = np.where(opened[row, column, :, index].reshape(per_tile, per_tile), OPEN, SHUT)
                assert np.array_equal(cell, wanted if selected[row, column] else np.full_like(wanted, NOT_ASKED))
