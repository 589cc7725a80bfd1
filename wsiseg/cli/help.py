"""`wsiseg help COMMAND`: the same as `wsiseg COMMAND --help`."""

from __future__ import annotations

import click

from wsiseg.cli.command import Command


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def help(ctx: click.Context, names: tuple[str, ...]) -> None:  # noqa: A001  (commands have their own names)
    """Show the help of COMMAND, or of all."""
    context = ctx.find_root()
    for name in names:
        group = context.command
        if not isinstance(group, click.Group):
            raise click.UsageError(f"{context.command_path} has no commands of its own", context)
        _, command, _ = group.resolve_command(context, [name])
        assert command is not None
        context = click.Context(command, context, name)
    click.echo(context.get_help())
