"""Training that goes on: unknown labels count nowhere, corrected pixels at every depth, halves, regions kept out."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from wsiseg.classes import ClassTable
from wsiseg.cli.main import main
from wsiseg.datasets.dataset import PatchDataset, read_dataset
from wsiseg.datasets.patch import Patch
from wsiseg.datasets.provenance import Provenance
from wsiseg.datasets.write import DatasetWriter, PatchRow
from wsiseg.errors import DatasetError, OptionError, WsisegError
from wsiseg.evaluation.truth import open_source
from wsiseg.models.bundle import load_model
from wsiseg.training.compare import Networks, measure
from wsiseg.training.held_out import hold_out, regions_of
from wsiseg.training.loading import EpochSampler, PatchImages, patch_weights, positive_weights
from wsiseg.training.make_masks import gate_thresholds, with_labels
from wsiseg.training.origin import Origin, with_old
from wsiseg.training.run import train
from wsiseg.training.shared_gate import fit_head
from wsiseg.training.stage1 import average_precision, known_loss

SHIPPED = "tissue-brca-lite"
CLASSES = ClassTable.from_names(["Tumour", "Stroma", "Lymphocytes"])


def corrected_patch(x: float, y: float, slide: str = "a.svs") -> Patch:
    origin = Provenance(slide=slide, x=x, y=y, size_px=96, mpp=0.5, status="labelled", source="corrected")
    return Patch(Path("p.png"), f"{slide}_{x}_{y}.png", (1, -1, -1), slide, provenance=origin)


def test_the_loss_leaves_unknown_labels_out() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 3, requires_grad=True), torch.randint(0, 2, (7, 3)).float()
    assert known_loss(logits, labels).item() == pytest.approx(
        F.multilabel_soft_margin_loss(logits, labels).item(), rel=1e-6
    )
    weights = torch.tensor([0.5, 2.0, 3.0])
    assert known_loss(logits, labels, weights).item() == pytest.approx(
        F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights).item(), rel=1e-6
    )
    labels[0, 1] = labels[4, 2] = -1
    loss = known_loss(logits, labels)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad[labels < 0] == 0).all()
    assert (logits.grad[labels >= 0] != 0).all()
    known = labels >= 0
    assert loss.item() == pytest.approx(F.binary_cross_entropy_with_logits(logits[known], labels[known]).item())
    assert known_loss(logits, torch.full((7, 3), -1.0)).item() == 0


def test_figures_weights_and_thresholds_leave_them_out_too() -> None:
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.1]])
    labels = torch.tensor([[1], [-1], [1], [0]])
    assert average_precision(scores, labels) == 1, "as 0, the second patch would come before a positive one"
    assert average_precision(scores, torch.full((4, 1), -1)) == 0
    table = np.array([[1, 0], [-1, 1], [0, -1], [0, 0]], np.float64)
    assert positive_weights(table).tolist() == [2, 2]
    np.testing.assert_array_equal(patch_weights(table), patch_weights(np.maximum(table, 0)))
    patches = [Patch(Path("p"), "p", label, "g") for label in ((1,), (-1,), (1,), (0,))]
    config = Origin.of(SHIPPED).config().gate.model_copy(update={"recall": 1.0, "threshold": 0.95})
    (found,) = gate_thresholds(scores, patches, config)
    assert found == pytest.approx(0.7, abs=1e-6)


def test_a_shared_gate_learns_from_known_labels_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 4, generator=generator)
    labels = (features[:, :2] > 0).float()
    exact = fit_head(features, labels, 0.03)
    unknown = labels.clone()
    unknown[::3, 0] = -1
    flipped = labels.clone()
    flipped[::3, 0] = 0
    weights, _ = fit_head(features, unknown, 0.03)
    wrong, _ = fit_head(features, flipped, 0.03)
    torch.testing.assert_close(weights[1], exact[0][1], rtol=0.2, atol=0.2)
    assert weights[0, 0] > 1.3 * wrong[0, 0]


@pytest.mark.parametrize(("old", "new"), [(40, 7), (5, 60), (1, 1)])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_batch_is_half_old_half_corrected(old: int, new: int, weighted: bool) -> None:
    corrected = np.array([False] * old + [True] * new)
    weights = np.linspace(1, 2, old + new) if weighted else None
    sampler = EpochSampler(old + new, 3, weights, corrected=corrected)
    seen: set[int] = set()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert len(order) == old + new
        assert order == list(sampler), "an epoch can be repeated"
        for start in range(0, len(order) - 3, 4):
            assert corrected[order[start : start + 4]].sum() == 2
        seen |= set(order)
    assert seen == set(range(old + new))


def test_without_corrections_the_order_is_what_it_was() -> None:
    for weights in (None, np.linspace(1, 2, 30)):
        plain = EpochSampler(30, 5, weights)
        assert list(plain) == list(EpochSampler(30, 5, weights, corrected=np.zeros(30, np.bool_)))
        assert list(plain) == list(EpochSampler(30, 5, weights, corrected=np.ones(30, np.bool_)))


def test_regions_are_kept_out_whole() -> None:
    block = [corrected_patch(96 * x, 96 * y) for x in range(3) for y in range(2)]
    corner = [corrected_patch(96 * 3, 96 * 2)]  # touches the block at a corner
    far = [corrected_patch(96 * 20, 0), corrected_patch(96 * 21, 0)]
    other = [corrected_patch(0, 0, "b.svs"), corrected_patch(96 * 9, 0, "b.svs"), corrected_patch(96 * 10, 0, "b.svs")]
    plain = [Patch(Path("p"), f"old{i}", (1, 0, 0), "g") for i in range(5)]
    everything = [*plain, *block, *corner, *far, *other]
    regions = regions_of([*block, *corner, *far, *other])
    assert sorted(len(region) for region in regions) == [1, 2, 2, 7]
    for seed in range(8):
        kept, held = hold_out(everything, seed)
        assert held
        assert {p.name for p in kept} | {p.name for p in held} == {p.name for p in everything}
        assert not {p.name for p in kept} & {p.name for p in held}
        assert all(p.corrected for p in held)
        names = {p.name for p in held}
        assert all({p.name for p in region} <= names or not {p.name for p in region} & names for region in regions)
        assert len(held) <= 4
    assert hold_out([*plain, *block], 0)[1] == [], "one region would be all that there is to learn from"


@pytest.fixture
def folders(tmp_path: Path, sample_data: Path) -> tuple[Path, Path]:
    """(corrections, old patches): sample patches, of some of which only parts are known."""
    source = sample_data / "patches"
    header, *rows = (source / "labels.csv").read_text().splitlines()
    old = tmp_path / "old"
    (old / "images").mkdir(parents=True)
    chosen = [row for row in rows if row.endswith("train")][::60][:8] + [row for row in rows if row.endswith("val")][:6]
    (old / "labels.csv").write_text("\n".join([header, *chosen]) + "\n")
    for row in chosen:
        shutil.copy(source / row.split(",")[0], old / "images")
    shutil.copy(source / "dataset.json", old)
    others = [row.split(",") for row in rows if row.endswith("train")][7::60][:8]
    with DatasetWriter(tmp_path / "new", CLASSES, 0.5, 96) as writer:
        for number, (file, *_) in enumerate(others):
            mask = np.full((96, 96), 255, np.uint8)
            mask[10:50, 20:70] = number % 3
            # Two to a region, so that four regions are apart.
            x = 96.0 * (number % 2 + 10 * (number // 2))
            origin = Provenance(slide="s.svs", x=x, y=0, size_px=96, mpp=0.5, status="labelled", source="corrected")
            label = {CLASSES.names[number % 3]: 1}
            writer.add(np.array(Image.open(source / file).convert("RGB")), PatchRow(label, "s", "", origin), mask)
        writer.finish()
    return tmp_path / "new", old


def test_corrected_pixels_enter_at_every_depth_and_pseudo_masks_elsewhere(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    data = read_dataset(folders[0])
    depths = [tmp_path / f"PM_{depth}" for depth in ("a", "b", "c")]
    for value, folder in enumerate(depths):
        for patch in data.train:
            (folder / patch.name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((96, 96), value, np.uint8)).save(folder / patch.name)
    images = PatchImages(data.train, 3, depths)
    for index, patch in enumerate(data.train):
        truth = patch.read_truth(3)
        masks = images[index]["masks"].numpy()
        assert masks.dtype == np.uint8
        for value in range(3):
            np.testing.assert_array_equal(masks[value], np.where(truth < 3, truth, value))
        assert images[index]["label"].tolist() == list(patch.label)
        assert (images[index]["label"] == -1).sum() == 2
    plain = PatchImages([replace(patch, provenance=None) for patch in data.train], 3, depths)
    assert set(np.unique(plain[0]["masks"][1])) == {1}, "masks of other patches teach nothing, as before"


def test_unknown_labels_of_pseudo_masks_are_the_classifiers(folders: tuple[Path, Path]) -> None:
    data, origin = read_dataset(folders[0]), Origin.of(SHIPPED)
    model = load_model(SHIPPED, runtime="torch")
    found = with_labels(data.train, model.classifier, origin.config(), torch.device("cpu"))
    for before, after in zip(data.train, found, strict=True):
        pixels = torch.from_numpy(np.array(Image.open(before.path))).permute(2, 0, 1)[None]
        seen = (model.classify(pixels)[0] >= 0.5).int().tolist()
        assert after.label == tuple(s if v == -1 else v for v, s in zip(before.label, seen, strict=True))
        assert before.name == after.name
    known = [replace(patch, label=(1, 0, 0)) for patch in data.train]
    assert with_labels(known, model.classifier, origin.config(), torch.device("cpu")) is known


def test_what_differs_from_the_model_is_refused(folders: tuple[Path, Path]) -> None:
    origin, data = Origin.of(SHIPPED), read_dataset(folders[0])
    origin.require_fits(data)
    cases: list[tuple[PatchDataset, str]] = [
        (replace(data, classes=ClassTable.from_names(["Stroma", "Tumour", "Lymphocytes"])), "in another order"),
        (replace(data, classes=ClassTable.from_names(["Tumour", "Fat"])), "the model has others"),
        (replace(data, mpp=1.0), "at 1 um/px, the model sees 96 px at 0.5"),
        (replace(data, patch_size_px=112), "patches of 112 px"),
    ]
    for changed, message in cases:
        with pytest.raises(DatasetError, match=message):
            origin.require_fits(changed)
    with pytest.raises(OptionError, match="the data set itself"):
        with_old(data, folders[0], origin.config())
    with pytest.raises(WsisegError, match="neither a shipped model nor a folder"):
        Origin.of("no-such-model")


def test_options_that_would_make_another_model_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", str(folders[0]), "--out", str(tmp_path / "model")]
    for more, message in (
        (["--from", SHIPPED, "--preset", "lite"], "--preset and --from exclude each other"),
        (["--from", SHIPPED, "--faithful"], "--faithful and --from exclude each other"),
        (["--with", str(folders[1])], "--with belongs to --from"),
        (["--from", "no-such-model"], "neither a shipped model nor a folder"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([*arguments, *more])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_evaluation_needs_all_labels(folders: tuple[Path, Path]) -> None:
    for mask in (folders[0] / "masks").iterdir():
        mask.unlink()
    table = (folders[0] / "labels.csv").read_text()
    (folders[0] / "labels.csv").write_text(re.sub(r"masks/[^,]*", "", table))
    with pytest.raises(DatasetError, match=r"8 train patches of .* have labels that are not known"):
        open_source(folders[0], "train", CLASSES)


def test_corrected_slides_are_not_set_aside_for_validation(folders: tuple[Path, Path]) -> None:
    merged = with_old(read_dataset(folders[0], val_share=0.5), folders[1], Origin.of(SHIPPED).config())
    assert not any(patch.corrected for patch in merged.val)
    assert len(merged.val) == 6
    assert sum(patch.corrected for patch in merged.train) == 8
    assert {patch.name.split("/")[0] for patch in merged.train} == {"images", "with"}


@pytest.mark.slow
def test_going_on_from_the_shipped_model(folders: tuple[Path, Path], tmp_path: Path) -> None:
    origin, out = Origin.of(SHIPPED), tmp_path / "model"
    said: list[str] = []
    config = origin.config().changed(
        sheet_patches=0, stage1={"epochs": 1, "batch_size": 4}, stage2={"epochs": 1, "batch_size": 4}
    )
    assert config.classifier.initial_weights == "none"
    train(folders[0], out, config, origin=origin, old=folders[1], device="cpu", progress=False, say=said.append)
    model, before = load_model(out, runtime="torch"), origin.model()
    pixels = torch.from_numpy(np.array(Image.open(next((folders[1] / "images").iterdir())))).permute(2, 0, 1)[None]
    new, old = model.segment(pixels), before.segment(pixels)
    assert not torch.equal(new, old)
    assert (new - old).abs().mean() < old.abs().mean(), "it went on, and did not begin anew"
    record = model.spec.training["continued"]
    assert isinstance(record, dict)
    assert record["from"] == {"name": SHIPPED, "hash": origin.hash}
    compared = json.loads((tmp_path / "model.training" / "comparison.json").read_text())
    assert compared["corrections_held_out"]["before"]["patches"] == 2
    assert compared["corrections_held_out"]["after"]["pixels"] == 2 * 40 * 50
    assert compared["validation"]["before"]["labels"] == 18
    held = json.loads((tmp_path / "model.training" / "run.json").read_text())
    assert held["from"] == origin.hash
    assert any(line.startswith("corrections kept out: of 4000 pixels right") for line in said)
    data = read_dataset(folders[1])
    networks = Networks(before.classifier.eval(), before.segmenter.eval(), torch.tensor(origin.spec.gate))
    again = measure(networks, data.val, config, torch.device("cpu"))
    assert again.to_json() == compared["validation"]["before"]
    for file in ("classifier.safetensors", "segmenter.safetensors"):
        assert (out / file).stat().st_size < 8e6
