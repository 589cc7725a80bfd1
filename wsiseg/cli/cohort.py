"""`wsiseg predict --slides`: a line for each slide as it is done, and what became of all of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsiseg.cli.cluster_bars import ClusterBars
from wsiseg.cli.many_slides import SlideBars, exit_code, tell
from wsiseg.system.extras import require_extra

if TYPE_CHECKING:
    from wsiseg.cli.log import RunLog
    from wsiseg.cluster.run import ClusterRun
    from wsiseg.export.vector_options import VectorOptions
    from wsiseg.prediction.options import PredictOptions


def predict_list(
    slide_list: str,
    folder: Path,
    model: str,
    options: PredictOptions,
    events: RunLog,
    *,
    part: str | None,
    skip_locked: bool,
    retry_failed: bool,
    vectors: VectorOptions,
    polygons: bool,
    overwrite: bool,
    restart: bool,
    keep_folders: bool,
    cluster: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Predict the slides of a list; results are lines for people, or JSON objects, one a line.

    Returns:
        See `wsiseg.cli.many_slides.exit_code`.
    """
    from wsiseg.cohort.names import Cohort
    from wsiseg.cohort.slide_source import SlideSource
    from wsiseg.system.files import folds_case

    parts, place = _part(part), None
    if cluster is not None:
        from wsiseg.cluster.place import parse_place

        place = parse_place(cluster)
        require_extra("cluster", "--cluster", "distributed")
    cohort = Cohort(SlideSource(slide_list), keep_folders=keep_folders, folds_case=folds_case(folder))
    from wsiseg.cohort.run import LOCKED, CohortOptions, CohortRun

    how = CohortOptions(parts, skip_locked, retry_failed, polygons, vectors, overwrite, restart)
    silent, defect, lost = quiet or as_json, False, ""
    run: CohortRun | ClusterRun
    if place is None:
        with SlideBars(events, silent=silent, vectors=polygons) as bars:
            run = CohortRun(cohort, folder, model, options, how, bars.advance, bars.began)
            for found in run:
                bars.close()
                defect = defect or found.defect is not None
                tell(found, events, as_json=as_json, quiet=quiet)
    else:
        from wsiseg.cluster.flights import ClusterLostError
        from wsiseg.cluster.run import ClusterRun

        with ClusterBars(events, silent=silent) as view:
            run = ClusterRun(cohort, folder, place, view, model, options, how)
            try:
                for found in run:
                    defect = defect or found.defect is not None
                    with view.line():
                        tell(found, events, as_json=as_json, quiet=quiet)
            except ClusterLostError as error:
                lost = str(error)
    tally = {name: count for name, count in run.tally.items() if count}
    events.event("summary", slides=cohort.slides, counts=tally)
    if as_json:
        click.echo(json.dumps({"summary": {"slides": cohort.slides, "part": part, "counts": tally}}))
    elif not quiet:
        click.echo(f"\n{sum(tally.values())} slides: {', '.join(f'{count} {name}' for name, count in tally.items())}")
    again = tally.get("try again", 0) + (0 if skip_locked else tally.get(LOCKED, 0))
    failed = tally.get("failed", 0)
    if failed or again:
        said = [f"{failed} failed for good (`wsiseg status {folder}`)"] if failed else []
        said += [f"{again} are to be tried again: repeat the command"] if again else []
        click.echo(f"wsiseg: of {sum(tally.values())} slides {', '.join(said)}", err=True)
    if lost:
        click.echo(f"wsiseg: {lost}", err=True)
    return exit_code(again > 0 or bool(lost), defect, failed > 0)


def _part(text: str | None) -> tuple[int, int]:
    """The part and the number of parts that `--part` states."""
    if text is None:
        return 1, 1
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if found is None:
        raise click.UsageError(f"--part is I/N, as 3/8 for the third of eight, got {text!r:.40}")
    return int(found[1]), int(found[2])
