"""How the labelling stands: done, pace, positives a class, and how well the model does on patches shown at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wsiseg.labelling.agreement import wilson
from wsiseg.labelling.answers import Answer

LEAST_POSITIVES = 20
"""A class with fewer patches is hardly learned."""

PACE_S, PAUSE_S = 300.0, 60.0
"""The pace is that of the last minutes; a longer gap between two answers is a pause, which does not count."""

TRAIN_AFTER, AGREED = 50, 0.95
"""Where this share of so many random answers in a row agrees with the model, more of them teach it little."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the status line says.

    Attributes:
        done: patches with a label.
        unsure: answered "cannot tell".
        excluded: answered "not to learn from".
        drafts: touched, not confirmed.
        per_minute: patches answered a minute, of late; None before there are two.
        positives: class -> patches in which it occurs.
        few: classes with less than `LEAST_POSITIVES`.
        right: share of classes of random patches that the model said as the person did; None without a model.
        right_low: lower end of its 95 % interval (Wilson).
        right_high: upper end.
        random_answers: how many random patches that rests on.
        hint: what to do next, a sentence; empty for nothing.
    """

    done: int
    unsure: int
    excluded: int
    drafts: int
    per_minute: float | None
    positives: Mapping[str, int]
    few: tuple[str, ...]
    right: float | None
    right_low: float | None
    right_high: float | None
    random_answers: int
    hint: str


def status_of(answers: Mapping[str, Answer], classes: Sequence[str]) -> Status:
    """The status of one person's answers, patch -> answer, in the order in which they were given."""
    labelled = [answer for answer in answers.values() if answer.status == "labelled"]
    positives = {name: sum(answer.classes.get(name, False) for answer in labelled) for name in classes}
    judged = [a for a in labelled if a.source == "random" and a.agrees is not None]
    right = sum(bool(answer.agrees) for answer in judged)
    low, high = wilson(right, len(judged))
    few = tuple(name for name, count in positives.items() if count < LEAST_POSITIVES)
    return Status(
        done=len(labelled),
        unsure=_count(answers, "unsure"),
        excluded=_count(answers, "excluded"),
        drafts=_count(answers, "draft"),
        per_minute=_pace([answer.seconds for answer in answers.values() if answer.status != "draft"]),
        positives=positives,
        few=few,
        right=right / len(judged) if judged else None,
        right_low=low if judged else None,
        right_high=high if judged else None,
        random_answers=len(judged),
        hint=_hint(labelled, judged, few),
    )


def _count(answers: Mapping[str, Answer], status: str) -> int:
    return sum(answer.status == status for answer in answers.values())


def _pace(seconds: Sequence[float]) -> float | None:
    total, count = 0.0, 0
    for value in reversed(seconds):
        if value > PAUSE_S:
            continue
        if total + value > PACE_S and count:
            break
        total, count = total + value, count + 1
    return 60 * count / total if count > 1 and total > 0 else None


def _hint(labelled: Sequence[Answer], judged: Sequence[Answer], few: Sequence[str]) -> str:
    last = judged[-TRAIN_AFTER:]
    if len(last) == TRAIN_AFTER and sum(bool(answer.agrees) for answer in last) >= AGREED * TRAIN_AFTER:
        return "the model agrees with nearly all of your last random patches: more labels of this kind teach it little"
    if labelled and not few and not judged:
        return f"every class has at least {LEAST_POSITIVES} patches: train a first model"
    return ""
