"""`wsiseg unlock`: free outputs from runs that are gone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from wsiseg.cli.command import Command
from wsiseg.cli.options import Told, json_option, quiet_option
from wsiseg.system.addresses import place_text
from wsiseg.system.bucket import is_bucket


@click.command(cls=Command)
@click.argument("path", metavar="PATH")
@click.option("--force", is_flag=True, help="Do not watch for a sign of life first; a run that lives will end itself.")
@json_option
@quiet_option
def unlock(path: str, force: bool, as_json: bool, quiet: bool) -> None:
    """Free PATH, a map, another output or the folder of a cohort, from a run whose machine is gone; or an address.

    Runs of this machine that have ended are freed at once. Others are watched for a sign of life first, for about a
    minute; who gives one keeps its output.
    """
    from wsiseg.errors import OptionError

    outputs = _held(path, force)
    told, kept = Told(as_json, quiet), []
    for out, free in outputs.items():
        holder, freed = free()
        told.note(f"{out}: {'freed' if freed else 'kept, since it is being written'}{f' ({holder})' if holder else ''}")
        if not freed:
            kept.append(out)
    if not outputs:
        told.note(f"{place_text(path)}: nobody holds it")
    told.end(freed=[out for out in outputs if out not in kept], kept=kept)
    if kept:
        raise OptionError(
            f"{kept[0]} is being written by a run that lives{f' (and {len(kept) - 1} more)' if len(kept) > 1 else ''}; "
            "end that run first"
        )


def _held(path: str, force: bool) -> dict[str, Callable[[], tuple[str, bool]]]:
    """What is held of a path or an address, and what frees it."""
    if is_bucket(path):
        from wsiseg.system.bucket_unlock import free, held_outputs

        return {folder.address(name): partial(free, folder, name, force=force) for folder, name in held_outputs(path)}
    from wsiseg.system.locks import unlock as free_here
    from wsiseg.system.locks import what_is_locked

    return {str(out): partial(free_here, out, force=force) for out in what_is_locked(Path(path))}
