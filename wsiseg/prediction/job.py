"""One slide becomes one map: what is done in which order, and what is kept for a run that dies."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.export.vector_options import VectorOptions
from wsiseg.geometry import Grid, Mpp, coarser_grid
from wsiseg.models.context import context_tiles
from wsiseg.models.devices import device_names
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.devices import SharedWork, run_on_devices
from wsiseg.prediction.gate_field import GateField, GateFieldFile
from wsiseg.prediction.gated import make_gate
from wsiseg.prediction.journal import Fingerprint
from wsiseg.prediction.options import ResolvedOptions
from wsiseg.prediction.piece_writer import PieceWriter, sum_up
from wsiseg.prediction.plan import Plan, plan
from wsiseg.prediction.progress import Advance, Progress
from wsiseg.prediction.result import Counts, Damage, Prediction, results, slide_provenance, tissue_provenance
from wsiseg.prediction.stream import Stream
from wsiseg.prediction.unfinished import UnfinishedRun, begun_drawing
from wsiseg.slides.base import SlideReader
from wsiseg.slides.overview import read_picture
from wsiseg.slides.watch import SlideWatch
from wsiseg.system.clock import Clock
from wsiseg.system.files import cannot_write, check_map, put_folder, remove_cut_file, sync_path, sync_tree
from wsiseg.system.memory import MemoryPlan, give_back_memory
from wsiseg.system.threads import WriteBehind, within
from wsiseg.system.versions import OPENVINO, of_map, software
from wsiseg.tiling.pieces import Piece, owned_by, patches_of, pieces_of
from wsiseg.tissue_map.areas import Areas, ClassArea
from wsiseg.tissue_map.writer import PIECE_LEVELS, MapWriter

PLAN_READS = 10
"""Finding the tissue may take as long as so many reads may."""


@dataclass
class MapJob:
    """One slide, one model, and how to predict."""

    slide: SlideReader
    model: TissueModel
    model_name: str
    options: ResolvedOptions
    report: Progress
    clock: Clock
    todo: Plan | None = None

    def __post_init__(self) -> None:
        channels = 1 + len(self.model.classes)
        self.memory = MemoryPlan.of(self.options.max_memory, channels)
        self.classes = self.model.classes
        self.gate = make_gate(self.model, self.options)
        self.watch = within(lambda: SlideWatch(self.slide), self.options.read_timeout_s)

    def fingerprint(self) -> Fingerprint:
        """Everything that the bytes of the map depend on."""
        options = asdict(self.options)
        for name in ("workers", "max_memory", "read_timeout_s", "retry_s"):
            del options[name]
        return {
            "slide": self.watch.hash,
            **({} if self.watch.version is None else {"state of the slide on its server": self.watch.version}),
            "model": self.model.hash,
            **options,
            "device": self.model.device.type,
            "exact": self.model.runtime.exact,
            **tissue_provenance(self.options.tissue),
            "mpp": asdict(self.slide.mpp),
            "side of a piece, which --max-memory sets,": self.memory.piece_px,
            **{f"version of {name}": value for name, value in of_map(software(), self.options.runtime).items()},
        }

    def make_map(self, run: UnfinishedRun, overwrite: bool) -> Prediction:
        """Compute what is missing of the map and give it its name."""
        self.report("tissue", 0, 1)
        limit_s = PLAN_READS * self.options.read_timeout_s
        todo = self.todo or within(lambda: planned(self.slide, self.model, self.options), limit_s)
        self.report("tissue", 1, 1)
        self.report("plan", 0, int(todo.selected.sum()) * todo.tiles.stride_px**2 // 1000)
        self.clock.lap("tissue")
        counts = Counts(len(todo.tiles), int(todo.selected.sum()), shut=[0] * len(self.classes))
        areas = Areas.empty(len(self.classes))
        writer, resumed, waited = None, 1.0, 0.0
        if not run.committed:
            options = self.options
            writer = MapWriter(
                run.store, self.classes, todo.grid, self.memory.piece_px, probabilities=options.probabilities
            )
            resumed, waited = self._pieces(run, todo, writer)
            self._levels(run, todo, writer)
        sum_up(run.journal, areas, counts, self.slide.damage)
        damage = Damage(self.slide.damaged_tiles, self.slide.damaged_area_um2 / 1e6)
        found = results(areas, self.classes, todo.grid, counts, damage, self.slide.size, white=todo.white is not None)
        if writer is not None:
            writer.write_metadata(self._provenance(found, todo))
            check_map(run.out, overwrite)  # somebody else may have made it meanwhile
            self.watch.check()
            sync_tree(run.store)
            run.journal.add({"step": "commit"})
            with cannot_write(run.out):
                put_folder(run.store, run.out)
            sync_path(run.out.parent)
        return Prediction(
            map_path=run.out,
            geojson_path=None,
            areas=[ClassArea(**row) for row in found["areas"]],
            tissue_mm2=found["tissue_mm2"],
            unread_mm2=found["unread_mm2"],
            counts=counts,
            damage=damage,
            seconds=self.clock.seconds,
            enlarged=max(1.0, 1 / todo.grid.zoom_x, 1 / todo.grid.zoom_y),
            resumed=resumed,
            waited_s=waited,
            model_notes=self.model.notes,
            slide_notes=self.slide.notes,
            white_mm2=found.get("white_mm2"),
            white=None if todo.white is None else todo.white.to_json(),
        )

    def _pieces(self, run: UnfinishedRun, todo: Plan, writer: MapWriter) -> tuple[float, float]:
        """Compute and write the pieces that are missing; returns the share that was there, and seconds waited."""
        pieces = pieces_of(todo.tiles, todo.selected, self.memory.piece_px)
        behind = PieceWriter(writer, todo, run.journal, self.slide.damage, self.watch.check)
        missing = behind.missing(pieces)
        stream = Stream(self.slide, todo, self.model, self.gate, self.options, self.memory)
        field = self._gate_field(run, todo, stream, pieces)
        total = sum(patches_of(piece, todo.selected) for piece in pieces)
        done = total - sum(patches_of(piece, todo.selected) for piece in missing)
        advance = Advance(self.report, "tiles", done, total)
        devices = device_names(self.options.device)
        if len(devices) > 1:
            work = SharedWork(
                self.slide.path, self.model_name, todo, self.options, self.model.runtime, self.memory, run.store,
                None if field is None else field.file, self.slide.damage.to_json(),
            )  # fmt: skip
            waited_s = run_on_devices(work, devices, missing, run.journal.add, advance)
        else:
            with WriteBehind(behind.write) as writing:
                stream.run(missing, field, writing, advance)
            waited_s = stream.reader.waited_s
        self.clock.lap("tiles")
        return done / max(1, total), waited_s

    def _gate_field(self, run: UnfinishedRun, todo: Plan, stream: Stream, pieces: list[Piece]) -> GateField | None:
        """What the gate goes by where it looks beyond a patch, computed by a pass of its own."""
        if not self.gate.context:
            return None
        sigma = context_tiles(self.gate.context, todo.tiles)
        file = GateFieldFile(run.scratch / "gate.f32", len(self.classes), sigma)
        field = GateField(file, todo.tiles, todo.selected)
        booked = {step["index"] for step in run.journal.of("gate")} if field.resumed else set()
        missing = [piece for piece in pieces if piece.index not in booked]
        total = int(todo.selected.sum())
        done = total - sum(owned_by(piece, todo.tiles, todo.selected) for piece in missing)

        def book(piece: Piece) -> None:
            field.save()
            self.watch.check()
            run.journal.add({"step": "gate", "index": piece.index})

        stream.classify(missing, field, book, Advance(self.report, "gate", done, total))
        self.clock.lap("gate")
        return field

    def _levels(self, run: UnfinishedRun, todo: Plan, writer: MapWriter) -> None:
        booked = {step["level"]: step["files"] for step in run.journal.of("level")}
        done = {level for level, files in booked.items() if files == writer.level_on_disk(level)}
        for level in writer.write_levels(done):
            if level >= PIECE_LEVELS and level not in done:
                run.journal.add({"step": "level", "level": level, "files": writer.level_on_disk(level)})
            self.report("pyramid", level + 1, len(writer.sizes))
        if not self.options.probabilities:
            writer.write_picture(*_picture(self.slide, todo.grid, writer.picture_factor))
        self.clock.lap("pyramid")

    def _provenance(self, found: dict[str, Any], todo: Plan) -> dict[str, Any]:
        thresholds = self.gate.thresholds
        tiling = self.model.spec.tiling(self.options.gate_mode, self.options.overlap)
        return {
            "slide": slide_provenance(self.slide),
            "model": {"name": self.model.spec.name, "hash": self.model.hash, "mpp": self.model.spec.mpp},
            "parameters": {
                **asdict(self.options),
                **tissue_provenance(self.options.tissue),
                "exact": self.model.runtime.exact,
                "computed_by": self.model.computed_by,
                "white_rule": None if todo.white is None else todo.white.to_json(),
                "patch_px": tiling.side_px,
                "patch_overlap_px": tiling.overlap_px,
                "gate_thresholds": None if thresholds is None else [float(value) for value in thresholds],
            },
            "software": _used(software(), self.options.runtime),
            "notes": [*self.model.notes, *self.slide.notes],
            "times": self.clock.times(),
            **found,
        }

    def draw(self, run: UnfinishedRun, geojson: Path, vectors: VectorOptions | None, overwrite: bool) -> dict[str, Any]:
        """Write the polygons; those that a run had finished when it died are taken as they are."""
        # Now, not at the start: nothing of it is needed before the first patches are computed.
        from wsiseg.export.polygons import export_geojson  # noqa: PLC0415
        from wsiseg.tissue_map.reader import open_map  # noqa: PLC0415

        vectors = vectors or VectorOptions()
        if vectors.max_memory is None:  # the networks' library stays in memory beside them
            vectors = replace(vectors, max_memory=self.memory.max_memory // 8)
        step = {"file": str(geojson.absolute()), **asdict(vectors)}
        for drawn in run.journal.of("drawn"):
            if drawn["of"] == step and geojson.exists():
                return dict(drawn["result"])
        ours = begun_drawing(run.out, geojson)
        if ours:
            remove_cut_file(geojson)
        run.journal.add({"step": "vectors", **step})
        self.report("vectors", 0, 1)
        give_back_memory()
        result = export_geojson(open_map(run.out), geojson, vectors, overwrite=overwrite or ours)
        self.report("vectors", 1, 1)
        self.clock.lap("vectors")
        run.journal.add({"step": "drawn", "of": step, "result": result})
        return result


def _used(versions: dict[str, str], runtime: str) -> dict[str, str]:
    """Versions without that of a runtime that computed nothing."""
    return {name: number for name, number in versions.items() if name != OPENVINO or runtime == OPENVINO}


def planned(slide: SlideReader, model: TissueModel, options: ResolvedOptions) -> Plan:
    """What of a slide will be read; see `wsiseg.prediction.plan.plan`."""
    return plan(
        slide, model.spec.mpp, model.spec.tiling(options.gate_mode, options.overlap), options.tissue,
        white=options.white,
    )  # fmt: skip


def _picture(slide: SlideReader, grid: Grid, factor: int) -> tuple[npt.NDArray[np.uint8], Mpp]:
    coarse = coarser_grid(grid, factor, slide.levels)
    return read_picture(slide, coarse), coarse.mpp
