"""`wsiseg view`: maps upon their slides, in the browser."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsiseg.cli.command import Command
from wsiseg.cli.options import OUTPUT, announce, page_options, reader_option, retry_option, series_option

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from wsiseg.server.session import Session


@click.command(cls=Command)
@click.argument("maps", metavar="MAP.zarr…", nargs=-1, required=True)
@click.option(
    "--slide", "slides", multiple=True, metavar="SLIDE", help="Slide that a map was made from; once for each slide."
)
@click.option(
    "--corrections",
    type=OUTPUT,
    metavar="FILE.geojson",
    help="File that regions drawn on the page go to [default: MAP.corrected.geojson beside the map].",
)
@page_options
@reader_option
@series_option
@retry_option
def view(
    maps: tuple[str, ...],
    slides: tuple[str, ...],
    corrections: Path | None,
    port: int,
    no_browser: bool,
    as_json: bool,
    quiet: bool,
    reader: str | None,
    series: str | None,
    retry_s: float,
) -> None:
    """Show tissue maps upon their slides, in the browser of this machine.

    Prints the address of the page, with a token that works once. Ends on Ctrl-C. Maps and slides may lie behind
    addresses.
    """
    import threading

    from wsiseg.system.extras import require_extra

    require_extra("app", "wsiseg view", "starlette", "uvicorn")
    if corrections is not None and corrections.suffix.lower() != ".geojson":
        raise click.UsageError(f"--corrections must end in .geojson, got {corrections}")

    from wsiseg.server.app import make_app
    from wsiseg.server.serve import serve
    from wsiseg.server.view.cases import SlideOptions, open_cases
    from wsiseg.server.view.routes import Viewer
    from wsiseg.system.threads import check_retry_time

    check_retry_time(retry_s)
    with open_cases(maps, slides, SlideOptions(reader, series, retry_s)) as cases:
        viewer = Viewer(cases, corrections)
        threading.Thread(target=viewer.warm, daemon=True).start()

        def build(session: Session) -> Starlette:
            return make_app(session, "view", viewer.routes())

        serve(build, port=port, browser=not no_browser, announce=partial(announce, as_json=as_json))
