"""Large tiles: exactly the blended patches where a network sees one pixel at a time, and a gate on the encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.color_model import COLORS, ColorClassifier, color_model
from wsiseg.datasets.images import read_image
from wsiseg.errors import BundleError
from wsiseg.geometry import Size
from wsiseg.models.bundle import load_model, save_bundle
from wsiseg.models.large_tiles import (
    Windows,
    classify_windows,
    predict_shared,
    predict_windows,
    segment_scored,
    shared_thresholds,
)
from wsiseg.models.networks.deeplab import DeepLabV3Plus
from wsiseg.models.networks.lite import LiteClassifier, LiteSegmenter
from wsiseg.models.spec import parse_spec
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.gated import PredictTiles
from wsiseg.prediction.run import predict_patches
from wsiseg.tiling.blending import blend
from wsiseg.tiling.grid import TileGrid

PATCH, STRIDE, TILE = 32, 16, 80
WINDOWS = Windows(TILE, PATCH, STRIDE)


def painted(count: int, seed: int = 0) -> torch.Tensor:
    """Tiles (count, 3, TILE, TILE) of rectangles in the classes' colours, and some noise."""
    random = np.random.default_rng(seed)
    tiles = np.full((count, TILE, TILE, 3), COLORS[1], np.uint8)
    for tile in tiles:
        for color in (*COLORS.values(), COLORS[2]):
            y, x = random.integers(0, TILE - 24, 2)
            tile[y : y + 24, x : x + 24] = color
    noise = random.integers(0, 20, tiles.shape, dtype=np.uint8)
    return torch.from_numpy(tiles + noise).permute(0, 3, 1, 2).contiguous()


def patches_of(tiles: torch.Tensor) -> torch.Tensor:
    """The windows as patches of their own, (N * P, 3, PATCH, PATCH)."""
    steps = range(0, TILE - PATCH + 1, STRIDE)
    cut = [tiles[:, :, y : y + PATCH, x : x + PATCH] for y in steps for x in steps]
    return torch.stack(cut, dim=1).flatten(0, 1)


def blended(model: TissueModel, tile: torch.Tensor, thresholds: torch.Tensor | None) -> np.ndarray:
    """What patches make of one tile (1, 3, TILE, TILE)."""
    grid = TileGrid(Size(TILE, TILE), PATCH, PATCH - STRIDE)
    values, _ = predict_patches(model, patches_of(tile), thresholds)
    return blend(Size(TILE, TILE), list(zip(grid.tiles(), values.numpy(), strict=True)), grid)


def test_windows_of_a_pointwise_classifier_are_patches() -> None:
    model, tiles = color_model(patch_px=PATCH), painted(3)
    found = classify_windows(model, tiles, WINDOWS)
    wanted = model.classify(patches_of(tiles)).view(3, 16, 3)
    assert wanted.min() < 0.01
    assert wanted.max() > 0.99
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("gate", [0.5, 0.0, None])
def test_a_tile_is_the_blend_of_its_patches(gate: float | None) -> None:
    model, tiles = color_model(patch_px=PATCH), painted(4)
    thresholds = None if gate is None else torch.full((3,), gate)
    found, allowed = predict_windows(model, tiles, thresholds, PATCH, STRIDE)
    for tile, values in zip(tiles.split(1), found, strict=True):
        np.testing.assert_allclose(values.numpy(), blended(model, tile, thresholds), atol=2e-5)
    assert allowed.shape == (4, 16, 3)
    if gate == 0.5:
        sets = {tuple(row) for row in allowed.flatten(0, 1).tolist()}
        assert len(sets) >= 4, "windows of one class and of several"
        assert torch.equal(allowed, predict_patches(model, patches_of(tiles), thresholds)[1].view(4, 16, 3))


def test_tiles_that_the_gate_decides_are_not_segmented(monkeypatch: pytest.MonkeyPatch) -> None:
    model = color_model(patch_px=PATCH)
    asked: list[int] = []
    segment = TissueModel.segment

    def counted(self: TissueModel, patches: torch.Tensor) -> torch.Tensor:
        asked.append(len(patches))
        return segment(self, patches)

    monkeypatch.setattr(TissueModel, "segment", counted)
    plain = torch.tensor(COLORS[2], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, TILE, TILE)
    found, _ = predict_windows(model, plain, model.gate, PATCH, STRIDE)
    assert not asked
    assert (found == torch.tensor([0.0, 1, 0]).view(1, 3, 1, 1)).all()
    mixed = torch.cat([plain, painted(1)])
    found, _ = predict_windows(model, mixed, model.gate, PATCH, STRIDE)
    assert asked == [1]
    assert (found[:2, 1] == 1).all()
    asked.clear()
    predict_patches(model, patches_of(plain), model.gate)
    assert not asked, "patches of one class are not segmented either"


def test_two_halves_of_one_class_each_need_no_segmenter_and_meet_in_a_ramp() -> None:
    model = color_model(patch_px=32, gate=0.5)
    tile = torch.empty(1, 3, 64, 64, dtype=torch.uint8)
    tile[..., :32] = torch.tensor(COLORS[1]).view(3, 1, 1)
    tile[..., 32:] = torch.tensor(COLORS[3]).view(3, 1, 1)
    found, allowed = predict_windows(model, tile, model.gate, 32, 32)
    assert allowed.tolist() == [[[True, False, False], [False, False, True]] * 2]
    assert (found[0, 0, :, :32] == 1).all()
    assert (found[0, 2, :, 32:] == 1).all()


@pytest.mark.parametrize(("cells", "cell_px"), [(80, 1.0), (10, 8.0), (5, 16.0), (6, 16.0), (7, 80 / 7)])
def test_shares_of_windows_add_up(cells: int, cell_px: float) -> None:
    shares = WINDOWS.shares(cells, cell_px)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))
    assert (shares >= 0).all()
    centres = (torch.arange(cells) + 0.5) * cell_px
    torch.testing.assert_close(shares @ centres, torch.tensor([16.0, 32.0, 48.0, 64.0]), atol=4.0, rtol=0)


def shared_model(network: LiteSegmenter, seed: int = 0) -> TissueModel:
    torch.manual_seed(seed)
    network.add_shared_gate(3)
    torch.nn.init.normal_(network.shared_gate.weight, std=0.5)
    spec = color_model(patch_px=96, overlap=0.5).spec
    fields = {**spec.model_dump(mode="json"), "gate_mode": "shared", "tile_px": 192, "shared_gate": (0.4, 0.5, 0.6)}
    return TissueModel(parse_spec(fields, "test"), "f" * 64, ColorClassifier(), network)


@pytest.mark.parametrize("patch", [96, 80])
def test_a_tile_of_one_patch_is_scored_as_the_mean_of_its_features(patch: int) -> None:
    """So the head is trained on what it is asked for; 80 px are no multiple of 32 and are padded."""
    network = LiteSegmenter(3)
    model = shared_model(network)
    tiles = torch.randint(0, 256, (2, 3, patch, patch), dtype=torch.uint8)
    logits, seen = segment_scored(model, tiles, Windows(patch, patch, patch // 2))
    torch.testing.assert_close(logits, model.segment(tiles))
    deepest = network.encode(tiles.float() / 255)[-1][..., : patch // 16, : patch // 16].mean(dim=(2, 3))
    wanted = torch.sigmoid(network.shared_gate(deepest[:, :, None, None])).flatten(1)
    torch.testing.assert_close(seen[:, 0], wanted, atol=1e-5, rtol=1e-5)


def test_the_shared_gate_decides_and_the_classifier_is_not_asked() -> None:
    model = shared_model(LiteSegmenter(3))
    model.classifier = None  # type: ignore[assignment]
    tiles = torch.randint(0, 256, (2, 3, 192, 192), dtype=torch.uint8)
    thresholds = torch.tensor(shared_thresholds(model.spec))
    found, allowed = predict_shared(model, tiles, thresholds, 96, 48)
    _, seen = segment_scored(model, tiles, Windows(192, 96, 48))
    assert seen.shape == (2, 9, 3)
    assert torch.equal(allowed.any(dim=2), torch.ones(2, 9, dtype=torch.bool))
    some = (seen > thresholds).any(dim=2)
    assert torch.equal(allowed[some], (seen > thresholds)[some])
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, 192, 192))
    _, floored = predict_shared(model, tiles, torch.ones(3), 96, 48, 0.9)
    assert torch.equal(floored, seen >= 0.9 * seen.max(dim=2, keepdim=True).values)
    closed, _ = predict_shared(model, tiles, torch.tensor([1.0, 0.0, 1.0]), 96, 48)
    assert (closed[:, 1] == 1).all()


def test_published_segmenter_carries_a_gate() -> None:
    network = DeepLabV3Plus(2, shared_gate=True).eval()
    assert network.shared_gate is not None
    torch.nn.init.normal_(network.shared_gate.weight)
    with torch.inference_mode():
        logits, scores = network.scored(torch.rand(1, 3, 64, 64))
    assert logits.shape == (1, 2, 64, 64)
    assert scores.shape == (1, 2, 4, 4)
    assert {"shared_gate.weight", "shared_gate.bias"} < set(network.state_dict())
    assert not [name for name in DeepLabV3Plus(2).state_dict() if "gate" in name]


def test_a_bundle_with_a_shared_gate_is_loaded_as_it_was(tmp_path: Path) -> None:
    network = LiteSegmenter(3)
    model = shared_model(network)
    fields = model.spec.model_dump(mode="json", exclude={"name"})
    fields["networks"]["segmenter"] |= {"architecture": "lite_segmenter", "arguments": {"shared_gate": True}}
    save_bundle(tmp_path / "model", fields, LiteClassifier(3), network)
    loaded = load_model(tmp_path / "model", runtime="torch")
    assert loaded.spec.gate_mode == "shared"
    tiles = torch.randint(0, 256, (1, 3, 192, 192), dtype=torch.uint8)
    found, wanted = (segment_scored(each, tiles, Windows(192, 96, 48)) for each in (loaded, model))
    for value, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(value, expected)
    fields["networks"]["segmenter"]["arguments"] = {}
    save_bundle(tmp_path / "bare", fields, LiteClassifier(3), LiteSegmenter(3))
    with pytest.raises(BundleError, match="bare has no shared gate"):
        load_model(tmp_path / "bare")


def with_shared_gate(shipped: TissueModel) -> TissueModel:
    torch.manual_seed(0)
    network = LiteSegmenter(3, shared_gate=True)
    network.load_state_dict(shipped.segmenter.state_dict(), strict=False)
    assert network.shared_gate is not None
    torch.nn.init.normal_(network.shared_gate.weight, std=0.1)
    return TissueModel(shipped.spec, "0" * 64, shipped.classifier, network)


# What "shared" asks of OpenVINO is compared in tests/models/runtime/test_choose.py too.
@pytest.mark.parametrize("predict", [predict_windows, pytest.param(predict_shared, marks=pytest.mark.slow)])
def test_openvino_draws_the_same_tiles(predict: PredictTiles, sample_data: Path) -> None:
    pytest.importorskip("openvino")
    paths = sorted((sample_data / "patches" / "images").iterdir())[:8]
    pixels = torch.stack([torch.from_numpy(read_image(path)).permute(2, 0, 1) for path in paths])
    tiles = torch.stack([torch.cat([torch.cat(list(row), dim=2) for row in each.view(2, 2, 3, 96, 96)], dim=1)
                         for each in pixels.view(2, 4, 3, 96, 96)])  # fmt: skip
    results = []
    for runtime in ("torch", "openvino"):
        model = load_model("tissue-brca-lite", runtime=runtime)
        if predict is predict_shared:
            model = with_shared_gate(model).prepare(runtime)
        results.append(predict(model, tiles, torch.full((3,), 0.3), 96, 48))
    assert (results[0][1] == results[1][1]).all(), "no probability lies so near a threshold"
    assert not results[0][1].all()
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-3, rtol=0)


@pytest.mark.parametrize(("tile", "stride"), [(90, 16), (16, 16), (80, 0), (80, 33)])
def test_sizes_that_do_not_fit_are_refused(tile: int, stride: int) -> None:
    model = color_model(patch_px=PATCH)
    with pytest.raises(BundleError, match="must"):
        predict_windows(model, torch.zeros(1, 3, tile, tile, dtype=torch.uint8), model.gate, PATCH, stride)


def test_other_mistakes_are_refused() -> None:
    model, tiles = color_model(patch_px=PATCH), painted(1)
    with pytest.raises(BundleError, match="square"):
        predict_windows(model, tiles[..., :64], model.gate, PATCH, STRIDE)
    with pytest.raises(BundleError, match="colours has no shared gate"):
        predict_shared(model, tiles, model.gate, PATCH, STRIDE)
    with pytest.raises(BundleError, match="no shared gate"):
        shared_thresholds(model.spec)
    with pytest.raises(BundleError, match="no shared gate"):
        LiteSegmenter(3).scored(torch.rand(1, 3, 64, 64))
