"""A whole run from the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wsiseg.cli.main import main

Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must succeed; returns what it prints."""

    def call(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        assert stop.value.code == 0, shown.err
        return shown.out + shown.err

    return call
