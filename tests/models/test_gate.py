import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsiseg.models.gate import allowed_classes, gate_logits, gate_published

PROBABILITIES = arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32))


def differing(scores, expected):
    """Pixels of another label than expected where the best two scores are no tie."""
    best, second = scores.topk(2, dim=1).values.unbind(1)
    return ((scores.max(1).indices.numpy() != expected) & ((best - second).numpy() > 1e-4)).sum()


def test_labels_behind_the_gate_are_those_of_the_published_program(stage2_logits, parity):
    probabilities = torch.from_numpy(parity.stage1["prob"])
    threshold = torch.from_numpy(parity.stage2["gate_threshold"])
    allowed = allowed_classes(probabilities, threshold)
    assert differing(gate_logits(stage2_logits, allowed), parity.stage2["labels_gated"]) == 0
    assert (
        differing(gate_published(stage2_logits.softmax(1), probabilities, threshold), parity.stage2["labels_gated"])
        == 0
    )
    published = gate_published(stage2_logits, probabilities, threshold)
    assert differing(published, parity.stage2["labels_gated_published"]) == 0
    # The two are not the same thing: the program lets suppressed classes win.
    assert (parity.stage2["labels_gated"] != parity.stage2["labels_gated_published"]).sum() == 8825


def test_a_class_must_exceed_its_own_threshold():
    probabilities = torch.tensor([[0.5, 0.2, 0.9], [0.51, 0.3, 0.1]])
    thresholds = torch.tensor([0.5, 0.25, 0.1])
    assert allowed_classes(probabilities, thresholds).tolist() == [[False, False, True], [True, True, False]]


def test_where_none_passes_the_most_probable_one_is_allowed():
    allowed = allowed_classes(torch.tensor([[0.01, 0.09, 0.05], [0.0, 0.0, 0.0]]), torch.tensor(0.1))
    assert allowed.tolist() == [[False, True, False], [True, False, False]]


def test_a_floor_keeps_what_is_hardly_less_probable_and_shuts_what_is_clearly_less():
    seen = torch.tensor([[0.55, 0.399, 0.1], [0.9, 0.399, 0.1], [0.3, 0.2, 0.17], [0.6, 0.36, 0.0]])
    assert allowed_classes(seen, torch.tensor(0.4)).tolist()[0] == [True, False, False]  # by a hair
    assert allowed_classes(seen, torch.tensor(0.4), 0.6).tolist() == [
        [True, True, False],
        [True, False, False],
        [True, True, False],
        [True, True, False],  # reaches it exactly
    ]
    # The most probable class is never shut, whatever its own threshold.
    assert allowed_classes(torch.tensor([[0.8, 0.6]]), torch.tensor([0.9, 0.5]), 1.0).tolist() == [[True, True]]
    assert allowed_classes(torch.zeros(1, 3), torch.tensor(0.4), 0.6).all()


@given(PROBABILITIES, arrays(np.float32, 4, elements=st.floats(0, 1, width=32)), st.floats(0.01, 1))
def test_a_floor_only_ever_allows_more(probabilities, thresholds, floor):
    seen, limits = torch.from_numpy(probabilities), torch.from_numpy(thresholds)
    plain, floored = allowed_classes(seen, limits), allowed_classes(seen, limits, floor)
    assert (floored | ~plain).all()
    assert floored.gather(1, seen.max(dim=1, keepdim=True).indices).all()
    assert torch.equal(floored & ~plain, ~plain & (seen >= floor * seen.max(dim=1, keepdim=True).values))


@given(PROBABILITIES, arrays(np.float32, 4, elements=st.floats(0, 1, width=32)))
def test_some_class_is_always_allowed_and_no_other_can_win(probabilities, thresholds):
    allowed = allowed_classes(torch.from_numpy(probabilities), torch.from_numpy(thresholds))
    assert allowed.any(dim=1).all()
    logits = torch.linspace(-50, 50, 3 * 4 * 5 * 5).reshape(3, 4, 5, 5)
    gated = gate_logits(logits, allowed)
    for patch, before, classes in zip(gated, logits, allowed, strict=True):
        assert classes[patch.max(0).indices].all()
        assert (patch.softmax(0)[~classes] == 0).all()
        assert torch.equal(patch[classes], before[classes])


def test_the_published_gate_lets_class_0_win_where_none_passes():
    scores = torch.full((1, 3, 1, 1), -1.0)
    gated = gate_published(scores, torch.zeros(1, 3), torch.tensor(0.1))
    assert gated.max(1).indices.item() == 0
    suppressed_wins = gate_published(scores, torch.tensor([[0.9, 0.9, 0.0]]), torch.tensor(0.1))
    assert suppressed_wins.max(1).indices.item() == 2
