"""`wsiseg dataset`: look at data sets of labelled patches."""

from __future__ import annotations

from pathlib import Path

import click

from wsiseg.cli.options import OUTPUT, echo, overwrite_option

FOUND = 1
"""Exit code where a check found something, as of ruff and ShellCheck; 2 is for what could not be checked at all."""


@click.group()
def dataset() -> None:
    """Check data sets of labelled patches."""


@dataset.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--classes", metavar="NAME|FILE", help="luad-histoseg, bcss-wsss, or a JSON file of names and colours.")
@click.option("--mpp", type=float, metavar="UM", help="Microns per pixel of the patches; overrides dataset.json.")
@click.option("--excluded", type=int, metavar="N", help="Mask value of excluded pixels [default: number of classes].")
@click.option("--sheet", type=OUTPUT, metavar="FILE.png", help="Draw a contact sheet.")
@click.option("--json", "as_json", type=OUTPUT, metavar="FILE", help="Write the findings as JSON.")
@click.option("--no-decode", is_flag=True, help="Check only names and labels; open no image.")
@overwrite_option
@click.pass_context
def check(
    ctx: click.Context,
    path: Path,
    classes: str | None,
    mpp: float | None,
    excluded: int | None,
    sheet: Path | None,
    as_json: Path | None,
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

    if sheet is not None:
        if no_decode:
            raise click.UsageError("--sheet needs the images that --no-decode does not open; drop one of them")
        check_file(sheet, (".png",), overwrite)
    if as_json is not None:
        check_file(as_json, (".json",), overwrite)
    table = read_classes(classes) if classes else None
    found = check_dataset(path, table, mpp, excluded, decode=not no_decode)
    from wsiseg.cli.dataset_tables import show

    show(found)
    if as_json is not None:
        with whole_file(as_json) as temporary:
            temporary.write_text(json.dumps(found.to_json(), indent=2), encoding="utf-8")
        echo(f"wrote {as_json}")
    if sheet is not None:
        from wsiseg.datasets.sheet import dataset_sheet

        picture = dataset_sheet(found)
        with whole_file(sheet) as temporary:
            picture.save(temporary, format="PNG")
        echo(f"wrote {sheet}")
    ctx.exit(0 if found.sound else FOUND)
