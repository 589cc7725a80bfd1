"""Make a data set of labelled patches out of BRCA-M2C (Abousamra et al. 2021): images with cell dots.

    python benchmarks/brca_m2c.py SOURCE OUT                      all training and validation images
    python benchmarks/brca_m2c.py SOURCE OUT --every 6            every sixth image: what sample_data/patches holds
    python benchmarks/brca_m2c.py SOURCE --table                  label combinations for several patch sizes

A patch's label says which cell classes occur in it, from `--min-cells` cells on: a pathologist would see no more.
The test images are never read here.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from PIL import Image

IMAGE_MPP = 0.5
CLASSES = ({"name": "Tumour", "color": [213, 45, 45]}, {"name": "Stroma", "color": [240, 170, 40]},
           {"name": "Lymphocytes", "color": [40, 90, 200]})  # fmt: skip
NAMES = tuple(str(entry["name"]) for entry in CLASSES)
_THEIR_CLASSES = {2: 0, 3: 1, 1: 2}

CITATION = (
    "Abousamra S, Belinsky D, Van Arnam J, Allard F, Yee E, Gupta R, Kurc T, Samaras D, Saltz J, Chen C. Multi-Class "
    "Cell Detection Using Spatial Context Representation. ICCV 2021. arXiv:2110.04886. "
    "The images are from The Cancer Genome Atlas (TCGA-BRCA), https://www.cancer.gov/tcga."
)


@dataclass(frozen=True, slots=True)
class DottedImage:
    """An image with its cells.

    Attributes:
        name: of the image file.
        pixels: (H, W, 3) uint8 at `mpp`.
        cells: (n, 3) float: x and y in pixels (of corners), class channel.
    """

    name: str
    pixels: npt.NDArray[np.uint8]
    cells: npt.NDArray[np.float64]

    @property
    def patient(self) -> str:
        """TCGA's patient."""
        return self.name[:12]


def read_images(source: Path, split: str, mpp: float = IMAGE_MPP) -> Iterator[DottedImage]:
    """The images of a split ("train", "val" or "test"), resampled to `mpp`, with their cells.

    Rows of the label files are y, x, class; whole numbers are pixels, so half a pixel is added for their centre.
    """
    for name in (source / f"brca_ds_{split}.txt").read_text().split():
        with Image.open(source / "images" / name) as image:
            picture = image.convert("RGB")
        rows = np.loadtxt(source / "labels" / f"{name[:-4]}_gt_class_coords.txt", dtype=int, ndmin=2)
        size = (round(picture.width * IMAGE_MPP / mpp), round(picture.height * IMAGE_MPP / mpp))
        scale = (size[0] / picture.width, size[1] / picture.height)
        if size != picture.size:
            picture = picture.resize(size, Image.Resampling.BOX if mpp > IMAGE_MPP else Image.Resampling.BILINEAR)
        classes = [_THEIR_CLASSES[c] for c in rows[:, 2].tolist()]
        cells = np.column_stack([(rows[:, 1] + 0.5) * scale[0], (rows[:, 0] + 0.5) * scale[1], classes])
        yield DottedImage(name, np.array(picture), cells)


def corners(length: int, patch_px: int, stride_px: int) -> list[int]:
    """First pixels of patches along a side: a grid, and one more patch that ends where the side does."""
    starts = list(range(0, length - patch_px + 1, stride_px))
    return starts if not starts or starts[-1] + patch_px == length else [*starts, length - patch_px]


def patch_label(cells: npt.NDArray[np.float64], x: int, y: int, patch_px: int, min_cells: int) -> tuple[int, ...]:
    """0 or 1 for each class: whether at least `min_cells` of its cells lie in the patch."""
    inside = (cells[:, 0] >= x) & (cells[:, 0] < x + patch_px) & (cells[:, 1] >= y) & (cells[:, 1] < y + patch_px)
    counts = np.bincount(cells[inside, 2].astype(int), minlength=len(CLASSES))
    return tuple(int(count >= min_cells) for count in counts)


def prepare(source: Path, out: Path, mpp: float, patch_px: int, stride_px: int, min_cells: int, every: int) -> int:
    """Write the data set; the number of patches."""
    rows: list[list[object]] = []
    (out / "images").mkdir(parents=True)
    for split in ("train", "val"):
        for number, image in enumerate(read_images(source, split, mpp)):
            if number % every:
                continue
            height, width = image.pixels.shape[:2]
            for y in corners(height, patch_px, stride_px):
                for x in corners(width, patch_px, stride_px):
                    file = f"images/{image.name[:23]}_{number:02d}_{x:03d}_{y:03d}.png"
                    patch = image.pixels[y : y + patch_px, x : x + patch_px]
                    Image.fromarray(patch).save(out / file, optimize=True)
                    label = patch_label(image.cells, x, y, patch_px, min_cells)
                    rows.append([file, *label, image.patient, split])
    with (out / "labels.csv").open("w", newline="", encoding="utf-8") as file_object:
        writer = csv.writer(file_object, lineterminator="\n")
        writer.writerow(["file", *NAMES, "group", "split"])
        writer.writerows(rows)
    share = "all" if every == 1 else f"every {every}th of the"
    about = {
        "name": "BRCA-M2C patches",
        "mpp": mpp,
        "classes": list(CLASSES),
        "licence": "BSD-3-Clause (LICENSE)",
        "citation": CITATION,
        "description": (
            f"BRCA-M2C (TCGA breast cancer, H&E): patches of {patch_px} px at {mpp:g} um/px, one every {stride_px} px, "
            f"from {share} training and validation images; a class is present from {min_cells} of its cells on"
        ),
    }
    (out / "dataset.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(source / "LICENSE", out / "LICENSE")
    return len(rows)


def print_table(source: Path) -> None:
    """Shares of label combinations in the training images, in per cent."""
    combinations = [tuple(int(bit) for bit in f"{number:03b}") for number in range(8)]
    short = ["".join(n[0] for n, bit in zip(NAMES, c, strict=True) if bit) or "none" for c in combinations]
    click.echo(f"{'um':>5} {'cells':>5} {'patches':>8} " + " ".join(f"{name:>5}" for name in short))
    images = list(read_images(source, "train"))
    for side in (48, 64, 96, 128, 192, 256):
        for min_cells in (1, 2):
            count: Counter[tuple[int, ...]] = Counter()
            for image in images:
                height, width = image.pixels.shape[:2]
                for y in range(0, height - side + 1, side):
                    for x in range(0, width - side + 1, side):
                        count[patch_label(image.cells, x, y, side, min_cells)] += 1
            total = sum(count.values())
            shares = " ".join(f"{100 * count[c] / total:5.1f}" for c in combinations)
            click.echo(f"{side * IMAGE_MPP:5.0f} {min_cells:5d} {total:8d} {shares}")


@click.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path), required=False)
@click.option("--mpp", default=0.5, show_default=True, help="Microns per pixel of the patches.")
@click.option("--patch-size", default=96, show_default=True, help="Side in pixels.")
@click.option("--stride", default=96, show_default=True, help="Pixels from patch to patch.")
@click.option("--min-cells", default=2, show_default=True, help="Cells that make a class present.")
@click.option("--every", default=1, show_default=True, help="Take every n-th image.")
@click.option("--table", is_flag=True, help="Print shares of label combinations instead.")
def main(
    source: Path, out: Path | None, mpp: float, patch_size: int, stride: int, min_cells: int, every: int, table: bool
) -> None:
    """Make patches with labels from the folder SOURCE of BRCA-M2C."""
    if table:
        print_table(source)
        return
    if out is None or out.exists():
        raise click.UsageError("OUT is needed, and must not exist yet")
    click.echo(f"{prepare(source, out, mpp, patch_size, stride, min_cells, every)} patches in {out}")


if __name__ == "__main__":
    main()
