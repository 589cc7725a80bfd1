"""What `wsiseg evaluate MODEL BRCA-M2C` does not have: baselines at the cells, and a model taught by the dots.

    python benchmarks/cells.py measure SOURCE MODEL [--split val|test]      the most frequent class, and stage 1 alone
    python benchmarks/cells.py supervise SOURCE MODEL OUT     the same segmenter, taught by the dots themselves

`supervise` trains the segmenter of MODEL's configuration exactly as stage 2 is, except that its masks are discs about
the dots of the training images instead of pseudo masks. It is what patch labels are measured against.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import numpy.typing as npt
import torch
from brca_m2c import IMAGE_MPP, NAMES, corners, prepare, read_images
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from wsiseg.choices import SplitName
from wsiseg.datasets.dataset import Patch, read_dataset
from wsiseg.evaluation.result import Evaluation
from wsiseg.evaluation.run import EvaluateOptions, evaluate
from wsiseg.geometry import Size
from wsiseg.models.bundle import load_model, save_bundle
from wsiseg.models.folder import SPEC_FILE, find_bundle
from wsiseg.models.networks.architectures import build_network
from wsiseg.models.spec import parse_spec
from wsiseg.models.tissue_model import TissueModel
from wsiseg.tiling.blending import blend
from wsiseg.tiling.grid import TileGrid
from wsiseg.training.config import TrainingConfig
from wsiseg.training.initial import initialise
from wsiseg.training.loading import PatchImages, pseudo_mask_name, train_loader
from wsiseg.training.make_masks import class_shares
from wsiseg.training.stage2 import SegmenterStage
from wsiseg.training.trainer import fit, seed_everything

DISC_RADIUS_UM = 3.0
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Cells:
    """True and predicted class channels of cells, and the slide that each comes from.

    Attributes:
        truth: (n,).
        predicted: (n,), -1 where the map has no class.
        slide: (n,), a number for each slide.
    """

    truth: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    slide: npt.NDArray[np.int64]

    def recalls(self, chosen: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.float64]:
        """Share of each class's cells that are right, (K,)."""
        truth = self.truth if chosen is None else self.truth[chosen]
        right = self.truth == self.predicted if chosen is None else (self.truth == self.predicted)[chosen]
        return np.array([right[truth == k].mean() if (truth == k).any() else np.nan for k in range(len(NAMES))])

    def interval(self, seed: int = 0) -> tuple[float, float]:
        """95 % bootstrap interval of balanced accuracy; slides are drawn, with all their cells."""
        random = np.random.default_rng(seed)
        members = [np.flatnonzero(self.slide == s) for s in np.unique(self.slide)]
        values = []
        for _ in range(RESAMPLES):
            drawn = random.integers(len(members), size=len(members))
            values.append(np.nanmean(self.recalls(np.concatenate([members[i] for i in drawn]))))
        low, high = np.percentile(values, [2.5, 97.5])
        return float(low), float(high)


ClassAt = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.int64]]
"""From an image at 0.5 um/px to class channels (h, w) at any coarser pixel; -1 for none."""


def collect(source: Path, split: str, method: ClassAt) -> Cells:
    """Ask a method for every cell of a split."""
    rows: list[npt.NDArray[np.int64]] = []
    patients: dict[str, int] = {}
    for image in read_images(source, split):
        classes = method(image.pixels)
        height, width = image.pixels.shape[:2]
        x = np.minimum(image.cells[:, 0] * classes.shape[1] / width, classes.shape[1] - 1).astype(int)
        y = np.minimum(image.cells[:, 1] * classes.shape[0] / height, classes.shape[0] - 1).astype(int)
        slide = patients.setdefault(image.name[:23], len(patients))
        truth = image.cells[:, 2].astype(np.int64)
        rows.append(np.stack([truth, classes[y, x], np.full(len(truth), slide)]))
    return Cells(*np.concatenate(rows, axis=1))


def activations(model: TissueModel) -> ClassAt:
    """Stage 1 alone: the class activation maps of overlapping patches, blended; the strongest class."""

    @torch.inference_mode()
    def method(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        scale = IMAGE_MPP / model.spec.mpp
        size = [round(side * scale) for side in pixels.shape[:2]]
        image = F.interpolate(image, size, mode="area").round().to(torch.uint8)
        patch = model.spec.patch_size_px
        tiles = TileGrid.from_share(Size(size[1], size[0]), patch, model.spec.overlap)
        padded = F.pad(image, (0, patch, 0, patch), value=255)
        patches = []
        for tile in tiles.tiles():
            rows, columns = tile.box.slices()
            patches.append((tile, _activation_maps(model, padded[:, :, rows, columns]).numpy()))
        best: npt.NDArray[np.int64] = blend(tiles.map_size, patches, tiles).argmax(axis=0)
        return best

    return method


def _activation_maps(model: TissueModel, patch: Tensor) -> Tensor:
    """Class activation maps (K, P, P) of one patch (1, 3, P, P), uint8."""
    classifier = model.classifier
    images = model.normalised("classifier", patch)
    maps = classifier.fc8(classifier.features(images)[classifier.depths[-1]])
    return F.interpolate(maps, patch.shape[2:], mode="bilinear", align_corners=False)[0]


def line(title: str, cells: Cells) -> str:
    """One row of the table."""
    recalls = cells.recalls()
    low, high = cells.interval()
    each = "  ".join(f"{value:11.3f}" for value in recalls)
    return f"{title:34} {each}  {np.nanmean(recalls):8.3f}  [{low:.3f}, {high:.3f}]"


@click.group()
def main() -> None:
    """Measure a model at BRCA-M2C's cells."""


@main.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("model")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="val", show_default=True)
@click.option("--record", is_flag=True, help="Write the figures that `wsiseg evaluate` finds into MODEL's model.json.")
def measure(source: Path, model: str, split: str, record: bool) -> None:
    """Print per-class recall and balanced accuracy of MODEL's stage 1 and of the most frequent class."""
    torch.set_num_threads(min(2, torch.get_num_threads()))
    loaded = load_model(model)
    frequent = np.bincount(np.concatenate([image.cells[:, 2] for image in read_images(source, "train")]).astype(int))
    constant = int(frequent.argmax())
    methods: list[tuple[str, ClassAt]] = [
        (f"most frequent class ({NAMES[constant]})", lambda pixels: np.full((1, 1), constant)),
        ("stage 1, activation maps", activations(loaded)),
    ]
    for number, (title, method) in enumerate(methods):
        cells = collect(source, split, method)
        if not number:
            counts = ", ".join(f"{n} {(cells.truth == k).sum()}" for k, n in enumerate(NAMES))
            click.echo(f"{split}: {len(np.unique(cells.slide))} slides, {len(cells.truth)} cells ({counts})")
            click.echo(f"{'recall of':34} {'  '.join(f'{n:>11}' for n in NAMES)}  balanced  95 % by slide")
        click.echo(line(title, cells))
    if record:
        options = EvaluateOptions(split=cast(SplitName, split), resamples=RESAMPLES)
        _record(find_bundle(model) / SPEC_FILE, evaluate(loaded, source, options))


def _record(path: Path, found: Evaluation) -> None:
    """Put figures into a bundle's `model.json`, in place of earlier ones of the same split."""
    data = found.data
    cells = sum(data["cells"].values())
    about = f"BRCA-M2C, {data['split']} images of its authors, {data['groups']} slides, {cells} cells"
    column = found.columns["predicted_gate"]
    balanced = column.overall["balanced_accuracy"]
    rows: list[dict[str, Any]] = [
        {
            "name": "balanced accuracy at cells",
            "value": balanced.value,
            "data": about,
            "low": balanced.low,
            "high": balanced.high,
        }
    ]
    rows += [
        {"name": f"recall at cells, {name}", "value": row["recall"].value, "data": about}
        for name, row in column.per_class.items()
    ]
    fields = json.loads(path.read_text(encoding="utf-8"))
    kept = [row for row in fields["metrics"] if row["data"] != about]
    fields["metrics"] = kept + [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    path.write_text(parse_spec(fields, str(path)).to_json(), encoding="utf-8")


@main.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--epochs", type=int, help="Epochs [default: twice those of MODEL's stage 2].")
@click.option("--stride", default=96, show_default=True, help="Pixels from patch to patch, as MODEL's.")
def supervise(source: Path, model: str, out: Path, epochs: int | None, stride: int) -> None:
    """Train MODEL's segmenter on discs about the dots; write a bundle to OUT (its classifier is MODEL's)."""
    loaded = load_model(model)
    spec = loaded.spec
    known = {name: value for name, value in spec.training.items() if name in TrainingConfig.model_fields}
    config = TrainingConfig.model_validate(known)
    config = config.changed(stage2={"epochs": epochs or 2 * config.stage2.epochs})
    seed_everything(config.seed)
    with tempfile.TemporaryDirectory() as folder:
        patches = Path(folder) / "patches"
        prepare(source, patches, spec.mpp, spec.patch_size_px, stride, 1, 1)
        data = read_dataset(patches)
        masks = Path(folder) / "masks"
        _write_discs(source, data.train, masks, spec.mpp, spec.patch_size_px, stride)
        shares = class_shares(masks, data.train, len(NAMES))
        network = build_network("segmenter", config.segmenter.architecture, len(NAMES), config.segmenter.arguments)
        initialise(network, config.segmenter)
        stage = SegmenterStage(network, config, shares, [], torch.zeros(0, len(NAMES)), loaded.gate)
        images = PatchImages(data.train, len(NAMES), [masks] * 3)
        fit(
            stage,
            train_loader(images, config.stage2.batch_size, config.seed),
            None,
            run_folder=Path(folder) / "run",
            title="Supervised",
            optimiser=config.stage2,
            precision=config.precision,
            device=torch.device("cpu"),
            devices=1,
            logger="csv",
            progress=True,
            resume=False,
        )
    left = {"format_version", "name", "created", "metrics", "gate_mode", "shared_gate", "tile_px", "tile_margin_px"}
    fields: dict[str, Any] = spec.model_dump(mode="json", exclude=left)
    fields["networks"]["segmenter"]["arguments"] = config.segmenter.arguments  # without a shared gate
    save_bundle(out, fields, loaded.classifier, stage.result, half=True)
    click.echo(f"supervised baseline: {out}")


def _write_discs(
    source: Path, patches: Sequence[Patch], folder: Path, mpp: float, patch_px: int, stride_px: int
) -> None:
    """Masks of discs about the dots, under the names that `prepare` gave the patches; all else is background."""
    by_name = {patch.name: patch for patch in patches}
    for number, image in enumerate(read_images(source, "train", mpp)):
        height, width = image.pixels.shape[:2]
        mask = _discs(image.cells, height, width, DISC_RADIUS_UM / mpp)
        for y in corners(height, patch_px, stride_px):
            for x in corners(width, patch_px, stride_px):
                patch = by_name[f"images/{image.name[:23]}_{number:02d}_{x:03d}_{y:03d}.png"]
                path = folder / pseudo_mask_name(patch)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask[y : y + patch_px, x : x + patch_px]).save(path)


def _discs(cells: npt.NDArray[np.float64], height: int, width: int, radius_px: float) -> npt.NDArray[np.uint8]:
    """(height, width): the class of the nearest dot within the radius, K elsewhere."""
    mask = np.full((height, width), len(NAMES), dtype=np.uint8)
    nearest = np.full((height, width), np.inf)
    rows, columns = np.mgrid[:height, :width] + 0.5
    for x, y, channel in cells:
        distance = np.hypot(columns - x, rows - y)
        inside = (distance <= radius_px) & (distance < nearest)
        mask[inside], nearest[inside] = int(channel), distance[inside]
    return mask


if __name__ == "__main__":
    main()
