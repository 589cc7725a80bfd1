"""Options and functions that commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


class Output(click.Path):
    """A local path for output; addresses (`s3://…`) are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; raises `OptionError` on an address."""
        from wsiseg.system.files import refuse_address

        refuse_address(value)
        return super().convert(value, param, ctx)


OUTPUT = Output(path_type=Path)

mpp_option = click.option(
    "--mpp", type=float, metavar="UM", help="Microns per pixel of level 0; overrides what the slide records."
)
reader_option = click.option(
    "--reader",
    type=click.Choice(["openslide", "tiff", "tiffslide", "image", "dicom"]),
    help="Library that reads the slide [default: the first that can].",
)
series_option = click.option(
    "--series",
    metavar="N|NAME",
    help="Image to read from a TIFF with several, as listed by info [default: the largest at the finest resolution].",
)
retry_option = click.option(
    "--retry-time",
    "retry_s",
    type=float,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to repeat a failed request for a slide behind an address.",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace existing outputs.")
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="auto, cpu, cuda, cuda:1, …; predict takes several, cuda:0,cuda:1.",
)


def vector_options(function: Function) -> Function:
    """How polygons are simplified."""
    for option in (
        click.option(
            "--min-area",
            type=float,
            metavar="UM2",
            help="Merge smaller regions into the neighbour they touch most [default: by class, areas stay].",
        ),
        click.option(
            "--tolerance", type=float, metavar="UM", help="How far simplified borders may move, approximately."
        ),
        click.option(
            "--qupath-names",
            is_flag=True,
            help="Spell classes as QuPath's own list does: Tumor, Stroma, Immune cells, Necrosis.",
        ),
    ):
        function = option(function)
    return function


def echo(message: str) -> None:
    """Print a message for people on standard error; results for programs go to standard output."""
    click.echo(message, err=True)


def is_terminal() -> bool:
    """Whether the output is a terminal."""
    return sys.stderr.isatty()
