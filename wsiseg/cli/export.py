"""`wsiseg export`: what others need of a map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsiseg.cli.command import Command
from wsiseg.cli.options import (
    OUTPUT,
    Told,
    json_option,
    mpp_option,
    overwrite_option,
    quiet_option,
    reader_option,
    retry_option,
    series_option,
    vector_options,
)

if TYPE_CHECKING:
    from wsiseg.export.drawn_polygons import DrawnPolygons
    from wsiseg.export.ome_tiff import TiffContent
    from wsiseg.tissue_map.reader import TissueMap


@click.command(cls=Command)
@click.argument("tissue_map", metavar="MAP.zarr", type=click.Path(path_type=Path))
@click.option("--geojson", type=OUTPUT, help="Polygons for QuPath, .geojson or .geojson.gz.")
@click.option("--exact", is_flag=True, help="Write polygons along the border of every pixel, one for each class.")
@vector_options
@click.option("--max-memory", metavar="SIZE", help="Memory that simplified polygons may take [default: 1.5G].")
@click.option("--png", type=OUTPUT, help="Picture of the classes, on top of the slide if --slide is given.")
@click.option("--slide", help="The slide that the map was made from.")
@click.option("--max-px", type=int, default=2048, show_default=True, help="Longest side of the picture.")
@click.option(
    "--opacity", type=float, default=0.4, show_default=True, help="Opacity of the classes on the slide, 0 to 1."
)
@mpp_option
@reader_option
@series_option
@retry_option
@click.option("--csv", type=OUTPUT, help="Areas, one row for each class; with --geojson, also those of its polygons.")
@click.option(
    "--ome-tiff", type=OUTPUT, help="Classes in their colours, .ome.tif: QuPath, OMERO, Digital Slide Archive."
)
@click.option("--ome-tiff-classes", type=OUTPUT, help="The class map's values, .ome.tif.")
@click.option("--ome-tiff-probabilities", type=OUTPUT, help="Probabilities, one channel for each class, .ome.tif.")
@click.option("--ome-zarr-0.4", "ome_zarr_v2", type=OUTPUT, help="Classes for readers of OME-Zarr 0.4, .zarr.")
@click.option("--dicom-seg", type=OUTPUT, help="DICOM segmentation of a DICOM --slide, .dcm or a folder.")
@click.option(
    "--dicom-seg-mpp", type=float, metavar="UM", help="Approximate um per pixel of the segmentation [default: 4]."
)
@overwrite_option
@json_option
@quiet_option
def export(
    tissue_map: Path,
    geojson: Path | None,
    exact: bool,
    min_area: float | None,
    tolerance: float | None,
    qupath_names: bool,
    max_memory: str | None,
    png: Path | None,
    slide: str | None,
    max_px: int,
    opacity: float,
    mpp: float | None,
    reader: str | None,
    series: str | None,
    retry_s: float,
    csv: Path | None,
    ome_tiff: Path | None,
    ome_tiff_classes: Path | None,
    ome_tiff_probabilities: Path | None,
    ome_zarr_v2: Path | None,
    dicom_seg: Path | None,
    dicom_seg_mpp: float | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write polygons, pictures, rasters or a table of areas from a tissue map."""
    tiffs: dict[TiffContent, Path | None] = {
        "colors": ome_tiff,
        "classes": ome_tiff_classes,
        "probabilities": ome_tiff_probabilities,
    }
    outputs = [path for path in (geojson, png, csv, ome_zarr_v2, dicom_seg, *tiffs.values()) if path is not None]
    if not outputs:
        raise click.UsageError("nothing to write; give --geojson, --png, --csv, --ome-tiff or --ome-zarr-0.4")
    if len({path.absolute() for path in outputs}) < len(outputs):
        raise click.UsageError("two outputs have the same name; give each its own")
    _check_slide(slide, png, dicom_seg, dicom_seg_mpp)
    if exact and (tolerance is not None or min_area is not None):
        raise click.UsageError("--exact keeps every pixel; leave out --tolerance and --min-area")
    if max_memory is not None and (geojson is None or exact):
        raise click.UsageError("--max-memory is for simplified polygons; give --geojson, without --exact")

    if qupath_names and geojson is None:
        raise click.UsageError("--qupath-names is for polygons; give --geojson as well")

    from wsiseg.export.ome_tiff import SUFFIXES
    from wsiseg.export.polygons import VectorOptions, export_csv, export_geojson, export_png
    from wsiseg.slides import open_slide
    from wsiseg.system.memory import parse_bytes
    from wsiseg.system.threads import check_retry_time
    from wsiseg.tissue_map.reader import open_map

    check_retry_time(retry_s)
    told = Told(as_json, quiet)
    source = open_map(tissue_map)
    polygons: DrawnPolygons | None = None
    kinds = ((geojson, (".geojson", ".geojson.gz")), (png, (".png",)), (csv, (".csv",)))
    _check((*kinds, *((tiff, SUFFIXES) for tiff in tiffs.values())), ome_zarr_v2, overwrite)
    if geojson is not None:
        memory = None if max_memory is None else parse_bytes(max_memory)
        options = VectorOptions(exact, tolerance, min_area, memory, qupath_names)
        polygons = export_geojson(source, geojson, options, overwrite=overwrite)
        _say(told, geojson, polygons)
    if png is not None:
        if slide is None:
            mean = export_png(source, png, max_px=max_px, opacity=opacity, overwrite=overwrite)
        else:
            with open_slide(slide, mpp=mpp, reader=reader, series=series, retry_s=retry_s) as opened:
                mean = export_png(source, png, opened, max_px=max_px, opacity=opacity, overwrite=overwrite)
        told.wrote(png, f"{mean:.3g} um/px")
    if csv is not None:
        export_csv(source, csv, polygons=polygons, overwrite=overwrite)
        told.wrote(csv)
    _write_rasters(told, source, tiffs, ome_zarr_v2, overwrite)
    if dicom_seg is not None and slide is not None:
        from wsiseg.export.dicom_seg import export_dicom_seg

        with open_slide(slide, mpp=mpp, reader=reader, retry_s=retry_s) as opened:
            found = export_dicom_seg(source, dicom_seg, opened, mpp=dicom_seg_mpp, overwrite=overwrite)
        told.wrote(found.path, f"{found.segments} segments, {found.mpp:.3g} um/px")
    told.end()


def _check_slide(slide: str | None, png: Path | None, dicom_seg: Path | None, dicom_seg_mpp: float | None) -> None:
    """Refuse a slide that no output needs, and a segmentation without a slide."""
    if slide is not None and png is None and dicom_seg is None:
        raise click.UsageError("--slide is for --png, which is drawn on it, and for --dicom-seg; give one of them")
    if dicom_seg is not None and slide is None:
        raise click.UsageError("--dicom-seg refers to a DICOM slide; give it by --slide")
    if dicom_seg is None and dicom_seg_mpp is not None:
        raise click.UsageError("--dicom-seg-mpp is for --dicom-seg; give that as well")


def _check(outputs: Iterable[tuple[Path | None, tuple[str, ...]]], ome_zarr_v2: Path | None, overwrite: bool) -> None:
    """Refuse outputs that could not be written, before any work is done."""
    from wsiseg.export.ome_zarr_v2 import KIND, is_export
    from wsiseg.system.files import check_file, check_store

    for path, suffixes in outputs:
        if path is not None:
            check_file(path, suffixes, overwrite)
    if ome_zarr_v2 is not None:
        check_store(ome_zarr_v2, overwrite, is_export, KIND)


def _write_rasters(
    told: Told, source: TissueMap, tiffs: Mapping[TiffContent, Path | None], ome_zarr_v2: Path | None, overwrite: bool
) -> None:
    """Write the rasters for programs that cannot read the map itself."""
    from wsiseg.export.ome_tiff import export_ome_tiff
    from wsiseg.export.ome_zarr_v2 import export_ome_zarr_v2

    for content, path in tiffs.items():
        if path is not None:
            tiff = export_ome_tiff(source, path, content, overwrite=overwrite)
            told.wrote(path, f"{tiff.levels} levels, {tiff.bytes / 1e6:.1f} MB")
            if tiff.width != source.size.width:
                told.note(f"{path.name} has {tiff.width} x {tiff.height} px, as the map keeps coarse probabilities")
    if ome_zarr_v2 is not None:
        store = export_ome_zarr_v2(source, ome_zarr_v2, overwrite=overwrite)
        told.wrote(ome_zarr_v2, f"{store.files} files, {store.bytes / 1e6:.1f} MB")


def _say(told: Told, path: Path, written: DrawnPolygons) -> None:
    """Print how many polygons were written, and the notes on them."""
    told.wrote(path, f"{written.annotations} annotations, {written.vertices} vertices")
    for note in written.notes:
        told.note(note)
