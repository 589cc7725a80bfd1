"""One line an epoch, with figures of each class, and classes that collapse by name."""

import pytest
import torch

from wsiseg.training.epochs import ClassFigures, told
from wsiseg.training.stage1 import average_precision, class_precisions, prevalence

NAMES = ("Tumour", "Stroma", "Lymphocytes")


def test_a_line_holds_what_is_known() -> None:
    found = ClassFigures(NAMES)
    found.with_precisions([0.9, None, 0.5], [0.5, 0.0, 0.2])
    line = told("Stage 1", 2, 7, 12.3, {"train_loss_epoch": 0.41234, "val_map": 0.7}, found)
    assert line == (
        "Stage 1, epoch 2/7: loss 0.4123; mAP 0.700; average precision: Tumour 0.900, Lymphocytes 0.500; 12 s"
    )
    assert found.logged() == {"val_ap.Tumour": 0.9, "val_ap.Lymphocytes": 0.5}
    assert told("Stage 2", 1, 1, 0.25, {}, ClassFigures(())) == "Stage 2, epoch 1/1: 0.2 s"


def test_a_class_told_by_chance_is_named() -> None:
    """Scores that know nothing of the third class have its prevalence as average precision."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(4000, 3, generator=generator) < torch.tensor([0.5, 0.3, 0.1])).long()
    scores = 0.5 * labels + torch.rand(4000, 3, generator=generator) * 0.6
    scores[:, 2] = 0.3  # the same for all
    found = ClassFigures(NAMES)
    found.with_precisions(class_precisions(scores, labels), prevalence(labels))
    assert found.collapsed == ["Lymphocytes is told no better than by chance"]
    assert "careful: Lymphocytes is told" in told("Stage 1", 1, 1, 0, {}, found)


def test_a_class_that_vanishes_is_named() -> None:
    found = ClassFigures(NAMES)
    found.with_shares([0.6, 0.398, 0.002], [0.5, 0.4, 0.1], [True, True, True])
    assert found.collapsed == ["Lymphocytes gets 0.2 % of pixels, of pseudo masks 10.0 %"]
    other = ClassFigures(NAMES)
    other.with_shares([0.6, 0.4, 0.0], [0.5, 0.4, 0.1], [True, True, False])  # validation patches lack it
    assert not other.collapsed


def test_class_precisions_are_what_the_mean_is_of() -> None:
    generator = torch.Generator().manual_seed(3)
    scores, labels = torch.rand(50, 3, generator=generator), torch.randint(-1, 2, (50, 3), generator=generator)
    labels[:, 1] = 0
    found = class_precisions(scores, labels)
    assert found[1] is None
    mean = float(average_precision(scores, labels))
    assert sum(value for value in found if value is not None) / 2 == pytest.approx(mean)
    assert prevalence(torch.tensor([[1, -1], [0, -1], [1, 1], [1, 0]])) == [0.75, 0.5]
