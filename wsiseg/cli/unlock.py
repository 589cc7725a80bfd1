"""`wsiseg unlock`: free outputs from runs that are gone."""

from __future__ import annotations

from pathlib import Path

import click

from wsiseg.cli.command import Command
from wsiseg.cli.options import Told, json_option, quiet_option


@click.command(cls=Command)
@click.argument("path", metavar="PATH", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Do not watch for a sign of life first; a run that lives will end itself.")
@json_option
@quiet_option
def unlock(path: Path, force: bool, as_json: bool, quiet: bool) -> None:
    """Free PATH, a map, another output or the folder of a cohort, from a run whose machine is gone.

    Runs of this machine that have ended are freed at once. Others are watched for a sign of life first, for about a
    minute; who gives one keeps its output.
    """
    from wsiseg.errors import OptionError
    from wsiseg.system.locks import unlock as free
    from wsiseg.system.locks import what_is_locked

    outputs = what_is_locked(path)
    told, kept = Told(as_json, quiet), []
    for out in outputs:
        holder, freed = free(out, force=force)
        told.note(f"{out}: {'freed' if freed else 'kept, since it is being written'}{f' ({holder})' if holder else ''}")
        if not freed:
            kept.append(out)
    if not outputs:
        told.note(f"{path}: nobody holds it")
    told.end(freed=[str(out) for out in outputs if out not in kept], kept=[str(out) for out in kept])
    if kept:
        raise OptionError(
            f"{kept[0]} is being written by a run that lives{f' (and {len(kept) - 1} more)' if len(kept) > 1 else ''}; "
            "end that run first"
        )
