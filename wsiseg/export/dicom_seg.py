"""A tissue map as a DICOM segmentation, a label map that refers to the DICOM slide that it was made from."""

from __future__ import annotations

import hashlib
import uuid
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.classes import WHITE_VALUE
from wsiseg.errors import OptionError, SlideError
from wsiseg.export.polygons import require_same_slide
from wsiseg.geometry import MPP_MAX, Box, Mpp
from wsiseg.slides.base import SlideReader
from wsiseg.slides.dicom.reader import DicomReader
from wsiseg.system.extras import require_extra
from wsiseg.system.files import check_file, whole_file
from wsiseg.tissue_map.reader import TissueMap

SUFFIXES = (".dcm",)
DEFAULT_MPP = 4.0
"""Microns per pixel, unless others are stated: a cell is two or three pixels wide."""

TILE_PX = 512
MAX_PX = 2**29
"""Pixels that are written at once; 200,000 x 200,000 px of 0.25 um have 2**27 at the default."""

_SCHEME = "99WSISEG"
_CODES = {
    "tumour": ("MorphologicallyAbnormalStructure", "Neoplasm"),
    "tumor": ("MorphologicallyAbnormalStructure", "Neoplasm"),
    "necrosis": ("MorphologicallyAbnormalStructure", "Necrosis"),
    "stroma": ("Tissue", "ConnectiveTissue"),
    "fat": ("Tissue", "AdiposeTissue"),
    "adipose": ("Tissue", "AdiposeTissue"),
    "lymphocytes": ("Tissue", "LymphoidTissue"),
}
"""SNOMED CT category and type of classes by their names; others are tissue with a code of this program's own."""


@dataclass(frozen=True, slots=True)
class WrittenSegmentation:
    """What a DICOM segmentation holds.

    Attributes:
        path: of the file.
        level: of the map that was written.
        mpp: microns per pixel, the mean of both directions.
        width: in pixels.
        height: likewise.
        segments: one a class.
    """

    path: Path
    level: int
    mpp: float
    width: int
    height: int
    segments: int


def export_dicom_seg(
    tissue_map: TissueMap,
    path: str | Path,
    slide: SlideReader,
    *,
    mpp: float | None = None,
    overwrite: bool = False,
) -> WrittenSegmentation:
    """Write the classes of a map as a DICOM label-map segmentation.

    Args:
        tissue_map: open for reading.
        path: `.dcm`, or a folder, which gets NAME-seg.dcm.
        slide: the DICOM slide that the map was made from; another is refused.
        mpp: the map's level with pixels of this size, or else the next coarser one, is written; see `DEFAULT_MPP`.
        overwrite: replace existing output.

    Returns:
        What was written.

    Raises:
        OptionError: the slide is no DICOM or another one, or `mpp` is implausible.
        MissingExtraError: highdicom is not installed.
        SlideError: the slide lacks what a segmentation must repeat of it.
    """
    require_extra("dicom", "a DICOM segmentation", "highdicom")
    path = _target(Path(path), tissue_map)
    check_file(path, SUFFIXES, overwrite)
    if not isinstance(slide, DicomReader):
        raise OptionError(
            f"{slide.name} is not a DICOM slide; a DICOM segmentation refers to one, write --ome-tiff instead"
        )
    require_same_slide(tissue_map, slide)
    level = _level(tissue_map, DEFAULT_MPP if mpp is None else mpp)
    size = tissue_map.grid.coarsen(2**level)
    if size.area > MAX_PX:
        raise OptionError(f"{size} px are too many for one segmentation; give a coarser --dicom-seg-mpp")
    classes = tissue_map.read(Box.from_size(size), level)
    classes[classes == WHITE_VALUE] = 0
    made = _segmentation(tissue_map, slide, classes, tissue_map.mpp.times(2**level))
    with whole_file(path) as temporary:
        made.save_as(temporary)
    mean = tissue_map.mpp.times(2**level).mean
    return WrittenSegmentation(path, level, mean, size.width, size.height, len(tissue_map.classes))


def _target(path: Path, tissue_map: TissueMap) -> Path:
    return path / f"{tissue_map.path.stem}-seg.dcm" if path.is_dir() else path


def _level(tissue_map: TissueMap, mpp: float) -> int:
    """The first level whose pixels are as large as asked for, at least nearly; else the last."""
    if not 0 < mpp <= MPP_MAX * 64:
        raise OptionError(f"expected um per pixel of the segmentation above 0, got {mpp}")
    levels = range(tissue_map.levels)
    return next((level for level in levels if tissue_map.mpp.times(2**level).mean > 0.95 * mpp), levels[-1])


def _segmentation(tissue_map: TissueMap, slide: DicomReader, classes: npt.NDArray[np.uint8], mpp: Mpp) -> Any:
    import highdicom as hd  # noqa: PLC0415  (an extra)
    import pydicom  # noqa: PLC0415

    present = sorted(set(np.unique(classes)) - {0})
    if not present:
        raise OptionError(f"{tissue_map.path.name} holds no tissue; there is nothing to write a segmentation of")
    software = version("wsiseg")
    model = tissue_map.metadata["model"]
    seed = hashlib.sha256(classes.tobytes() + repr((slide.quick_hash(), model, mpp)).encode()).hexdigest()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = pydicom.dcmread(slide.base.key.path, stop_before_pixels=True)
            return hd.seg.Segmentation(
                source_images=[source],
                pixel_array=classes[None],
                segmentation_type=hd.seg.SegmentationTypeValues.LABELMAP,
                segment_descriptions=_descriptions(hd, tissue_map, software),
                series_instance_uid=_uid(seed, "series"),
                series_number=1000,
                sop_instance_uid=_uid(seed, "instance"),
                instance_number=1,
                manufacturer="wsiseg",
                manufacturer_model_name="wsiseg",
                software_versions=software,
                device_serial_number="0",
                content_label="TISSUE",
                content_description=f"Tissue classes by {model['name']}"[:64],
                pixel_measures=hd.PixelMeasuresSequence(
                    pixel_spacing=(mpp.y / 1000, mpp.x / 1000), slice_thickness=_thickness(source)
                ),
                tile_pixel_array=True,
                tile_size=(TILE_PX, TILE_PX),
                omit_empty_frames=True,
            )
    except (AttributeError, KeyError, ValueError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise SlideError(
            f"{slide.name} lacks what a DICOM segmentation must repeat of it ({reason:.200}); write --ome-tiff instead"
        ) from error


def _descriptions(hd: Any, tissue_map: TissueMap, software: str) -> list[Any]:
    from pydicom.sr.codedict import codes  # noqa: PLC0415

    model = tissue_map.metadata["model"]
    algorithm = hd.AlgorithmIdentificationSequence(
        name=f"wsiseg {model['name']}"[:64],
        family=codes.DCM.ArtificialIntelligence,
        version=software,
        source="wsiseg",
        parameters={"model_hash": str(model["hash"])},
    )
    found = []
    for index, tissue in enumerate(tissue_map.classes, 1):
        category, kind = _CODES.get(tissue.name.lower(), ("Tissue", ""))
        own = hd.sr.CodedConcept(f"C{index}", _SCHEME, tissue.name[:64])
        found.append(
            hd.seg.SegmentDescription(
                segment_number=index,
                segment_label=tissue.name[:64],
                segmented_property_category=getattr(codes.SCT, category),
                segmented_property_type=getattr(codes.SCT, kind) if kind else own,
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
                tracking_uid=_uid(str(model["hash"]), tissue.name),
                tracking_id=tissue.name[:64],
                display_color=hd.color.CIELabColor.from_rgb(*tissue.color),
            )
        )
    return found


def _thickness(source: Any) -> float:
    """Of the slice that was imaged, in mm, as the slide states it."""
    measures = source.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    return float(measures.get("SliceThickness") or 0.001)


def _uid(seed: str, name: str) -> str:
    """A UID made from the content: equal content has an equal UID, so storing a segmentation again adds nothing."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{seed} {name}').int}"
