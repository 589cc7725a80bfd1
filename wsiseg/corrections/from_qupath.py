"""`dataset from-qupath`: patches from annotations that were drawn on a slide, without any map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePath

from wsiseg.classes import ClassTable
from wsiseg.corrections.changes import Changes, find_changes
from wsiseg.corrections.evidence import changed_blocks
from wsiseg.corrections.names import IGNORE_NAMES, REGION_NAMES, REVIEWED_NAMES, Names
from wsiseg.corrections.patches import BLOCK_PATCHES, PatchPlan, Written, write_patches
from wsiseg.corrections.record import file_sha256, label_counts, records_in, write_record
from wsiseg.corrections.run import damage_notes, require_on_slide
from wsiseg.datasets.provenance import Provenance
from wsiseg.datasets.write import DatasetWriter
from wsiseg.errors import OptionError
from wsiseg.geojson.annotations import AnnotationFile, read_annotations
from wsiseg.models.spec import read_spec
from wsiseg.slides.base import SlideReader
from wsiseg.system.json_values import JsonObject

SOURCE = "annotated"
"""Source of patches that were drawn without a map."""

_SPECIAL = REVIEWED_NAMES | REGION_NAMES | IGNORE_NAMES


@dataclass(frozen=True, slots=True)
class AnnotationOptions:
    """How annotations become patches.

    Attributes:
        model: name or folder of a model whose classes, patch size and resolution to take.
        classes: where there is no model; None takes the classes that occur in the file, in their order.
        mpp: microns per pixel of the patches, where there is no model.
        patch_px: side of a patch, where there is no model.
        names: name in the file → class, "" to leave annotations of this class out.
        group: slide or patient; empty takes the slide's name.
        labeller: the person.
        split: "train", "val", "test", or empty.
        coarse: areas say that a class occurs in them, not that nothing else does.
    """

    model: str | None = None
    classes: ClassTable | None = None
    mpp: float | None = None
    patch_px: int | None = None
    names: Mapping[str, str] | None = None
    group: str = ""
    labeller: str = ""
    split: str = ""
    coarse: bool = False


def from_qupath(
    slide: SlideReader,
    annotations: Path,
    out: Path,
    options: AnnotationOptions,
    progress: Callable[[int], None] = lambda _: None,
) -> JsonObject:
    """Turn annotations of a slide into patches of a data set.

    An area of a class is that class, unless `options.coarse`. Within areas called or classified `Reviewed`, or of
    QuPath's class `Region*`, everything is drawn, so that what is not is absent. `Ignore*` is none of the classes. A
    class point says that its patch has the class. Of anything else nothing is known.

    Args:
        slide: open for reading.
        annotations: GeoJSON as QuPath exports it, in level-0 pixels.
        out: folder of the data set; begun, or appended to.
        options: see `AnnotationOptions`.
        progress: called after each block with its number.

    Returns:
        The record, as it is written to `out/corrections`.

    Raises:
        WsisegError: on bad input; `out` is then as it was.
    """
    file = read_annotations(annotations)
    if not file.annotations:
        raise OptionError(f"{file.name} holds no area and no class point; export the annotations again")
    require_on_slide(file.annotations, slide, file.name)
    classes, mpp, patch_px = _patches(file, options)
    changes = find_changes(file, {}, Names(classes, options.names, regions=True))
    grid, group = slide.grid(mpp), options.group or PurePath(slide.name).stem
    now = datetime.now(UTC).replace(microsecond=0).isoformat()
    provenance = Provenance(
        slide=slide.name, mpp=mpp, status="labelled", labeller=options.labeller, round=records_in(out), source=SOURCE,
        shown_prediction="0", time=now,
    )  # fmt: skip
    suffix = "_".join(part for part in (SOURCE, options.labeller) if part)
    plan = PatchPlan(grid, patch_px, classes, group, provenance, suffix, options.split, options.coarse)
    with DatasetWriter(out, classes, mpp, patch_px) as writer:
        blocks = changed_blocks(changes, grid, BLOCK_PATCHES * patch_px)
        written = write_patches(slide, changes, plan, blocks, writer, progress)
        if not written.files:
            raise OptionError(f"{file.name}: no annotation says anything of a patch of {patch_px} px on {slide.name}")
        record = _record(slide, annotations, file, changes, written, plan, options)
        writer.finish()
        record["record"] = write_record(out, record)
    return record


def _patches(file: AnnotationFile, options: AnnotationOptions) -> tuple[ClassTable, float, int]:
    """Classes, microns per pixel and side of the patches."""
    if options.model is not None:
        if options.mpp is not None or options.patch_px is not None or options.classes is not None:
            raise OptionError("--model says classes, --mpp and --patch; leave these out")
        spec = read_spec(options.model)
        return spec.classes, spec.mpp, spec.patch_size_px
    if options.mpp is None or options.patch_px is None:
        raise OptionError("state --model, or --mpp (um per pixel) and --patch (px) of the patches to cut")
    if options.classes is not None:
        return options.classes, options.mpp, options.patch_px
    mapped = {name.lower(): target for name, target in (options.names or {}).items()}
    found: dict[str, None] = {}
    for annotation in file.annotations:
        name = (annotation.class_name or "").strip()
        name = mapped.get(name.lower(), name)
        if name and name.lower() not in _SPECIAL and annotation.name.lower() not in REVIEWED_NAMES:
            found.setdefault(name)
    if not found:
        raise OptionError(f"{file.name} has no annotation with a class; set the classes in QuPath, or state --classes")
    return ClassTable.from_names(list(found)), options.mpp, options.patch_px


def _record(
    slide: SlideReader,
    annotations: Path,
    file: AnnotationFile,
    changes: Changes,
    written: Written,
    plan: PatchPlan,
    options: AnnotationOptions,
) -> JsonObject:
    return {
        "format": 1,
        "wsiseg": version("wsiseg"),
        "slide": {"name": slide.name, "hash": slide.quick_hash()},
        "annotations": {"name": annotations.name, "sha256": file_sha256(annotations)},
        "classes": list(plan.classes.names),
        "map_names": dict(options.names or {}),
        "coarse": options.coarse,
        "time": plan.provenance.time,
        "labeller": options.labeller,
        "group": plan.group,
        "patch_px": plan.patch_px,
        "mpp": plan.provenance.mpp,
        "changes": dict(changes.counts),
        "moved": [],
        "patches": len(written.files),
        "masks": written.masked,
        "labels": label_counts(written, plan.classes.names),
        "files": written.files,
        "notes": [*file.notes, *damage_notes(written)],
    }
