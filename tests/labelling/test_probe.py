"""An encoder alone helps to choose: what was answered so far is learned from, patients kept apart never are."""

from pathlib import Path

import numpy as np
import pytest

from wsiseg.classes import ClassTable
from wsiseg.datasets.dataset import read_dataset
from wsiseg.evaluation.gate import average_precision
from wsiseg.geometry import Box
from wsiseg.labelling.answers import Answer
from wsiseg.labelling.journals import all_answers
from wsiseg.labelling.labelling import PROBED_ROUND, Labelling
from wsiseg.labelling.opinions import embed
from wsiseg.labelling.patch_cache import PatchCache
from wsiseg.labelling.places import Candidate, LabelSlide
from wsiseg.labelling.probe import Embeddings, Prober
from wsiseg.labelling.session import Session, Terms
from wsiseg.labelling.table import _split
from wsiseg.models.embedding import Embedder

CLASSES = ClassTable.from_names(["Tumour", "Stroma"])
TERMS = Terms(0.5, 64, 0)


def made(count: int, patients: int, seed: int = 0) -> tuple[list[Candidate], Embeddings, dict[str, dict[str, int]]]:
    """Candidates, what an encoder would see in them, and the truth, which two of its features tell."""
    rng = np.random.default_rng(seed)
    candidates = [
        Candidate(f"{i:016x}", f"s{i % patients}", f"p{i % patients}", 64.0 * i, 0.0, Box(64 * i, 0, 64, 64))
        for i in range(count)
    ]
    features = rng.normal(size=(count, 8)).astype(np.float32)
    truth = {
        c.id: {"Tumour": int(f[0] > 1), "Stroma": int(f[1] > -1)} for c, f in zip(candidates, features, strict=True)
    }
    seen = {c.id: f for c, f in zip(candidates, features, strict=True)}
    return candidates, Embeddings("e" * 64, seen), truth


def begin(root: Path, candidates: list[Candidate], embeddings: Embeddings) -> Labelling:
    session = Session(root, TERMS, CLASSES)
    groups = sorted({c.group: c.slide for c in candidates}.items())
    session.add_slides([LabelSlide(slide, slide, slide, group) for group, slide in groups])
    return Labelling(session, "me", candidates, prober=Prober(embeddings))


def answer_all(one: Labelling, truth: dict[str, dict[str, int]]) -> None:
    of = one.round()
    said = {p: [n for n, v in truth[item.patch].items() if v] for p, item in enumerate(of.items)}
    one.answer(said, "labelled", of=of)


def test_a_probe_learns_from_few_labels_and_says_nothing_from_none() -> None:
    candidates, embeddings, truth = made(400, 4)
    prober, names = Prober(embeddings), ("Tumour", "Stroma", "Fat")
    assert prober.advice({}, names) is None
    assert prober.advice({candidates[0].id: {"Tumour": 1}}, names) is None
    known = {c.id: truth[c.id] for c in candidates[:100]}
    advice = prober.advice(known, names)
    assert advice is not None
    assert advice.names == ("Tumour", "Stroma"), "nothing is known of Fat"
    for k, name in enumerate(advice.names):
        says = np.array([advice.probabilities[c.id][k] for c in candidates[100:]])
        right = np.array([truth[c.id][name] == 1 for c in candidates[100:]])
        assert average_precision(says, right) > 0.8
        assert ((says > 0.5) == right).mean() > 0.9
        assert [advice.says[c.id][name] for c in candidates[100:]] == (says > 0.5).tolist()


def test_a_class_not_seen_yet_is_sought_where_the_tissue_is_unlike_what_was_answered() -> None:
    """Fat is in one patch of fifty, far from the rest, and in none of the first hundred answers."""
    candidates, embeddings, truth = made(1000, 4)
    fat = [c.id for c in candidates[::50]]
    seen = {patch: f + (np.array([0, 0, 4, 4, 0, 0, 0, 0]) if patch in fat else 0) for patch, f in
            embeddings.features.items()}  # fmt: skip
    prober, names = Prober(Embeddings("e" * 64, seen)), ("Tumour", "Stroma", "Fat")
    answered = [c.id for c in candidates if c.id not in fat][:100]
    advice = prober.advice({patch: truth[patch] | {"Fat": 0} for patch in answered}, names)
    assert advice is not None
    assert advice.names == names
    assert set(advice.says[candidates[0].id]) == {"Tumour", "Stroma"}, "of Fat nothing is said"
    rest = [c.id for c in candidates if c.id not in answered]
    first = sorted(rest, key=lambda patch: -advice.probabilities[patch][2])[:40]
    assert len(set(first) & set(fat)) > 3 * len(fat) * 40 / len(rest), "far more than by chance"
    few = prober.advice({patch: truth[patch] | {"Fat": 0} for patch in answered[:9]}, names)
    assert few is None or "Fat" not in few.names


def test_rounds_learn_from_the_rounds_before(tmp_path: Path) -> None:
    candidates, embeddings, truth = made(900, 6)
    one = begin(tmp_path, candidates, embeddings)
    (apart,) = one.session.apart
    group = {c.id: c.group for c in candidates}
    first = one.round()
    assert {item.source for item in first.items} == {"random"}
    assert (len(first.items), first.model_hash) == (PROBED_ROUND, "")
    answer_all(one, truth)
    second = one.round()
    assert second.model_hash == embeddings.encoder_hash
    sources = {item.source for item in second.items}
    assert sources == {"random", "classwise", "repeat"}
    for item in second.items:
        if item.source != "repeat":
            assert (item.source == "random") == (group[item.patch] == apart), "who is kept apart is shown at random"
    chosen = [truth[item.patch]["Tumour"] for item in second.items if item.source == "classwise"]
    everything = [said["Tumour"] for patch, said in truth.items() if group[patch] != apart]
    assert np.mean(chosen) > 1.5 * np.mean(everything), "few patches with tumour are known, so more are shown"
    answer_all(one, truth)
    standing = one.status()
    assert standing.random_answers == sum(item.source == "random" for item in second.items)
    assert standing.right is not None
    assert standing.right > 0.6
    hash_before, rounds = second.model_hash, len(one.rounds)
    one.close()
    one.session.close()
    again = begin(tmp_path, candidates, embeddings)
    assert again.session.apart == (apart,)
    assert (again.rounds[1].model_hash, len(again.rounds)) == (hash_before, rounds)
    assert again.features(candidates[0].id) is not None
    (said,) = all_answers(again.session)
    for candidate in candidates:
        answer = said.of(candidate.id)
        if answer is not None:
            split = _split([answer], candidate, again.session)
            assert split == ("val" if candidate.group == apart else ""), "in the first round too"
    again.close()
    again.session.close()


def test_chance_alone_leaves_patches_to_learn_from(tmp_path: Path) -> None:
    """With an encoder whose opinion is only looked at, not every patch is validation."""
    candidates, embeddings, truth = made(400, 2)
    session = Session(tmp_path, TERMS, CLASSES)
    one = Labelling(session, "me", candidates, classwise=False, prober=Prober(embeddings))
    for _ in range(2):
        answer_all(one, truth)
    for candidate in candidates:
        answer = one.answers.get(candidate.id)
        assert answer is None or _split([answer], candidate, session) == ""
    assert one.status().random_answers > 0
    one.close()
    session.close()


def test_a_patch_that_was_chosen_for_another_person_is_not_by_chance(tmp_path: Path) -> None:
    candidates, _, _ = made(10, 2)
    session = Session(tmp_path, TERMS, CLASSES)
    random, chosen = (Answer({}, "labelled", source=s, model_hash="m") for s in ("random", "classwise"))
    assert _split([random, random], candidates[0], session) == "val"
    assert _split([random, chosen], candidates[0], session) == ""
    session.close()


def test_patients_kept_apart_are_not_learned_from(tmp_path: Path) -> None:
    candidates, embeddings, truth = made(300, 5)
    one = begin(tmp_path, candidates, embeddings)
    (apart,) = one.session.apart
    of = one.round()
    own = [p for p, item in enumerate(of.items) if one.candidates[item.patch].group == apart]
    one.answer({p: [n for n, v in truth[of.items[p].patch].items() if v] for p in own}, "labelled")
    one._probe()
    assert one.advice is None
    one.close()
    one.session.close()


def test_a_fifth_of_the_patients_is_kept_apart_of_those_that_are_new(tmp_path: Path) -> None:
    session = Session(tmp_path, TERMS, CLASSES)

    def add(*numbers: int) -> None:
        session.add_slides([LabelSlide(f"s{n}", "", f"{n:012x}", f"p{n}") for n in numbers])

    add(0, 1, 2, 3)
    assert session.apart == (), "of four patients none can be spared"
    add(0, 1, 2, 3, 4, 5)
    assert len(session.apart) == 1
    assert set(session.apart) <= {"p4", "p5"}, "of the others some were learned from"
    before = session.apart
    add(*range(20))
    assert session.apart[:1] == before
    assert len(session.apart) == 4
    session.close()


def test_labels_that_contradict_the_others_are_found() -> None:
    candidates, embeddings, truth = made(300, 3)
    wrong = {c.id for c in candidates[::30]}
    labels = {
        p: {n: 1 - v if p in wrong and n == "Stroma" else v for n, v in said.items()} for p, said in truth.items()
    }
    advice = Prober(embeddings).advice_apart(labels, CLASSES.names, 5)
    doubt = {p: abs(float(advice.probabilities[p][1]) - labels[p]["Stroma"]) for p in labels}
    worst = sorted(doubt, key=lambda p: -doubt[p])[:20]
    assert len(wrong & set(worst)) >= 7


def test_what_a_real_encoder_sees_tells_tissue_apart(sample_data: Path, tmp_path: Path) -> None:
    data = read_dataset(sample_data / "patches", val_share=0)
    patches = [*data.train, *data.val][::4]
    cache = PatchCache(tmp_path / "patches.sqlite")
    for patch in patches:
        cache.put(patch.name, _pixels(patch.path), None)
    encoder = Embedder("tf_efficientnet_lite0", "cpu")
    seen = embed(encoder, cache, [patch.name for patch in patches])
    again = embed(encoder, cache, [patch.name for patch in patches])
    assert all(np.array_equal(seen.features[p.name], again.features[p.name]) for p in patches)
    assert seen.features[patches[0].name].shape == (472,)
    labels = {p.name: dict(zip(data.classes.names, p.label, strict=True)) for p in patches}
    advice = Prober(seen).advice_apart(labels, data.classes.names, 5)
    tumour = np.array([p.label[0] == 1 for p in patches])
    says = np.array([advice.probabilities[p.name][0] for p in patches])
    assert average_precision(says, tumour) > tumour.mean() + 0.1
    cache.close()


def _pixels(path: Path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("given", [["--model", "x", "--encoder", "y"], ["--choose", "classwise"]])
def test_what_cannot_be_wished(
    sample_data: Path, tmp_path: Path, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from wsiseg.cli.main import main

    with pytest.raises(SystemExit) as ended:
        main(["label", str(sample_data / "CMU-1-Small-Region.svs"), "--out", str(tmp_path / "p"), *given])
    assert ended.value.code == 2
    assert "--encoder" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_an_answer_has_no_opinion_without_a_probe(tmp_path: Path) -> None:
    candidates, embeddings, _ = made(100, 2)
    one = begin(tmp_path, candidates, embeddings)
    one.answer({0: ["Tumour"]}, "labelled")
    (said,) = one.answers.values()
    assert isinstance(said, Answer)
    assert (said.agrees, said.model_hash) == (None, "")
    one.close()
    one.session.close()
