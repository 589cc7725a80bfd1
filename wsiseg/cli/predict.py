"""`wsiseg predict`: a slide in, a tissue map and its polygons out."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsiseg.choices import DEFAULT_READ_TIMEOUT_S, GATE_MODES, GATE_RULES, PRECISIONS, PROBABILITIES, RUNTIMES
from wsiseg.cli.command import Command, is_verbose
from wsiseg.cli.many_slides import many_slides
from wsiseg.cli.options import (
    BUCKET_OUTPUT,
    OUTPUT,
    device_option,
    mpp_option,
    overwrite_option,
    reader_option,
    retry_option,
    series_option,
    vector_options,
)
from wsiseg.cli.progress import shown_progress
from wsiseg.cli.verbose import tell_machine, tell_slide
from wsiseg.errors import OptionError
from wsiseg.models import DEFAULT_MODEL
from wsiseg.system.addresses import without_secrets

if TYPE_CHECKING:
    from wsiseg.prediction.options import PredictOptions
    from wsiseg.prediction.result import Prediction


@click.command(cls=Command)
@click.argument("slides", nargs=-1, metavar="SLIDE...")
@click.option(
    "--slides",
    "slide_list",
    metavar="LIST|PATTERN",
    help="Instead of SLIDE: a file with a slide a line, a CSV (path, name, mpp, group), a folder or a pattern; here or "
    "at an address, s3://bucket/prefix/*.svs.",
)
@click.option(
    "--out",
    required=True,
    type=BUCKET_OUTPUT,
    help="Tissue map to write, NAME.zarr; or a folder for the map of each slide. Also in a bucket, s3://…",
)
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    metavar="NAME|FOLDER",
    help="A shipped model, or the folder of a bundle.",
)
@mpp_option
@click.option(
    "--tissue",
    default="otsu",
    show_default=True,
    metavar="otsu|none|FILE",
    help="How tissue is found; FILE is your own GeoJSON or PNG (bright is tissue).",
)
@click.option(
    "--overlap",
    type=float,
    metavar="SHARE",
    help="Share of a patch that overlaps its neighbour, 0 to below 1 [default: the model's].",
)
@click.option("--gate/--no-gate", default=True, help="Let the classifier decide which classes may occur in a patch.")
@click.option(
    "--gate-threshold", type=float, metavar="P", help="Probability a class must exceed [default: the model's]."
)
@click.option(
    "--gate-rule",
    type=click.Choice(GATE_RULES),
    help="Exclude a class that may not occur, or multiply its logits by 0 (published) [default: the model's].",
)
@click.option(
    "--gate-mode",
    type=click.Choice(GATE_MODES),
    help="Gate each patch; or large tiles, in windows of the classifier's map or by the segmenter's own head "
    "[default: the model's].",
)
@click.option(
    "--gate-context",
    type=float,
    metavar="SIDES",
    help="Average the gate's probabilities over nearby patches, by a Gaussian of this width in sides of a patch; "
    "0 for none [default: the model's].",
)
@click.option(
    "--gate-floor",
    type=float,
    metavar="SHARE",
    help="Allow a class, whatever its threshold, that has this share of the probability of the patch's most probable "
    "class; 1 for that class alone [default: the model's].",
)
@click.option(
    "--faithful",
    is_flag=True,
    help="Predict like the published program: gate rule multiply_logits, no context, overlap 0 unless given.",
)
@click.option(
    "--white/--no-white",
    default=None,
    help="Leave white inside the tissue (lumina, cracks) without a class [default: unless the model knows white].",
)
@click.option(
    "--probabilities",
    type=click.Choice(PROBABILITIES),
    help="How much of the probabilities the map keeps; coarse ones, at a quarter of the resolution, make it about a "
    "ninth as large [default: full; with --slides coarse].",
)
@click.option("--no-probabilities", "probabilities", flag_value="none", help="The same as --probabilities none.")
@click.option(
    "--geojson",
    type=BUCKET_OUTPUT,
    help="Polygons to write, .geojson or .geojson.gz [default: beside the map].",
)
@click.option("--no-geojson", is_flag=True, help="Write no polygons.")
@vector_options
@device_option
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    show_default=True,
    help="Arithmetic of the networks; auto is bfloat16 if the processor has it.",
)
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default="auto",
    show_default=True,
    help="What computes the networks; auto is OpenVINO on a CPU if it is installed, otherwise torch.",
)
@click.option("--batch-size", type=int, metavar="N", help="Patches at once [default: fits the device].")
@click.option("--workers", type=int, metavar="N", help="Threads that read [default: the cores, at most 8].")
@click.option(
    "--max-memory", metavar="SIZE", help="Memory to use, e.g. 2G [default: half of the machine's or group's, 1 to 4G]."
)
@click.option(
    "--read-timeout",
    "read_timeout_s",
    type=float,
    default=DEFAULT_READ_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="End the run if a read of the slide takes longer.",
)
@retry_option
@reader_option
@series_option
@overwrite_option
@click.option(
    "--keep-folders",
    is_flag=True,
    help="Put maps into the same subfolders as their slides, for slides with equal names.",
)
@click.option("--part", metavar="I/N", help="Of --slides, do part I of N, from 1 on: one for each job of an array.")
@click.option("--skip-locked", is_flag=True, help="Of --slides, leave to other runs what they do; no exit code 75.")
@click.option("--retry-failed", is_flag=True, help="Of --slides, try again what failed for good.")
@click.option(
    "--scratch",
    type=OUTPUT,
    metavar="FOLDER",
    help="Where a map for a bucket is made before it is sent [default: in the user's cache folder].",
)
@click.option(
    "--cluster",
    metavar="local:N|ADDRESS|FILE.yaml",
    help="Of --slides, have N processes, the workers of the Dask scheduler at tcp://HOST:PORT, or SLURM jobs do them.",
)
@click.option("--restart", is_flag=True, help="Discard an unfinished run of this output instead of resuming it.")
@click.option("--log", type=OUTPUT, metavar="FILE", help="Append events to FILE, one line of JSON each.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--quiet", is_flag=True, help="Show no progress and no table.")
def predict(
    slides: tuple[str, ...],
    slide_list: str | None,
    part: str | None,
    skip_locked: bool,
    retry_failed: bool,
    cluster: str | None,
    out: Path | str,
    model: str,
    geojson: Path | str | None,
    no_geojson: bool,
    min_area: float | None,
    tolerance: float | None,
    qupath_names: bool,
    overwrite: bool,
    keep_folders: bool,
    restart: bool,
    scratch: Path | None,
    max_memory: str | None,
    log: Path | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Segment SLIDE with a model: write an OME-Zarr tissue map and, beside it, polygons that open in QuPath.

    Where --out is a folder (its name does not end in .zarr), each slide gets a map in it. Slides that have one, made
    from them by the same model with the same parameters, are left out, so the same command goes on where it was
    interrupted; one that fails does not keep the others. With --slides, several runs share the slides of a list, and
    `wsiseg status` says how far they are. Exit codes: 0 all done, 2 some failed for good, 75 repeat the command.
    """
    _check_list(slides, slide_list, out, of_list=bool(part or skip_locked or retry_failed or cluster))
    if geojson is not None and no_geojson:
        raise click.UsageError("--geojson and --no-geojson contradict each other; drop one of them")
    from wsiseg.slides.arguments import slides_of

    slides = tuple(slides_of(slides))
    many = slide_list is not None or _is_folder(out, slides)
    if many and geojson is not None:
        raise click.UsageError(
            "--geojson names the polygons of one map, NAME.zarr; in a folder they are written beside each map"
        )
    if keep_folders and not many:
        raise click.UsageError("--keep-folders needs a folder of maps; give a folder as --out")
    if geojson is None and not no_geojson and not many:
        geojson = f"{out.rstrip('/')[: -len('.zarr')]}.geojson" if isinstance(out, str) else out.with_suffix(".geojson")
    from wsiseg.cli.log import run_log
    from wsiseg.export.vector_options import VectorOptions
    from wsiseg.prediction.options import PredictOptions
    from wsiseg.system.memory import keep_little_freed_memory, parse_bytes

    keep_little_freed_memory()
    asked = {
        **options,
        "tolerance": tolerance,
        "min_area": min_area,
        "qupath_names": qupath_names,
        "max_memory": max_memory,
    }
    asked |= {"overwrite": overwrite, "restart": restart, **({} if cluster is None else {"cluster": cluster})}
    shown = [without_secrets(slide) for slide in slides] if slide_list is None else [without_secrets(slide_list)]
    with run_log(
        log, slide=shown if many else shown[0], out=_shown(out), geojson=_shown(geojson), model=model, options=asked
    ) as events:
        if max_memory is not None:
            options["max_memory"] = parse_bytes(max_memory)
        how = PredictOptions(**options)
        vectors = VectorOptions(tolerance_um=tolerance, min_area_um2=min_area, qupath_names=qupath_names)
        if slide_list is not None:
            if isinstance(out, str) or scratch is not None:
                raise OptionError(
                    "--slides writes to folders of this machine; name one, or give the slides themselves to write to a "
                    "bucket"
                )
            from wsiseg.cli.cohort import predict_list

            return predict_list(
                slide_list, out, model, how, events, part=part, skip_locked=skip_locked, retry_failed=retry_failed,
                vectors=vectors, polygons=not no_geojson, overwrite=overwrite, restart=restart,
                keep_folders=keep_folders, cluster=cluster, as_json=as_json, quiet=quiet,
            )  # fmt: skip
        if many:
            return many_slides(
                slides, out, model, how, events, vectors=vectors, polygons=not no_geojson,
                overwrite=overwrite, restart=restart, keep_folders=keep_folders, as_json=as_json, quiet=quiet,
                scratch=scratch,
            )  # fmt: skip
        _refuse_early(slides[0], model, how, out, geojson, overwrite, restart)
        with shown_progress(quiet or as_json, events, vectors=geojson is not None) as report:
            report("start", 0, 1)
            from wsiseg import predict as run

            if is_verbose():
                tell_machine(model, how)
            result = run(
                slides[0], out, model, how, geojson=geojson, vectors=vectors,
                overwrite=overwrite, restart=restart, progress=report, scratch=scratch,
            )  # fmt: skip
        events.finished(result)
    if as_json:
        click.echo(json.dumps(result.to_json(), default=str, indent=2))
    elif not quiet:
        _print_table(result)
    return 0


def _shown(place: Path | str | None) -> Path | str | None:
    return without_secrets(place) if isinstance(place, str) else place


def _is_map(out: Path | str) -> bool:
    return str(out).rstrip("/").lower().endswith(".zarr")


def _check_list(slides: tuple[str, ...], slide_list: str | None, out: Path | str, *, of_list: bool) -> None:
    """Raise `UsageError` unless there are slides or a list of them, with an output and options that go with it."""
    if (slide_list is None) == (not slides):
        raise click.UsageError("give either slides, SLIDE..., or a list of them, --slides")
    if slide_list is None and of_list:
        raise click.UsageError(
            "--part, --skip-locked, --retry-failed and --cluster belong to a list of slides, --slides"
        )
    if slide_list is not None and _is_map(out):
        raise click.UsageError(
            f"--slides needs a folder for its maps, got {_shown(out)}; name one that does not end in .zarr"
        )


def _is_folder(out: Path | str, slides: tuple[str, ...]) -> bool:
    """Whether `--out` is a folder of maps, and not one map.

    Raises:
        UsageError: one map for several slides, or what looks like a mistyped name of a map.
    """
    if _is_map(out):
        if len(slides) > 1:
            raise click.UsageError(
                f"{len(slides)} slides need a folder for their maps, got {_shown(out)}; name one that does not end "
                "in .zarr"
            )
        return False
    if len(slides) == 1 and isinstance(out, Path) and out.suffix and not out.is_dir():
        raise click.UsageError(
            f"expected an output name that ends in .zarr, or a folder, got {out}; make a folder of that name first if "
            "you mean one"
        )
    return True


def _refuse_early(
    slide: str,
    model: str,
    options: PredictOptions,
    out: Path | str,
    geojson: Path | str | None,
    overwrite: bool,
    restart: bool,
) -> None:
    """Bad slides and outputs are told at once, not after the seconds that loading torch takes."""
    from wsiseg.prediction.unfinished import check_outputs
    from wsiseg.slides import open_slide
    from wsiseg.system.threads import within

    if isinstance(out, Path):  # a bucket is asked once it is known that the slide can be read
        check_outputs(out, geojson, overwrite=overwrite, restart=restart)
    opening = partial(
        open_slide, slide, mpp=options.mpp, reader=options.reader, series=options.series, retry_s=options.retry_s
    )
    with within(opening, options.read_timeout_s) as opened:
        _ = opened.mpp
        if is_verbose():
            tell_slide(opened, model)


def _print_table(result: Prediction) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class")
    drawn = {row.name: f"{row.polygons_um2 / 1e6:.3f}" for row in (result.vectors.classes if result.vectors else ())}
    for name in ("mm²", "% of tissue", "mean probability", *(["mm² in polygons"] if drawn else [])):
        table.add_column(name, justify="right")
    for area in result.areas:
        share = 100 * area.area_mm2 / result.tissue_mm2 if result.tissue_mm2 else 0.0
        table.add_row(
            Text(area.name),
            f"{area.area_mm2:.3f}",
            f"{share:.1f}",
            f"{area.mean_probability:.2f}",
            *([drawn.get(area.name, "")] if drawn else []),
        )
    if result.white_mm2 is not None:
        share = 100 * result.white_mm2 / result.tissue_mm2 if result.tissue_mm2 else 0.0
        table.add_row("(white)", f"{result.white_mm2:.3f}", f"{share:.1f}", "")
    if result.unread_mm2:
        share = 100 * result.unread_mm2 / result.tissue_mm2
        table.add_row("(unread, damaged)", f"{result.unread_mm2:.3f}", f"{share:.1f}", "")
    table.add_section()
    table.add_row("tissue", f"{result.tissue_mm2:.3f}", "100.0" if result.tissue_mm2 else "", "")
    console = Console(markup=False, soft_wrap=True, highlight=False)
    console.print(table)
    counts, seconds = result.counts, result.seconds
    console.print(
        f"\ntiles: {counts.tiles} in all, {counts.read} read, {counts.skipped} skipped (no tissue), "
        f"{counts.gated} gated ({counts.decided} of them down to one class)"
    )
    shut = [f"{area.name} in {n}" for area, n in zip(result.areas, counts.shut, strict=True) if n]
    if shut:
        console.print(f"gate shut: {', '.join(shut)}")
    if result.damage.tiles:
        console.print(
            f"damaged: {result.damage.tiles} tiles of the slide's file, {result.damage.area_mm2:.3f} mm², "
            "could not be decoded; their class is 0"
        )
    phases = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items() if name != "total")
    console.print(f"seconds: {seconds['total']:.1f} ({phases})")
    for path in (result.map_path, result.geojson_path):
        if path is not None:
            console.print(f"wrote {path}")
    for note in result.notes:
        console.print(f"note: {note}")
