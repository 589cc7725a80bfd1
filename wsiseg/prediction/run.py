"""From a slide to a tissue map: what is done in which order, and what is kept for a run that dies."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from wsiseg.choices import left_open
from wsiseg.errors import OptionError
from wsiseg.export.vector_options import VectorOptions
from wsiseg.models import DEFAULT_MODEL
from wsiseg.models.bundle import load_model
from wsiseg.models.devices import device_names, pick_device
from wsiseg.models.gate_kinds import RULES
from wsiseg.models.runtime.choose import Runtime, choose_runtime, exact_by_name
from wsiseg.models.spec import BundleSpec
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.gated import batch_tensor, make_gate, predict_patches
from wsiseg.prediction.job import MapJob
from wsiseg.prediction.map_folders import place_of
from wsiseg.prediction.options import PredictOptions, ResolvedOptions
from wsiseg.prediction.output import Output
from wsiseg.prediction.progress import Progress, ProgressFunction, as_progress
from wsiseg.prediction.result import Prediction
from wsiseg.prediction.unfinished import unfinished_run
from wsiseg.slides import open_slide
from wsiseg.system.clock import Clock
from wsiseg.system.forks import note_computing, refuse_after_fork
from wsiseg.system.threads import within

__all__ = ["PredictOptions", "Progress", "batch_tensor", "pick_device", "predict", "predict_patches"]


def predict(
    slide: str | Path,
    out: str | Path,
    model: str | Path | TissueModel = DEFAULT_MODEL,
    options: PredictOptions | None = None,
    *,
    geojson: str | Path | None = None,
    vectors: VectorOptions | None = None,
    overwrite: bool = False,
    restart: bool = False,
    progress: Progress | ProgressFunction | None = None,
    scratch: str | Path | None = None,
) -> Prediction:
    """Segment a slide and write its tissue map.

    Memory depends on neither side of the slide. A run that died, or was interrupted, is continued by the same call:
    what it finished is not computed again, and the result has the same bytes.

    Args:
        slide: a file, or an address that fsspec reaches.
        out: the OME-Zarr store to write, a name that ends in `.zarr`; also in a bucket, `s3://…/a.zarr`.
        model: a shipped model's name, a bundle's folder, or a model that is loaded already.
        options: see `PredictOptions`.
        geojson: polygons for QuPath to write as well, `.geojson` or `.geojson.gz`; of a map in a bucket beside it.
        vectors: how polygons are made.
        overwrite: replace what is there.
        restart: forget an unfinished run of that output instead of going on with it.
        progress: told as the work goes on; an object, or a function, see `wsiseg.prediction.progress`.
        scratch: the folder where a map for a bucket is made before it is sent; None takes the user's cache folder.

    Returns:
        What was found and written.

    Raises:
        WsisegError: on bad input, and where slide, model or disk fail on the way. What is named `out` is whole or not
            there; finished pieces are kept beside it, or in the scratch folder, for the next call.
    """
    options, clock = options or PredictOptions(), Clock()
    folder, path, polygons = place_of(out, geojson, scratch, options.retry_s)
    opening = partial(
        open_slide, slide, mpp=options.mpp, reader=options.reader, series=options.series, retry_s=options.retry_s
    )
    with (
        folder.ready(Output(path, polygons, vectors, overwrite, restart)) as output,
        within(opening, options.read_timeout_s) as reader,
    ):
        _ = reader.mpp  # refused before a model is loaded for nothing
        loaded, resolved = loaded_model(model, options)
        job = MapJob(reader, loaded, str(model), resolved, as_progress(progress), clock)
        clock.lap("start")
        return predict_opened(job, output).at(folder.shown)


def predict_opened(job: MapJob, output: Output) -> Prediction:
    """The rest of `predict`, once slide and model are open."""
    with unfinished_run(output.map, job.fingerprint(), restart=output.restart, held=output.held) as run:
        made = job.make_map(run, output)
        if output.geojson is not None:
            drawn = job.draw(run, output.geojson, output)
            made = replace(made, geojson_path=output.geojson, vectors=drawn)
        if output.upload is not None:
            output.upload.send(run, output.geojson, job.progress)
            job.clock.lap("upload")
        return replace(made, seconds=job.clock.seconds)


def loaded_model(model: str | Path | TissueModel, options: PredictOptions) -> tuple[TissueModel, ResolvedOptions]:
    """The model on the first of the devices, ready to compute, and the options with all that it decides.

    A model that is loaded already computes as it was prepared, unless the options state a runtime or a precision, or
    ask for the published gate rule, which is computed exactly. It then stays as these options had it prepared.

    Raises:
        OptionError: for several devices and a model that is loaded already, since each needs its own; or in a process
            that was forked from one that had computed.
    """
    refuse_after_fork()
    note_computing()
    devices = device_names(options.device)
    if isinstance(model, TissueModel):
        if len(devices) > 1:
            raise OptionError("several devices need the model's name or folder, not a model that is loaded already")
        loaded, resolved = model, options.resolved(model)
        wanted = as_prepared(options, resolved, loaded.runtime)
        if wanted is not None:
            prepare(loaded, wanted)
    else:
        loaded = load_model(model, devices[0])
        resolved = options.resolved(loaded)
        prepare(loaded, resolved)
    return loaded, replace(resolved, runtime=loaded.runtime.name, precision=loaded.runtime.precision)


def as_prepared(asked: PredictOptions, options: ResolvedOptions, now: Runtime) -> ResolvedOptions | None:
    """Resolved options, where what was not asked for is what a model was prepared with; None where it computes so."""
    precision = asked.precision or now.precision
    if not left_open(options.runtime) or (options.published_gate and not now.exact):
        return replace(options, precision=precision)
    if precision == now.precision:
        return None
    return replace(options, precision=precision, runtime="auto" if now.optional else now.name)


def chosen_runtime(spec: BundleSpec, options: ResolvedOptions, device: str) -> Runtime:
    """The runtime that a model would be given for resolved options; needs no model.

    Raises:
        DeviceError: where this machine or this device cannot do what the options ask for.
    """
    exact = exact_by_name(options.runtime) or options.published_gate or RULES[spec.gate_rule].by_sign
    return choose_runtime(
        options.runtime,
        options.precision,
        torch.device(device),
        exact=exact,
        batch_size=options.batch_size,
    )


def prepare(model: TissueModel, options: ResolvedOptions) -> None:
    """Have a model compute as resolved options say, and let a first patch make it ready."""
    model.use(chosen_runtime(model.spec, options, str(model.device)))
    make_gate(model, options).warm_up()
