"""What a bundle says of large tiles: checked, and left out where there are none."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.color_model import color_model
from wsiseg.errors import BundleError
from wsiseg.models.folder import SPEC_FILE, find_bundle
from wsiseg.models.spec import parse_spec, read_spec
from wsiseg.models.tile_shape import default_tile

TILES: dict[str, Any] = {"gate_mode": "windows", "tile_px": 192, "tile_margin_px": 16}


def fields(**changes: object) -> dict[str, Any]:
    return {**color_model(patch_px=96, overlap=0.5).spec.model_dump(mode="json"), **changes}


@pytest.mark.parametrize(
    "changes",
    [
        TILES,
        {**TILES, "gate_mode": "shared", "shared_gate": [0.1, 0.2, 0.3]},
        {**TILES, "gate_mode": "patches", "shared_gate": [0.1, 0.2, 0.3]},
        {"gate_mode": "windows", "tile_px": 96},
        {"gate_floor": 0.6},
    ],
)
def test_round_trip(changes: dict[str, Any]) -> None:
    spec = parse_spec(fields(**changes), "test")
    written = json.loads(spec.to_json())
    assert parse_spec(written, "test") == spec
    assert {name: written[name] for name in changes if changes[name] != "patches"} == {
        name: value for name, value in changes.items() if value != "patches"
    }


def test_bundles_without_tiles_are_written_as_before() -> None:
    path = find_bundle("tissue-brca-lite") / SPEC_FILE
    spec = read_spec("tissue-brca-lite")
    text: dict[str, Any] = json.loads(spec.to_json())
    before = json.loads(Path(path).read_text(encoding="utf-8"))
    assert list(text) == list(before)
    plain = parse_spec(fields(gate_mode="patches", tile_px=None, tile_margin_px=0, shared_gate=None), "test")
    assert not {"gate_floor", "gate_mode", "tile_px", "tile_margin_px", "shared_gate"} & set(
        json.loads(plain.to_json())
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gate_floor": 0.0}, "gate_floor"),
        ({"gate_floor": 1.1}, "gate_floor"),
        ({"gate_floor": 0.6, "gate_rule": "multiply_logits"}, "has no floor"),
        ({**TILES, "tile_px": 200}, "nearest is 192"),
        ({**TILES, "tile_px": 48}, "nearest is 96"),
        ({**TILES, "tile_px": 10**6}, "8192"),
        ({**TILES, "tile_margin_px": 96}, "two margins"),
        ({**TILES, "tile_margin_px": -1}, "tile_margin_px"),
        ({**TILES, "tile_px": None}, "needs tile_px"),
        ({**TILES, "gate_mode": "shared"}, "needs shared_gate"),
        ({**TILES, "gate_mode": "shared", "shared_gate": [0.1]}, "one threshold for each of the 3 classes"),
        ({**TILES, "gate_context": 2.0}, "gate_context 0 alone, got 2"),
        ({**TILES, "gate_rule": "multiply_logits"}, "rule exclude alone, got multiply_logits"),
        ({"gate_mode": "wide"}, "gate_mode"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        parse_spec(fields(**changes), "test")


@pytest.mark.parametrize(
    ("patch", "overlap", "tile"),
    [(96, 0.5, (192, 16)), (224, 0.5, (448, 37)), (224, 0.25, (392, 37)), (64, 0, (128, 10))],
)
def test_default_tiles_fit(patch: int, overlap: float, tile: tuple[int, int]) -> None:
    assert default_tile(patch, overlap) == tile
    side, margin = tile
    shape = {"patch_size_px": patch, "overlap": overlap, "tile_px": side, "tile_margin_px": margin}
    assert parse_spec(fields(gate_mode="windows", **shape), "test").tile_px == side
