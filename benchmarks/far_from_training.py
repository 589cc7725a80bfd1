"""How well the distance from the training data tells other organs from held-out breast: AUROC by patch, false flags.

    python benchmarks/far_from_training.py DATA MODEL --cache features.npz

DATA is a folder with brca-m2c, wsss4luad, crc-val-he-70, ocdc-oral and osteosarcoma-60, as far as they are there; skin
is `sample_data/CMU-1-Small-Region.svs`. The distance is fitted to the training images of BRCA-M2C, its limit to those
of the folds that it was not fitted to, and false flags are counted on the test images, most of them of tissue source
sites that occur nowhere in training. Besides what the program uses, other distances in the same features are printed,
and first those of the distance that MODEL itself holds.

The margin of the limit is judged without the test images: each tissue source site of the training images is left out
in turn, and its flagged share stands against that of other organs.

Patches are of the model's size, up to nine an image, at 0.5 um per pixel; images of 1 um are enlarged, as `predict`
would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from brca_m2c import read_images
from PIL import Image

from wsiseg.geometry import Box
from wsiseg.models import distance
from wsiseg.models.bundle import load_model
from wsiseg.models.tissue_model import TissueModel
from wsiseg.slides import open_slide

Pixels = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]
Measure = Callable[[Features], npt.NDArray[np.float64]]

MOST = 9
SETS = {"lung": ("wsss4luad/img", 1.0), "colon": ("crc-val-he-70/images", 0.5), "oral": ("ocdc-oral/images", 0.5),
        "bone": ("osteosarcoma-60/images", 1.0)}  # fmt: skip
SKIN = Path(__file__).parents[1] / "sample_data" / "CMU-1-Small-Region.svs"


def patches_of(pixels: Pixels, side: int) -> list[Pixels]:
    """At most `MOST` patches of an image, evenly spread, those of glass left out."""
    height, width = pixels.shape[:2]
    every = [
        pixels[y : y + side, x : x + side]
        for y in range(0, height - side + 1, side)
        for x in range(0, width - side + 1, side)
    ]
    tissue = [patch for patch in every if (patch.mean(axis=2) < 215).mean() > 0.3]
    chosen = np.unique(np.linspace(0, max(0, len(tissue) - 1), MOST).round().astype(int))
    return [tissue[place] for place in chosen] if tissue else []


def images_of(folder: Path, mpp: float) -> Iterator[tuple[str, Pixels]]:
    """Names and pixels of a folder's images, at 0.5 um per pixel."""
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg")):
        with Image.open(path) as image:
            size = (round(image.width * mpp / 0.5), round(image.height * mpp / 0.5))
            yield path.name, np.array(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))


def skin() -> Iterator[tuple[str, Pixels]]:
    """Squares of the sample slide."""
    with open_slide(SKIN) as slide:
        whole = slide.read_level(0, Box.from_size(slide.size)).pixels
    for y in range(0, whole.shape[0] - 400, 400):
        for x in range(0, whole.shape[1] - 400, 400):
            yield f"{y}, {x}", whole[y : y + 400, x : x + 400]


def features_of(model: TissueModel, images: Iterator[tuple[str, Pixels]]) -> tuple[Features, list[str]]:
    """Features (N, C) of the images' patches, and the image of each."""
    rows, names = [], []
    for name, pixels in images:
        found = patches_of(pixels, model.spec.patch_size_px)
        if found:
            tensor = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)
            rows.append(model.classify_with_features(tensor)[1].numpy())
            names += [name] * len(found)
    return np.concatenate(rows), names


def auroc(near: npt.NDArray[np.float64], far: npt.NDArray[np.float64]) -> float:
    """How often a patch of the latter is farther than one of the former; ties count half."""
    ordered = np.sort(near)
    below = np.searchsorted(ordered, far, "left") + np.searchsorted(ordered, far, "right")
    return float(below.mean() / 2 / len(near))


def ways(train: Features) -> dict[str, Callable[[Features], Measure]]:
    """From what is fitted to, to a distance."""

    def principal(components: int) -> Callable[[Features], Measure]:
        def fitted(features: Features) -> Measure:
            return lambda wanted: distance.distances(wanted, *distance.placed(features, components))

        return fitted

    def nearest(features: Features) -> Measure:
        scale = features.std(axis=0) + 1e-6
        return lambda wanted: np.array(
            [np.sort(((row - features) ** 2 / scale**2).sum(axis=1))[4] ** 0.5 for row in wanted], np.float64
        )

    found = {f"Mahalanobis, {count} axes": principal(count) for count in (4, 8, 16, 32) if count < train.shape[1]}
    return {**found, "5th nearest": nearest}


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("model", default="tissue-brca-lite")
@click.option("--cache", type=click.Path(path_type=Path), help="Features are kept in this .npz.")
def main(data: Path, model: str, cache: Path | None) -> None:
    """Print AUROC and flags of each set, by each way of measuring."""
    kept = dict(np.load(cache)) if cache is not None and cache.is_file() else _measured(data, load_model(model), cache)
    groups = kept["groups"].tolist()
    train, test = kept["train"], kept["test"]
    folds = np.unique(kept["groups"], return_inverse=True)[1] % distance.FOLDS
    others = [name for name in (*SETS, "skin") if name in kept]
    click.echo(f"{len(train)} patches of {len(set(groups))} training images, {len(test)} of the test images")
    model_distance = load_model(model).distance
    if model_distance is not None:
        near = model_distance.of(test).astype(np.float64)
        told = ", ".join(
            f"{other} {_told(near, model_distance.of(kept[other]).astype(np.float64), 1.0)}" for other in others
        )
        seen = (model_distance.of(kept["val"]) > 1).mean()
        click.echo(
            f"in the model: breast flagged {(near > 1).mean():.1%}, validation {seen:.1%}; AUROC (flagged): {told}"
        )
    for margin, left_out, flagged in margins(train, groups, [kept[other] for other in others]):
        click.echo(
            f"margin {margin:.2f}: sites left out {left_out:.1%}, other organs {flagged:.1%}, {flagged - left_out:.3f}"
        )
    for name, way in ways(train).items():
        whole = way(train)
        unseen = np.concatenate([way(train[folds != fold])(train[folds == fold]) for fold in range(distance.FOLDS)])
        limit, near = distance.MARGIN * np.quantile(unseen, distance.LIMIT_SHARE), whole(test)
        told = ", ".join(f"{other} {_told(near, whole(kept[other]), limit)}" for other in others)
        click.echo(f"{name}: breast flagged {(near > limit).mean():.1%}; AUROC (flagged): {told}")


def margins(train: Features, groups: list[str], organs: list[Features]) -> Iterator[tuple[float, float, float]]:
    """Margins, each with the mean flagged share of sites that were not fitted to, and that of other organs' sets."""
    sites = np.array([name[5:7] for name in groups])
    left_out = []
    for site in np.unique(sites):
        rest = sites != site
        found = distance.fit(train[rest], [name for name, kept in zip(groups, rest, strict=True) if kept], "")
        assert found is not None
        left_out.append(found.of(train[~rest]) * distance.MARGIN)
    whole = distance.fit(train, groups, "")
    assert whole is not None
    far = [whole.of(features) * distance.MARGIN for features in organs]
    for margin in np.arange(0.9, 1.41, 0.05):
        shares = (float(np.mean([(values > margin).mean() for values in part])) for part in (left_out, far))
        yield float(margin), next(shares), next(shares)


def _told(near: npt.NDArray[np.float64], far: npt.NDArray[np.float64], limit: float) -> str:
    return f"{auroc(near, far):.3f} ({(far > limit).mean():.0%})"


def _measured(data: Path, model: TissueModel, cache: Path | None) -> dict[str, npt.NDArray[Any]]:
    found: dict[str, npt.NDArray[Any]] = {}
    for split in ("train", "val", "test"):
        images = ((image.name, image.pixels) for image in read_images(data / "brca-m2c", split))
        found[split], names = features_of(model, images)
        if split == "train":
            found["groups"] = np.array(names)
    for name, (folder, mpp) in SETS.items():
        if (data / folder).is_dir():
            found[name] = features_of(model, images_of(data / folder, mpp))[0]
    found["skin"] = features_of(model, skin())[0]
    if cache is not None:
        np.savez(cache, allow_pickle=False, **found)
    return found


if __name__ == "__main__":
    main()
