"""`--faithful` is the published program's behaviour, each part of it an option of its own."""

import pytest

from wsiseg.training.config import TrainingConfig, lite_config, published_config
from wsiseg.training.faithful import faithful
from wsiseg.training.losses import SupervisionOptions
from wsiseg.training.pseudo_masks import PseudoMaskOptions
from wsiseg.training.settings import effective_config

BACKGROUNDS = ("bright", "none")


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("preset", [published_config, lite_config])
def test_every_option_that_parity_was_measured_with(preset, background) -> None:
    config = faithful(preset(), background)
    masks = PseudoMaskOptions.published(background)
    for name in ("normalisation", "absent_score", "background", "bright_above", "min_background_px"):
        assert getattr(config.pseudo_masks, name) == getattr(masks, name)
    loss = SupervisionOptions.published()
    assert (config.supervision.weights, config.supervision.background_score, config.supervision.divide_by_batch) == (
        loss.weights,
        loss.background_score,
        loss.divide_by_batch,
    )
    assert (config.gate.rule, config.gate.threshold, config.gate.recall, config.gate.context) == (
        *("multiply_logits", 0.1, None, 0.0),
    )
    assert not config.supervision.select_gated
    assert not config.stage2.drop_incomplete
    assert config.stage1.drop_incomplete
    for network in (config.classifier, config.segmenter):
        assert (network.mean, network.std) == ((0, 0, 0), (1, 1, 1))
    assert (config.overlap, config.imbalance, config.start_from_classifier) == (0, "none", False)
    assert config.augmentation1.stain == config.augmentation2.stain == 0


def test_attention_starts_in_the_fourth_epoch_and_sharpens() -> None:
    attention = faithful(published_config()).attention
    assert [attention.drop_above(epoch) for epoch in range(5)] == [None, None, None, 0.98**3, 0.98**4]
    assert attention.drop_above(1000) == pytest.approx(0.98**22)  # the first at or below 0.65
    assert not attention.normalise


def test_the_published_momentum_is_that_of_its_own_optimiser_alone() -> None:
    assert faithful(published_config()).stage1.momentum == 5e-4
    assert faithful(published_config()).stage2.momentum == 0.9
    assert faithful(lite_config()).stage1.momentum == lite_config().stage1.momentum


def test_networks_epochs_and_rates_are_the_presets() -> None:
    before, after = published_config(), faithful(published_config())
    for name in ("epochs", "batch_size", "learning_rate", "head_factor", "weight_decay", "schedule", "power"):
        for stage in ("stage1", "stage2"):
            assert getattr(getattr(after, stage), name) == getattr(getattr(before, stage), name)
    assert after.classifier.architecture == "resnet38"


def test_a_file_wins_over_it(tmp_path) -> None:
    (tmp_path / "s.toml").write_text('preset = "published"\n[gate]\nthreshold = 0.3\n')
    config = effective_config(tmp_path / "s.toml", published_background="none")
    assert isinstance(config, TrainingConfig)
    assert (config.gate.threshold, config.gate.rule) == (0.3, "multiply_logits")
    assert config.pseudo_masks.background == "none"
    assert effective_config(tmp_path / "s.toml").gate.rule == "exclude"
