"""What `wsiseg info` tells of a slide: what its file records, where its tissue is, what predict would read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wsiseg.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from wsiseg.geometry import Box, Mpp, Size
    from wsiseg.slides.base import ImageInFile, SlideReader
    from wsiseg.system.json_values import JsonObject
    from wsiseg.tissue.mask import TissueMask


@dataclass(frozen=True, slots=True)
class LevelFacts:
    """A level of the slide's pyramid; `mpp` is None where the slide's is unknown."""

    size: Size
    downsample: float
    mpp: Mpp | None

    def to_json(self) -> JsonObject:
        """Plain JSON; the size as [width, height], mpp as [x, y]."""
        return {"size": _size(self.size), "downsample": self.downsample, "mpp": _mpp(self.mpp)}


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What predict would do.

    Attributes:
        model: that would predict.
        level: of the slide that is read.
        resampled: whether it is resampled to the model's resolution.
        zoom: by how much, across and down.
        map_size: of the map.
        map_mpp: likewise.
        patch_size_px: side of what is read at once.
        patches_read: how many are.
        patches_skipped: how many are not, having no tissue.
    """

    model: str
    level: int
    resampled: bool
    zoom: tuple[float, float]
    map_size: Size
    map_mpp: Mpp
    patch_size_px: int
    patches_read: int
    patches_skipped: int

    def to_json(self) -> JsonObject:
        """Plain JSON."""
        return {
            "model": self.model,
            "level": self.level,
            "resampled": self.resampled,
            "zoom": list(self.zoom),
            "map_size": _size(self.map_size),
            "map_mpp": _mpp(self.map_mpp),
            "patch_size_px": self.patch_size_px,
            "patches_read": self.patches_read,
            "patches_skipped": self.patches_skipped,
        }


@dataclass(frozen=True, slots=True)
class TissueFacts:
    """How much of a slide is tissue.

    Attributes:
        area_mm2: its area.
        share: of the slide, 0 to 1.
    """

    area_mm2: float
    share: float


@dataclass(frozen=True, slots=True)
class SlideFacts:
    """What a slide says of itself; see `SlideReader` for what is not described here.

    Attributes:
        slide: its path, as it may be shown.
        mpp: None where it is not recorded.
        tissue: None where it was not looked for, since mpp is unknown.
        predict: None where there is no model, or mpp is unknown.
        damaged_tiles_met: while looking for tissue.
    """

    slide: str
    vendor: str
    reader: str
    size: Size
    mpp: Mpp | None
    mpp_source: str | None
    objective: float | None
    bounds: Box | None
    levels: Sequence[LevelFacts]
    associated: Mapping[str, Size]
    images: Sequence[ImageInFile]
    left_out: Sequence[str]
    notes: Sequence[str]
    tissue: TissueFacts | None = None
    predict: PlanFacts | None = None
    damaged_tiles_met: int | None = None

    def to_json(self) -> JsonObject:
        """Plain JSON; sizes in pixels as [width, height], mpp as [x, y] in um per pixel."""
        box, found = self.bounds, self.tissue
        met = self.damaged_tiles_met
        return {
            "slide": self.slide,
            "vendor": self.vendor,
            "reader": self.reader,
            "size": _size(self.size),
            "mpp": _mpp(self.mpp),
            "mpp_source": self.mpp_source,
            "objective": self.objective,
            "bounds": None if box is None else [box.x, box.y, box.width, box.height],
            "levels": [level.to_json() for level in self.levels],
            "associated": {name: _size(size) for name, size in self.associated.items()},
            "images": [_image(image) for image in self.images],
            "left_out": list(self.left_out),
            "notes": list(self.notes),
            **({} if found is None else {"tissue_mm2": found.area_mm2, "tissue_share": found.share}),
            **({} if self.predict is None else {"predict": self.predict.to_json()}),
            **({} if met is None else {"damaged_tiles_met": met}),
        }


def describe(slide: SlideReader) -> SlideFacts:
    """What the file records."""
    mpp = slide.stated_mpp or slide.recorded_mpp
    return SlideFacts(
        slide=slide.shown_path,
        vendor=slide.vendor,
        reader=slide.reader,
        size=slide.size,
        mpp=mpp,
        mpp_source=slide.mpp_source or None,
        objective=slide.objective,
        bounds=slide.bounds,
        levels=[
            LevelFacts(level.size, level.downsample, _scaled(mpp, level.downsample_x, level.downsample_y))
            for level in slide.levels
        ],
        associated=slide.associated,
        images=slide.images,
        left_out=slide.left_out,
        notes=slide.notes,
    )


def with_tissue_and_plan(facts: SlideFacts, slide: SlideReader, model: str | None) -> SlideFacts:
    """The same, with where the tissue is and what predict would read with a model; a note where mpp is unknown.

    Raises:
        BundleError: there is no such model.
    """
    from wsiseg.errors import MissingMppError

    try:
        tissue, predict = _tissue_and_plan(slide, model)
        facts = replace(facts, tissue=tissue, predict=predict)
    except MissingMppError as error:
        facts = replace(facts, notes=[*facts.notes, str(error)])
    return replace(facts, damaged_tiles_met=slide.damaged_tiles)


def _tissue_and_plan(slide: SlideReader, model: str | None) -> tuple[TissueFacts, PlanFacts | None]:
    from wsiseg.models.spec import list_bundles, read_spec
    from wsiseg.prediction.plan import plan
    from wsiseg.tissue.find import tissue_mask

    if model is None and DEFAULT_MODEL not in list_bundles():
        return _tissue(slide, tissue_mask(slide)), None
    spec = read_spec(model or DEFAULT_MODEL)
    todo = plan(slide, spec.mpp, spec.tiling())
    grid, read = todo.grid, int(todo.selected.sum())
    return _tissue(slide, todo.mask), PlanFacts(
        model=spec.name,
        level=grid.level,
        resampled=grid.resamples,
        zoom=(grid.zoom_x, grid.zoom_y),
        map_size=grid.size,
        map_mpp=grid.mpp,
        patch_size_px=todo.tiles.patch_px,
        patches_read=read,
        patches_skipped=len(todo.tiles) - read,
    )


def _tissue(slide: SlideReader, mask: TissueMask) -> TissueFacts:
    return TissueFacts(mask.area_px * slide.mpp.pixel_area_um2 / 1e6, mask.share)


def _scaled(mpp: Mpp | None, across: float, down: float) -> Mpp | None:
    from wsiseg.geometry import Mpp

    return None if mpp is None else Mpp(mpp.x * across, mpp.y * down)


def _image(image: ImageInFile) -> JsonObject:
    return {
        "index": image.index,
        "name": image.name,
        "role": image.role,
        "size": _size(image.size),
        "mpp": _mpp(image.mpp),
        "refused": image.refused,
    }


def _size(size: Size) -> list[int]:
    return [size.width, size.height]


def _mpp(mpp: Mpp | None) -> list[float] | None:
    return None if mpp is None else [mpp.x, mpp.y]
