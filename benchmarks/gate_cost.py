"""What the gate costs: time and accuracy of each way to ask it, and a shared gate for a bundle that has none.

    python benchmarks/gate_cost.py measure BUNDLE BRCA-M2C       CPU time and balanced accuracy at cells of each mode
    python benchmarks/gate_cost.py shared BUNDLE PATCHES OUT     BUNDLE with a gate on its segmenter's encoder

`measure` predicts every validation image in its eight orientations, so that one image's luck counts less, by each mode
in turn: times are CPU seconds of this process (one thread), per megapixel of map that a patch or tile adds, and
their ratios hold on a busy machine as well. No choice is made on the test images, so they are not offered.
PATCHES is what `brca_m2c.py` makes: its training patches teach the head, its validation patches set thresholds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import numpy.typing as npt
import torch
from brca_m2c import IMAGE_MPP, NAMES, read_images
from cells import Cells
from torch import Tensor

from wsiseg.datasets.dataset import read_dataset
from wsiseg.geometry import Size
from wsiseg.models.bundle import load_model, save_bundle
from wsiseg.models.folder import find_bundle
from wsiseg.models.large_tiles import predict_shared, predict_windows, shared_thresholds
from wsiseg.models.tile_shape import check_margin, default_tile
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.gated import PredictTiles
from wsiseg.prediction.run import predict_patches
from wsiseg.tiling.blending import blend
from wsiseg.tiling.grid import TileGrid
from wsiseg.training.config import TrainingConfig
from wsiseg.training.shared_gate import check_carries_gate, tile_fields, train_shared_gate

Predict = Callable[[Tensor], Tensor]
"""From patches or tiles (N, 3, T, T), uint8, to probabilities (N, K, T, T)."""


@dataclass
class Way:
    """One way to predict, and what it took and found.

    Attributes:
        title: of its row.
        tile_px: side of what it is shown.
        overlap_px: what neighbours share.
        predict: what it does.
        seconds: of CPU so far.
        megapixels: of map so far.
        rows: (3, n) of cells: truth, prediction, slide.
    """

    title: str
    tile_px: int
    overlap_px: int
    predict: Predict
    seconds: float = 0.0
    megapixels: float = 0.0
    rows: list[npt.NDArray[np.int64]] = field(default_factory=list)

    def classes(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Class channels (h, w) of an image (h, w, 3), white around it; counts the networks' and the gate's time."""
        height, width = pixels.shape[:2]
        tiles = TileGrid(Size(width, height), self.tile_px, self.overlap_px)
        padded = np.pad(pixels, ((0, self.tile_px), (0, self.tile_px), (0, 0)), constant_values=255)
        places = list(tiles.tiles())
        found = []
        size = max(1, 2**17 // self.tile_px**2)
        for first in range(0, len(places), size):
            batch = places[first : first + size]
            images = torch.from_numpy(np.stack([padded[place.box.slices()] for place in batch])).permute(0, 3, 1, 2)
            if not self.rows and not first:
                self.predict(images)  # makes the networks ready, which is not what is measured
            begun = time.process_time()
            values = self.predict(images)
            self.seconds += time.process_time() - begun
            self.megapixels += len(batch) * tiles.stride_px**2 / 1e6
            found += list(zip(batch, values.numpy(), strict=True))
        best: npt.NDArray[np.int64] = blend(tiles.map_size, found, tiles).argmax(axis=0)
        return best

    def look_up(self, classes: npt.NDArray[np.int64], cells: npt.NDArray[np.float64], slide: int) -> None:
        """Remember the classes at the cells (n, 3) of an image."""
        x, y = (np.minimum(cells[:, axis].astype(int), classes.shape[1 - axis] - 1) for axis in (0, 1))
        truth = cells[:, 2].astype(np.int64)
        self.rows.append(np.stack([truth, classes[y, x], np.full(len(truth), slide)]))

    @property
    def cells(self) -> Cells:
        """What was found at all cells."""
        return Cells(*np.concatenate(self.rows, axis=1))


def ways(model: TissueModel, sizes: list[tuple[int, int]]) -> Iterator[Way]:
    """Each mode that the model has, on tiles of each of the sizes (side, margin)."""
    spec, gate = model.spec, model.gate
    overlap = spec.patch_size_px - spec.stride_px

    def patches(images: Tensor) -> Tensor:
        return predict_patches(model, images, gate)[0]

    yield Way("patches", spec.patch_size_px, overlap, patches)
    modes: list[tuple[str, PredictTiles, tuple[float, ...]]] = [("windows", predict_windows, spec.gate)]
    if spec.shared_gate is not None:
        modes.append(("shared", predict_shared, shared_thresholds(spec)))
    for mode, predict, values in modes:
        thresholds = torch.tensor(values)
        for tile_px, margin_px in sizes:
            check_margin(tile_px, margin_px)
            yield Way(
                f"{mode}, {tile_px} px, margin {margin_px}", tile_px, 2 * margin_px, _tiled(model, predict, thresholds)
            )


def _tiled(model: TissueModel, predict_tiles: PredictTiles, thresholds: Tensor) -> Predict:
    spec = model.spec

    def predict(images: Tensor) -> Tensor:
        return predict_tiles(model, images, thresholds, spec.patch_size_px, spec.stride_px, spec.gate_floor)[0]

    return predict


def turned(pixels: npt.NDArray[np.uint8], index: int) -> npt.NDArray[np.uint8]:
    """One of eight orientations of an image."""
    return np.ascontiguousarray(np.rot90(pixels[:, ::-1] if index >= 4 else pixels, index % 4))


def turned_back(classes: npt.NDArray[np.int64], index: int) -> npt.NDArray[np.int64]:
    """What was computed on that orientation, as the image is."""
    back = np.rot90(classes, -(index % 4))
    return back[:, ::-1] if index >= 4 else back


@click.group()
def main() -> None:
    """Cost and accuracy of the gate's modes."""


@main.command()
@click.argument("bundle")
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", type=click.Choice(["train", "val"]), default="val", show_default=True)
@click.option("--orientations", type=click.IntRange(1, 8), default=8, show_default=True)
@click.option("--tiles", multiple=True, metavar="SIDE:MARGIN", help="Sizes of tiles [default: the bundle's].")
@click.option("--runtime", default="torch", show_default=True, help="torch, compiled or openvino.")
@click.option("--precision", default="float32", show_default=True, help="float32 or bfloat16.")
def measure(
    bundle: str, source: Path, split: str, orientations: int, tiles: tuple[str, ...], runtime: str, precision: str
) -> None:
    """Print CPU ms a megapixel and balanced accuracy at the cells of BRCA-M2C for each mode of BUNDLE."""
    torch.set_num_threads(1)
    model = load_model(bundle, runtime=runtime, precision=precision)
    spec = model.spec
    if spec.mpp != IMAGE_MPP:
        raise click.UsageError(f"the images are at {IMAGE_MPP} um/px, the bundle at {spec.mpp:g}")
    own = (spec.tile_px, spec.tile_margin_px) if spec.tile_px else default_tile(spec.patch_size_px, spec.overlap)
    sizes = [cast(tuple[int, int], tuple(int(n) for n in text.split(":"))) for text in tiles] or [own]
    found = list(ways(model, sizes))
    slides: dict[str, int] = {}
    for image in read_images(source, split):
        slide = slides.setdefault(image.name[:23], len(slides))
        for index in range(orientations):
            pixels = turned(image.pixels, index)
            for way in found:
                classes = way.classes(pixels)
                way.look_up(turned_back(classes, index), image.cells, slide)
    click.echo(f"{model.runtime.name}, {model.runtime.precision}, one thread")
    print_table(found, split, len(slides), orientations)


def print_table(found: list[Way], split: str, slides: int, orientations: int) -> None:
    """One row a way; the first is what the others are compared with."""
    click.echo(f"{split}: {slides} slides, {len(found[0].cells.truth)} cells in {orientations} orientations together")
    names = " ".join(f"{name:>11}" for name in NAMES)
    click.echo(f"{'recall of':28} {names}  balanced  95 % by slide     CPU ms/MP  times")
    first = found[0].seconds / found[0].megapixels
    for way in found:
        each, recalls = way.seconds / way.megapixels, way.cells.recalls()
        low, high = way.cells.interval()
        shown = " ".join(f"{value:11.3f}" for value in recalls)
        accuracy = f"{shown}    {recalls.mean():.4f}  [{low:.3f}, {high:.3f}]"
        click.echo(f"{way.title:28} {accuracy}  {1000 * each:9.0f}  {first / each:5.2f}")


@main.command()
@click.argument("bundle")
@click.argument("patches", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True)
def shared(bundle: str, patches: Path, out: Path, overwrite: bool) -> None:
    """Teach a gate on BUNDLE's segmenter and write the bundle OUT, whose mode is shared."""
    torch.set_num_threads(1)
    model = load_model(bundle)
    spec = model.spec
    known = {name: value for name, value in spec.training.items() if name in TrainingConfig.model_fields}
    config = TrainingConfig.model_validate(known).changed(gate={"mode": "shared"})
    segmenter = check_carries_gate(model.segmenter, spec.networks.segmenter.architecture)
    data = read_dataset(patches)
    begun = time.process_time()
    trained = train_shared_gate(segmenter, data, config, model.device, progress=True)
    click.echo(f"shared gate: {time.process_time() - begun:.0f} s of CPU, mean average precision {trained.precision}")
    fields: dict[str, Any] = spec.model_dump(
        mode="json", exclude={"format_version", "created", "tool_version", "metrics"}
    )
    fields |= tile_fields(config, spec.patch_size_px)
    fields["shared_gate"] = trained.thresholds
    fields["training"] = {**spec.training, **config.model_dump(mode="json")}
    fields["networks"]["segmenter"]["arguments"]["shared_gate"] = True
    save_bundle(out, fields, model.classifier, segmenter, overwrite=overwrite, half=config.half_weights)
    for path in find_bundle(bundle).iterdir():  # its licence and card
        if path.is_file() and not (out / path.name).exists():
            (out / path.name).write_bytes(path.read_bytes())
    click.echo(f"{out}: thresholds {', '.join(f'{value:.4f}' for value in trained.thresholds)}")


if __name__ == "__main__":
    main()
