"""Options of training: accumulated gradients, early stopping, imbalance, bfloat16, what processes share out, sheets."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from wsiseg.classes import ClassTable
from wsiseg.datasets.dataset import Patch, PatchDataset
from wsiseg.training.config import TrainingConfig, lite_config
from wsiseg.training.loading import EpochSampler, patch_weights, positive_weights
from wsiseg.training.losses import SupervisionOptions, layer_losses
from wsiseg.training.run import train
from wsiseg.training.sheets import Sheet, choose_patches, draw_sheet
from wsiseg.training.stage2 import inverse_sqrt_weights
from wsiseg.training.summary import curves

CONFIG = lite_config("resnet10t").changed(
    classifier={"initial_weights": "none"}, segmenter={"initial_weights": "none"}, sheet_patches=0
)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Twelve patches of noise in two colours, four of them for validation."""
    root = tmp_path / "<b>patches"
    root.mkdir()
    generator = np.random.default_rng(0)
    rows = ["file,A,<script>B,split"]
    for index in range(12):
        pixels = generator.integers(60, 140, (32, 32, 3), dtype=np.uint8)
        pixels[:, :, index % 2] += 60
        Image.fromarray(pixels).save(root / f"{index}.png")
        rows.append(f"{index}.png,{index % 2},{1 - index % 2},{'val' if index >= 8 else 'train'}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    (root / "dataset.json").write_text('{"mpp": 1, "classes": ["A", "<script>B"]}')
    return root


def run(dataset: Path, config: TrainingConfig, **options: object) -> Path:
    out = dataset.parent / "m"
    train(dataset, out, config, device="cpu", progress=False, say=lambda text: None, overwrite=True, **options)  # type: ignore[arg-type]
    return out.with_name("m.training")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_accumulated_batches_make_one_step(dataset: Path) -> None:
    config = CONFIG.changed(stage1={"epochs": 2, "batch_size": 2, "accumulate": 3})
    rows = table(run(dataset, config, stage="1") / "stage1" / "logs" / "metrics.csv")
    assert [int(row["step"]) for row in rows] == [2, 4], "four batches are a step of three and one of the last"
    assert float(rows[-1]["learning_rate"]) < 1e-5, "the schedule ends with the last step"


def test_patience_ends_stage_1_early_and_logs_say_so(dataset: Path) -> None:
    config = CONFIG.changed(
        stage1={"epochs": 30, "batch_size": 8, "patience": 2, "learning_rate": 1e-9, "keep": "best"}
    )
    folder = run(dataset, config, stage="1") / "stage1"
    rows = table(folder / "logs" / "metrics.csv")
    assert 3 <= len(rows) < 15
    best = max(float(row["val_map"]) for row in rows)
    assert all(float(row["val_map"]) <= best for row in rows[-2:])
    assert [int(row["epoch"]) for row in rows] == list(range(len(rows)))


def test_bfloat16_on_the_cpu_trains_a_whole_model(dataset: Path) -> None:
    config = CONFIG.changed(
        stage1={"epochs": 1, "batch_size": 4},
        stage2={"epochs": 1, "batch_size": 4},
        precision="bf16-mixed",
        imbalance="weights",
        supervision={"class_weights": "inverse_sqrt"},
        sheet_patches=2,
    )
    folder = run(dataset, config)
    for stage in ("stage1", "stage2"):
        (row,) = table(folder / stage / "logs" / "metrics.csv")
        assert 0 < float(row["train_loss_epoch"]) < 100
        with Image.open(folder / stage / "sheets" / "epoch_001.png") as sheet:
            assert sheet.width > 800
    page = (folder / "summary.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;B" in page
    assert "<script" not in page
    assert "<b>" not in page
    assert page.count("data:image/png;base64,") == page.count("<svg") == 2
    assert "://" not in page, "nothing is loaded from elsewhere"


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_out_an_epoch(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank in range(processes):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        sampler = EpochSampler(20, 3, processes=processes)
        sampler.set_epoch(2)
        part = list(sampler)
        assert len(part) == len(sampler) == 20 // processes
        seen += part
    assert len(set(seen)) == len(seen)


def test_rare_classes_are_drawn_more_often_and_the_same_for_a_seed() -> None:
    labels = np.array([[1, 0]] * 90 + [[1, 1]] * 10, dtype=np.float64)
    weights = patch_weights(labels)
    assert weights[0] == 1 / 0.9 * 0.9
    assert weights[-1] == 10
    sampler = EpochSampler(100, 0, weights)
    drawn = []
    for epoch in range(40):
        sampler.set_epoch(epoch)
        drawn.append(list(sampler))
    assert 0.45 < np.mean(np.array(drawn) >= 90) < 0.6
    again = EpochSampler(100, 0, weights)
    again.set_epoch(7)
    assert list(again) == drawn[7] != drawn[8]
    torch.testing.assert_close(positive_weights(labels), torch.tensor([0.1, 9.0]))


def test_class_weights_weigh_the_cross_entropy() -> None:
    shares = np.array([0.81, 0.01, 0.18])
    weights = inverse_sqrt_weights(shares)
    assert weights[1] / weights[0] == pytest.approx(9)
    assert float((weights * torch.tensor(shares)).sum()) == pytest.approx(1)
    logits, mask = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    every = torch.cat([weights, torch.ones(1)])
    (loss,) = layer_losses(logits, [mask], SupervisionOptions(weights=(1.0,)), every)
    padded = torch.cat([logits, torch.zeros(2, 1, 4, 4)], dim=1)
    torch.testing.assert_close(loss, F.cross_entropy(padded, mask, weight=every))


def test_chosen_patches_show_every_class_and_several_slides() -> None:
    val = tuple(
        Patch(Path(f"{i}"), f"{i:02d}", (int(i != 13), int(i == 13), int(i % 2)), f"slide{i // 5}") for i in range(20)
    )
    data = PatchDataset(Path("x"), ClassTable.from_names(["A", "B", "C"]), 1.0, 32, (), val, {})
    chosen = choose_patches(data, 4)
    assert len({patch.name for patch in chosen}) == 4
    assert chosen[0].name == "13"
    assert {k for patch in chosen for k in range(3) if patch.label[k]} == {0, 1, 2}
    assert len({patch.group for patch in chosen}) == 4
    assert len(choose_patches(data, 50)) == 20


def test_a_sheet_keeps_pictures_where_they_belong() -> None:
    red = np.full((32, 32, 3), (255, 0, 0), np.uint8)
    green = np.full((32, 32, 3), (0, 255, 0), np.uint8)
    sheet = Sheet("title", ("patch", "mask"), (("one", (red, green)), ("two " * 200, (green, None))))
    image = draw_sheet(sheet, ClassTable.from_names(["A", "A long name " * 16]))
    assert image.getpixel((90, 100)) == (255, 0, 0)
    assert image.getpixel((270, 100)) == (0, 255, 0)
    assert image.getpixel((90, 300)) == (0, 255, 0)
    assert image.getpixel((270, 300)) == (255, 255, 255)


def test_curves_draw_each_epoch() -> None:
    rows = [{"epoch": float(i), "train_loss_epoch": 1.0 / (i + 1), "val_map": float("nan")} for i in range(4)]
    assert curves(rows).count("<circle") == 4
    assert "nan" not in curves(rows)
    assert "No figures" in curves([])
