"""Changes of the code's structure change no byte of a map: the ways of gating, on a crop of a real slide, held against
what the program made of it before.

    python -m tests.prediction.test_same_maps

writes the references anew; it is for changes of the arithmetic, which are stated in the changelog.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from wsiseg import PredictOptions, TissueMap, open_map, predict
from wsiseg.errors import OptionError
from wsiseg.geometry import Box
from wsiseg.slides import open_slide
from wsiseg.tissue_map.gate import NOT_ASKED, OPEN, SHUT, SHUT_ALL_OVER, SHUT_IN_PART

REFERENCE = ROOT / "tests" / "data" / "same_maps.npz"
CROP = Box(1040, 600, 420, 360)
"""Of CMU-1-Small-Region: tumour, stroma, lymphocytes and glass."""

WAYS: dict[str, dict[str, Any]] = {
    "patches": {"gate_mode": "patches", "gate_context": 0.0},
    "patches in context": {"gate_mode": "patches", "gate_context": 1.0},
    "windows": {"gate_mode": "windows"},
    "shared": {"gate_mode": "shared"},
    "published": {"faithful": True},
    "no gate": {"gate": False, "gate_mode": "patches"},
}
OTHER_PROCESSOR = 0.002
"""Share of the pixels that may have another class where the processor or torch sums in another order."""


def sums_by() -> str:
    """What the last bits of a sum depend on."""
    return f"torch {torch.__version__.partition('+')[0]}, {torch.backends.cpu.get_cpu_capability()}"


def made(way: str, folder: Path) -> TissueMap:
    """The map of the crop."""
    from PIL import Image

    with open_slide(ROOT / "sample_data" / "CMU-1-Small-Region.svs") as slide:
        Image.fromarray(slide.read_level(0, CROP).pixels).save(folder / "crop.png")
        mpp = slide.mpp.mean
    options = PredictOptions(
        mpp=mpp, device="cpu", runtime="torch", precision="float32", batch_size=4, workers=2, white=False, **WAYS[way]
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        predict(folder / "crop.png", folder / "map.zarr", options=options)
    finally:
        torch.set_num_threads(threads)
    return open_map(folder / "map.zarr")


def values(found: TissueMap) -> tuple[np.ndarray, np.ndarray]:
    """Classes (h, w) and probabilities (K, h, w)."""
    return found.class_map().compute(), found.probabilities().compute()


@pytest.mark.parametrize("way", WAYS)
def test_a_map_is_the_one_that_it_was(way: str, tmp_path: Path) -> None:
    with np.load(REFERENCE) as stored:
        classes, facts = stored[way], json.loads(str(stored["facts"]))
    whole = made(way, tmp_path)
    found, probabilities = values(whole)
    assert len(np.unique(classes)) >= 3, "a reference that shows nothing proves nothing"
    assert found.shape == classes.shape
    if facts["sums by"] == sums_by():
        assert np.array_equal(found, classes)
        assert hashlib.sha256(probabilities.tobytes()).hexdigest() == facts[way]
    else:
        assert (found != classes).mean() <= OTHER_PROCESSOR
    assert not whole.unread().compute().any()
    assert_gate_is_where_it_shut(whole, way, found, probabilities)


def assert_gate_is_where_it_shut(whole: TissueMap, way: str, classes: np.ndarray, probabilities: np.ndarray) -> None:
    """The places that the map records explain its probabilities, and are as many as it counts."""
    if way == "no gate":
        assert not whole.records_gate
        with pytest.raises(OptionError, match="made without a gate"):
            _ = whole.gate
        return
    box, has_class, seen = Box.from_size(whole.size), (classes > 0) & (classes < 255), set()
    for index, name in enumerate(whole.classes.names, start=1):
        said = whole.read_gate(index, box)
        seen |= set(np.unique(said[has_class]).tolist())
        assert not (said[has_class] == NOT_ASKED).any()
        per_tile = whole.gate.grid.per_tile
        decided = whole.gate.decisions(index) == SHUT
        tiles = decided.reshape(decided.shape[0] // per_tile, per_tile, -1, per_tile).all(axis=(1, 3))
        assert tiles.sum() == whole.metadata["tiles"]["shut"][name]
        if way != "published":  # whose products of logits leave no probability at 0
            assert (probabilities[index - 1][has_class & (said == SHUT_ALL_OVER)] == 0).all()
            assert (said != OPEN).all() or (probabilities[index - 1][has_class & (said == OPEN)] > 0).any()
    assert OPEN in seen
    if way != "patches in context":  # in which nothing of this small crop is shut
        assert seen & {SHUT_IN_PART, SHUT_ALL_OVER}
    if way in ("windows", "shared"):
        assert whole.gate.grid.per_tile > 1
    elif way != "published":
        assert (whole.gate.decisions(0) == SHUT).sum() == whole.metadata["tiles"]["decided"]


def write_reference() -> None:
    facts, arrays = {"sums by": sums_by()}, {}
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            arrays[way], probabilities = values(made(way, Path(folder)))
        facts[way] = hashlib.sha256(probabilities.tobytes()).hexdigest()
        print(way, arrays[way].shape, np.unique(arrays[way], return_counts=True))
    np.savez_compressed(REFERENCE, facts=json.dumps(facts), **arrays)


if __name__ == "__main__":
    write_reference()
