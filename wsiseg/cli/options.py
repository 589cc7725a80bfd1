"""Options and habits that commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from wsiseg.choices import READERS

Function = TypeVar("Function", bound=Callable[..., Any])


class Output(click.Path):
    """A path of this machine that something is written to; addresses (`s3://…`) are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; raises `OptionError` on an address."""
        from wsiseg.system.files import refuse_address

        refuse_address(value)
        return super().convert(value, param, ctx)


OUTPUT = Output(path_type=Path)

mpp_option = click.option(
    "--mpp", type=float, metavar="UM", help="Microns per pixel of level 0; wins over what the slide records."
)
reader_option = click.option(
    "--reader",
    type=click.Choice(READERS),
    help="Library that reads [default: the first that fits].",
)
series_option = click.option(
    "--series",
    metavar="N|NAME",
    help="Image of a TIFF that holds several, as info lists them [default: the largest at the finest resolution].",
)
retry_option = click.option(
    "--retry-time",
    "retry_s",
    type=float,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Ask the server of a slide behind an address again for so long after a failure.",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
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
            help="Regions smaller than this join the neighbour they touch most [default: by class, areas stay].",
        ),
        click.option("--tolerance", type=float, metavar="UM", help="About how far simplified borders may move."),
        click.option(
            "--qupath-names",
            is_flag=True,
            help="Spell classes as QuPath's own list does: Tumor, Stroma, Immune cells, Necrosis.",
        ),
    ):
        function = option(function)
    return function


def echo(message: str) -> None:
    """Say something to a person; results that programs read go to standard output instead."""
    click.echo(message, err=True)


def is_terminal() -> bool:
    """Whether a person watches."""
    return sys.stderr.isatty()
