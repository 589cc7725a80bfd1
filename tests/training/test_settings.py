"""Settings in TOML: what is printed reads back the same, unknown keys are refused with the nearest known one."""

import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from wsiseg.cli.main import main
from wsiseg.errors import OptionError
from wsiseg.training.config import PRESETS, TrainingConfig, lite_config
from wsiseg.training.settings import descriptions, effective_config, format_settings


@pytest.mark.parametrize("preset", PRESETS)
def test_printed_settings_read_back_the_same(preset: str, tmp_path: Path) -> None:
    changed = PRESETS[preset]().changed(
        gate={"recall": None, "threshold": 1e-5},
        attention={"first_epoch": None},
        stage1={"patience": 3},
        seed=2**32 - 1,
    )
    for config in (PRESETS[preset](), changed):
        path = tmp_path / "settings.toml"
        path.write_text(format_settings(config), encoding="utf-8")
        assert effective_config(path) == config


def test_every_key_is_described() -> None:
    printed = format_settings(lite_config())
    lines = printed.splitlines()
    keys = [i for i, line in enumerate(lines) if line and not line.startswith("#")]
    assert len(keys) > 60
    assert all(lines[i - 1].startswith("# ") for i in keys)
    assert "4-connected pieces of background" in printed
    assert "see `wsiseg" not in printed
    for field in TrainingConfig.model_fields.values():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            assert set(descriptions(part)) == set(part.model_fields)
    assert set(tomllib.loads(printed)) == set(TrainingConfig.model_fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[stage1]\nepoch = 3", r"unknown key stage1\.epoch, did you mean (stage1\.)?epochs\?"),
        ("[gate]\ntreshold = 0.2", r"unknown key gate\.treshold, did you mean gate\.threshold\?"),
        ("sead = 3", r"unknown key sead, did you mean seed\?"),
        ("epochs = 3", r"unknown key epochs, did you mean stage1\.epochs\?"),
        ("[zzzqqq]", "expected one of preset, classifier"),
        ("[stage2]\nepochs = 0", r"stage2\.epochs: .*greater than or equal to 1, got 0"),
        ("stage1 = 3", r"stage1 must be a table"),
        ('preset = "big"', "preset must be lite or published"),
        ("seed = = 3", "is not TOML"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(OptionError, match=message) as caught:
        effective_config(path)
    assert "\n" not in str(caught.value)


def test_the_file_wins_over_the_preset_and_options_over_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('preset = "published"\nseed = 4\nval_share = 0.3\n[stage1]\nepochs = 9\n[gate]\nrecall = "none"\n')
    with pytest.raises(SystemExit) as stop:
        main(["train", "--print-config", "--config", str(path), "--seed", "5", "--epochs2", "2"])
    assert stop.value.code == 0
    shown = tomllib.loads(capsys.readouterr().out)
    assert (shown["preset"], shown["seed"], shown["val_share"]) == ("published", 5, 0.3)
    assert (shown["stage1"]["epochs"], shown["stage2"]["epochs"], shown["stage1"]["batch_size"]) == (9, 2, 20)
    assert shown["gate"]["recall"] == "none"


def test_an_encoder_brings_its_normalisation(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[classifier.arguments]\nencoder = "resnet18"\n[segmenter.arguments]\nencoder = "resnet18"\n')
    assert effective_config(path) == lite_config("resnet18")
    path.write_text(format_settings(lite_config()))
    assert effective_config(path, encoder="resnet18") == lite_config("resnet18")
