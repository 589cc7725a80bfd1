"""Sound files to begin from: those of the project, and small ones of every kind that is read."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample_data"


def picture(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Something like tissue on glass, (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(y / height - 0.5, x / width - 0.5) < 0.35
    noise = np.random.default_rng(0).integers(0, 4, (height, width, 3))
    base = np.where(inside[..., None], np.array([190, 110, 170]), np.array([240, 240, 240]))
    return np.clip(base - noise, 0, 255).astype(np.uint8)


def slides(folder: Path) -> None:
    """Slides: the two shipped, and small TIFFs of each layout and codec, and plain pictures."""
    for name in ("CMU-1-Small-Region.svs", "OS-1-detail.ome.tif"):
        shutil.copy(SAMPLES / name, folder / name)
    pixels = picture(70, 90)
    kinds: dict[str, dict[str, Any]] = {
        "jpeg": {"compression": "jpeg", "tile": (32, 32), "photometric": "rgb"},
        "ycbcr": {"compression": "jpeg", "tile": (32, 32), "photometric": "ycbcr", "subsampling": (2, 2)},
        "lzw": {"compression": "lzw", "tile": (32, 32), "predictor": True},
        "deflate": {"compression": "zlib", "tile": (32, 32)},
        "j2k": {"compression": "jpeg2000", "tile": (32, 32)},
        "zstd": {"compression": "zstd", "tile": (32, 32)},
        "webp": {"compression": "webp", "tile": (32, 32)},
        "plain": {"tile": (32, 32)},
        "strips": {"compression": "lzw", "rowsperstrip": 16},
        "planar": {"tile": (32, 32), "planarconfig": "separate"},
    }
    for name, options in kinds.items():
        for big in (False, True) if name == "jpeg" else (False,):
            source = pixels.transpose(2, 0, 1) if name == "planar" else pixels
            shown = {"photometric": "rgb", **options}
            path = folder / f"{name}{'-big' if big else ''}.tif"
            tifffile.imwrite(path, source, bigtiff=big, resolution=(2e4, 2e4), resolutionunit="CENTIMETER", **shown)
    _pyramid(folder / "pyramid.tif", pixels)
    _aperio(folder / "aperio.svs", pixels)
    tifffile.imwrite(
        folder / "small.ome.tif", pixels, tile=(32, 32), compression="zlib", photometric="rgb",
        metadata={"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
    )  # fmt: skip
    _dicom(folder, pixels)
    image = Image.fromarray(pixels[:64, :80])
    for suffix in ("png", "jpg", "bmp", "webp", "gif"):
        image.save(folder / f"picture.{suffix}")


def _pyramid(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    options: dict[str, Any] = {"tile": (32, 32), "compression": "jpeg", "photometric": "rgb"}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, resolution=(2e4, 2e4), resolutionunit="CENTIMETER", **options)
        tiff.write(np.ascontiguousarray(pixels[::2, ::2]), subfiletype=1, **options)


def _aperio(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    options: dict[str, Any] = {"compression": "jpeg", "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        about = "Aperio Image Library v11.2.1 \r\n90x70 [0,0 90x70] (32x32) JPEG/RGB Q=70|AppMag = 20|MPP = 0.4990"
        tiff.write(pixels, tile=(32, 32), description=about, **options)
        tiff.write(pixels[::4, ::4].copy(), description="Aperio thumbnail", rowsperstrip=16, **options)
        tiff.write(pixels[::2, ::2].copy(), tile=(32, 32), description=about, **options)


def _dicom(folder: Path, pixels: npt.NDArray[np.uint8], only: set[str] | None = None, mpp: float = 0.5) -> None:
    """One-level DICOM slides of each codec and layout, or of some."""
    from tests.helpers import dicom_files as dicom

    plain = dicom.Kind(tile=32)
    kinds = {
        "jpeg": plain,
        "table": plain.but(offsets="extended"),
        "no-table": plain.but(offsets="none"),
        "sparse": plain.but(sparse=True),
        "raw": plain.but(syntax=dicom.RAW, photometric="RGB"),
        "j2k": plain.but(syntax=dicom.J2K_LOSSLESS, photometric="YBR_RCT"),
        "rle": plain.but(syntax=dicom.RLE, photometric="RGB"),
    }
    for name, kind in kinds.items():
        if only is not None and name not in only:
            continue
        (written,) = dicom.write_level(folder, pixels, mpp, kind)
        written.rename(folder / f"dicom-{name}.dcm")


def bundles(folder: Path) -> None:
    """The shipped model; its weights are linked, not copied."""
    from wsiseg.models.folder import BUNDLES_FOLDER

    source = BUNDLES_FOLDER / "tissue-brca-lite"
    target = folder / "lite"
    target.mkdir()
    for name in ("model.json", "classifier.safetensors", "segmenter.safetensors"):
        shutil.copy(source / name, target / name)


def areas(folder: Path) -> None:
    """Tissue of one's own: GeoJSON as QuPath writes it, and PNGs."""
    ring = [[10, 10], [90, 10], [90, 70.5], [10, 70], [10, 10]]
    hole = [[20, 20], [30, 20], [30, 30], [20, 20]]
    about = {"objectType": "annotation", "classification": {"name": "Tumour", "color": [200, 0, 0]}}
    derived = {"classification": {"names": ["Tumour", "Positive"]}}
    polygon = {"type": "Polygon", "coordinates": [ring, hole]}
    features = [
        {"type": "Feature", "id": "a", "geometry": polygon, "properties": about},
        {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": [[hole]]}, "properties": derived},
    ]
    collection = {"type": "FeatureCollection", "features": features}
    (folder / "qupath.geojson").write_text(json.dumps(collection))
    (folder / "list.geojson").write_text(json.dumps(features))
    (folder / "bare.geojson").write_text(json.dumps(features[0]["geometry"]))
    grey = (picture(60, 80)[..., 0] < 215).astype(np.uint8) * 255
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(grey).convert("P").save(folder / "palette.png")
    Image.fromarray(np.dstack([grey] * 4)).save(folder / "alpha.png")
    Image.fromarray(grey > 0).save(folder / "bits.png")


def annotations(folder: Path) -> None:
    """Corrections as QuPath exports them: areas, holes, points, lines, collections, hierarchies, classes."""
    ring = [[10, 10], [90, 10], [90, 70.5], [10, 70], [10, 10]]
    hole = [[20, 20], [30, 20], [30, 30], [20, 20]]
    shapes = [
        {"type": "Polygon", "coordinates": [ring, hole]},
        {"type": "MultiPolygon", "coordinates": [[hole], [[[x + 60, y] for x, y in hole]]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]], "isEllipse": True},
        {"type": "GeometryCollection", "geometries": [{"type": "Polygon", "coordinates": [ring]}]},
        {"type": "MultiPoint", "coordinates": [[5, 5], [50.5, 60, 0]]},
        {"type": "LineString", "coordinates": [[5, 5], [50.5, 60]], "plane": {"c": -1, "z": 0, "t": 0}},
    ]
    kinds: list[dict[str, Any]] = [
        {"classification": {"name": "Tumour", "color": [200, 0, 0]}, "isLocked": True},
        {"classification": {"names": ["Stroma", "Positive"]}, "measurements": [{"name": "a", "value": 1}]},
        {"name": "Reviewed", "metadata": {"Slide hash": "a"}},
        {"classification": {"name": "Ignore*", "colorRGB": -3670016}},
        {"classification": {"name": "Lymphocytes"}, "objectType": "annotation"},
        {"objectType": "detection"},
    ]
    features: list[dict[str, Any]] = [
        {"type": "Feature", "id": f"5f8adc54-b92c-5c42-a586-196ed4a9940{i}", "geometry": shape, "properties": kind}
        for i, (shape, kind) in enumerate(zip(shapes, kinds, strict=True))
    ]
    (folder / "qupath.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    nested = {**features[0], "properties": {**kinds[0], "childObjects": features[1:]}}
    (folder / "hierarchy.geojson").write_text(json.dumps([nested]))


def maps(folder: Path) -> None:
    """Tissue maps of two levels, as the program wrote them when its format began; with probabilities and without.

    And those of today: one that records where the gate shut classes and what was unread, one of coarse probabilities.
    """
    from tests.helpers.stored_maps import stored_map
    from wsiseg.geometry import Size

    stored_map(folder / "recorded.zarr", Size(45, 35), records=True)
    stored_map(folder / "coarse.zarr", Size(45, 35), probabilities="coarse")
    for path in (Path(__file__).parent / "maps").iterdir():
        shutil.copytree(path, folder / path.name)


def exported_maps(folder: Path) -> None:
    """Those of `maps`, and one of today's format with white, as of a DICOM slide, whose edge lies inside a pixel."""
    from tests.helpers.stored_maps import provenance, stored_map
    from wsiseg.geometry import Size
    from wsiseg.slides import open_slide

    maps(folder)
    with open_slide(dicom_slide()) as slide:
        about = provenance(slide.name)
        about["slide"] |= {"quick_hash": slide.quick_hash(), "width": slide.size.width, "height": slide.size.height}
    stored_map(folder / "dicom.zarr", Size(45, 35), about={**about, "white_mm2": 0.01, "notes": ["a note"]})


@cache
def dicom_slide() -> Path:
    """A small DICOM slide, which lives as long as the process."""
    folder = Path(tempfile.mkdtemp(prefix="wsiseg-fuzz-dicom-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _dicom(folder, picture(70, 90), {"jpeg"}, 0.25)  # half of the map's pixels
    return folder / "dicom-jpeg.dcm"


def datasets(folder: Path) -> None:
    """Data sets of both forms, with masks, and cell dots."""
    images = sorted((SAMPLES / "patches" / "images").iterdir())[:6]
    table = folder / "table"
    (table / "images").mkdir(parents=True)
    (table / "masks").mkdir()
    mask = Image.fromarray(np.arange(96 * 96, dtype=np.uint8).reshape(96, 96) % 4)
    rows = ["file,Tumour,Stroma,Lymphocytes,group,split,mask"]
    for index, image in enumerate(images):
        shutil.copy(image, table / "images" / f"{index}.png")
        mask.save(table / "masks" / f"{index}.png")
        split = ("train", "train", "train", "val", "test", "test")[index]
        rows.append(f"images/{index}.png,1,{index % 2},1,g{index},{split},{f'masks/{index}.png' if index % 2 else ''}")
    (table / "labels.csv").write_text("\n".join(rows) + "\n")
    shutil.copy(SAMPLES / "patches" / "dataset.json", table / "dataset.json")
    folders = folder / "folders"
    for split, parts in (("train", [""]), ("val", ["img", "mask"]), ("test", ["img", "mask"])):
        for part in parts:
            (folders / split / part).mkdir(parents=True)
    (folders / "classes.json").write_text(json.dumps(["A", "B", "C"]))
    for index, image in enumerate(images[:3]):
        shutil.copy(image, folders / "train" / f"s{index}-MPP-0.5-[1 {index % 2} 1].png")
        for split in ("val", "test"):
            shutil.copy(image, folders / split / "img" / f"s{index}.png")
            mask.save(folders / split / "mask" / f"s{index}.png")
    cells = folder / "cells"
    (cells / "images").mkdir(parents=True)
    shutil.copy(images[0], cells / "images" / "0.png")
    (cells / "cells.csv").write_text(
        "file,x,y,class,group,split\nimages/0.png,3.5,4,Tumour,g,test\nimages/0.png,9,9,B,,\n"
    )


def settings(folder: Path) -> None:
    """Settings of a training as TOML."""
    from wsiseg.training.settings import effective_config, format_settings

    for preset in ("lite", "published"):
        (folder / f"{preset}.toml").write_text(format_settings(effective_config(preset=preset)))


def weights(folder: Path) -> None:
    """Weights from elsewhere: MXNet's three layouts, Torch's two, and safetensors."""
    import torch
    from safetensors.torch import save_file

    for path in (ROOT / "tests" / "data" / "parity" / "mxnet").glob("*.params"):
        shutil.copy(path, folder / path.name)
    state = {"conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "bn.num_batches_tracked": torch.tensor(3)}
    torch.save(state, folder / "zipped.pth")
    torch.save({"state_dict": state, "epoch": 3}, folder / "pickled.pth", _use_new_zipfile_serialization=False)
    save_file(state, folder / "plain.safetensors")
