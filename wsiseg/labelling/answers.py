"""What a person said of patches, as the journal's lines tell it: answers, undo and redo.

The state is a fold over the lines, in order; nothing else is kept, so that what a page shows after a restart is what
it showed before. Classes are known by name, never by their place in a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from wsiseg.system.json_values import JsonObject

Status = Literal["draft", "labelled", "unsure", "excluded"]
"""Of an answer: not yet confirmed; a label; "cannot tell", kept out of training; not tissue to learn from."""

STATUSES: tuple[Status, ...] = ("draft", "labelled", "unsure", "excluded")

Source = Literal["random", "classwise", "repeat", "review"]
"""Why a patch was shown."""

SOURCES: tuple[Source, ...] = ("random", "classwise", "repeat", "review")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one person said of one patch, last.

    Attributes:
        classes: name -> whether it occurs, of the classes there were at that time.
        status: see `Status`.
        labeller: who.
        round: in which round, from 1.
        source: why the patch was shown.
        seconds: between the answer before and this one.
        shown_prediction: whether the model's opinion was to be seen.
        agrees: whether the answer equals the model's opinion; None where there was none.
        time: when, ISO 8601 in UTC.
        model_hash: of the model or encoder that helped to choose its round; empty without.
    """

    classes: Mapping[str, bool]
    status: Status
    labeller: str = ""
    round: int = 1
    source: Source = "random"
    seconds: float = 0.0
    shown_prediction: bool = False
    agrees: bool | None = None
    time: str = ""
    model_hash: str = ""

    def renamed(self, old: str, new: str) -> Answer:
        """The answer after a class got another name."""
        return replace(self, classes={new if name == old else name: value for name, value in self.classes.items()})

    def to_json(self) -> JsonObject:
        """As the journal has it."""
        return {
            "classes": {name: int(value) for name, value in self.classes.items()},
            "status": self.status,
            "round": self.round,
            "source": self.source,
            "seconds": round(self.seconds, 3),
            "shown_prediction": self.shown_prediction,
            "agrees": self.agrees,
            "time": self.time,
            "model_hash": self.model_hash,
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any], labeller: str) -> Self:
        """From what `to_json` gave."""
        return cls(
            classes={str(name): bool(value) for name, value in line["classes"].items()},
            status=line["status"],
            labeller=labeller,
            round=int(line["round"]),
            source=line["source"],
            seconds=float(line["seconds"]),
            shown_prediction=bool(line["shown_prediction"]),
            agrees=line["agrees"],
            time=str(line["time"]),
            model_hash=str(line["model_hash"]),
        )


Key = tuple[str, bool]
"""A patch, and whether it was shown again to see if the answer stays."""


@dataclass(slots=True)
class _Action:
    """One line that can be undone: which answers it gave."""

    answers: dict[Key, Answer]


@dataclass(slots=True)
class Answers:
    """All that one person said.

    Attributes:
        labeller: who.
    """

    labeller: str
    _done: list[_Action] = field(default_factory=list)
    _undone: list[_Action] = field(default_factory=list)
    _stacks: dict[Key, list[Answer]] = field(default_factory=dict)

    def take(self, line: Mapping[str, Any]) -> None:
        """Apply one line of the journal; lines of other kinds change nothing."""
        kind = line.get("do")
        if kind == "answer":
            given = [(row["patch"], Answer.from_json(row, self.labeller)) for row in line["answers"]]
            action = _Action({(patch, answer.source == "repeat"): answer for patch, answer in given})
            self._apply(action)
            self._undone.clear()
        elif kind == "undo" and self._done:
            action = self._done.pop()
            for key in action.answers:
                self._stacks[key].pop()
            self._undone.append(action)
        elif kind == "redo" and self._undone:
            self._apply(self._undone.pop())

    def _apply(self, action: _Action) -> None:
        self._done.append(action)
        for key, answer in action.answers.items():
            self._stacks.setdefault(key, []).append(answer)

    def rename(self, old: str, new: str) -> None:
        """A class has another name from now on, in all that was said."""
        for stack in self._stacks.values():
            stack[:] = [answer.renamed(old, new) for answer in stack]
        for action in (*self._done, *self._undone):
            action.answers = {key: answer.renamed(old, new) for key, answer in action.answers.items()}

    def of(self, patch: str, *, repeat: bool = False) -> Answer | None:
        """The answer that counts for a patch, None where there is none."""
        stack = self._stacks.get((patch, repeat))
        return stack[-1] if stack else None

    def all(self, *, repeat: bool = False) -> dict[str, Answer]:
        """Patch -> the answer that counts, of those with one, in the order of their first answers."""
        return {patch: stack[-1] for (patch, again), stack in self._stacks.items() if again == repeat and stack}

    def last_touched(self) -> tuple[str, ...]:
        """The patches that an undo would change, none where nothing is left to undo."""
        return tuple(patch for patch, _ in self._done[-1].answers) if self._done else ()

    def next_redone(self) -> tuple[str, ...]:
        """The patches that a redo would change."""
        return tuple(patch for patch, _ in self._undone[-1].answers) if self._undone else ()

    @classmethod
    def from_lines(cls, lines: Iterable[Mapping[str, Any]], labeller: str) -> Self:
        """The state that a journal's lines lead to."""
        answers = cls(labeller)
        for line in lines:
            answers.take(line)
        return answers
