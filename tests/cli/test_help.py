"""Suggestions, help, and the options that every command has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.helpers.commands import Run, run  # noqa: F401
from wsiseg import choices
from wsiseg.cli.command import Command
from wsiseg.cli.main import cli, main


def commands() -> dict[str, click.Command]:
    """All that compute or print something, by the words that call them."""
    context = click.Context(cli)
    found: dict[str, click.Command] = {}
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        found |= (
            {f"{name} {inner}": one for inner, one in command.commands.items()}
            if isinstance(command, click.Group)
            else {name: command}
        )
    return found


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [(["predct"], "did you mean predict?"), (["models", "lst"], "did you mean list?"),
     (["help", "exprt"], "did you mean export?"), (["xyzzy"], "expected predict, label, train"),
     (["predict", "a.svs", "--ouput", "b"], "--out")],
)  # fmt: skip
def test_a_mistyped_command_gets_a_suggestion(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert hint in told
    assert told.count("\n") == 1


def test_every_command_takes_json_quiet_and_verbose() -> None:
    for name, command in commands().items():
        assert isinstance(command, Command), name
        options = {text for one in command.params for text in one.opts}
        assert "--verbose" in options, name
        assert name == "help" or {"--json", "--quiet"} <= options, name


def test_help_of_a_command_is_that_of_its_own_option(run: Run) -> None:  # noqa: F811
    assert run("help", "models", "import") == run("models", "import", "--help")
    assert run("help", "predict") == run("predict", "--help")
    assert run("help") == run("--help")


def test_help_shows_defaults_and_cuts_nothing(run: Run) -> None:  # noqa: F811
    for name, command in commands().items():
        words = " ".join(run("help", *name.split()).split())
        options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
        for option in options:
            if isinstance(option.default, str | int | float) and not isinstance(option.default, bool):
                assert f"[default: {option.default}" in words, (name, option.opts)
    assert "..." not in run("models", "--help").partition("Commands:")[2]


def test_the_shell_completes_commands() -> None:
    environment = {**os.environ, "_WSISEG_COMPLETE": "bash_complete", "COMP_WORDS": "wsiseg pre", "COMP_CWORD": "1"}
    code = "from wsiseg.cli.main import main; main([])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "plain,predict\n"


def test_models_are_listed_for_programs(run: Run) -> None:  # noqa: F811
    rows = json.loads(run("models", "list", "--json"))
    names = run("models", "list", "--quiet").split()
    assert [row["name"] for row in rows] == names
    assert "tissue-brca-lite" in names


def test_verbose_shows_where_an_error_arose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for extra in ([], ["--verbose"]):
        with pytest.raises(SystemExit) as stop:
            main(["info", str(tmp_path / "none.svs"), *extra])
        assert stop.value.code == 2
        told = capsys.readouterr().err
        assert ("Traceback" in told) == bool(extra)
        assert told.splitlines()[-1].startswith("wsiseg: ")


def test_choices_are_refused_with_a_suggestion() -> None:
    with pytest.raises(choices.OptionError, match=r"expected a split among train, val, test, got 'tset'; did you mean"):
        choices.check_choice("a split", "tset", choices.SPLITS)
    choices.check_choice("a split", "test", choices.SPLITS)


def test_presets_are_those_of_the_training() -> None:
    from wsiseg.training.config import PRESETS

    assert set(PRESETS) == set(choices.PRESETS)
