"""`wsiseg train`: the sample patches give a model; every mistake is one line, exit code 2, nothing half-written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from wsiseg.cli.main import main
from wsiseg.models.bundle import load_model

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs `wsiseg train`, which must be refused and leave `tmp_path` as it is; returns the one line."""

    def run(*arguments: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as stop:
            main(["train", *(str(argument) for argument in arguments)])
        shown = capsys.readouterr()
        assert stop.value.code == 2, shown
        assert shown.out == ""
        assert shown.err.count("\n") == 1, shown.err
        assert sorted(tmp_path.rglob("*")) == before
        return shown.err

    return run


@pytest.fixture
def patches(tmp_path: Path, sample_data: Path) -> Path:
    """Sixteen of the sample patches."""
    source, root = sample_data / "patches", tmp_path / "patches"
    (root / "images").mkdir(parents=True)
    header, *rows = (source / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([header, *rows[::32]]) + "\n")
    for row in rows[::32]:
        shutil.copy(source / row.split(",")[0], root / "images")
    shutil.copy(source / "dataset.json", root)
    return root


def test_a_model_from_sample_patches(patches: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "my-model"
    with pytest.raises(SystemExit) as stop:
        main(["train", str(patches), "--out", str(out), "--epochs", "1", "--batch-size", "8", "--device", "cpu"])
    assert stop.value.code == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    said = [line.split(":")[0] for line in shown.err.splitlines()]
    assert "15 patches of 96 px at 0.5 um/px for training, 1 for validation; classes" in said
    assert [line for line in said if "finished" in line or line in ("Model", "Summary")] == [
        "Stage 1 is finished",
        "Pseudo masks are finished",
        "Stage 2 is finished",
        "Model",
        "Summary",
    ]
    assert load_model(out).spec.training["stage1"]["epochs"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: shutil.copy(next((p / "images").iterdir()), p / "images" / "new.png"), "has no label"),
        (lambda p: next((p / "images").iterdir()).unlink(), "there is no image"),
        (lambda p: next((p / "images").iterdir()).write_text("text"), "cannot be read as an image"),
        (lambda p: (p / "labels.csv").write_text("file,Bone\n"), "unknown class 'Bone'"),
        (lambda p: (p / "labels.csv").write_text("file,Tumour,Stroma,Lymphocytes\n"), "no training image"),
        (lambda p: (p / "dataset.json").unlink(), "--mpp"),
    ],
)
def test_bad_data_sets(
    refused: Refused, patches: Path, tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    change(patches)
    assert message in refused(patches, "--out", tmp_path / "m")


def test_bad_options(refused: Refused, patches: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    assert "not a folder" in refused(tmp_path / "gone", "--out", out)
    assert "--preset lite" in refused(patches, "--out", out, "--preset", "published", "--encoder", "resnet18")
    assert "epochs" in refused(patches, "--out", out, "--epochs", "0")
    assert "mpp" in refused(patches, "--out", out, "--mpp", "900")
    assert "encoder" in refused(patches, "--out", out, "--encoder", "no_such_network")
    assert "--stage 1" in refused(patches, "--out", out, "--stage", "masks")
    assert "--init-stage1" in refused(patches, "--out", out, "--preset", "published")
    for option in ("--init-stage1", "--init-stage2", "--init", "--init2"):
        assert "no file of weights 'gone.pth'" in refused(patches, "--out", out, option, "gone.pth")
    if not torch.cuda.is_available():
        assert "cuda" in refused(patches, "--out", out, "--device", "cuda")
    out.mkdir()
    assert "exists" in refused(patches, "--out", out)
