"""The journals of a folder: one a person, and what all of them together say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsiseg.errors import OutputError
from wsiseg.labelling.answers import Answers
from wsiseg.labelling.session import Session
from wsiseg.system.durable_lines import read_lines

LABELLER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
"""What a labeller may be called."""


def journal_path(folder: Path, labeller: str) -> Path:
    """The journal of a labeller."""
    return folder / f"journal-{labeller}.jsonl"


def answers_in(lines: Sequence[Mapping[str, Any]], labeller: str, session: Session) -> Answers:
    """What a journal's lines lead to, with the classes called as they are now.

    Raises:
        OutputError: a line is of another version of the program.
    """
    try:
        answers = Answers.from_lines(lines, labeller)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutputError(
            f"the journal of {labeller} in {session.folder} has lines of another version of this program; use that one"
        ) from error
    for old, new in session.renamed:
        answers.rename(old, new)
    return answers


def others_answers(session: Session, labeller: str) -> list[Answers]:
    """The answers of the other labellers of a folder, as their journals have them now."""
    return [answers for answers in all_answers(session) if answers.labeller != labeller]


def all_answers(session: Session) -> list[Answers]:
    """The answers of all labellers of a folder, by name."""
    found = []
    for path in sorted(session.folder.glob("journal-*.jsonl")):
        name = path.stem.removeprefix("journal-")
        if LABELLER.fullmatch(name):
            found.append(answers_in(read_lines(path)[0], name, session))
    return found
