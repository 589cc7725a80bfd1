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
from wsiseg import PredictOptions, open_map, predict
from wsiseg.geometry import Box
from wsiseg.slides import open_slide

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


def made(way: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Classes (h, w) and probabilities (K, h, w) of the crop."""
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
    found = open_map(folder / "map.zarr")
    return found.class_map().compute(), found.probabilities().compute()


@pytest.mark.parametrize("way", WAYS)
def test_a_map_is_the_one_that_it_was(way: str, tmp_path: Path) -> None:
    with np.load(REFERENCE) as stored:
        classes, facts = stored[way], json.loads(str(stored["facts"]))
    found, probabilities = made(way, tmp_path)
    assert len(np.unique(classes)) >= 3, "a reference that shows nothing proves nothing"
    assert found.shape == classes.shape
    if facts["sums by"] == sums_by():
        assert np.array_equal(found, classes)
        assert hashlib.sha256(probabilities.tobytes()).hexdigest() == facts[way]
    else:
        assert (found != classes).mean() <= OTHER_PROCESSOR


def write_reference() -> None:
    facts, arrays = {"sums by": sums_by()}, {}
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            arrays[way], probabilities = made(way, Path(folder))
        facts[way] = hashlib.sha256(probabilities.tobytes()).hexdigest()
        print(way, arrays[way].shape, np.unique(arrays[way], return_counts=True))
    np.savez_compressed(REFERENCE, facts=json.dumps(facts), **arrays)


if __name__ == "__main__":
    write_reference()
