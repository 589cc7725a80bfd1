"""`wsiseg doctor`: what this installation has and may use, and whether it computes a map."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from wsiseg.cli.command import Command
from wsiseg.cli.options import json_option, quiet_option

if TYPE_CHECKING:
    from collections.abc import Mapping

UNWELL = 1
"""Exit code where the self-test fails."""


@click.command(cls=Command)
@click.option("--no-test", is_flag=True, help="List what is there, and compute nothing.")
@json_option
@quiet_option
@click.pass_context
def doctor(ctx: click.Context, no_test: bool, as_json: bool, quiet: bool) -> None:
    """Check this installation, and print what a bug report needs.

    Versions, devices, runtimes, readers, memory, disk and limits are listed, and the shipped model segments a small
    tile. Paste the output into a bug report: it holds no paths, user names, addresses or environment variables.

    Exit code 0: the self-test passed; 1: it failed.
    """
    from wsiseg.cli.doctor_facts import facts, self_test

    found: dict[str, object] = {**facts()}
    passed = True
    if not no_test:
        test = self_test()
        found["self-test"], passed = test.to_json(), test.passed
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif not quiet:
        for name, value in found.items():
            _print(name, value)
    ctx.exit(0 if passed else UNWELL)


def _print(name: str, value: object) -> None:
    """A heading with its lines, plain text that survives being pasted."""
    from wsiseg.system.printable import printable

    rows: Mapping[str, object] = value if isinstance(value, dict) else {"": value}
    click.echo(f"{name}:")
    for key, one in rows.items():
        text = ", ".join(map(str, one)) if isinstance(one, list) else one
        text = {True: "yes", False: "no", None: "unknown"}[one] if one is None or isinstance(one, bool) else text
        click.echo("  " + printable(f"{key}: {text}" if key else text))
