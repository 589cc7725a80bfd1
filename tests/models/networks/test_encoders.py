"""Encoders that cannot be dilated: built, learned from, read at three depths, shown tiles of other sizes, exported."""

import pytest
import torch
from torch.nn import functional as F

from wsiseg.errors import BundleError, OptionError
from wsiseg.models.large_tiles import Windows
from wsiseg.models.networks.architectures import build_network
from wsiseg.models.networks.classifier import Classifier
from wsiseg.models.networks.fit_encoder import fitted
from wsiseg.models.networks.lite import LiteClassifier, LiteSegmenter
from wsiseg.models.networks.timm_encoders import TimmEncoder, can_be_dilated
from wsiseg.models.runtime.openvino import OpenVinoNetwork
from wsiseg.models.runtime.patch_network import PatchNetwork, close, probe_patches
from wsiseg.models.tile_shape import check_sides
from wsiseg.training.pseudo_masks import gradient_maps

VIT14 = {
    "encoder": "vit_tiny_patch16_224",
    "encoder_arguments": {
        **{"patch_size": 14, "img_size": 56, "embed_dim": 32, "depth": 4, "num_heads": 2},
        **{"dynamic_img_size": True, "reg_tokens": 2, "mlp_layer": "swiglu_packed", "act_layer": "silu"},
    },
}
VIT16 = {"encoder": "test_vit"}
WINDOWS = {"encoder": "test_maxvit"}

FAMILIES = [
    *("densenet121", "hrnet_w18_small", "vgg11", "vit_tiny_patch16_224", "vit_small_patch14_dinov2"),
    *("swin_tiny_patch4_window7_224", "maxvit_rmlp_pico_rw_256", "pvt_v2_b0", "fastvit_t8", "eva02_tiny_patch14_224"),
]
"""What people ask for, as timm has it: large enough to be slow to build."""


def of_patch(arguments: dict[str, object], patch_px: int) -> dict[str, object]:
    known = arguments if "encoder_arguments" in arguments else fitted(str(arguments["encoder"]), patch_px)
    return {**arguments, **known}


def both(arguments: dict[str, object], patch_px: int = 96) -> tuple[LiteClassifier, LiteSegmenter]:
    torch.manual_seed(0)
    given = of_patch(arguments, patch_px)
    classifier = build_network("classifier", "lite_classifier", 3, given)
    segmenter = build_network("segmenter", "lite_segmenter", 3, given)
    assert isinstance(classifier, LiteClassifier)
    assert isinstance(segmenter, LiteSegmenter)
    return classifier, segmenter


def check_learns_and_shows(classifier: LiteClassifier, segmenter: LiteSegmenter) -> None:
    """One step changes the encoder of both, and each depth has a map of its own of each class."""
    images = torch.rand(2, 3, 96, 96)
    for network in (classifier, segmenter):
        before = {name: tensor.clone() for name, tensor in network.extractor.named_parameters()}
        optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
        logits = network.train()(images)
        loss = F.cross_entropy(logits, torch.zeros(logits.shape[0], *logits.shape[2:], dtype=torch.long))
        loss.backward()
        optimiser.step()
        changed = [name for name, tensor in network.extractor.named_parameters() if not tensor.equal(before[name])]
        assert len(changed) > len(before) / 2
        network.eval()
    maps = gradient_maps(classifier, images)
    assert tuple(maps) == classifier.depths
    for values in maps.values():
        assert values.shape[:2] == (2, 3)
        assert values.abs().amax(dim=(2, 3)).min() > 0
    with torch.no_grad():
        for size in ((96, 96), (100, 70)):
            assert segmenter(torch.rand(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("arguments", [VIT14, VIT16, WINDOWS], ids=["vit14", "vit16", "maxvit"])
def test_encoders_without_dilation_learn(arguments: dict[str, object]) -> None:
    assert not can_be_dilated(str(arguments["encoder"]))
    check_learns_and_shows(*both(arguments))


@pytest.mark.slow
@pytest.mark.parametrize("encoder", FAMILIES)
def test_every_family_learns_and_is_exported(encoder: str) -> None:
    classifier, segmenter = both({"encoder": encoder})
    check_learns_and_shows(classifier, segmenter)
    check_openvino(classifier, segmenter, 96)


def check_openvino(classifier: Classifier, segmenter: LiteSegmenter, side: int) -> None:
    segmenter.add_shared_gate(3)
    for network, task in ((classifier, "classify"), (classifier, "activations"), (segmenter, "segment_scored")):
        plain = PatchNetwork(network, (0.5,) * 3, (0.5,) * 3, task)  # type: ignore[arg-type]
        patches = probe_patches(2, side, side, seed=3)
        made = OpenVinoNetwork(plain, "float32", 1, fold=True)(patches)
        with torch.no_grad():
            assert close(made, plain(patches), 1e-3)


@pytest.mark.parametrize("arguments", [VIT14, WINDOWS], ids=["vit14", "maxvit"])
def test_openvino_says_what_torch_says(arguments: dict[str, object]) -> None:
    pytest.importorskip("openvino")
    classifier, segmenter = both(arguments)
    check_openvino(classifier.eval(), segmenter.eval(), 96)


def test_a_tile_is_the_patches_inside_it_as_far_as_cells_say() -> None:
    """A map of 14 px cells that reaches over a tile of 96 px: its windows count the cells inside, in pixels."""
    classifier, segmenter = (network.eval() for network in both(VIT14))
    assert (classifier.cell_px, segmenter.cell_px) == (14.0, 14)
    with torch.no_grad():
        features = segmenter.encode(torch.rand(1, 3, 96, 96))
    assert [tuple(values.shape[-2:]) for values in features] == [(98, 98), *[(7, 7)] * 4]
    shares = Windows(96, 96, 96).shares(7, 14.0)
    assert shares[0, :6].tolist() == pytest.approx([14 / 96] * 6)
    assert float(shares[0, 6]) == pytest.approx(12 / 96)


def test_what_is_added_to_an_image_repeats_its_edge() -> None:
    encoder = TimmEncoder(VIT14["encoder"], 3, VIT14["encoder_arguments"])  # type: ignore[arg-type]
    image = torch.rand(1, 3, 20, 28)
    filled = encoder.filled_up(image)
    assert filled.shape == (1, 3, 28, 28)
    assert filled[:, :, :20].equal(image)
    assert filled[:, :, 27].equal(image[:, :, 19])


def test_windows_are_built_for_the_patch_and_take_multiples_of_it() -> None:
    found = fitted("test_maxvit", 96)
    assert found == {"encoder_arguments": {"img_size": 96}, "multiple_px": 96}
    with torch.no_grad():
        assert LiteSegmenter(2, "test_maxvit", **found).eval()(torch.rand(1, 3, 192, 192)).shape[-1] == 192  # type: ignore[arg-type]


def test_one_size_alone_is_refused_for_large_tiles() -> None:
    arguments = {"img_size": 64, **VIT14["encoder_arguments"]}  # type: ignore[dict-item]
    fixed = {"encoder": VIT14["encoder"], "encoder_arguments": {**arguments, "img_size": 56}, "fixed_px": 56}
    network = build_network("segmenter", "lite_segmenter", 2, fixed).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 3, 50, 50)).shape == (1, 2, 50, 50)
        with pytest.raises(OptionError, match="up to 56 px a side, got 60 x 50"):
            network(torch.rand(1, 3, 50, 60))
    check_sides("patches", fixed)
    with pytest.raises(BundleError, match=r"gate mode windows .* 56 px alone: use mode patches"):
        check_sides("windows", {}, fixed)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("no_such", "knows no encoder 'no_such'"),
        ("crossvit_9_240", "crossvit_9_240 gives 2 feature maps of use, 3 are"),
    ],
)
def test_what_cannot_be_used_says_why(encoder: str, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        fitted(encoder, 96)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"pretrained": True},
        {"checkpoint_path": "/etc/passwd"},
        {"depth": 10**6},
        {"embed_dim": float("nan")},
        {"mlp_layer": "os.system"},
        {"dynamic_img_size": "yes"},
        [1],
    ],
)
def test_arguments_of_strangers_shape_layers_and_nothing_else(arguments: object) -> None:
    with pytest.raises(BundleError, match="encoder_arguments"):
        build_network(
            "classifier", "lite_classifier", 2, {"encoder": "test_vit", "encoder_arguments": arguments}, empty=True
        )
