"""Trainings that meet others, a full disk, other options, and batches of one patch."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.helpers.full_disk import largest_file
from tests.helpers.training import one_thread, rows_of, some_patches  # noqa: F401
from wsiseg.datasets.dataset import read_dataset
from wsiseg.errors import DatasetError, OptionError, OutputError
from wsiseg.models.bundle import load_model
from wsiseg.system.locks import lock_path, locked
from wsiseg.training.config import AUTO_FOLDS, TrainingConfig, lite_config
from wsiseg.training.origin import Origin
from wsiseg.training.refit import decided
from wsiseg.training.resumed import check_same, lengthened
from wsiseg.training.run import train
from wsiseg.training.run_folder import RunFolder
from wsiseg.training.stage import normalise_lone_values

CONFIG = lite_config().changed(
    sheet_patches=0, refit=0, stage1={"epochs": 1, "batch_size": 4}, stage2={"epochs": 1, "batch_size": 4}
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> Path:
    """Nine of the sample patches, four of them for validation."""
    source = sample_data / "patches"
    chosen = [*rows_of(source, "train")[::90][:5], *rows_of(source, "val")[:4]]
    return some_patches(source, tmp_path_factory.mktemp("patches"), chosen)


def run(dataset: Path, out: Path, config: TrainingConfig = CONFIG, **options: object) -> Path:
    return train(dataset, out, config, progress=False, say=lambda text: None, **options)  # type: ignore[arg-type]


def epochs(folder: Path) -> list[int]:
    with (folder / "logs" / "metrics.csv").open() as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def test_a_second_run_is_refused_by_name(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    with (
        locked(out),
        pytest.raises(OutputError, match=rf"^another run is writing {re.escape(str(out))} \(process \d+ on "),
    ):
        run(dataset, out)
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_dead_process_is_taken_over(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    lock_path(out).write_text("process 4194304 on nowhere")
    run(dataset, out, stage="1")
    assert RunFolder.from_output(out).classifier.is_file()
    assert not lock_path(out).exists()


def test_a_full_disk_ends_with_one_line_and_the_training_goes_on(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "model"
    folder = RunFolder.from_output(out)
    with largest_file(5_000_000), pytest.raises(OutputError, match=r"^cannot write .*\.ckpt: File too large; choose"):
        run(dataset, out, stage="1")
    assert not [path for path in out.parent.rglob("*") if path.suffix in (".ckpt", ".partial", ".safetensors")]
    run(dataset, out, stage="1", resume=True)
    folder.classifier.unlink()
    with (
        largest_file(5_000_000),
        pytest.raises(OutputError, match=r"^cannot write .*classifier\.safetensors: File too"),
    ):
        run(dataset, out, stage="1", resume=True)
    assert not list(out.parent.rglob("*.partial"))


def test_epochs_are_extended(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    folder = RunFolder.from_output(out)
    run(dataset, out)
    first, masks = load_file(folder.classifier), folder.masks_done.read_text()
    longer = CONFIG.changed(stage2={"epochs": 3})
    run(dataset, out, longer, resume=True)
    assert epochs(folder.segmenter.parent) == [0, 1, 2]
    assert folder.masks_done.read_text() == masks
    assert json.loads((out / "model.json").read_text())["training"]["stage2"]["epochs"] == 3
    run(dataset, out, longer.changed(stage1={"epochs": 2}), resume=True)
    assert epochs(folder.classifier.parent) == [0, 1]
    assert epochs(folder.segmenter.parent) == [0, 1, 2]  # begun anew, since it learns from other masks
    assert any(not torch.equal(tensor, first[name]) for name, tensor in load_file(folder.classifier).items())
    load_model(out)
    with pytest.raises(OptionError, match=r"stage2.epochs 3 \(--epochs2\), now it is 2; epochs can be extended, not"):
        run(dataset, out, longer.changed(stage1={"epochs": 2}, stage2={"epochs": 2}), resume=True)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"seed": 5}, "was begun with seed 0 (--seed), now it is 5; give the same, or --overwrite"),
        ({"stage1": {"batch_size": 3}}, "was begun with stage1.batch_size 4 (--batch-size), now it is 3;"),
        ({"gate": {"recall": None}}, "was begun with gate.recall 0.98, now it is not set;"),
        ({"stage1": {"learning_rate": 0.1}}, "was begun with stage1.learning_rate 0.0003, now it is 0.1;"),
    ],
)
def test_the_option_that_differs_is_named(changed: dict[str, object], told: str) -> None:
    before, now = (config.model_dump(mode="json") for config in (CONFIG, CONFIG.changed(**changed)))
    with pytest.raises(OptionError, match=re.escape(told)):
        check_same(Path("model.training"), before, now)
    assert not lengthened(before, now)


def test_batches_of_one_patch(dataset: Path, tmp_path: Path) -> None:
    """Five patches in batches of one; and of two, so that one is left over."""
    for size in (1, 2):
        part = {"batch_size": size, "drop_incomplete": False}
        out = run(dataset, tmp_path / f"model{size}", CONFIG.changed(stage1=part, stage2=part))
        network = load_model(out).segmenter
        assert all(tensor.isfinite().all() for tensor in network.state_dict().values())


def test_a_lone_value_is_normalised_by_running_statistics() -> None:
    norm = nn.BatchNorm2d(3)
    norm.running_mean, norm.running_var = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 4.0, 4.0])
    normalise_lone_values(norm)
    alone = norm(torch.full((1, 3, 1, 1), 5.0))
    assert torch.allclose(alone.flatten(), torch.tensor([2.0, 1.5, 1.0]), atol=1e-4)
    assert norm.training
    assert norm.running_mean.tolist() == [1.0, 2.0, 3.0]
    norm(torch.rand(2, 3, 1, 1))  # more than one value: as always
    assert norm.running_mean.tolist() != [1.0, 2.0, 3.0]


def test_a_refit_learns_from_every_patch(dataset: Path, tmp_path: Path) -> None:
    """Thresholds come from classifiers that did not see the patches; a resumed run keeps the folds."""
    said: list[str] = []
    config = CONFIG.changed(refit=2)
    out = train(dataset, tmp_path / "model", config, progress=False, say=said.append)
    folds = RunFolder.from_output(out).folds
    training = json.loads((out / "model.json").read_text())["training"]
    assert (training["train_patches"], training["val_patches"], training["refit"]) == (9, 0, 2)
    found = training["cross_validation"]
    assert json.loads((out / "model.json").read_text())["gate"] == found["gate"]
    kept = [int(line.split()[4]) for line in said if line.startswith("Fold")]
    assert sum(kept) == 9
    weights = [load_file(folds / str(number) / "stage1" / "classifier.safetensors") for number in (1, 2)]
    assert any(not torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert Origin.of(out).config().folds == 0  # one can go on from it
    stamp = (folds / "1" / "stage1" / "classifier.safetensors").stat().st_mtime_ns
    RunFolder.from_output(out).masks_done.unlink()
    train(dataset, out, config, progress=False, say=said.append, resume=True)
    assert (folds / "1" / "stage1" / "classifier.safetensors").stat().st_mtime_ns == stamp


def test_what_does_not_go_with_a_refit(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--refit needs the classifier's own gate"):
        run(dataset, tmp_path / "model", CONFIG.changed(refit=2, gate={"mode": "shared", "context": 0.0}))
    with pytest.raises(DatasetError, match=r"patches of . groups, but --refit needs 20, one"):
        run(dataset, tmp_path / "model", CONFIG.changed(refit=20))
    assert not list(tmp_path.iterdir())


def test_where_every_patch_teaches_by_default(dataset: Path, tmp_path: Path) -> None:
    """Few patches of a set that does not split itself do; with a stated split, a shared gate or --from they do not."""
    split = read_dataset(dataset)
    dataset = Path(shutil.copytree(dataset, tmp_path / "patches"))
    table = (dataset / "labels.csv").read_text().splitlines()
    assert table[0].endswith(",group,split")
    rows = [f"{','.join(line.split(',')[:-2])},g{number % 6}" for number, line in enumerate(table[1:])]
    (dataset / "labels.csv").write_text("\n".join([table[0].removesuffix(",split"), *rows]) + "\n")
    plain = read_dataset(dataset)
    config = lite_config()
    assert decided(config, plain, going_on=False).folds == AUTO_FOLDS
    assert [plain.is_set_aside, split.is_set_aside] == [True, False]
    for data, going_on, settings in (
        (split, False, config),
        (plain, True, config),
        (plain, False, config.changed(refit=0)),
        (plain, False, config.changed(gate={"mode": "shared", "context": 0.0})),
        (replace(plain, train=plain.train * 300), False, config),
        (replace(plain, train=tuple(replace(patch, group="g") for patch in plain.train), val=()), False, config),
    ):
        assert decided(settings, data, going_on).refit == 0
