"""Answers become a data set: images, `labels.csv`, `dataset.json`, and a table of every person's every answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from wsiseg.datasets.provenance import Provenance
from wsiseg.datasets.write import IMAGES, DatasetWriter, PatchRow, change_classes
from wsiseg.labelling.answers import SOURCES, Answer, Answers
from wsiseg.labelling.patch_cache import PatchCache
from wsiseg.labelling.places import Candidate
from wsiseg.labelling.review import Review
from wsiseg.labelling.session import Session
from wsiseg.system.files import sync_path, whole_file, write_csv

ANSWERS_FILE = "answers.csv"
_ORDER = ("labelled", "unsure", "excluded")
"""What counts where people disagree about a patch: a label before a doubt."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What all people together say of a patch.

    Attributes:
        labels: class -> 1 or 0; a class that they disagree about, or were not asked about, is not in it.
        status: "labelled", "unsure" or "excluded".
        answers: theirs, by name of the labeller.
    """

    labels: Mapping[str, int]
    status: str
    answers: tuple[Answer, ...]


def merged(all_answers: Iterable[Answers], classes: Sequence[str]) -> dict[str, Merged]:
    """Patch -> what all labellers together say of it, of those with a confirmed answer."""
    given: dict[str, list[Answer]] = {}
    for answers in all_answers:
        for patch, answer in answers.all().items():
            if answer.status != "draft":
                given.setdefault(patch, []).append(answer)
    return {patch: _merged(answers, classes) for patch, answers in given.items()}


def _merged(answers: list[Answer], classes: Sequence[str]) -> Merged:
    status = next(status for status in _ORDER if any(answer.status == status for answer in answers))
    counted = [answer for answer in answers if answer.status == status]
    labels = {}
    for name in classes:
        said = {answer.classes[name] for answer in counted if name in answer.classes}
        if status == "labelled" and len(said) == 1:
            labels[name] = int(said.pop())
    return Merged(labels, status, tuple(answers))


def write_data_set(
    session: Session,
    all_answers: Sequence[Answers],
    candidates: Mapping[str, Candidate],
    cache: PatchCache,
    review: Review | None = None,
) -> int:
    """Bring the data set of a labelling folder up to what was answered; how many rows it has of answers.

    Rows that labelling did not write (corrections, for instance) stay as they are. Of a review all patches are written:
    those that nobody answered as they were.

    Raises:
        DatasetError: the folder holds a data set that does not fit.
        OutputError: it cannot be written; it is then as it was before.
    """
    classes, terms = session.classes, session.terms
    change_classes(session.root, session.renamed, classes)
    found = merged(all_answers, classes.names)
    with DatasetWriter(session.root, classes, terms.mpp, terms.patch_px) as writer:
        ours = {file for file, row in writer.rows.items() if row.get("source") in SOURCES}
        for patch, said in found.items():
            candidate = candidates.get(patch)
            if candidate is None:  # of a slide that was not given this time: its rows stay
                ours.discard(f"{IMAGES}/{patch}.png")
                continue
            row = _row(candidate, said, session, None if review is None else review.rows[patch])
            ours.discard(_add(writer, cache, patch, row, review))
        for patch, kept in ({} if review is None else review.rows).items():
            if patch not in found:
                ours.discard(_add(writer, cache, patch, kept, review))
        for file in ours:  # taken back since
            writer.discard(file)
        writer.finish()
    _write_answers(session, all_answers, candidates)
    return len(found)


def _add(writer: DatasetWriter, cache: PatchCache, patch: str, row: PatchRow, review: Review | None) -> str:
    """Write a patch, its pixels only where they were not written before; the file."""
    there = f"{IMAGES}/{row.name}.png"
    if there in writer.rows and (writer.root / there).is_file() and not writer.rows[there].get("mask"):
        return writer.add(None, row)
    return writer.add(cache.pixels(patch), row, None if review is None else review.mask(patch))


def _row(candidate: Candidate, said: Merged, session: Session, before: PatchRow | None) -> PatchRow:
    """The row of an answer; of a review in its old split, at its old place, under its old name."""
    first = said.answers[0]
    place = before.provenance if before is not None else Provenance(
        candidate.slide, candidate.x, candidate.y, session.terms.patch_px, session.terms.mpp
    )  # fmt: skip
    where = replace(
        place,
        status=said.status,
        labeller="+".join(answer.labeller for answer in said.answers),
        round=first.round,
        source=first.source,
        seconds=round(sum(answer.seconds for answer in said.answers), 3),
        shown_prediction=str(int(any(answer.shown_prediction for answer in said.answers))),
        time=max(answer.time for answer in said.answers),
        model_hash=first.model_hash,
    )
    if before is not None:
        return replace(before, labels=said.labels, provenance=where)
    return PatchRow(said.labels, candidate.group, _split(said.answers, candidate, session), where, candidate.id)


def _split(answers: Sequence[Answer], candidate: Candidate, session: Session) -> str:
    """Patients that are kept apart are validation; without any, what rounds with a model's help showed at random."""
    if session.apart:
        return "val" if candidate.group in session.apart else ""
    by_chance = all(answer.source == "random" for answer in answers)  # what another person was asked may not be
    return "val" if by_chance and any(answer.model_hash for answer in answers) else ""


def _write_answers(session: Session, all_answers: Sequence[Answers], candidates: Mapping[str, Candidate]) -> None:
    """Every answer that counts, one a row; of patches that were shown twice both."""
    columns = (
        *("patch", "slide", "x", "y", "labeller", "repeat", *session.classes.names, "status", "round", "source"),
        *("seconds", "shown_prediction", "agrees", "time", "model_hash"),
    )
    rows: list[Sequence[str | float]] = []
    for answers in all_answers:
        for repeat in (False, True):
            for patch, answer in answers.all(repeat=repeat).items():
                place = candidates.get(patch)
                slide, x, y = ("", None, None) if place is None else (place.slide, place.x, place.y)
                values = (answer.classes.get(name) for name in session.classes.names)
                rows.append([
                    patch, slide, "" if x is None else x, "" if y is None else y,
                    answers.labeller, int(repeat), *("" if value is None else int(value) for value in values),
                    answer.status, answer.round, answer.source, round(answer.seconds, 3),
                    int(answer.shown_prediction), "" if answer.agrees is None else int(answer.agrees),
                    answer.time, answer.model_hash,
                ])  # fmt: skip
    path = session.folder / ANSWERS_FILE
    with whole_file(path) as temporary:
        write_csv(temporary, columns, rows)
        sync_path(temporary)
