"""The command line: one file a command, loaded when it is called, so that help answers at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from importlib import import_module
from typing import NoReturn

import click

from wsiseg.cli.command import Group, Settings
from wsiseg.cli.streams import use_printable_streams
from wsiseg.errors import WsisegError
from wsiseg.system.printable import printable

COMMANDS = {
    "predict": "Segment a slide: write its tissue map and polygons.",
    "label": "Label patches of slides in the browser.",
    "train": "Train a model on patches and their labels.",
    "correct": "Turn corrections of a map, made in QuPath, into training data.",
    "dataset": "Check data sets of labelled patches, or make one from QuPath's annotations.",
    "evaluate": "Measure a model on masks or cell dots, with and without the gate.",
    "info": "Show what a slide file records and what predict would do, or what a tissue map holds.",
    "view": "Show maps upon their slides in the browser: toggle, measure, compare, correct.",
    "export": "Write polygons, pictures, rasters or areas of a map.",
    "report": "Report endpoints, intervals and quality of maps: a page and tables.",
    "status": "Show how far a cohort is: slides done, failed and running, time left.",
    "unlock": "Free a map or a cohort from a run whose machine is gone.",
    "models": "List the models that come with wsiseg, or import published checkpoints.",
    "doctor": "Check this installation, and print what a bug report needs.",
    "help": "Show the help of a command.",
}
"""Commands and their help, here so that `wsiseg --help` needs to load none of them."""

BAD_INPUT, INTERRUPTED = 2, 130

KEPT = {
    "train": "what was trained is kept, continue with --resume",
    "label": "every answer is kept, repeat the command to continue",
    "predict": "finished parts of the map are kept, repeat the command to resume",
}
"""What is kept when a command is interrupted."""


class LazyGroup(Group):
    """A group whose commands are modules of `wsiseg.cli`, each with a command object of its own name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order in which newcomers need them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of this name; None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"wsiseg.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def command_rows(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Names and sentences, from `COMMANDS` alone."""
        return list(COMMANDS.items())


_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True}
_EPILOG = (
    'Completion of commands and options: put `eval "$(_WSISEG_COMPLETE=bash_source wsiseg)"` into ~/.bashrc; '
    "zsh_source for ~/.zshrc; fish_source for fish."
)


@click.group(cls=LazyGroup, context_settings=_CONTEXT, epilog=_EPILOG)
@click.version_option(package_name="wsiseg")
def cli() -> None:
    """Pixel-wise tissue segmentation of whole-slide images, learned from patch labels alone."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; bad input ends with one line and exit code 2, an interrupt with 130."""
    _interrupt_on_signals()
    use_printable_streams()
    settings = Settings()
    try:
        code = cli.main(arguments, prog_name="wsiseg", standalone_mode=False, obj=settings)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(BAD_INPUT)
    except click.ClickException as error:
        sys.exit(_fail(_with_hint(error)))
    except WsisegError as error:
        if settings.verbose:
            traceback.print_exc()
        code = _fail(str(error))
        _exit(code)
    except (click.Abort, KeyboardInterrupt):
        warnings.simplefilter("ignore")  # of what was cut short: nothing that a user could do about it
        command = ((arguments or sys.argv[1:]) or [""])[0]
        click.echo(f"wsiseg: interrupted; {KEPT.get(command, 'no output was left half-written')}", err=True)
        _exit(INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _exit(code: int) -> NoReturn:
    """End the program; at once where a thread hangs in a library, since that may abort an orderly end."""
    if any(thread.daemon and thread.is_alive() for thread in threading.enumerate() if thread.name.startswith("reader")):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _interrupt_on_signals() -> None:
    """Treat a scheduler's SIGTERM and a closed terminal's SIGHUP like Ctrl-C."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):  # Windows has no SIGHUP
                signal.signal(getattr(signal, name), interrupt)


def _with_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    hint = f" (see {context.command_path} --help)" if isinstance(error, click.UsageError) and context else ""
    return error.format_message() + hint


def _fail(message: str) -> int:
    """Print what is wrong, on one line; returns the exit code of bad input."""
    # Names in a message may come from a file, and must not steer the terminal.
    click.echo("wsiseg: " + printable(message), err=True)
    return BAD_INPUT


if __name__ == "__main__":
    main()
