"""What each part of the method is worth: real lung tissue with pixel masks, patch labels alone to learn from.

    python benchmarks/weak_supervision.py run SOURCE WORK [--rows 1,2,3] [--seeds 0,1] [--folds 0,1,2]
    python benchmarks/weak_supervision.py table WORK

SOURCE is the folder of WSSS4LUAD's 67 images with masks (img/ and mask/); how they are cut into labelled patches and
split by image into three folds stands in `lung_patches.py`. Every step lies in WORK under a name made from all that
it depends on, so that rows share what they have in common, an interrupted run goes on, and several processes may
work at once (each step is claimed by the first; after a kill, remove its `.claim` folders).

Encoder (EfficientNet-Lite0 with ImageNet weights), epochs, optimiser and augmentation are equal in all rows, and so
is the tiling at prediction: 112 px patches that overlap by half, blended. A fold's figure is the mean IoU of its test
images' pixels; white is excluded. The last epoch is kept: no row sees a test image before it is measured.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import numpy.typing as npt
import torch
from lung_patches import COLORS, EXCLUDED, FOLDS, MPP, NAMES, PATCH_PX, LungImage, cut, present, read_images
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from wsiseg.classes import ClassTable
from wsiseg.datasets.dataset import Patch, PatchDataset
from wsiseg.evaluation.gates import orientations, undone
from wsiseg.geometry import Size
from wsiseg.metrics import confusion_matrix, segmentation_scores
from wsiseg.models.context import context_tiles, mean_in_context
from wsiseg.models.gate import allowed_classes, gate_logits, gate_published
from wsiseg.models.gate_kinds import RULES
from wsiseg.models.networks.architectures import build_network
from wsiseg.models.networks.classifier import Classifier
from wsiseg.models.tissue_model import normalise
from wsiseg.tiling.blending import blend
from wsiseg.tiling.grid import Tile, TileGrid
from wsiseg.training.config import NetworkConfig, TrainingConfig, lite_config
from wsiseg.training.faithful import faithful
from wsiseg.training.initial import initialise, share_encoder
from wsiseg.training.loading import PatchImages, patch_weights, train_loader
from wsiseg.training.make_masks import write_masks
from wsiseg.training.stage import Stage
from wsiseg.training.stage1 import ClassifierStage
from wsiseg.training.stage2 import SegmenterStage
from wsiseg.training.trainer import fit, seed_everything

K = len(NAMES)
EPOCHS = {"stage1": {"epochs": 4, "batch_size": 16}, "stage2": {"epochs": 4, "batch_size": 16}}
OVERLAP = 0.5
COLUMNS = ("no gate", "predicted gate", "oracle gate, image", "oracle gate, tile")
WAIT_S = 5.0
CPU = torch.device("cpu")

DEFAULT = lite_config().changed(**EPOCHS)


def _faithful() -> TrainingConfig:
    """The published behaviour, with the networks, optimiser and augmentation that all rows have."""
    published = faithful(DEFAULT)
    same: dict[str, Any] = {name: DEFAULT.model_dump()[name] for name in ("augmentation1", "augmentation2")}
    average = {"average_decay": DEFAULT.stage1.average_decay}
    return published.changed(**same, stage1=average, stage2=average)


class BusyError(Exception):
    """Another process is at a step; something else can be done meanwhile."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    Attributes:
        number: as it is asked for with --rows.
        title: what is special about it.
        config: of the training and the gate.
        teacher: "pseudo" masks, "truth" (supervised), or "self" (a second round of stage 2 on the first one's maps of
            the training patches, with the classes that the patch label excludes taken out).
        flips: average over the eight orientations at prediction.
    """

    number: str
    title: str
    config: TrainingConfig = field(default=DEFAULT)
    teacher: str = "pseudo"
    flips: bool = False


ROWS = (
    Row("1", "fully supervised on the masks", teacher="truth"),
    Row("2", "faithful", _faithful()),
    Row("3", "the default"),
    Row("4", "default, with dropout attention (PDA)", DEFAULT.changed(attention={"first_epoch": 1})),
    Row("5", "default, deepest masks alone", DEFAULT.changed(supervision={"weights": (1.0, 0.0, 0.0)})),
    Row("7", "default, joint normalisation", DEFAULT.changed(pseudo_masks={"normalisation": "joint"})),
    Row("8", "default, gate on its own patch, 0.1", DEFAULT.changed(gate={"context": 0.0, "threshold": 0.1})),
    Row("9", "default, self-training", teacher="self"),
    Row("10", "default, averaged over flips", flips=True),
    Row("12", "default, half of each batch mosaics", DEFAULT.changed(supervision={"mosaics": 0.5})),
    Row("11", "default, rare classes not drawn more often", DEFAULT.changed(imbalance="none")),
)


@dataclass(frozen=True, slots=True)
class Study:
    """Data and place of a run."""

    work: Path
    images: Sequence[LungImage]
    patches: dict[int, list[Patch]]

    def training_patches(self, fold: int) -> list[Patch]:
        """The patches of all images but a fold's."""
        return [patch for other, patches in self.patches.items() if other != fold for patch in patches]

    def step(self, kind: str, depends: Any, make: Callable[[Path], None]) -> Path:
        """The result of a step, made once, by whoever comes first.

        Raises:
            BusyError: another process is at it.
        """
        text = json.dumps([kind, depends], sort_keys=True, default=str)
        path = self.work / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        claim = path.with_suffix(".claim")
        if not path.exists():
            try:
                claim.mkdir()
            except FileExistsError as error:
                raise BusyError(path.name) from error
            start = time.perf_counter()
            try:
                temporary = path.with_suffix(".partial")
                make(temporary)
                temporary.rename(path)
            finally:
                claim.rmdir()
            click.echo(f"{time.strftime('%H:%M:%S')} {path.name} {time.perf_counter() - start:.0f} s")
        return path


def _parts(config: TrainingConfig, *names: str) -> dict[str, Any]:
    dumped = config.model_dump(mode="json")
    return {name: dumped[name] for name in names}


def _network(part: NetworkConfig, kind: str) -> nn.Module:
    return build_network(kind, part.architecture, K, part.arguments).to(memory_format=torch.channels_last)


def _loaded(part: NetworkConfig, kind: str, weights: Path) -> nn.Module:
    network = _network(part, kind)
    network.load_state_dict(load_file(weights))
    return network.eval()


def _fit(stage: Stage, images: PatchImages, seed: int, weights: Any, target: Path) -> None:
    optimiser = stage.optimiser_config
    loader = train_loader(images, optimiser.batch_size, seed, weights, drop_incomplete=optimiser.drop_incomplete)
    fit(
        stage,
        loader,
        None,
        run_folder=target.with_suffix(".run"),
        title="",
        optimiser=optimiser,
        precision="32-true",
        device=CPU,
        devices=1,
        logger="none",
        progress=False,
        resume=False,
    )
    save_file({name: tensor.contiguous().clone() for name, tensor in stage.result.state_dict().items()}, target)


def train_classifier(study: Study, config: TrainingConfig, fold: int) -> tuple[Path, Any]:
    """Weights of stage 1, and all that they depend on."""
    depends = [_parts(config, "classifier", "stage1", "augmentation1", "attention", "imbalance", "seed"), fold]

    def make(target: Path) -> None:
        torch.manual_seed(config.seed)
        network = cast(Classifier, _network(config.classifier, "classifier"))
        initialise(network, config.classifier)
        seed_everything(config.seed)
        patches = study.training_patches(fold)
        labels = np.array([patch.label for patch in patches], dtype=np.float64)
        weights = patch_weights(labels) if config.imbalance == "sampler" else None
        _fit(ClassifierStage(network, config), PatchImages(patches, K), config.seed, weights, target)

    return study.step("stage1", depends, make), depends


def make_masks(study: Study, config: TrainingConfig, fold: int, teacher: str) -> tuple[list[Path], Any]:
    """Folders of the masks that teach stage 2, the guide first, and all that they depend on."""
    if teacher == "truth":
        return [study.work / "patches" / "mask"] * 3, "truth"
    if teacher == "self":
        return _own_masks(study, config, fold)
    weights, behind = train_classifier(study, config, fold)
    depends = [behind, _parts(config, "pseudo_masks")]
    classifier = cast(Classifier, _loaded(config.classifier, "classifier", weights))

    def make(target: Path) -> None:
        table = ClassTable.from_names(list(NAMES), list(COLORS))
        patches = tuple(study.training_patches(fold))
        data = PatchDataset(study.work / "patches", table, MPP, PATCH_PX, patches, (), {})
        write_masks(classifier, data, config, target, CPU, False)

    folder = study.step("masks", depends, make)
    return [folder / f"PM_{depth}" / "img" for depth in reversed(classifier.depths)], depends


def _own_masks(study: Study, config: TrainingConfig, fold: int) -> tuple[list[Path], Any]:
    """What the first round's segmenter says of the training patches, given their labels."""
    weights, behind = train_segmenter(study, config, fold, "pseudo")
    guides, _ = make_masks(study, config, fold, "pseudo")
    segmenter = _loaded(config.segmenter, "segmenter", weights)

    def make(target: Path) -> None:
        (target / "img").mkdir(parents=True, exist_ok=True)
        for patch in study.training_patches(fold):
            with Image.open(patch.path) as image, Image.open(guides[0] / patch.path.name) as guide:
                pixels, first = np.array(image), np.array(guide)
            turned = _turned(segmenter, config.segmenter, torch.from_numpy(pixels).permute(2, 0, 1)[None])
            turned = turned * torch.tensor(patch.label)[:, None, None]
            mask = turned[0].max(dim=0).indices.numpy().astype(np.uint8)
            mask[first == K] = K
            Image.fromarray(mask).save(target / "img" / patch.path.name)

    folder = study.step("own", [behind], make) / "img"
    return [folder] * 3, ["self", behind]


@torch.inference_mode()
def _turned(network: nn.Module, part: NetworkConfig, pixels: Tensor) -> Tensor:
    """Softmax (N, K, P, P) averaged over the eight orientations."""
    views = orientations(pixels)
    each = [undone(torch.softmax(_forward(network, part, view), dim=1), index) for index, view in enumerate(views)]
    return torch.stack(each).mean(dim=0)


@torch.inference_mode()
def _forward(network: nn.Module, part: NetworkConfig, pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (part.mean, part.std))
    batches = (normalise(b, mean, std).contiguous(memory_format=torch.channels_last) for b in torch.split(pixels, 16))
    return torch.cat([network(batch).float() for batch in batches])


def train_segmenter(study: Study, config: TrainingConfig, fold: int, teacher: str) -> tuple[Path, Any]:
    """Weights of stage 2, and all that they depend on."""
    folders, behind = make_masks(study, config, fold, teacher)
    own = config.changed(start_from_classifier=config.start_from_classifier and teacher != "truth")
    parts = _parts(own, "segmenter", "stage2", "augmentation2", "supervision", "start_from_classifier", "seed")
    depends = [behind, parts, fold]

    def make(target: Path) -> None:
        torch.manual_seed(own.seed + 1)
        network = _network(own.segmenter, "segmenter")
        initialise(network, own.segmenter)
        if own.start_from_classifier:
            weights, _ = train_classifier(study, config, fold)
            share_encoder(_loaded(own.classifier, "classifier", weights), network)
        seed_everything(own.seed)
        # Names without their folder, since each kind of mask has a folder of its own.
        patches = [Patch(p.path, p.path.name, p.label, p.group) for p in study.training_patches(fold)]
        images = PatchImages(patches, K, folders)
        stage = SegmenterStage(
            network, own, np.full(K, 1 / K), [], torch.zeros(0, K), torch.full((K,), 0.1), images=images
        )
        _fit(stage, images, own.seed + 1, None, target)

    return study.step("stage2", depends, make), depends


def measure(study: Study, row: Row, fold: int, seed: int) -> Path:
    """Confusion matrices of a row's columns on the test images of a fold."""
    config = row.config.changed(seed=seed)
    first, behind1 = train_classifier(study, config, fold)
    second, behind2 = train_segmenter(study, config, fold, row.teacher)
    classifier = _loaded(config.classifier, "classifier", first)
    segmenter = _loaded(config.segmenter, "segmenter", second)

    def make(target: Path) -> None:
        total = {name: np.zeros((K, K), np.int64) for name in COLUMNS}
        for image in study.images:
            if image.fold == fold:
                for name, classes in _maps(classifier, segmenter, config, row.flips, image).items():
                    total[name] += confusion_matrix(image.truth, classes, K)
        target.write_text(json.dumps({name: matrix.tolist() for name, matrix in total.items()}), encoding="utf-8")

    return study.step("measured", [behind1, behind2, row.flips, _parts(config, "gate"), COLUMNS], make)


def _maps(
    classifier: nn.Module, segmenter: nn.Module, config: TrainingConfig, flips: bool, image: LungImage
) -> dict[str, npt.NDArray[np.int64]]:
    """Class channels (H, W) of an image under each gate."""
    height, width = image.truth.shape
    grid = TileGrid.from_share(Size(width, height), PATCH_PX, OVERLAP)
    tiles = list(grid.tiles())
    pixels = F.pad(torch.from_numpy(image.pixels).permute(2, 0, 1), (0, PATCH_PX, 0, PATCH_PX), value=255)
    patches = torch.stack([pixels[(slice(None), *tile.box.slices())] for tile in tiles])
    views = orientations(patches) if flips else [patches]
    seen = torch.stack([torch.sigmoid(_forward(classifier, config.classifier, view)) for view in views]).mean(dim=0)
    # Log of the mean softmax: what its gate needs, and with one view the logits but for a constant.
    logits = (
        _turned(segmenter, config.segmenter, patches).log() if flips else _forward(segmenter, config.segmenter, patches)
    )
    gated = {
        "no gate": logits,
        "predicted gate": _gated(logits, seen, config, grid, tiles),
        "oracle gate, image": gate_logits(logits, _truly_in_image(image).expand(len(tiles), K)),
        "oracle gate, tile": gate_logits(logits, _truly_present(image, tiles)),
    }
    return {
        name: blend(Size(width, height), list(zip(tiles, values.softmax(dim=1).numpy(), strict=True)), grid).argmax(0)
        for name, values in gated.items()
    }


def _gated(logits: Tensor, seen: Tensor, config: TrainingConfig, grid: TileGrid, tiles: list[Tile]) -> Tensor:
    gate = config.gate
    if gate.context:
        whole = np.ones((grid.rows, grid.columns), np.bool_)
        values = seen.numpy().reshape(grid.rows, grid.columns, K)
        seen = torch.from_numpy(mean_in_context(values, whole, context_tiles(gate.context, grid)).reshape(-1, K))
    thresholds = torch.full((K,), gate.threshold)
    if RULES[gate.rule].by_sign:
        return gate_published(logits, seen, thresholds)
    return gate_logits(logits, allowed_classes(seen, thresholds, gate.floor))


def _truly_in_image(image: LungImage) -> Tensor:
    """The classes that occur anywhere in an image, (1, K)."""
    return torch.tensor([[bool((image.truth == k).any()) for k in range(K)]])


def _truly_present(image: LungImage, tiles: list[Tile]) -> Tensor:
    """The classes of each tile by the rule of the patch labels; all of them where it has none."""
    truth = np.pad(image.truth, ((0, PATCH_PX), (0, PATCH_PX)), constant_values=EXCLUDED)
    labels = torch.tensor([present(truth[tile.box.slices()]) for tile in tiles]) > 0
    return labels | ~labels.any(dim=1, keepdim=True)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


@click.group()
def main() -> None:
    """What each part of the method is worth."""


@main.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--rows", default=",".join(row.number for row in ROWS), show_default=True)
@click.option("--seeds", default="0", show_default=True)
@click.option("--folds", default=",".join(str(fold) for fold in range(FOLDS)), show_default=True)
@click.option("--threads", default=1, show_default=True, help="Of torch; several processes use cores better.")
def run(source: Path, work: Path, rows: str, seeds: str, folds: str, threads: int) -> None:
    """Train and measure what is missing in WORK."""
    torch.set_num_threads(threads)
    images = read_images(source)
    study = Study(work, images, cut(images, work / "patches"))
    order = {row.number: row for row in ROWS}
    todo = [
        (order[number], seed, fold)
        for seed in _numbers(seeds)
        for number in rows.split(",")
        for fold in _numbers(folds)
    ]
    while todo:
        left = [(row, seed, fold) for row, seed, fold in todo if not _measured(study, row, seed, fold)]
        if len(left) == len(todo):
            time.sleep(WAIT_S)
        todo = left


def _measured(study: Study, row: Row, seed: int, fold: int) -> bool:
    """Measure a row on a fold, and write down where; false where another process is at one of its steps."""
    try:
        path = measure(study, row, fold, seed)
    except BusyError:
        return False
    target = study.work / "results" / f"{row.number}-{seed}-{fold}.json"
    target.parent.mkdir(exist_ok=True)
    record = {"row": row.number, "seed": seed, "fold": fold, "file": path.name}
    target.write_text(json.dumps(record), encoding="utf-8")
    return True


@main.command()
@click.argument("work", type=click.Path(exists=True, file_okay=False, path_type=Path))
def table(work: Path) -> None:
    """Print the table of what was measured, as Markdown: mean over folds and seeds, and the spread over folds."""
    click.echo(f"| row | what | seeds | {' | '.join(COLUMNS)} | {', '.join(NAMES)} (predicted gate) |")
    click.echo("|---" * (4 + len(COLUMNS)) + "|")
    for row in ROWS:
        records = [json.loads(path.read_text()) for path in sorted((work / "results").glob(f"{row.number}-*.json"))]
        if records:
            click.echo(_line(work, row, records))


def _line(work: Path, row: Row, records: list[dict[str, Any]]) -> str:
    seeds = sorted({record["seed"] for record in records})
    figures: dict[str, list[tuple[int, float, npt.NDArray[np.float64]]]] = {name: [] for name in COLUMNS}
    for record in records:
        matrices = json.loads((work / record["file"]).read_text())
        for name in COLUMNS:
            scores = segmentation_scores(np.array(matrices[name]))
            figures[name].append((record["fold"], scores.mean_iou, scores.class_iou))
    cells = []
    for name in COLUMNS:
        folds = [
            np.mean([m for f, m, _ in figures[name] if f == fold]) for fold in sorted({f for f, *_ in figures[name]})
        ]
        cells.append(f"{np.mean(folds):.3f} ({', '.join(f'{value:.3f}' for value in folds)})")
    each = np.mean([iou for *_, iou in figures["predicted gate"]], axis=0)
    classes = "/".join(f"{value:.2f}" for value in each)
    return f"| {row.number} | {row.title} | {len(seeds)} | {' | '.join(cells)} | {classes} |"


if __name__ == "__main__":
    main()
