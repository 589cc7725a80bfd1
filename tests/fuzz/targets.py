"""What is fuzzed: for each target its seeds, how a case is made from one, and what the program does with it."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import get_args

import numpy as np

from tests.fuzz import mutate, seeds
from wsiseg.errors import WsisegError

MOST_PIXELS = 2**26
"""Larger slides and maps are opened and read in pieces, but not from end to end: that would only take long."""


@dataclass(frozen=True)
class Target:
    """One way in.

    Attributes:
        seeds: writes sound files into a folder, one entry of it a seed.
        run: reads a case; raises `WsisegError` where the program refuses it, anything else being a defect.
        prepare: loads what a first case would pay for.
    """

    seeds: Callable[[Path], None]
    run: Callable[[Path], None]
    prepare: Callable[[], None] = lambda: None

    def make(self, seed_folder: Path, case: Path, rng: Random) -> None:
        """Write a case: a damaged copy of one seed, into an empty folder."""
        source = rng.choice(sorted(seed_folder.iterdir()))
        target = case / source.name
        if source.is_dir():
            shutil.copytree(source, target)
            mutate.folder(target, rng, Path("/etc/hostname"))
            if (target / "model.json").is_file():
                _sign(target, rng)
        else:
            shutil.copy(source, target)
            mutate.content(target, rng)


def _sign(bundle: Path, rng: Random) -> None:
    """Damage the header of a weight file, and give it the hash that the bundle then states."""
    kind = rng.choice(["classifier", "segmenter"])
    path = bundle / f"{kind}.safetensors"
    if not path.is_file():
        return
    try:
        spec = json.loads((bundle / "model.json").read_bytes())
        network = spec["networks"][kind]
        data = path.read_bytes()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    if rng.random() < 0.5 or not isinstance(network, dict):
        return
    length = struct.unpack_from("<Q", data)[0] if len(data) > 8 else 0
    if length < len(data):
        header = rng.choice([mutate.json_text, mutate.raw])(data[8 : 8 + length], rng)
        size = len(header) if rng.random() < 0.8 else rng.choice([0, 2**63, 2**32, len(data), len(header) + 8])
        path.write_bytes(struct.pack("<Q", size) + header + data[8 + length :])
    network["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (bundle / "model.json").write_text(json.dumps(spec))


def only(case: Path) -> Path:
    """The one entry of a case's folder."""
    return next(iter(case.iterdir()))


def slide(case: Path) -> None:
    """Open a slide by every reader that takes it, say what it is, read here and there, look for tissue."""
    path = only(case)
    with suppress(WsisegError):  # which may not read what others do
        _read_slide(path, "tiffslide")
    _read_slide(path, None)


def _read_slide(path: Path, reader: str | None) -> None:
    from wsiseg.cli.slide_facts import describe
    from wsiseg.geometry import Box
    from wsiseg.slides import open_slide
    from wsiseg.tissue.find import tissue_mask

    with open_slide(path, mpp=0.5, reader=reader) as opened:
        json.dumps(describe(opened).to_json())
        assert len(opened.quick_hash()) == 64
        for index, level in enumerate(opened.levels):
            width, height = level.size.width, level.size.height
            for x, y in ((-10, -10), (width // 2, height // 2), (width - 100, height - 100)):
                region = opened.read_level(index, Box(x, y, 150, 130))
                assert region.pixels.shape == (130, 150, 3)
                assert region.pixels.dtype == np.uint8
        for name in opened.associated:
            opened.read_associated(name)
        assert opened.damaged_area_um2 >= 0
        if opened.size.area <= MOST_PIXELS:
            assert 0 <= tissue_mask(opened).share <= 1


def bundle(case: Path) -> None:
    """Load a model and ask it about two patches."""
    import torch

    from wsiseg.models.bundle import load_model

    model = load_model(only(case))
    side = min(96, model.spec.patch_size_px)
    patches = torch.full((2, 3, side, side), 128, dtype=torch.uint8)
    with torch.inference_mode():
        assert model.classify(patches).shape == (2, len(model.classes))
        assert model.segment(patches).shape == (2, len(model.classes), side, side)


def _prepare_bundle() -> None:
    from wsiseg.models.bundle import load_model

    load_model("tissue-brca-lite")


def area(case: Path) -> None:
    """A tissue mask from a file."""
    from wsiseg.geometry import Mpp
    from wsiseg.slides.array import ArrayReader
    from wsiseg.tissue.find import tissue_mask

    opened = ArrayReader(np.full((60, 80, 3), 200, np.uint8), stated_mpp=Mpp(0.5, 0.5))
    mask = tissue_mask(opened, only(case))
    assert mask.area_px > 0


def tissue_map(case: Path) -> None:
    """Open a map, read it lazily and in boxes, and make everything from it that there is."""
    from wsiseg.export.opened_map import open_map
    from wsiseg.export.polygons import export_csv, export_geojson, export_png
    from wsiseg.geometry import Box

    path = only(case)
    opened = open_map(path)
    repr(opened)
    for level in range(opened.levels):
        opened.scale_um(level)
        opened.class_map(level)
        box = Box(0, 0, 50, 40).intersect(Box.from_size(opened.grid.coarsen(2**level)))
        opened.read(box, level)
        if opened.records_unread:
            opened.read_unread(box, level)
        if opened.records_gate:
            opened.read_gate(0, box, level)
            opened.read_gate(1, box, level)
        if opened.has_probabilities:
            opened.estimate_probabilities(box, level)
    for level in opened.levels_with_probabilities:
        opened.probabilities(level)
    errors: list[WsisegError] = []
    makers = [(export_geojson, "a.geojson"), (export_png, "a.png"), (export_csv, "a.csv")]
    for make, name in makers if opened.size.area <= MOST_PIXELS else makers[2:]:
        try:
            make(opened, case / name)
        except WsisegError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def exports(case: Path) -> None:
    """Open a map, show it, and make of it what other programs read: rasters, pictures, what Python libraries have."""
    from wsiseg.cli.info_map import describe, show_map
    from wsiseg.export.conversions import polygons, to_xarray
    from wsiseg.export.dicom_seg import export_dicom_seg
    from wsiseg.export.ome_tiff import TiffContent, export_ome_tiff
    from wsiseg.export.ome_zarr_v2 import export_ome_zarr_v2
    from wsiseg.export.opened_map import open_map
    from wsiseg.export.polygons import VectorOptions
    from wsiseg.geometry import Box
    from wsiseg.slides import open_slide

    path = only(case)
    opened = open_map(path)
    json.dumps(describe(opened), allow_nan=False)
    uses: list[Callable[[], object]] = [
        lambda: show_map(path, as_json=False, quiet=False),
        lambda: show_map(path, as_json=True, quiet=False),
    ]
    uses += [lambda: opened.class_map_at(Box(10, 10, 60, 50)), lambda: opened.areas.to_pandas().to_csv()]
    if opened.size.area > MOST_PIXELS:
        _try_all(uses)
        return
    uses += [partial(repr, opened), opened._repr_html_, lambda: opened.overlay(Box(20, 20, 60, 50))]
    for content in get_args(TiffContent):
        uses.append(partial(export_ome_tiff, opened, case / f"{content}.ome.tif", content))
    uses += [partial(lambda level: to_xarray(opened, level).compute(), level) for level in range(opened.levels)]
    uses += [lambda: export_ome_zarr_v2(opened, case / "a-0.4.zarr"), lambda: polygons(opened)]
    uses.append(lambda: polygons(opened, VectorOptions(exact=True)))
    with open_slide(seeds.dicom_slide()) as slide:
        uses += [lambda: export_dicom_seg(opened, case / "a.dcm", slide), lambda: opened.overlay(None, slide)]
        _try_all(uses)


def _try_all(uses: list[Callable[[], object]]) -> None:
    """Do all of it, whatever is refused, and raise the first refusal."""
    errors: list[WsisegError] = []
    for use in uses:
        try:
            use()
        except WsisegError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def dataset(case: Path) -> None:
    """Read a data set as training, as its check, and as an evaluation does."""
    from wsiseg.classes import ClassTable
    from wsiseg.datasets.check import check_dataset
    from wsiseg.datasets.dataset import read_dataset
    from wsiseg.evaluation.truth import open_source

    path = only(case)
    model = ClassTable.from_names(["Tumour", "Stroma", "Lymphocytes"])

    def train() -> None:
        read = read_dataset(path)
        read.check_for_training()
        assert len(read.fingerprint) == 64
        root = path.resolve()
        for patch in (*read.train, *read.val, *read.test):
            assert patch.path.resolve().is_relative_to(root)
            assert patch.mask is None or patch.mask.resolve().is_relative_to(root)

    def evaluate() -> None:
        names = {"B": "Stroma"} if "cells" in path.name else None
        source = open_source(path, "test", model, mpp=0.5, cell_classes=names)
        for entry in source.entries:
            assert source.case(entry).pixels.ndim == 3

    _try_all([train, evaluate, lambda: json.dumps(check_dataset(path).to_json())])


def settings(case: Path) -> None:
    """Read settings of a training."""
    from wsiseg.training.settings import effective_config, format_settings

    format_settings(effective_config(only(case)))


def weights(case: Path) -> None:
    """Read weights from elsewhere, as training and `models import` do."""
    from wsiseg.models.weights.checkpoints import read_state

    for tensor in read_state(only(case)).values():
        assert tensor.numel() >= 0


def _prepare_settings() -> None:
    import wsiseg.training.settings  # noqa: F401


def annotations(case: Path) -> None:
    """Corrections of a map of one region, painted."""
    import shapely

    from wsiseg.classes import ClassTable
    from wsiseg.corrections.changes import find_changes
    from wsiseg.corrections.evidence import Painter
    from wsiseg.corrections.names import Names
    from wsiseg.corrections.originals import Original
    from wsiseg.geojson.annotations import read_annotations
    from wsiseg.geometry import Box, Grid, Mpp, Size

    classes = ClassTable.from_names(["Tumour", "Stroma", "Lymphocytes"])
    identifier = "5f8adc54-b92c-5c42-a586-196ed4a99400"
    originals = {identifier: Original(identifier, 2, shapely.box(0, 0, 80, 60), {})}
    changes = find_changes(read_annotations(only(case)), originals, Names(classes), partial=True)
    grid = Grid(Size(100, 80), Mpp(1, 1), 1.0, 1.0, 0, 1.0, 1.0)
    evidence = Painter(changes, grid, len(classes)).paint(Box(0, 0, 100, 80))
    assert ((evidence.known < 3) | (evidence.known == 255)).all()


TARGETS = {
    "annotations": Target(seeds.annotations, annotations),
    "slide": Target(seeds.slides, slide),
    "bundle": Target(seeds.bundles, bundle, _prepare_bundle),
    "area": Target(seeds.areas, area),
    "map": Target(seeds.maps, tissue_map),
    "exports": Target(seeds.exported_maps, exports, seeds.dicom_slide),
    "dataset": Target(seeds.datasets, dataset),
    "settings": Target(seeds.settings, settings, _prepare_settings),
    "weights": Target(seeds.weights, weights),
}
