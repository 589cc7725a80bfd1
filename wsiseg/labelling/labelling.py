"""One person labels the patches of one folder: rounds, answers, undo, status. What a page shows is asked here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np

from wsiseg.arrays import Float32Array
from wsiseg.errors import OptionError
from wsiseg.labelling.advice import Advice
from wsiseg.labelling.agreement import Kappa, kappas
from wsiseg.labelling.answers import Answer, Status
from wsiseg.labelling.choose import Chosen, choose_classwise, choose_random
from wsiseg.labelling.journals import LABELLER, answers_in, journal_path, others_answers
from wsiseg.labelling.places import Candidate
from wsiseg.labelling.probe import Prober
from wsiseg.labelling.rounds import Round, with_repeats
from wsiseg.labelling.session import Session
from wsiseg.labelling.status import Status as Standing
from wsiseg.labelling.status import status_of
from wsiseg.labelling.table import merged
from wsiseg.system.durable_lines import DurableLines, Line, read_lines

ROUND, PROBED_ROUND = 240, 48
"""Patches of a round: ten pages; two where the next round learns from this one."""

OVERLAP = 0.1
"""Share of a labeller's round that others answered before, so that agreement between people is known."""


class Labelling:
    """The labels of one person in one folder. Threads may share it.

    Args:
        session: what all labellers of the folder share.
        labeller: who; letters, digits, hyphen, underscore.
        candidates: all patches, in their order by chance.
        readable: says of a patch whether its pixels can be shown; asked as a round is made.
        advice: of a model, where there is one.
        classwise: whether rounds are chosen class by class; None does so where there is a model.
        review: patches with labels that are looked at again, in the order in which they are shown; None labels anew.
        clock: seconds, monotonic.
        prober: in place of `advice`, learns from the labels there are before each round.

    Raises:
        OptionError: the labeller's name does not do.
        OutputError: the journal cannot be written.
    """

    def __init__(
        self,
        session: Session,
        labeller: str,
        candidates: Sequence[Candidate],
        readable: Callable[[str], bool] = lambda patch: True,
        advice: Advice | None = None,
        classwise: bool | None = None,
        review: Sequence[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        prober: Prober | None = None,
    ) -> None:
        if not LABELLER.fullmatch(labeller):
            raise OptionError(
                f"a labeller's name is up to 40 letters, digits, hyphens and underscores, got {labeller!r:.60}"
            )
        self.session = session
        self.labeller = labeller
        self.candidates = {candidate.id: candidate for candidate in candidates}
        self.advice = advice
        self._prober = prober
        self._classwise = bool(advice or prober) if classwise is None else classwise
        self._order = list(self.candidates)
        self._review = review
        self._readable = readable
        self._clock = clock
        self._last = clock()
        self._mutex = threading.RLock()
        path = journal_path(session.folder, labeller)
        lines, whole = read_lines(path)
        self._journal = DurableLines(path, whole)
        self._answers = answers_in(lines, labeller, session)
        self.rounds = [Round.from_json(line) for line in lines if line.get("do") == "round"]
        self._probe()

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    # Rounds

    def round(self) -> Round:
        """The round under way; a new one where the last is answered, and the last where no patch is left."""
        with self._mutex:
            if not self.rounds:
                self.next_round()
            elif not self.open_items(self.rounds[-1]):
                with suppress(OptionError):
                    self.next_round()
            return self.rounds[-1]

    def open_items(self, of: Round) -> list[int]:
        """Places of a round that have no confirmed answer."""
        found = [self.answer_at(of, place) for place in range(len(of.items))]
        return [place for place, answer in enumerate(found) if answer is None or answer.status == "draft"]

    def next_round(self, count: int | None = None) -> Round:
        """Choose the next round, of so many patches, and write it down.

        Raises:
            OptionError: class-wise without a model; or no patch is left.
        """
        with self._mutex:
            self._probe()
            if self._classwise and self.advice is None and self._prober is None:
                raise OptionError("choosing class by class needs help: state --model or --encoder")
            count = count or (ROUND if self._prober is None else PROBED_ROUND)
            number = len(self.rounds) + 1
            chosen = self._choose(count, number)
            if not chosen:
                raise OptionError("all patches were shown; give more slides, or more --candidates")
            items = with_repeats(chosen, self._order, self._not_repeated(), number, self.session.terms.seed)
            made = Round(number, items, self.advice.model_hash if self.advice and self._classwise else "")
            self._write(made.to_json())
            self.rounds.append(made)
            return made

    def _probe(self) -> None:
        """Learn from what was answered so far, by whomever, but for patients that are kept apart."""
        if self._prober is not None:
            names, apart = self.session.classes.names, self.session.apart
            said = merged([*others_answers(self.session, self.labeller), self._answers], names)
            held = {patch for patch, candidate in self.candidates.items() if candidate.group in apart}
            labels = {p: one.labels for p, one in said.items() if one.status == "labelled" and p not in held}
            self.advice = self._prober.advice(labels, names)

    def features(self, patch: str) -> Float32Array | None:
        """What a model or an encoder sees in a patch (D,), None where neither was asked."""
        of = self.advice or self._prober
        return of.features.get(patch) if of else None

    def _choose(self, count: int, number: int) -> list[Chosen]:
        shown = {item.patch for one in self.rounds for item in one.items}
        if self._review is not None:
            place = {patch: at for at, patch in enumerate(self._order)}
            left = [patch for patch in self._review if patch not in shown and self._readable(patch)]
            return [Chosen(place[patch], "review") for patch in left[:count]]
        others = self._answered_by_others() - shown
        available = [i for i, p in enumerate(self._order) if p not in shown | others and self._readable(p)]
        again = [i for i, p in enumerate(self._order) if p in others]
        overlap = choose_random(again, round(OVERLAP * count))
        if not self._classwise or self.advice is None:
            return [*overlap, *choose_random(available, count - len(overlap))]
        known = [i for i in available if self._order[i] in self.advice.probabilities]
        patches = [self._order[i] for i in known]
        if not patches:
            return overlap
        chosen = choose_classwise(
            range(len(known)),
            count - len(overlap),
            np.stack([self.advice.probabilities[patch] for patch in patches]),
            np.stack([self.advice.features[patch] for patch in patches]),
            [self.candidates[patch].group for patch in patches],
            self.session.terms.seed + number,
            self.session.apart,
            self._positives(),
        )
        return [*overlap, *(Chosen(known[one.index], one.source) for one in chosen)]

    def _positives(self) -> list[int]:
        """Patches that this person says have each class of the model's."""
        assert self.advice is not None
        said = [answer.classes for answer in self._answers.all().values() if answer.status == "labelled"]
        return [sum(classes.get(name, False) for classes in said) for name in self.advice.names]

    def _not_repeated(self) -> list[str]:
        repeated = {item.patch for one in self.rounds for item in one.items if item.source == "repeat"}
        return [p for p, a in self._answers.all().items() if a.status == "labelled" and p not in repeated]

    def _answered_by_others(self) -> set[str]:
        return {
            patch
            for answers in others_answers(self.session, self.labeller)
            for patch, answer in answers.all().items()
            if answer.status != "draft"
        }

    # Answers

    def answer_at(self, of: Round, place: int) -> Answer | None:
        """What was said at a place of a round; of a repeat only what was said this time."""
        item = of.items[place]
        return self._answers.of(item.patch, repeat=item.source == "repeat")

    def answer(
        self,
        said: Mapping[int, Sequence[str]],
        status: Status,
        *,
        of: Round | None = None,
        shown_prediction: bool = False,
    ) -> None:
        """Say something of places of a round, with one key. It is on the disk when this returns.

        Args:
            said: place in the round -> names of the classes that occur there.
            status: of these answers.
            of: the round; None is the one under way.
            shown_prediction: whether the model's opinion was to be seen.

        Raises:
            OptionError: no such place or class.
            OutputError: it cannot be written; nothing changed then.
        """
        with self._mutex:
            now, of = self._clock(), of or self.round()
            names = self.session.classes.names
            said = {place: [self.session.name_now(name) for name in present] for place, present in said.items()}
            if not said or any(not 0 <= place < len(of.items) for place in said):
                raise OptionError(f"round {of.number} has the places 0 to {len(of.items) - 1}")
            if unknown := [name for present in said.values() for name in present if name not in names]:
                raise OptionError(f"there is no class {unknown[0]!r:.60}, only {', '.join(names)}")
            rows = []
            for place, present in said.items():
                item = of.items[place]
                classes = {name: name in present for name in names}
                given = Answer(
                    classes, status, self.labeller, of.number, item.source, (now - self._last) / len(said),
                    shown_prediction, self._agrees(item.patch, classes),
                    datetime.now(UTC).isoformat(timespec="milliseconds"), of.model_hash,
                )  # fmt: skip
                rows.append({"patch": item.patch, **given.to_json()})
            self._said({"do": "answer", "answers": rows})
            self._last = now

    def _agrees(self, patch: str, classes: Mapping[str, bool]) -> bool | None:
        says = self.advice.says.get(patch) if self.advice else None
        both = [name for name in classes if says and name in says]
        return all(says[name] == classes[name] for name in both) if says and both else None

    def undo(self) -> tuple[str, ...]:
        """Take the last thing back, also one from before a restart; returns the patches it was about, or none."""
        with self._mutex:
            if touched := self._answers.last_touched():
                self._said({"do": "undo"})
            return touched

    def redo(self) -> tuple[str, ...]:
        """Say again what was taken back last; the patches it is about."""
        with self._mutex:
            if touched := self._answers.next_redone():
                self._said({"do": "redo"})
            return touched

    def _said(self, line: Line) -> None:
        self._write(line)
        self._answers.take(line)

    def _write(self, line: Line) -> None:
        self._journal.append(line)

    # Classes

    def add_class(self, name: str) -> None:
        """A class more; patches that were answered before are unknown in it. See `Session.add_class`."""
        with self._mutex:
            self.session.add_class(name)

    def rename_class(self, old: str, new: str) -> None:
        """A class has another name; see `Session.rename_class`."""
        with self._mutex:
            self.session.rename_class(old, new)
            self._answers.rename(old, new)

    def refresh(self) -> None:
        """Take the classes that others added or renamed meanwhile."""
        with self._mutex:
            known = len(self.session.renamed)
            self.session.refresh()
            for old, new in self.session.renamed[known:]:
                self._answers.rename(old, new)

    # What is known

    @property
    def answers(self) -> Mapping[str, Answer]:
        """Patch -> answer that counts."""
        with self._mutex:
            return self._answers.all()

    def status(self) -> Standing:
        """How it stands; see `status_of`."""
        return status_of(self.answers, self.session.classes.names)

    def intra_observer(self) -> list[Kappa]:
        """How well this person agrees with herself on repeats."""
        with self._mutex:
            first, again = self._answers.all(), self._answers.all(repeat=True)
        pairs = [(first[patch], answer) for patch, answer in again.items() if patch in first]
        return kappas(pairs, self.session.classes.names)

    def inter_observer(self) -> list[Kappa]:
        """How well this person agrees with the others of the folder on patches that both answered."""
        mine = self.answers
        pairs = [
            (mine[patch], answer)
            for answers in others_answers(self.session, self.labeller)
            for patch, answer in answers.all().items()
            if patch in mine
        ]
        return kappas(pairs, self.session.classes.names)
