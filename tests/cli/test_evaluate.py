"""`wsiseg evaluate` from the command line: tables, JSON, picture, and a bundle with chosen thresholds."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from wsiseg.cli.main import main
from wsiseg.models.distance import load
from wsiseg.models.folder import find_bundle
from wsiseg.models.spec import bundle_hash, read_spec
from wsiseg.report.confusion import read_evaluation


@pytest.fixture
def cells(tmp_path: Path, sample_data: Path) -> Path:
    """Two sample patches with a dot each."""
    folder = tmp_path / "cells"
    folder.mkdir()
    rows = ["file,x,y,class,group,split"]
    for number, path in enumerate(sorted((sample_data / "patches" / "images").glob("*.png"))[:2]):
        Image.open(path).save(folder / f"{number}.png")
        rows.append(f"{number}.png,48,48,{('Tumour', 'Stroma')[number]},g{number},val")
    (folder / "cells.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_everything_is_written(cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = [tmp_path / name for name in ("f.json", "f.png", "bundle")]
    arguments = ["evaluate", "tissue-brca-lite", cells, "--split", "val", "--mpp", 0.5, "--resamples", 20]
    arguments += ["--json", out[0], "--picture", out[1], "--choose-thresholds", "--write-bundle", out[2]]
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments] + ["--device", "cpu"])
    shown = capsys.readouterr()
    assert stop.value.code == 0, shown
    assert "(true labels)" in shown.out
    figures = json.loads(out[0].read_text())
    assert set(figures) == {
        *(
            "format",
            "model",
            "data",
            "truth",
            "classes",
            "settings",
            "columns",
            "gate",
            "calibration",
            "chosen_thresholds",
        ),
    }
    assert figures["calibration"]["temperatures"] is None, "two cells tell nothing of it"
    assert figures["calibration"]["areas"]["Tumour"]["true"] == 0.5
    assert set(figures["columns"]) == {"no_gate", "predicted_gate", "oracle_gate"}
    column = figures["columns"]["oracle_gate"]
    assert set(column) == {"title", "confusion", "figures", "classes"}
    assert set(column["figures"]["balanced_accuracy"]) == {"value", "low", "high"}
    assert column["figures"]["balanced_accuracy"]["value"] == 1  # one class a patch: the oracle leaves no other
    assert column["classes"]["Lymphocytes"]["recall"]["value"] is None
    assert set(figures["gate"]) == {
        *("tiles", "thresholds", "classes", "reliability", "expected_calibration_error", "brier"),
    }
    assert str(tmp_path) not in out[0].read_text()
    with Image.open(out[1]) as picture:
        assert picture.width > 600
        assert len(picture.convert("RGB").getcolors(2**24) or []) > 10
    old, new = read_spec("tissue-brca-lite"), read_spec(out[2])
    assert list(new.gate) == pytest.approx(figures["chosen_thresholds"])
    assert new.networks == old.networks
    assert not new.metrics
    weights = "segmenter.safetensors"
    assert (out[2] / weights).read_bytes() == (find_bundle("tissue-brca-lite") / weights).read_bytes()
    assert load(out[2], new.networks.classifier.sha256) is not None, "it goes by the weights"


def test_a_bundle_keeps_its_figures_and_a_report_finds_them(
    cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = shutil.copytree(find_bundle("tissue-brca-lite"), tmp_path / "mine")
    before = bundle_hash(bundle)
    arguments = ["evaluate", bundle, cells, "--split", "val", "--mpp", 0.5, "--resamples", 20, "--into-bundle"]
    for code, further in ((0, []), (2, []), (0, ["--overwrite"])):
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments] + ["--device", "cpu", "--quiet", *further])
        assert (stop.value.code or 0) == code, capsys.readouterr()
    found = read_evaluation(bundle)
    assert found.model_hash == before == bundle_hash(bundle)
    assert found.classes == ("Tumour", "Stroma", "Lymphocytes")
    card = (bundle / "card.html").read_text(encoding="utf-8")
    assert "Expected calibration error" in card
    assert "probabilities are as the networks give them" in card
    with pytest.raises(SystemExit) as stop:
        main([*(str(a) for a in arguments[:-1]), "--device", "cpu", "--quiet", "--calibrate"])
    assert stop.value.code == 2
    assert "no temperature can be chosen: that takes masks or cell dots" in capsys.readouterr().err  # six cells
    assert not (bundle / "calibration.json").exists()
    assert bundle_hash(bundle) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--choose-thresholds"], "--split val alone"),
        (["--calibrate"], "a temperature is chosen on --split val alone"),
        (["--write-bundle", "b"], "--choose-thresholds"),
        (["--cell-classes", "2"], "VALUE=NAME"),
        (["--mpp", "0.5", "--split", "train"], "no row of split train"),
        (["--split", "val"], "state --mpp"),
    ],
)
def test_mistakes_take_one_line(
    cells: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "tissue-brca-lite", str(cells), "--device", "cpu", *arguments])
    shown = capsys.readouterr()
    assert stop.value.code == 2
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert message in shown.err
