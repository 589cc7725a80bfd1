"""`wsiseg dataset`: look at data sets of labelled patches."""

from __future__ import annotations

from pathlib import Path

import click

from wsiseg.cli.command import Group
from wsiseg.cli.dataset_cut import cut
from wsiseg.cli.options import (
    OUTPUT,
    PRINTED,
    Told,
    json_file_option,
    json_option,
    names_of,
    overwrite_option,
    quiet_option,
    reader_option,
    series_option,
)

FOUND = 1
"""Exit code where a check found something, as of ruff and ShellCheck; 2 is for what could not be checked at all."""


@click.group(cls=Group)
def dataset() -> None:
    """Check data sets of labelled patches, or make one from images, cell dots or annotations."""


@dataset.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--classes", metavar="NAME|FILE", help="luad-histoseg, bcss-wsss, wsss4luad, or a JSON file of names and colours."
)
@click.option("--mpp", type=float, metavar="UM", help="Microns per pixel of the patches; overrides dataset.json.")
@click.option(
    "--excluded",
    type=int,
    metavar="N",
    help="Mask value of excluded pixels [default: number of classes]; 0: classes begin at 1.",
)
@click.option("--ignore-columns", metavar="NAME,…", help="Columns of labels.csv that are no classes.")
@click.option("--sheet", type=OUTPUT, metavar="FILE.png", help="Draw a contact sheet.")
@json_file_option
@quiet_option
@click.option("--strict", is_flag=True, help="Exit code 1 for whatever may not be learned as well, as few patches.")
@click.option("--no-decode", is_flag=True, help="Check only names and labels; open no image.")
@overwrite_option
@click.pass_context
def check(
    ctx: click.Context,
    path: Path,
    classes: str | None,
    mpp: float | None,
    excluded: int | None,
    ignore_columns: str | None,
    sheet: Path | None,
    as_json: Path | None,
    quiet: bool,
    strict: bool,
    no_decode: bool,
    overwrite: bool,
) -> None:
    """Count what the data set PATH holds and show everything that is wrong with it.

    Exit code 0: nothing is wrong; 1: something is, be it an error, with which a training would not begin, or a
    warning; 2: PATH or an option cannot be used.
    """
    import json

    from wsiseg.datasets.check import check_dataset
    from wsiseg.datasets.facts import read_classes
    from wsiseg.system.files import check_file, whole_file

    told = Told(as_json == PRINTED, quiet)
    if sheet is not None:
        if no_decode:
            raise click.UsageError("--sheet needs the images that --no-decode does not open; drop one of them")
        check_file(sheet, (".png",), overwrite)
    if as_json not in (None, PRINTED):
        check_file(as_json, (".json",), overwrite)
    table = read_classes(classes) if classes else None
    found = check_dataset(path, table, mpp, excluded, decode=not no_decode, ignore=names_of(ignore_columns))
    from wsiseg.cli.dataset_tables import show

    if as_json == PRINTED:
        click.echo(json.dumps(found.to_json(), indent=2))
    elif not quiet:
        show(found)
    if as_json is not None and as_json != PRINTED:
        with whole_file(as_json) as temporary:
            temporary.write_text(json.dumps(found.to_json(), indent=2), encoding="utf-8")
        told.wrote(as_json)
    if sheet is not None:
        from wsiseg.datasets.sheet import dataset_sheet

        picture = dataset_sheet(found)
        with whole_file(sheet) as temporary:
            picture.save(temporary, format="PNG")
        told.wrote(sheet)
    ctx.exit(0 if found.sound and (found.learnable or not strict) else FOUND)


dataset.add_command(cut)


@dataset.command("from-qupath")
@click.argument("slide")
@click.argument("annotations", metavar="ANNOTATIONS.geojson", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=OUTPUT, metavar="FOLDER", help="Data set to begin, or to append to.")
@click.option("--model", help="Model whose classes, patch size and resolution to take.")
@click.option("--mpp", type=float, metavar="UM", help="Without --model: microns per pixel of the patches.")
@click.option("--patch", type=int, metavar="PX", help="Without --model: side of a patch.")
@click.option("--classes", metavar="NAME|FILE", help="Without --model: classes [default: those in the file].")
@click.option("--map", "names", multiple=True, metavar="NAME=CLASS",
              help="Class that NAME in the file means; NAME= leaves it out. Repeatable.")  # fmt: skip
@click.option("--group", default="", help="Patient or slide that the patches belong to [default: the slide's name].")
@click.option("--labeller", default="", help="Who drew.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Split of the patches [default: none].")
@click.option("--coarse", is_flag=True, help="Areas say that a class occurs in them, not that nothing else does.")
@click.option("--slide-mpp", type=float, metavar="UM", help="Microns per level-0 pixel, where SLIDE records none.")
@reader_option
@series_option
@quiet_option
@json_option
def from_qupath(
    slide: str,
    annotations: Path,
    out: Path,
    model: str | None,
    mpp: float | None,
    patch: int | None,
    classes: str | None,
    names: tuple[str, ...],
    group: str,
    labeller: str,
    split: str | None,
    coarse: bool,
    slide_mpp: float | None,
    reader: str | None,
    series: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Cut patches of SLIDE that annotations drawn in QuPath say something of.

    Areas and class points count. Within an area called Reviewed, or of the class Region*, everything is drawn, so that
    a class that is not drawn there is absent; elsewhere it is unknown.
    """
    import json

    from wsiseg.cli.correct import show
    from wsiseg.corrections.from_qupath import AnnotationOptions
    from wsiseg.corrections.from_qupath import from_qupath as run
    from wsiseg.corrections.names import parse_map
    from wsiseg.datasets.facts import read_classes
    from wsiseg.slides import open_slide

    table = read_classes(classes) if classes else None
    options = AnnotationOptions(model, table, mpp, patch, parse_map(names), group, labeller, split or "", coarse)
    with open_slide(slide, mpp=slide_mpp, reader=reader, series=series) as opened:
        record = run(opened, annotations, out, options)
    if as_json:
        click.echo(json.dumps(record))
    elif not quiet:
        show(record, out)
