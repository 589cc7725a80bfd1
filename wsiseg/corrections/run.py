"""`correct`: a map, a person's GeoJSON of it and the slide become labelled patches and a record of what was changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from wsiseg.corrections.changes import Changes, find_changes
from wsiseg.corrections.evidence import changed_blocks
from wsiseg.corrections.names import Names
from wsiseg.corrections.originals import originals_of, require_of_map
from wsiseg.corrections.patches import BLOCK_PATCHES, PatchPlan, Written, write_patches
from wsiseg.corrections.record import file_sha256, record_of, records_in, write_record
from wsiseg.datasets.provenance import CORRECTED, Provenance
from wsiseg.datasets.write import DatasetWriter
from wsiseg.errors import OptionError
from wsiseg.export.picture import require_same_slide
from wsiseg.geojson.annotations import Annotation, AnnotationFile, read_annotations
from wsiseg.geojson.drawn import DRAWN_IN
from wsiseg.models.folder import list_bundles
from wsiseg.models.gate_kinds import MODES
from wsiseg.models.spec import bundle_hash, read_spec
from wsiseg.slides.base import SlideReader
from wsiseg.system.json_values import JsonObject
from wsiseg.tissue_map.reader import TissueMap


@dataclass(frozen=True, slots=True)
class CorrectOptions:
    """How a file of corrections is understood.

    Attributes:
        original: the GeoJSON that was opened in QuPath; None takes the one beside the map.
        names: name in the file → class of the model, "" to leave annotations of this class out.
        group: slide or patient that patches belong to; empty takes the slide's name.
        labeller: the person.
        model: name or folder of the map's model; needed where its patch size is not known otherwise.
        partial: the file holds a selection of the map's regions. So does one that holds nothing but what was drawn in
            `wsiseg view`, also where this is not said.
        trust_locked: untouched locked regions are confirmed.
    """

    original: Path | None = None
    names: Mapping[str, str] | None = None
    group: str = ""
    labeller: str = ""
    model: str | None = None
    partial: bool = False
    trust_locked: bool = False


def correct(
    tissue_map: TissueMap,
    corrected: Path,
    slide: SlideReader,
    out: Path,
    options: CorrectOptions | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> JsonObject:
    """Turn a person's corrections of a map into patches of a data set.

    Args:
        tissue_map: open for reading.
        corrected: GeoJSON that the person exported.
        slide: that the map was made from.
        out: folder of the data set; begun, or appended to. What an earlier call made of the same map and person is
            replaced, unless the file holds a part.
        options: see `CorrectOptions`.
        progress: called after each block with its number.

    Returns:
        The record, as it is written to `out/corrections`.

    Raises:
        WsisegError: on bad input; `out` is then as it was.
    """
    options = options or CorrectOptions()
    read = read_corrections(tissue_map, corrected, slide, options)
    file, changes, patch_px, mpp = read.file, read.changes, read.patch_px, read.mpp
    own = tissue_map.metadata
    now = datetime.now(UTC).replace(microsecond=0).isoformat()
    provenance = Provenance(
        slide=own["slide"]["name"], mpp=mpp, status="labelled", labeller=options.labeller, round=records_in(out),
        source=CORRECTED, shown_prediction="1", time=now, model_hash=own["model"]["hash"],
    )  # fmt: skip
    group = options.group or PurePath(own["slide"]["name"]).stem
    # Corrections of another map or person are others, on the same patch as well.
    suffix = "_".join(part for part in (f"c{own['model']['hash'][:8]}", options.labeller) if part)
    plan = PatchPlan(tissue_map.grid, patch_px, tissue_map.classes, group, provenance, suffix)
    with DatasetWriter(out, tissue_map.classes, mpp, patch_px) as writer:
        blocks = changed_blocks(changes, tissue_map.grid, BLOCK_PATCHES * patch_px)
        written = write_patches(slide, changes, plan, blocks, writer, progress)
        if not written.files:
            raise OptionError(f"{file.name}: nothing that was changed lies on the map; export in level-0 pixels")
        replaced = 0 if read.partial else _discard_earlier(writer, provenance, written)
        record = record_of(
            tissue_map, changes, written, {
                "corrected": {"name": corrected.name, "sha256": file_sha256(corrected)}, "original": read.source,
                "time": now, "labeller": options.labeller, "group": group, "patch_px": patch_px, "mpp": mpp,
                "map_names": dict(options.names or {}), "partial": read.partial,
                "trust_locked": options.trust_locked, "replaced_patches": replaced,
                "notes": [*file.notes, *changes.notes, *damage_notes(written)],
            },
        )  # fmt: skip
        writer.finish()
        record["record"] = write_record(out, record)
    return record


@dataclass(frozen=True, slots=True)
class Corrections:
    """A file of corrections that was understood.

    Attributes:
        file: as it was read.
        changes: against the map's own regions.
        source: where these are from.
        partial: the file holds a selection.
        patch_px: side of a patch of the model.
        mpp: its resolution.
    """

    file: AnnotationFile
    changes: Changes
    source: str
    partial: bool
    patch_px: int
    mpp: float


def read_corrections(
    tissue_map: TissueMap, corrected: Path, slide: SlideReader, options: CorrectOptions
) -> Corrections:
    """Understand a person's file; nothing of the slide is read but what it is.

    Raises:
        WsisegError: on bad input, or where the file corrects nothing.
    """
    require_same_slide(tissue_map, slide)
    patch_px, mpp = patch_size(tissue_map, options.model)
    file = read_annotations(corrected)
    require_of_map(file, tissue_map)
    require_on_slide(file.annotations, slide, file.name)
    originals, source = originals_of(tissue_map, options.original)
    partial = options.partial or is_drawn_alone(file.annotations)
    changes = find_changes(
        file, originals, Names(tissue_map.classes, options.names), bounds=slide.bounds, partial=partial,
        trust_locked=options.trust_locked,
    )  # fmt: skip
    if not changes.changed and not len(changes.points):
        raise OptionError(
            f"{file.name} holds the map's {changes.counts['unchanged']} regions as they were; correct something, draw "
            "an area called Reviewed around what is right, or give the file that was saved after correcting"
        )
    return Corrections(file, changes, source, partial, patch_px, mpp)


def patch_size(tissue_map: TissueMap, model: str | None) -> tuple[int, float]:
    """(side of a patch in px, microns per pixel) of a map's model.

    Raises:
        OptionError: the model is another one, or not known.
    """
    own, parameters = tissue_map.metadata["model"], tissue_map.metadata.get("parameters") or {}
    shipped = (name for name in list_bundles() if bundle_hash(name) == own["hash"])
    name = model or next(shipped, None)
    if name is not None:
        spec, found = read_spec(name), bundle_hash(name)
        if found != own["hash"]:
            raise OptionError(
                f"{tissue_map.path.name} is of the model {own.get('name', '')!s:.80} ({own['hash'][:12]}), not of "
                f"{name} ({found[:12]}); give that one"
            )
        return spec.patch_size_px, spec.mpp
    patch_px, mpp = parameters.get("patch_px"), own.get("mpp")
    mode = MODES.get(parameters.get("gate_mode", ""))  # large tiles are no patches
    if mode and not mode.large_tiles and isinstance(patch_px, int) and isinstance(mpp, int | float):
        return patch_px, float(mpp)
    raise OptionError(f"{tissue_map.path.name} does not say how large its model's patches are; state it with --model")


def is_drawn_alone(annotations: Sequence[Annotation]) -> bool:
    """Whether all of these were drawn in `wsiseg view`, whose files hold none of a map's regions."""
    key, value = DRAWN_IN
    return bool(annotations) and all(annotation.metadata.get(key) == value for annotation in annotations)


def require_on_slide(annotations: Any, slide: SlideReader, file: str) -> None:
    """Refuse a file none of whose areas touches the slide."""
    width, height = slide.size.width, slide.size.height
    areas = [a.area.bounds for a in annotations if a.area is not None]
    if areas and not any(b[0] < width and b[1] < height and b[2] > 0 and b[3] > 0 for b in areas):
        raise OptionError(
            f"{file}: no area lies on {slide.name} ({slide.size} px); expected level-0 pixels of this slide, counted "
            "from the corner of its bounds"
        )


def _discard_earlier(writer: DatasetWriter, provenance: Provenance, written: Written) -> int:
    """Take out what an earlier file said of the same map: the newest one says all."""
    own = provenance.to_row()
    same = ("slide", "source", "model_hash", "labeller")
    kept = set(written.files)
    old = [f for f, row in writer.rows.items() if f not in kept and all(row.get(n, "") == own[n] for n in same)]
    for file in old:
        writer.discard(file)
    return len(old)


def damage_notes(written: Written) -> list[str]:
    """What was left out of the patches, and why."""
    notes = []
    if written.damaged:
        notes.append(f"{written.damaged} patches left out, since the slide cannot be read there")
    return [*notes, *conflict_notes(written)]


def conflict_notes(written: Written) -> list[str]:
    """What two corrections contradict each other in."""
    if not written.conflicts:
        return []
    return [f"{written.conflicts} pixels that two corrections give different classes count as unknown"]
