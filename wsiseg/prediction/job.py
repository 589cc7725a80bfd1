"""One slide becomes one map: what is done in which order, and what is kept for a run that dies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from wsiseg.export.drawn_polygons import DrawnPolygons
from wsiseg.export.vector_options import VectorOptions
from wsiseg.geometry import Grid, Mpp, coarser_grid
from wsiseg.models.context import context_tiles
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.distance_field import DISTANCES, DistanceField, far_of_map, saved_before, write_distances
from wsiseg.prediction.executors import Executor, PiecesWork, executor_for
from wsiseg.prediction.gate_field import GateFieldFile, StoredGateField
from wsiseg.prediction.gated import calibration_of, make_gate
from wsiseg.prediction.journal import Fingerprint
from wsiseg.prediction.machine import Machine, machine_for, machines_of, mixed_note, threads_of_torch
from wsiseg.prediction.options import OF_SPEED, ResolvedOptions
from wsiseg.prediction.output import Output
from wsiseg.prediction.piece_writer import PieceWriter, gate_decisions, sum_up
from wsiseg.prediction.plan import Plan
from wsiseg.prediction.plan import plan as plan_of
from wsiseg.prediction.progress import Advance, Progress
from wsiseg.prediction.result import Counts, Damage, Found, Prediction, slide_provenance, tissue_provenance
from wsiseg.prediction.shared_work import SharedWork
from wsiseg.prediction.steps import CommitStep, GateStep, LevelStep
from wsiseg.prediction.stream import SlideWork, Stream
from wsiseg.prediction.unfinished import UnfinishedRun, begun_drawing
from wsiseg.slides.base import SlideReader
from wsiseg.slides.overview import read_picture
from wsiseg.slides.watch import SlideWatch
from wsiseg.system.clock import Clock
from wsiseg.system.files import cannot_write, check_map, put_folder, remove_cut_file, sync_path, sync_tree
from wsiseg.system.json_values import JsonObject
from wsiseg.system.memory import MemoryPlan, give_back_memory
from wsiseg.system.threads import within
from wsiseg.system.versions import of_map, of_run, software
from wsiseg.tiling.pieces import Piece, owned_by, patches_of, pieces_of
from wsiseg.tissue_map.areas import Areas
from wsiseg.tissue_map.gate import GateGrid
from wsiseg.tissue_map.writer import MapWriter

PLAN_READS = 10
"""Finding the tissue may take as long as so many reads may."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """The state after all pieces and levels of a map are written.

    Attributes:
        writer: of the store, whose metadata is missing; None where an earlier run had given the map its name.
        resumed: share of the patches that an earlier run had done.
        waited_s: seconds in which the networks waited for the slide's pixels.
        distances: of the patches from the training data; None where the model does not know them.
    """

    writer: MapWriter | None
    resumed: float
    waited_s: float
    distances: DistanceField | None = None


@dataclass
class MapJob:
    """One slide, one model, and how to predict.

    Attributes:
        slide: open for reading.
        model: ready to compute.
        model_name: for other processes, which load it themselves.
        options: resolved.
        progress: told as the work goes on.
        clock: of the run.
        plan: what of the slide is to be read, where that is known already.
        when_streamed: called when the slide's pieces are written, as the pyramid begins.
        executor: computes the pieces; None as the options' device says.
    """

    slide: SlideReader
    model: TissueModel
    model_name: str
    options: ResolvedOptions
    progress: Progress
    clock: Clock
    plan: Plan | None = None
    when_streamed: Callable[[], None] = lambda: None
    executor: Executor | None = None

    def __post_init__(self) -> None:
        channels = 1 + len(self.model.classes)
        self.memory = MemoryPlan.from_limit(self.options.max_memory, channels)
        self.classes = self.model.classes
        self.gate = make_gate(self.model, self.options)
        self.machine = Machine.of(self.model)
        self.watch = within(lambda: SlideWatch(self.slide), self.options.read_timeout_s)

    def fingerprint(self) -> Fingerprint:
        """Everything that the bytes of the map depend on."""
        options = asdict(self.options)
        # A new option stays in, so that a run is resumed only with the same value, unless it is one of speed alone.
        for name in OF_SPEED:
            del options[name]
        return {
            "slide": self.watch.hash,
            **({} if self.watch.version is None else {"state of the slide on its server": self.watch.version}),
            "model": self.model.hash,
            **({} if self.model.distance is None else {"distance of the model": self.model.distance.sha256}),
            **self._calibrated(),
            **options,
            "device": self.model.device.type,
            **asdict(self.machine),
            "exact": self.model.runtime.exact,
            **tissue_provenance(self.options.tissue),
            "mpp": asdict(self.slide.mpp),
            "side of a piece, which --max-memory sets,": self.memory.piece_px,
            **{f"version of {name}": value for name, value in of_map(software(), self.options.runtime).items()},
        }

    def _calibrated(self) -> JsonObject:
        found = calibration_of(self.model, self.options)
        return {} if found is None else {"temperature": found.temperature}

    def make_map(self, run: UnfinishedRun, output: Output) -> Prediction:
        """Compute what is missing of the map and give it its name."""
        plan = self.find_tissue()
        streamed = Streamed(None, 1.0, 0.0) if run.committed else self.stream(run, plan)
        found = self._sum_up(run, plan)
        if streamed.writer is not None:
            layer = write_distances(streamed.writer, streamed.distances, plan.tiles, self.model.distance)
            machines = {"computed_on": [asdict(one) for one in machines_of(run.journal)]}
            self.commit(run, streamed.writer, {**self._provenance(found, plan), **machines, **layer}, output)
        return self._prediction(run, plan, streamed, found)

    def find_tissue(self) -> Plan:
        """Find the tissue, and with it what of the slide is to be read; a plan that is known already is taken."""
        self.progress.step("tissue", 0, 1)
        limit_s = PLAN_READS * self.options.read_timeout_s
        plan = self.plan or within(lambda: planned(self.slide, self.model, self.options), limit_s)
        self.progress.step("tissue", 1, 1)
        self.progress.plan(int(plan.selected.sum()) * plan.tiles.stride_px**2)
        self.clock.lap("tissue")
        return plan

    def stream(self, run: UnfinishedRun, plan: Plan) -> Streamed:
        """Compute and write the pieces that are missing, and the pyramid above them."""
        writer = MapWriter(
            run.store, self.classes, plan.grid, self.memory.piece_px, probabilities=self.options.probabilities,
            unread=True,
        )  # fmt: skip
        with threads_of_torch(machine_for(run.journal, self.model).threads):
            streamed = self._pieces(run, plan, writer)
        self._write_unseen(plan, writer)
        self._levels(run, plan, writer)
        self._write_gate(run, plan, writer)
        return streamed

    def _write_unseen(self, plan: Plan, writer: MapWriter) -> None:
        """Write what could not be read where no tissue was found: in pieces that nothing was computed for."""
        if not plan.unseen:
            return
        computed = {piece.index for piece in pieces_of(plan.tiles, plan.selected, self.memory.piece_px)}
        for piece in pieces_of(plan.tiles, np.ones_like(plan.selected), self.memory.piece_px):
            unread = plan.unseen_in(piece.box)
            if piece.index not in computed and unread.any():
                writer.write_unread(piece.box, unread)

    def _write_gate(self, run: UnfinishedRun, plan: Plan, writer: MapWriter) -> None:
        """Write where the gate shut what, of all pieces that are booked."""
        if self.gate.thresholds is None:
            return
        tiles, windows = plan.tiles, self.gate.windows(plan.tiles.patch_px)
        per_tile, classes = windows.side, len(self.classes)
        grid = GateGrid(
            tiles.rows * per_tile, tiles.columns * per_tile, windows.patch_px, windows.stride_px, tiles.stride_px,
            per_tile,
        )  # fmt: skip
        pieces = pieces_of(tiles, plan.selected, self.memory.piece_px)
        writer.write_gate(grid, gate_decisions(run.journal, pieces, plan, per_tile, classes))

    def commit(self, run: UnfinishedRun, writer: MapWriter, provenance: JsonObject, output: Output) -> None:
        """Give the store its name: from here on the map is there, and whole."""
        writer.write_metadata(provenance)
        check_map(run.out, output.overwrite)  # somebody else may have made it meanwhile
        self.watch.check()
        sync_tree(run.store)
        # Booked before the renaming: after a kill in between, the store still lies in the run's folder, so the next run
        # knows that the map has no name yet. The other way round it would take the map for another run's.
        run.journal.book(CommitStep())
        with cannot_write(run.out):
            put_folder(run.store, run.out)
        sync_path(run.out.parent)

    def _sum_up(self, run: UnfinishedRun, plan: Plan) -> Found:
        """Add up all booked pieces."""
        counts = Counts(len(plan.tiles), int(plan.selected.sum()), shut=[0] * len(self.classes))
        areas = Areas.empty(len(self.classes))
        sum_up(run.journal, areas, counts, self.slide.damage)
        white = plan.white is not None
        damage = Damage(self.slide.damaged_tiles, self.slide.damaged_area_um2 / 1e6)
        return Found.from_areas(areas, self.classes, plan.grid, counts, damage, self.slide.size, white=white)

    def _prediction(self, run: UnfinishedRun, plan: Plan, streamed: Streamed, found: Found) -> Prediction:
        return Prediction(
            map_path=run.out,
            geojson_path=None,
            areas=found.areas,
            tissue_mm2=found.tissue_mm2,
            unread_mm2=found.unread_mm2,
            counts=found.counts,
            damage=found.damage,
            seconds=self.clock.seconds,
            enlarged=max(1.0, 1 / plan.grid.zoom_x, 1 / plan.grid.zoom_y),
            resumed=streamed.resumed,
            waited_s=streamed.waited_s,
            model_notes=[*self.model.notes, *mixed_note(machines_of(run.journal))],
            slide_notes=self.slide.notes,
            white_mm2=found.white_mm2,
            white=plan.white,
            far=far_of_map(run.out),
        )

    def _pieces(self, run: UnfinishedRun, plan: Plan, writer: MapWriter) -> Streamed:
        pieces = pieces_of(plan.tiles, plan.selected, self.memory.piece_px)
        distances = DistanceField(run.scratch / DISTANCES, plan.tiles) if self.gate.measures_distance else None
        check = saved_before(distances, self.watch.check)
        piece_writer = PieceWriter(writer, plan, run.journal, self.slide.damage, check)
        missing = piece_writer.missing(pieces) if distances is None or distances.resumed else pieces
        stream = Stream(self.model, self.gate, self.options, self.memory)
        field = self._gate_field(run, plan, stream, pieces, distances)
        total = sum(patches_of(piece, plan.selected) for piece in pieces)
        done = total - sum(patches_of(piece, plan.selected) for piece in missing)
        advance = Advance(self.progress, "tiles", done, total)
        shared = SharedWork(
            self.slide.path, self.model_name, plan, self.options, self.model.runtime, self.memory, run.store,
            None if field is None else field.file, self.slide.damage.to_json(),
            None if distances is None else distances.path, torch.get_num_threads(),
        )  # fmt: skip
        executor = self.executor or executor_for(self.options.device)
        waited_s = executor.compute(
            PiecesWork(shared, missing, run.journal, advance, self.slide, stream, piece_writer, field, distances)
        )
        self.clock.lap("tiles")
        return Streamed(writer, done / max(1, total), waited_s, distances)

    def _gate_field(
        self, run: UnfinishedRun, plan: Plan, stream: Stream, pieces: list[Piece], distances: DistanceField | None
    ) -> StoredGateField | None:
        """The classifier's probabilities of all patches, by a pass of its own; None unless the gate has a context."""
        if not self.gate.context:
            return None
        sigma = context_tiles(self.gate.context, plan.tiles)
        file = GateFieldFile(run.scratch / "gate.f32", len(self.classes), sigma)
        field = StoredGateField(file, plan.tiles, plan.selected)
        resumed = field.resumed and (distances is None or distances.resumed)
        booked = {step.index for step in run.journal.booked(GateStep)} if resumed else set()
        missing = [piece for piece in pieces if piece.index not in booked]
        total = int(plan.selected.sum())
        done = total - sum(owned_by(piece, plan.tiles, plan.selected) for piece in missing)

        check = saved_before(distances, self.watch.check)

        def book(piece: Piece) -> None:
            field.save()
            check()
            run.journal.book(GateStep(piece.index))

        work = SlideWork(self.slide, plan, missing, field, [], lambda batch, found: None, distances)
        stream.classify([work], book, Advance(self.progress, "gate", done, total))
        self.clock.lap("gate")
        return field

    def _levels(self, run: UnfinishedRun, plan: Plan, writer: MapWriter) -> None:
        self.when_streamed()
        booked = {step.level: step.files for step in run.journal.booked(LevelStep)}
        done = {level for level, files in booked.items() if files == writer.level_on_disk(level)}
        for level in writer.write_levels(done):
            if writer.is_later(level) and level not in done:
                run.journal.book(LevelStep(level, writer.level_on_disk(level)))
            self.progress.step("pyramid", level + 1, len(writer.sizes))
        if self.options.probabilities == "none":
            writer.write_picture(*_picture(self.slide, plan.grid, writer.picture_factor))
        self.clock.lap("pyramid")

    def _provenance(self, found: Found, plan: Plan) -> JsonObject:
        thresholds = self.gate.thresholds
        tiling = self.model.spec.tiling(self.options.gate_mode, self.options.overlap)
        return {
            "slide": slide_provenance(self.slide),
            "model": {"name": self.model.spec.name, "hash": self.model.hash, "mpp": self.model.spec.mpp},
            "parameters": {
                **asdict(self.options),
                **tissue_provenance(self.options.tissue),
                "exact": self.model.runtime.exact,
                **self._calibrated(),
                "computed_by": self.model.computed_by,
                "white_rule": None if plan.white is None else plan.white.to_json(),
                "patch_px": tiling.side_px,
                "patch_overlap_px": tiling.overlap_px,
                "gate_thresholds": None if thresholds is None else [float(value) for value in thresholds],
            },
            "software": of_run(software(), self.options.runtime),
            "notes": [*self.model.notes, *self.slide.notes],
            "times": self.clock.times(),
            **found.to_json(),
        }

    def draw(self, run: UnfinishedRun, geojson: Path, output: Output) -> DrawnPolygons:
        """Write the polygons; those that a run had finished when it died are taken as they are."""
        # Now, not at the start: nothing of it is needed before the first patches are computed.
        from wsiseg.export.polygons import export_geojson  # noqa: PLC0415
        from wsiseg.tissue_map.reader import open_map  # noqa: PLC0415

        vectors = output.vectors or VectorOptions()
        if vectors.max_memory is None:  # the networks' library stays in memory beside them
            vectors = replace(vectors, max_memory=self.memory.max_memory // 8)
        step = {"file": str(geojson.absolute()), **asdict(vectors)}
        for drawn in run.journal.of("drawn"):
            if drawn["of"] == step and geojson.exists():
                return DrawnPolygons.from_json(drawn["result"])
        ours = begun_drawing(run.out, geojson)
        if ours:
            remove_cut_file(geojson)
        run.journal.add({"step": "vectors", **step})
        self.progress.step("vectors", 0, 1)
        give_back_memory()
        result = export_geojson(open_map(run.out), geojson, vectors, overwrite=output.overwrite or ours)
        self.progress.step("vectors", 1, 1)
        self.clock.lap("vectors")
        run.journal.add({"step": "drawn", "of": step, "result": result.to_json()})
        return result


def planned(slide: SlideReader, model: TissueModel, options: ResolvedOptions) -> Plan:
    """What of a slide will be read; see `wsiseg.prediction.plan.plan`."""
    return plan_of(
        slide, model.spec.mpp, model.spec.tiling(options.gate_mode, options.overlap), options.tissue,
        white=options.white,
    )  # fmt: skip


def _picture(slide: SlideReader, grid: Grid, factor: int) -> tuple[npt.NDArray[np.uint8], Mpp]:
    coarse = coarser_grid(grid, factor, slide.levels)
    return read_picture(slide, coarse), coarse.mpp
