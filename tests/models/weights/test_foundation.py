"""The table of pathology encoders: the page has it, and each is built as its authors publish it."""

from pathlib import Path

import pytest
import torch

from wsiseg.models.networks.architectures import build_network
from wsiseg.models.networks.lite import LiteClassifier
from wsiseg.models.networks.timm_encoders import features
from wsiseg.models.networks.unfilled import unfilled
from wsiseg.models.weights.foundation import FOUNDATION, Foundation, foundation_of

PAGE = Path(__file__).parents[3] / "docs" / "encoders.md"

WIDTHS = {
    **{"uni": 1024, "uni2-h": 1536, "virchow": 1280, "virchow2": 1280, "gigapath": 1536, "h-optimus-0": 1536},
    **{"h-optimus-1": 1536, "h0-mini": 768, "phikon": 768, "phikon-v2": 1024, "conch-v1.5": 1024},
    **{"hibou-b": 768, "hibou-l": 1024, "midnight-12k": 1536},
}
"""Channels of each one's cells, as published."""

MILLIONS = {"uni": 303, "uni2-h": 681, "virchow2": 631, "gigapath": 1135, "h-optimus-1": 1135, "h0-mini": 86}
"""Numbers in each, as published."""


def row(name: str, entry: Foundation) -> str:
    mean, std = (", ".join(f"{value:g}" for value in values) for values in entry.normalisation)
    shared = "yes" if entry.may_be_shared else "no, it asks for them"
    return (
        f"| `{name}` | {entry.hub} | {entry.input_px} px, cells of {entry.arguments['patch_size']} "
        f"| {mean} / {std} | {entry.licence} | {shared} |"
    )


def test_the_page_has_the_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, entry in FOUNDATION.items():
        assert row(name, entry) in page


def test_names_and_hubs_lead_to_the_same() -> None:
    assert foundation_of("UNI2-h") is foundation_of("hf-hub:MahmoodLab/UNI2-h") is FOUNDATION["uni2-h"]
    assert foundation_of("resnet18") is None
    assert set(WIDTHS) == set(FOUNDATION)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUNDATION)
def test_each_is_built_as_published(name: str) -> None:
    """Whole on the meta device, where 1.1 thousand million numbers take no memory; two of its blocks with numbers."""
    entry = FOUNDATION[name]
    with unfilled():
        whole = features(entry.architecture, entry.arguments)
    assert whole.feature_info.channels() == [WIDTHS[name]] * 4
    count = sum(parameter.numel() for parameter in whole.parameters()) / 1e6
    assert count == pytest.approx(MILLIONS.get(name, count), rel=0.02)
    few = {**entry.arguments, "depth": 3}
    network = build_network(
        "classifier", "lite_classifier", 3, {"encoder": entry.architecture, "encoder_arguments": few}
    ).eval()
    assert isinstance(network, LiteClassifier)
    side = 8 * int(str(entry.arguments["patch_size"]))
    with torch.no_grad():
        found = network.features(torch.rand(1, 3, side, side))
    assert found["deep"].shape == (1, WIDTHS[name], 8, 8)
    assert network.head(found["head"]).isfinite().all()
