"""Does choosing patches pay? A simulated person labels, the real two stages train, and clicks are counted.

    python benchmarks/label_loop.py run OUT --brca BRCA-M2C --lung WSSS4LUAD --plan rare,common
    python benchmarks/label_loop.py table OUT

Each run has a fold and a seed. All strategies of a run share the first 25 patches, the model that learned from them,
and the images that are held out, so that their differences are paired. Patches are chosen by
`wsiseg/labelling/choose.py` from what `opinions.py` finds, answers are written as `wsiseg label` writes them (the
random fifth of a class-wise round is validation), and `wsiseg.training.run.train` trains both stages. Every finished
training is a line of OUT/results.jsonl; what is there is not computed again. Two processes may share a plan, `--part
0/2` and `--part 1/2`.

Plans: `rare` (BRCA-M2C, patches with lymphocytes thinned to 2 %), `rare-encoder` (the same, chosen by an encoder),
`common` (BRCA-M2C as it is), `lung` (WSSS4LUAD as it is), `refit` and `mosaics` (lung, other ways to train), `noise`
(lung, answers flipped or small classes missed), `correct` (see `label_corrections.py`).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from label_pool import Annotator, Answerable, HeldOut, Pool, brca_pool, clicks, lung_pool
from label_table import print_table
from PIL import Image
from torch.nn import functional as F
from torchmetrics.functional.classification import binary_average_precision

from wsiseg.datasets.provenance import Provenance
from wsiseg.datasets.write import DatasetWriter, PatchRow
from wsiseg.geometry import Size
from wsiseg.labelling.choose import Chosen, choose_classwise, choose_random
from wsiseg.labelling.labelling import PROBED_ROUND
from wsiseg.labelling.opinions import ask, embed
from wsiseg.labelling.patch_cache import PatchCache
from wsiseg.labelling.probe import Prober
from wsiseg.metrics import confusion_matrix
from wsiseg.models.bundle import load_model
from wsiseg.models.context import context_tiles, mean_in_context
from wsiseg.models.embedding import Embedder
from wsiseg.models.gate import allowed_classes, gate_logits
from wsiseg.models.tissue_model import TissueModel
from wsiseg.tiling.blending import blend
from wsiseg.tiling.grid import TileGrid
from wsiseg.training.config import TrainingConfig, lite_config
from wsiseg.training.run import train

ROUNDS = (25, 100, 200, 400)
BATCH = 8
EPOCHS, LEAST_SEEN = 4, 400
"""Epochs of either stage, and patches that either sees at least, over and over where there are few."""

ENCODER = "tf_efficientnet_lite0"
"""That the strategy `encoder` asks."""

OVERLAP = 0.0
NO_GATE, GATE = "no gate", "predicted gate"

WAYS: dict[str, dict[str, Any]] = {"refit": {"refit": 3}, "mosaics": {"supervision": {"mosaics": 0.5}}}
"""Strategies that choose at random, and train in another way."""

RESULTS, PRECISION = "results.jsonl", "precision.jsonl"
KEYS = ("pool", "fold", "seed", "annotator", "strategy", "budget")


@dataclass(frozen=True, slots=True)
class Setting:
    """What a strategy is tried on: pool, fold, seed, and who answers.

    Attributes:
        pool: of patches.
        thinned: whether the rare class is 2 % of them.
        fold: held out.
        seed: of everything random.
        annotator: who answers.
    """

    pool: Pool
    thinned: bool
    fold: int
    seed: int
    annotator: Annotator

    @property
    def key(self) -> dict[str, Any]:
        """As results say it."""
        name = f"{self.pool.name}, thinned" if self.thinned else self.pool.name
        return {"pool": name, "fold": self.fold, "seed": self.seed, "annotator": self.annotator.name}

    @property
    def folder(self) -> str:
        """A name for its files."""
        return "-".join(str(value) for value in self.key.values()).replace(", ", "-").replace(" ", "").replace("%", "")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A patch that was answered.

    Attributes:
        patch: which.
        answer: 0 or 1 for each class.
        round: from 0.
        chosen: how.
        model_hash: of the model that helped to choose.
    """

    patch: Answerable
    answer: tuple[int, ...]
    round: int
    chosen: str
    model_hash: str = ""

    def row(self, pool: Pool, seed: int) -> PatchRow:
        """As labelling writes it: random patches of rounds that a model helped to choose are validation."""
        place = self.patch.place
        split = "val" if self.chosen == "random" and self.model_hash else ""
        where = Provenance(
            place.slide, place.x, place.y, pool.patch_px, pool.mpp, "labelled", f"simulated-{seed}", self.round,
            self.chosen, model_hash=self.model_hash,
        )  # fmt: skip
        return PatchRow(dict(zip(pool.classes.names, self.answer, strict=True)), place.group, split, where, place.id)


class Loop:
    """One run: the strategies of one setting, what they labelled, and the models that came of it.

    Args:
        out: folder of all results.
        setting: of the run.
    """

    def __init__(self, out: Path, setting: Setting) -> None:
        self.out, self.setting = out, setting
        self.folder = out / "runs" / setting.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.candidates = setting.pool.candidates(setting.fold, setting.seed, thinned=setting.thinned)
        self.images = setting.pool.images[setting.fold]
        self._cache: PatchCache | None = None

    def labelled(self, strategy: str, budget: int) -> list[Labelled]:
        """What a person who followed a strategy has answered, up to `budget` patches; trains what that needs."""
        first = ROUNDS[0]
        if strategy == "random" or strategy in WAYS or budget <= first:
            return self._answered(choose_random(range(len(self.candidates)), budget), 0, "")
        if strategy == "encoder":
            return self._by_encoder(budget)
        before = self.labelled(strategy, max(count for count in ROUNDS if count < budget))
        number = ROUNDS.index(budget)
        model = load_model(self.model(strategy, len(before), hasty=True), runtime="torch")
        shown = {one.patch.place.id for one in before}
        available = [i for i, one in enumerate(self.candidates) if one.place.id not in shown]
        opinions = ask(model, self._patches(), [self.candidates[i].place.id for i in available])
        probabilities, features = (
            np.stack([opinions[self.candidates[i].place.id][part] for i in available]) for part in (0, 1)
        )
        groups = [self.candidates[i].place.group for i in available]
        count, seed = budget - len(before), self.setting.seed + number
        if strategy == "classwise":
            positives = np.sum([one.answer for one in before], axis=0).tolist()
            chosen = choose_classwise(
                range(len(available)), count, probabilities, features, groups, seed, positives=positives
            )
        else:
            chosen = least_certain(probabilities, count)
        chosen = [Chosen(available[one.index], one.source) for one in chosen]
        return [*before, *self._answered(chosen, number, model.hash)]

    def _by_encoder(self, budget: int) -> list[Labelled]:
        """Rounds as `wsiseg label --encoder … --choose classwise` has them, from the first 25 patches on."""
        names, answered = self.setting.pool.classes.names, self.labelled("random", ROUNDS[0])
        prober = Prober(embed(Embedder(ENCODER, "cpu"), self._patches(), [one.place.id for one in self.candidates]))
        while len(answered) < budget:
            number, count = answered[-1].round + 1, min(PROBED_ROUND, budget - len(answered))
            advice = prober.advice(
                {one.patch.place.id: dict(zip(names, one.answer, strict=True)) for one in answered}, names
            )
            assert advice is not None
            shown = {one.patch.place.id for one in answered}
            available = [i for i, one in enumerate(self.candidates) if one.place.id not in shown]
            ids = [self.candidates[i].place.id for i in available]
            positives = [sum(one.answer[names.index(name)] for one in answered) for name in advice.names]
            chosen = choose_classwise(
                range(len(available)),
                count,
                np.stack([advice.probabilities[patch] for patch in ids]),
                np.stack([advice.features[patch] for patch in ids]),
                [self.candidates[i].place.group for i in available],
                self.setting.seed + number,
                positives=positives,
            )
            answered += self._answered(
                [Chosen(available[one.index], one.source) for one in chosen], number, advice.model_hash
            )
        return answered

    def _answered(self, chosen: Sequence[Chosen], number: int, model_hash: str) -> list[Labelled]:
        annotator = self.setting.annotator
        return [
            Labelled(patch, annotator.answer(patch), number, one.source, model_hash)
            for one in chosen
            for patch in [self.candidates[one.index]]
        ]

    def _patches(self) -> PatchCache:
        if self._cache is None:
            self._cache = PatchCache(self.folder / "patches.sqlite")
            for one in self.candidates:
                if not self._cache.has(one.place.id):
                    self._cache.put(one.place.id, _read(one.path), None)
        return self._cache

    def model(self, strategy: str, budget: int, *, hasty: bool = False) -> Path:
        """The bundle that a strategy's patches teach; `hasty` with a short stage 2, where only the choice needs it."""
        strategy = "random" if budget <= ROUNDS[0] else strategy
        folder = self.folder / f"{strategy}-{budget}{'-hasty' if hasty else ''}"
        if not (folder / "model.json").is_file():
            labelled = self.labelled(strategy, budget)
            data = write_patches(self.folder / f"data-{strategy}-{budget}", self.setting, labelled)
            config = training_config(self.setting.pool, len(labelled), self.setting.seed)
            if hasty:
                config = config.changed(stage2={"epochs": 1})
            config = config.changed(**WAYS.get(strategy, {}))
            train_quietly(data, folder, config)
        return folder

    def measure(self, strategy: str, budget: int) -> None:
        """Train and measure, unless that was done, and write the result down."""
        key = {**self.setting.key, "strategy": strategy, "budget": budget}
        if is_done(self.out, key):
            return
        start = time.perf_counter()
        labelled = self.labelled(strategy, budget)
        model = load_model(self.model(strategy, budget), runtime="torch")
        answers = [one.answer for one in labelled]
        record(self.out, {
            **key,
            "clicks": clicks(answers),
            "positives": np.sum(answers, axis=0).tolist(),
            "pool_patches": len(self.candidates),
            **measured(model, self.images),
            "seconds": round(time.perf_counter() - start),
            **how(self.setting.pool, len(labelled)),
        })  # fmt: skip


def least_certain(probabilities: npt.NDArray[np.float32], count: int) -> list[Chosen]:
    """Plain entropy, summed over classes, and nothing else."""
    p = probabilities.astype(np.float64).clip(1e-12, 1 - 1e-12)
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(axis=1)
    return [Chosen(int(index), "classwise") for index in np.argsort(-entropy, kind="stable")[:count]]


def _read(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def write_patches(root: Path, setting: Setting, labelled: Sequence[Labelled]) -> Path:
    """A data set folder of what was answered, as labelling writes it."""
    shutil.rmtree(root, ignore_errors=True)
    with DatasetWriter(root, setting.pool.classes, setting.pool.mpp, setting.pool.patch_px) as writer:
        for one in labelled:
            writer.add(_read(one.patch.path), one.row(setting.pool, setting.seed))
        writer.finish()
    return root


def epochs_for(patches: int) -> int:
    """Of either stage."""
    return max(EPOCHS, -(-LEAST_SEEN // patches))


def training_config(pool: Pool, patches: int, seed: int) -> TrainingConfig:
    """The preset `lite`, with batches and epochs that suit few patches."""
    epochs = {"epochs": epochs_for(patches), "batch_size": BATCH}
    return lite_config().changed(
        sheet_patches=0, stage1=epochs, stage2=epochs, gate={"context": pool.context}, overlap=OVERLAP, seed=seed,
        refit=0,  # else only strategies without a split of their own would learn from every patch
    )  # fmt: skip


def how(pool: Pool, patches: int) -> dict[str, Any]:
    """What a training was, for the table."""
    return {"epochs": epochs_for(patches), "batch": BATCH, "patch_px": pool.patch_px, "mpp": pool.mpp}


def train_quietly(data: Path, out: Path, config: TrainingConfig, **more: Any) -> None:
    """Train, and keep the bundle alone."""
    train(data, out, config, device="cpu", overwrite=True, logger="none", progress=False, say=lambda text: None, **more)
    shutil.rmtree(out.with_name(f"{out.name}.training"), ignore_errors=True)


def measured(model: TissueModel, images: Sequence[HeldOut]) -> dict[str, Any]:
    """Confusion matrices of the held-out images without gate and with the model's own."""
    count = len(model.classes)
    total = {name: np.zeros((count, count), np.int64) for name in (NO_GATE, GATE)}
    for image in images:
        for name, classes in class_maps(model, image.pixels).items():
            total[name] += held_against(image, classes, count)
    return {name: matrix.tolist() for name, matrix in total.items()}


def held_against(image: HeldOut, classes: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Confusion matrix (K, K) of an image's class map (H, W), at its pixels or its cells."""
    if image.truth is not None:
        rows, columns = (
            np.minimum((np.arange(fine) + 0.5) * coarse // fine, coarse - 1).astype(int)
            for fine, coarse in zip(image.truth.shape, classes.shape, strict=True)
        )
        return confusion_matrix(image.truth, classes[np.ix_(rows, columns)], count)
    assert image.cells is not None
    x, y = (np.minimum(image.cells[:, i], classes.shape[1 - i] - 1).astype(int) for i in (0, 1))
    return confusion_matrix(image.cells[:, 2].astype(int), classes[y, x], count)


@torch.inference_mode()
def class_maps(model: TissueModel, pixels: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.int64]]:
    """Class channels (H, W) of an image without gate and with the model's own, tiles overlapping and blended."""
    height, width = pixels.shape[:2]
    side = model.spec.patch_size_px
    grid = TileGrid.from_share(Size(width, height), side, model.spec.overlap)
    padded = F.pad(torch.from_numpy(pixels.copy()).permute(2, 0, 1), (0, side, 0, side), value=255)
    tiles = list(grid.tiles())
    patches = torch.stack([padded[(slice(None), *tile.box.slices())] for tile in tiles])
    logits = torch.cat([model.segment(batch) for batch in torch.split(patches, 32)])
    seen = torch.cat([model.classify(batch) for batch in torch.split(patches, 32)])
    if model.spec.gate_context:
        values = seen.numpy().reshape(grid.rows, grid.columns, -1)
        whole = np.ones((grid.rows, grid.columns), np.bool_)
        context = context_tiles(model.spec.gate_context, grid)
        seen = torch.from_numpy(mean_in_context(values, whole, context)).flatten(0, 1)
    found = {NO_GATE: logits, GATE: gate_logits(logits, allowed_classes(seen, model.gate, model.spec.gate_floor))}
    return {
        name: blend(Size(width, height), list(zip(tiles, each.softmax(dim=1).numpy(), strict=True)), grid).argmax(0)
        for name, each in found.items()
    }


def results(out: Path, file: str = RESULTS) -> list[dict[str, Any]]:
    """All that was measured."""
    path = out / file
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def is_done(out: Path, key: dict[str, Any], file: str = RESULTS) -> bool:
    """Whether a result with these values is there."""
    return any(all(found.get(name) == value for name, value in key.items()) for found in results(out, file))


def record(out: Path, result: dict[str, Any], file: str = RESULTS) -> None:
    """Add a line to the results."""
    with (out / file).open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(result) + "\n")
    short = {name: value for name, value in result.items() if name not in (NO_GATE, GATE)}
    click.echo(f"{time.strftime('%H:%M:%S')} {short}")


PLANS: dict[str, tuple[str, bool, tuple[Annotator, ...], tuple[tuple[str, int], ...]]] = {
    "rare": ("brca", True, (Annotator(),), (("random", 200), ("classwise", 200), ("random", 400))),
    "rare-curve": ("brca", True, (Annotator(),), (("random", 25), ("random", 50), ("classwise", 50), ("random", 100),
                                                  ("classwise", 100), ("classwise", 400))),
    "rare-entropy": ("brca", True, (Annotator(),), (("entropy", 200),)),
    "rare-encoder": ("brca", True, (Annotator(),), (("random", 200), ("encoder", 200), ("random", 400))),
    "common": ("brca", False, (Annotator(),), (("random", 200), ("classwise", 200))),
    "common-encoder": ("brca", False, (Annotator(),), (("random", 200), ("encoder", 200))),
    "lung": ("lung", False, (Annotator(),), (("random", 100), ("classwise", 100))),
    "lung-curve": ("lung", False, (Annotator(),), (("random", 200), ("classwise", 200))),
    "refit": ("lung", False, (Annotator(),), (("random", 100), ("refit", 100))),
    "mosaics": ("lung", False, (Annotator(),), (("random", 100), ("mosaics", 100))),
    "noise": ("lung", False, (Annotator(0.05), Annotator(0.1), Annotator(misses=True)),
              (("random", 100), ("classwise", 100))),
}  # fmt: skip
"""Of each plan: pool, whether it is thinned, who answers, and which strategies are measured at which budget."""


@click.group()
def main() -> None:
    """Does choosing patches pay?"""


@main.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--brca", type=click.Path(exists=True, file_okay=False, path_type=Path), help="BRCA-M2C.")
@click.option("--lung", type=click.Path(exists=True, file_okay=False, path_type=Path), help="WSSS4LUAD.")
@click.option("--plan", default="rare,common,lung", show_default=True, help=f"Of {', '.join(PLANS)}, correct.")
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--folds", default="0,1,2", show_default=True)
@click.option("--part", default="0/1", show_default=True, help="Which runs, of how many parts.")
@click.option("--threads", default=1, show_default=True)
def run(
    out: Path, brca: Path | None, lung: Path | None, plan: str, seeds: str, folds: str, part: str, threads: int
) -> None:
    """Train and measure what is missing in OUT."""
    torch.set_num_threads(threads)
    which, parts = (int(text) for text in part.split("/"))
    runs = [(int(seed), int(fold)) for seed in seeds.split(",") for fold in folds.split(",")]
    work = out / f"pools-{which}"
    for name in plan.split(","):
        if name == "correct":
            _correct(out, lung, work, runs[which::parts])
            continue
        place, thinned, annotators, steps = PLANS[name]
        source = {"brca": brca, "lung": lung}[place]
        if source is None:
            raise click.UsageError(f"plan {name} needs --{place}")
        pool = (brca_pool if place == "brca" else lung_pool)(source, work)
        for seed, fold in runs[which::parts]:
            for annotator in annotators:
                setting = Setting(pool, thinned, fold, seed, Annotator(annotator.flips, annotator.misses, seed))
                loop = Loop(out, setting)
                for strategy, budget in steps:
                    loop.measure(strategy, budget)


def _correct(out: Path, lung: Path | None, work: Path, runs: Sequence[tuple[int, int]]) -> None:
    from label_corrections import correct_loop  # noqa: PLC0415  (it imports this file)

    if lung is None:
        raise click.UsageError("plan correct needs --lung")
    pool = lung_pool(lung, work)
    for seed, fold in runs:
        correct_loop(Loop(out, Setting(pool, False, fold, seed, Annotator(seed=seed))))


@main.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--brca", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
def precision(out: Path, brca: Path) -> None:
    """Average precision of stage 1 on held-out patches, of what was measured on BRCA-M2C; into OUT/precision.jsonl."""
    torch.set_num_threads(1)
    pool = brca_pool(brca, out / "pools-0")
    for result in results(out):
        key = {name: result.get(name) for name in KEYS}
        if not result["pool"].startswith(pool.name) or is_done(out, key, PRECISION):
            continue
        setting = Setting(pool, result["pool"] != pool.name, result["fold"], result["seed"], Annotator())
        folder = out / "runs" / setting.folder / f"{result['strategy']}-{result['budget']}"
        found = average_precisions(load_model(folder, runtime="torch"), pool.patches[result["fold"]])
        record(out, {**key, "average_precision": found}, PRECISION)


def average_precisions(model: TissueModel, patches: Sequence[Answerable]) -> list[float]:
    """Of each class, of the classifier's probabilities of patches whose truth is known."""
    batches = [patches[start : start + 32] for start in range(0, len(patches), 32)]
    pixels = (torch.from_numpy(np.stack([_read(one.path) for one in batch])).permute(0, 3, 1, 2) for batch in batches)
    seen = torch.cat([model.classify(batch) for batch in pixels])
    truth = torch.tensor([one.label for one in patches])
    return [float(binary_average_precision(seen[:, k], truth[:, k])) for k in range(truth.shape[1])]


@main.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
def table(out: Path) -> None:
    """Print what was measured, as Markdown."""
    print_table(results(out), results(out, PRECISION))


if __name__ == "__main__":
    main()
