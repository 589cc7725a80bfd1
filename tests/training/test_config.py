"""Training configurations: presets, changes, refusals."""

import pytest

from wsiseg.errors import OptionError
from wsiseg.training.config import PRESETS, AttentionConfig, TrainingConfig, lite_config, published_config


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_survive_json(preset: str) -> None:
    config = PRESETS[preset]()
    assert config.preset == preset
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config


def test_published_is_the_published_program() -> None:
    config = published_config()
    for stage, epochs in ((config.stage1, 20), (config.stage2, 30)):
        assert (stage.algorithm, stage.learning_rate, stage.head_factor, stage.batch_size) == ("sgd", 0.01, 10.0, 20)
        assert (stage.weight_decay, stage.momentum, stage.power, stage.epochs) == (5e-4, 0.9, 0.9, epochs)
    assert config.supervision.weights == (0.6, 0.2, 0.2)
    assert config.gate.threshold == 0.1
    assert config.augmentation2.vertical_flip == 0


def test_attention_begins_in_the_fourth_epoch_and_falls_to_its_floor() -> None:
    attention = AttentionConfig()
    assert [attention.drop_above(epoch) for epoch in range(3)] == [None] * 3
    assert attention.drop_above(3) == pytest.approx(0.98**3)
    assert attention.drop_above(21) == pytest.approx(0.98**21)  # 0.654, still above the floor
    assert attention.drop_above(22) == attention.drop_above(100) == pytest.approx(0.98**22)
    assert AttentionConfig(first_epoch=None).drop_above(50) is None


def test_changed_keeps_the_rest() -> None:
    config = lite_config().changed(stage1={"epochs": 3}, seed=7)
    assert config.stage1.epochs == 3
    assert config.stage1.learning_rate == lite_config().stage1.learning_rate
    assert config.stage2 == lite_config().stage2
    assert config.seed == 7


@pytest.mark.parametrize(
    "change", [{"stage1": {"epochs": 0}}, {"seed": -1}, {"overlap": 1.0}, {"stage2": {"colour": 1}}, {"precision": "8"}]
)
def test_values_out_of_range_are_one_line(change: dict[str, object]) -> None:
    with pytest.raises(OptionError) as caught:
        lite_config().changed(**change)
    assert "\n" not in str(caught.value)
