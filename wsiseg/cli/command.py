"""Commands and groups of commands: what all of them have in common."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import click


@dataclass
class Settings:
    """Settings of one call of the program, whatever the command.

    Attributes:
        verbose: tell what is done in detail, and where errors come from.
    """

    verbose: bool = False


def is_verbose() -> bool:
    """Whether the command that runs was called with --verbose."""
    context = click.get_current_context(silent=True)
    return context is not None and context.ensure_object(Settings).verbose


def _set_verbose(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.ensure_object(Settings).verbose |= value


class Command(click.Command):
    """A command that takes --verbose."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--verbose"], is_flag=True, expose_value=False, callback=_set_verbose,
                help="Say in detail what is done, and where in the program an error arose.",
            )
        )  # fmt: skip


class Group(click.Group):
    """A group that lists its commands with their whole first sentence, and suggests one for a mistyped name."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is named first, and what follows it.

        Raises:
            UsageError: there is none; the closest is named.
        """
        name, names = args[0], self.list_commands(ctx)
        if name not in names and not name.startswith("-"):
            close = get_close_matches(name, names, 1)
            hint = f"; did you mean {close[0]}?" if close else f", expected {', '.join(names)}"
            ctx.fail(f"there is no command {name!r:.60}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, no sentence cut."""
        rows = self.command_rows(ctx)
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def command_rows(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Names, and a sentence on each."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        return [(name, command.get_short_help_str(limit=1000)) for name, command in commands if command is not None]
