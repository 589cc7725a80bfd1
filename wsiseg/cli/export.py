"""`wsiseg export`: what others need of a map."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from wsiseg.cli.options import echo, mpp_option, overwrite_option, reader_option, series_option, vector_options

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("tissue_map", metavar="MAP.zarr", type=FILE)
@click.option("--geojson", type=FILE, help="Polygons for QuPath, .geojson or .geojson.gz.")
@click.option("--exact", is_flag=True, help="Polygons along every pixel's border, one a class.")
@vector_options
@click.option("--max-memory", metavar="SIZE", help="Memory that simplified polygons may take [default: 1.5G].")
@click.option("--png", type=FILE, help="Picture of the classes, upon the slide where --slide is given.")
@click.option("--slide", help="The slide that the map was made from.")
@click.option("--max-px", type=int, default=2048, show_default=True, help="Longest side of the picture.")
@click.option("--opacity", type=float, default=0.4, show_default=True, help="Of the classes upon the slide, 0 to 1.")
@mpp_option
@reader_option
@series_option
@click.option("--csv", type=FILE, help="Areas, one row a class.")
@overwrite_option
def export(
    tissue_map: Path,
    geojson: Path | None,
    exact: bool,
    min_area: float | None,
    tolerance: float | None,
    max_memory: str | None,
    png: Path | None,
    slide: str | None,
    max_px: int,
    opacity: float,
    mpp: float | None,
    reader: str | None,
    series: str | None,
    csv: Path | None,
    overwrite: bool,
) -> None:
    """Write polygons, a picture or a table of areas from a tissue map."""
    if geojson is None and png is None and csv is None:
        raise click.UsageError("nothing to write; give --geojson, --png or --csv")
    if slide is not None and png is None:
        raise click.UsageError("--slide is what --png is drawn upon; give --png as well")
    if exact and (tolerance is not None or min_area is not None):
        raise click.UsageError("--exact keeps every pixel; leave out --tolerance and --min-area")
    if max_memory is not None and (geojson is None or exact):
        raise click.UsageError("--max-memory is for simplified polygons; give --geojson, without --exact")

    from wsiseg.export import VectorOptions, export_csv, export_geojson, export_png
    from wsiseg.memory import parse_bytes
    from wsiseg.outputs import check_file
    from wsiseg.slides import open_slide
    from wsiseg.tissue_map import open_map

    source = open_map(tissue_map)
    for path, suffixes in ((geojson, (".geojson", ".geojson.gz")), (png, (".png",)), (csv, (".csv",))):
        if path is not None:
            check_file(path, suffixes, overwrite)
    if geojson is not None:
        memory = None if max_memory is None else parse_bytes(max_memory)
        options = VectorOptions(exact, tolerance, min_area, memory)
        _say(geojson, export_geojson(source, geojson, options, overwrite=overwrite))
    if png is not None:
        if slide is None:
            mean = export_png(source, png, max_px=max_px, opacity=opacity, overwrite=overwrite)
        else:
            with open_slide(slide, mpp=mpp, reader=reader, series=series) as opened:
                mean = export_png(source, png, opened, max_px=max_px, opacity=opacity, overwrite=overwrite)
        echo(f"wrote {png} ({mean:.3g} um/px)")
    if csv is not None:
        export_csv(source, csv, overwrite=overwrite)
        echo(f"wrote {csv}")


def _say(path: Path, written: Mapping[str, Any]) -> None:
    """Say what polygons were written, and what was done to reach them."""
    from wsiseg.report import coarser_note

    echo(f"wrote {path} ({written['annotations']} annotations, {written['vertices']} vertices)")
    if coarser := coarser_note(written):
        echo(coarser)
    if written.get("within_budget") is False:
        echo("that is more than QuPath opens with ease; a larger --min-area or --tolerance makes them fewer")
