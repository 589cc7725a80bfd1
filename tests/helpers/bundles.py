"""Small bundles for tests of what goes round the networks."""

from pathlib import Path

import torch

from wsiseg.models.bundle import save_bundle
from wsiseg.models.networks.architectures import build_network


def coarse_bundle(folder: Path, mpp: float = 4.0) -> Path:
    """The lite networks with random weights and a small encoder, at a coarse resolution: a real bundle, and quick."""
    torch.manual_seed(0)
    arguments = {"encoder": "mobilenetv3_small_050"}
    network = {"mean": [0.5] * 3, "std": [0.5] * 3, "arguments": arguments}
    fields = {
        "classes": [{"index": i, "name": n, "color": [80 * i, 0, 0]} for i, n in enumerate("ABC", start=1)],
        "mpp": mpp,
        "patch_size_px": 96,
        "gate_threshold": 0.0,
        "networks": {
            "classifier": {"architecture": "lite_classifier", **network},
            "segmenter": {"architecture": "lite_segmenter", **network},
        },
        "licence": "Apache-2.0",
        "training_data": "none",
    }
    save_bundle(folder, fields, build_network("classifier", "lite_classifier", 3, arguments),
                build_network("segmenter", "lite_segmenter", 3, arguments))  # fmt: skip
    return folder
