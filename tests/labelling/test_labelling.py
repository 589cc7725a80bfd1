"""Rounds, answers, undo and redo over restarts, classes that change, and what a kill may lose."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wsiseg.classes import ClassTable
from wsiseg.errors import DatasetError, OptionError
from wsiseg.geometry import Box
from wsiseg.labelling.advice import Advice
from wsiseg.labelling.journals import all_answers, journal_path
from wsiseg.labelling.labelling import Labelling
from wsiseg.labelling.places import Candidate
from wsiseg.labelling.rounds import Round
from wsiseg.labelling.session import Session, Terms

TERMS = Terms(0.5, 64, 0)
CLASSES = ClassTable.from_names(["Tumour", "Stroma"])


def candidates(count: int, slides: int = 2) -> list[Candidate]:
    return [
        Candidate(f"{i:016x}", f"s{i % slides}", f"p{i % slides}", 64.0 * i, 0.0, Box(64 * i, 0, 64, 64))
        for i in range(count)
    ]


class Clock:
    """Three seconds an answer."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 3.0
        return self.now


def begin(root: Path, labeller: str = "anna", count: int = 400, advice: Advice | None = None) -> Labelling:
    session = Session(root, TERMS, CLASSES)
    return Labelling(session, labeller, candidates(count), advice=advice, clock=Clock())


def end(labelling: Labelling) -> None:
    labelling.close()
    labelling.session.close()


def test_everything_is_there_again_after_a_restart(tmp_path: Path) -> None:
    first = begin(tmp_path)
    shown = first.round()
    first.answer({0: ["Tumour"]}, "draft")
    first.answer({0: ["Tumour"]}, "labelled")
    first.answer({1: [], 2: ["Stroma"]}, "labelled")
    first.answer({3: []}, "unsure")
    first.undo()
    before = first.answers
    end(first)
    again = begin(tmp_path)
    assert again.round() == shown
    assert again.answers == before
    assert [again.answer_at(shown, place) is None for place in range(4)] == [False, False, False, True]
    assert again.redo() == (shown.items[3].patch,)
    assert again.answer_at(shown, 3).status == "unsure"
    end(again)


def test_undo_goes_back_to_the_first_key_also_over_restarts(tmp_path: Path) -> None:
    states = []
    one = begin(tmp_path)
    for place in range(12):
        states.append(one.answers)
        one.answer({place % 5: ["Tumour"] if place % 2 else []}, "labelled" if place % 3 else "draft")
    for state in reversed(states):
        end(one)
        one = begin(tmp_path)
        assert one.undo()
        assert one.answers == state
    assert one.undo() == ()
    for _ in states:
        assert one.redo()
    assert one.redo() == ()
    one.undo()
    one.answer({9: []}, "labelled")
    assert one.redo() == (), "a new answer ends what could be said again"
    end(one)


def test_a_line_that_was_cut_off_loses_one_key(tmp_path: Path) -> None:
    one = begin(tmp_path)
    for place in range(3):
        one.answer({place: ["Tumour"]}, "labelled")
    end(one)
    path = journal_path(tmp_path / "labelling", "anna")
    whole = path.read_bytes()
    for cut in (1, 7, 40):
        path.write_bytes(whole[:-cut])
        one = begin(tmp_path)
        assert len(one.answers) == 2
        one.answer({2: ["Stroma"]}, "labelled")
        end(one)
        one = begin(tmp_path)
        assert len(one.answers) == 3
        end(one)


CHILD = """
import sys
from pathlib import Path
from tests.labelling.test_labelling import begin
one = begin(Path(sys.argv[1]), count=4000)
of = one.round()
for place in range(len(of.items)):
    one.answer({place: ["Tumour"]}, "labelled")
    print(place, flush=True)
"""


def test_a_kill_loses_at_most_the_key_in_flight(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, cwd=root, text=True)
    saved = -1
    assert child.stdout is not None
    for line in child.stdout:
        saved = int(line)
        if saved == 57:
            os.kill(child.pid, signal.SIGKILL)
    child.wait()
    one = begin(tmp_path, count=4000)
    of = one.round()
    answered = [place for place in range(len(of.items)) if one.answer_at(of, place) is not None]
    assert answered == list(range(len(answered)))
    assert saved + 1 <= len(answered) <= saved + 2
    end(one)


def test_a_class_that_is_renamed_keeps_its_answers(tmp_path: Path) -> None:
    """labelImg 592 and CVAT 7099: labels moved when the list of classes changed."""
    one = begin(tmp_path)
    of = one.round()
    one.answer({0: ["Tumour"], 1: ["Stroma"]}, "labelled")
    one.rename_class("Stroma", "Fibrous stroma")
    one.add_class("Necrosis")
    one.answer({2: ["Necrosis"]}, "labelled")
    check_renamed(one, of)
    end(one)
    one = Labelling(Session(tmp_path, TERMS, None), "anna", candidates(400))
    check_renamed(one, of)
    with pytest.raises(OptionError, match="is or was called 'Stroma'"):
        one.add_class("Stroma")
    with pytest.raises(OptionError, match="no class 'Fat'"):
        one.rename_class("Fat", "Adipose")
    end(one)


def check_renamed(one: Labelling, of: Round) -> None:
    assert one.session.classes.names == ("Tumour", "Fibrous stroma", "Necrosis")
    found = [one.answer_at(of, place).classes for place in range(3)]
    assert found == [
        {"Tumour": True, "Fibrous stroma": False},
        {"Tumour": False, "Fibrous stroma": True},
        {"Tumour": False, "Fibrous stroma": False, "Necrosis": True},
    ]


def test_classes_that_are_stated_later_are_added_whatever_their_order(tmp_path: Path) -> None:
    end(begin(tmp_path))
    session = Session(tmp_path, TERMS, ClassTable.from_names(["Fat", "Stroma", "Tumour"]))
    assert session.classes.names == ("Tumour", "Stroma", "Fat")
    session.close()


def test_other_terms_are_refused(tmp_path: Path) -> None:
    end(begin(tmp_path))
    with pytest.raises(DatasetError, match="begun with the side of a patch 64, now 96"):
        Session(tmp_path, Terms(0.5, 96, 0), None)
    with pytest.raises(OptionError, match="is new: name its classes"):
        Session(tmp_path / "other", TERMS, None)


def test_two_people_answer_other_patches_but_for_a_tenth(tmp_path: Path) -> None:
    """superintendent 36: what several people say never overwrites each other."""
    anna, bert = begin(tmp_path, "anna", 1000), begin(tmp_path, "bert", 1000)
    mine = anna.round()
    for place in range(len(mine.items)):
        anna.answer({place: ["Tumour"]}, "labelled")
    theirs = bert.round()
    common = {item.patch for item in mine.items} & {item.patch for item in theirs.items}
    assert len(common) == round(0.1 * len(theirs.items))
    for place, item in enumerate(theirs.items):
        bert.answer({place: ["Tumour"] if item.patch in common and place % 2 else []}, "labelled")
    kappa = bert.inter_observer()[0]
    assert kappa.pairs == len(common)
    assert 0 < kappa.agreement < 1
    assert {answers.labeller for answers in all_answers(anna.session)} == {"anna", "bert"}
    end(anna)
    end(bert)


def test_repeats_are_marked_for_nobody_and_give_kappa(tmp_path: Path) -> None:
    one = begin(tmp_path, count=1000)
    first = one.round()
    truth = {item.patch: ["Tumour"] if int(item.patch, 16) % 3 else [] for item in first.items}
    for place, item in enumerate(first.items):
        one.answer({place: truth[item.patch]}, "labelled")
    second = one.round()
    repeats = [place for place, item in enumerate(second.items) if item.source == "repeat"]
    assert len(repeats) == 12  # 5 % of 240
    assert len(second.items) == 252
    for place in repeats:
        assert one.answer_at(second, place) is None, "the first answer is not shown"
        one.answer({place: truth[second.items[place].patch]}, "labelled")
    assert one.intra_observer()[0].kappa == 1
    wrong = second.items[repeats[0]].patch
    one.answer({repeats[0]: [] if truth[wrong] else ["Tumour"]}, "labelled")
    assert one.intra_observer()[0].agreement == pytest.approx(11 / 12)
    assert one.answers[wrong].classes["Tumour"] == bool(truth[wrong]), "the first answer counts"
    end(one)


def test_class_wise_rounds_find_the_rare_class_and_keep_a_fifth_at_random(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    patches = [candidate.id for candidate in candidates(2000)]
    rare = set(rng.permutation(patches)[:40].tolist())
    probabilities = {p: np.float32([0.9, rng.uniform(0.3, 0.7) if p in rare else 0.01]) for p in patches}
    features = {p: rng.normal(size=8).astype(np.float32) for p in patches}
    says = {p: {"Tumour": True, "Stroma": bool(probabilities[p][1] > 0.5)} for p in patches}
    one = begin(tmp_path, count=2000, advice=Advice("m" * 64, ("Tumour", "Stroma"), says, probabilities, features))
    made = one.next_round(100)
    sources = [item.source for item in made.items]
    assert sources.count("random") == 20
    assert sources.count("classwise") == 80
    assert len({item.patch for item in made.items}) == 100
    found = sum(item.patch in rare for item in made.items)
    assert found >= 15, "at random there would be two"
    place = sources.index("random")
    one.answer({place: ["Tumour"]}, "labelled")
    assert one.answer_at(made, place).agrees is (not says[made.items[place].patch]["Stroma"])
    assert one.status().random_answers == 1
    end(one)


def test_the_status_line(tmp_path: Path) -> None:
    one = begin(tmp_path)
    one.answer({place: ["Tumour"] for place in range(24)}, "labelled")
    one.answer({24: []}, "excluded")
    one.answer({25: ["Stroma"]}, "draft")
    status = one.status()
    assert (status.done, status.excluded, status.drafts, status.unsure) == (24, 1, 1, 0)
    assert status.positives == {"Tumour": 24, "Stroma": 0}
    assert status.few == ("Stroma",)
    assert status.right is None
    end(one)


def test_nothing_but_json_that_anyone_can_read(tmp_path: Path) -> None:
    one = begin(tmp_path)
    one.answer({0: ["Tumour"]}, "labelled", shown_prediction=True)
    line = journal_path(tmp_path / "labelling", "anna").read_text().splitlines()[-1]
    row = json.loads(line)["answers"][0]
    assert row["classes"] == {"Tumour": 1, "Stroma": 0}
    assert row["shown_prediction"] is True
    end(one)


@pytest.mark.parametrize("name", ["", "../x", "a b", "-a", "a" * 41, "ä"])
def test_names_of_labellers_are_plain(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match="labeller's name"):
        begin(tmp_path, name)
