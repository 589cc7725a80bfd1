"""Options and functions that commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from wsiseg.choices import DEFAULT_RETRY_S, READERS

Function = TypeVar("Function", bound=Callable[..., Any])


class Output(click.Path):
    """A local path for output; addresses (`s3://…`) are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; raises `OptionError` on an address."""
        from wsiseg.system.files import refuse_address

        refuse_address(value)
        return super().convert(value, param, ctx)


OUTPUT = Output(path_type=Path)


class BucketOutput(click.Path):
    """An output on this machine, or in a bucket: then it stays text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path or address; raises `OptionError` on an address that cannot be written."""
        from wsiseg.system.bucket import is_bucket

        return str(value) if is_bucket(value) else super().convert(value, param, ctx)


BUCKET_OUTPUT = BucketOutput(path_type=Path)

mpp_option = click.option(
    "--mpp", type=float, metavar="UM", help="Microns per pixel of level 0; overrides what the slide records."
)
reader_option = click.option(
    "--reader",
    type=click.Choice(READERS),
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
    default=DEFAULT_RETRY_S,
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


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
PRINTED = Path("-")
"""What `--json` holds where no file is named."""

json_file_option = click.option(
    "--json", "as_json", type=OUTPUT, is_flag=False, flag_value=str(PRINTED), metavar="[FILE.json]",
    help="Write the result to FILE as JSON; print it where no FILE follows.",
)  # fmt: skip
quiet_option = click.option("--quiet", is_flag=True, help="Print nothing but errors; the exit code tells.")


def vector_options(function: Function) -> Function:
    """Add the options that say how polygons are simplified."""
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


class Told:
    """What a command wrote: told line by line, or as one JSON object at its end."""

    def __init__(self, as_json: bool, quiet: bool) -> None:
        self.as_json, self.quiet = as_json, quiet
        self.outputs: list[dict[str, str | None]] = []
        self.notes: list[str] = []

    def wrote(self, path: object, about: str | None = None) -> None:
        """Tell of an output that was written, and say something about it."""
        self.outputs.append({"path": str(path), "about": about})
        self._say(f"wrote {path}{f' ({about})' if about else ''}")

    def note(self, text: str) -> None:
        """Tell the user something about the result."""
        self.notes.append(text)
        self._say(f"note: {text}")

    def _say(self, line: str) -> None:
        if not (self.as_json or self.quiet):
            echo(line)

    def end(self, **facts: Any) -> None:
        """Print the JSON object, where that was asked for."""
        if self.as_json:
            click.echo(json.dumps({"outputs": self.outputs, "notes": self.notes, **facts}, indent=2))


def is_terminal() -> bool:
    """Whether the output is a terminal."""
    return sys.stderr.isatty()


def page_options(function: Function) -> Function:
    """Where a page is served, and how its address is told."""
    for option in reversed(
        (
            click.option("--port", type=int, default=0, show_default=True, metavar="N", help="Port; 0 takes any."),
            click.option("--no-browser", is_flag=True, help="Only print the address."),
            click.option("--json", "as_json", is_flag=True, help="Print the address as JSON."),
            click.option("--quiet", is_flag=True, help="Print nothing but the address and errors."),
        )
    ):
        function = option(function)
    return function


def announce(address: str, *, as_json: bool) -> None:
    """Print the address of a page as a line of its own, at once: a program may wait for it."""
    click.echo(json.dumps({"address": address}) if as_json else address)
    sys.stdout.flush()


def names_of(text: str | None) -> tuple[str, ...]:
    """The names in a list with commas between; none in an empty one."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
