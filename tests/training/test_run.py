"""A whole training on real patches: reproducible to the bit, resumable, stage by stage, and a bundle that predicts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.helpers.training import one_thread, rows_of, some_patches  # noqa: F401
from wsiseg.datasets.dataset import KNOWN_CLASSES, Patch, read_dataset
from wsiseg.errors import DatasetError, DeviceError, OptionError, OutputError
from wsiseg.models.bundle import load_model
from wsiseg.training.config import GateConfig, TrainingConfig, lite_config, published_config
from wsiseg.training.loading import Batch
from wsiseg.training.make_masks import gate_thresholds
from wsiseg.training.run import train
from wsiseg.training.run_folder import RunFolder
from wsiseg.training.stage1 import ClassifierStage, average_precision

CONFIG = lite_config().changed(
    sheet_patches=2,
    refit=0,
    stage1={"epochs": 2, "batch_size": 4},
    stage2={"epochs": 1, "batch_size": 4},
    gate={"rule": "multiply_logits"},  # not the default, so that it must come from here
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> Path:
    """Fourteen of the sample patches, six of them for validation."""
    source = sample_data / "patches"
    chosen = [*rows_of(source, "train")[::60][:8], *rows_of(source, "val")[:6]]
    return some_patches(source, tmp_path_factory.mktemp("patches"), chosen)


def run(dataset: Path, out: Path, config: TrainingConfig = CONFIG, **options: object) -> Path:
    return train(dataset, out, config, progress=False, say=lambda text: None, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return run(dataset, tmp_path_factory.mktemp("whole") / "model")


def steps(out: Path) -> Path:
    return out.with_name(out.name + ".training")


def test_bundle_says_what_it_is_and_predicts(trained: Path) -> None:
    model = load_model(trained, runtime="torch")
    assert model.classes.names == ("Tumour", "Stroma", "Lymphocytes")
    assert (model.spec.mpp, model.spec.patch_size_px) == (0.5, 96)
    assert model.spec.gate_rule == "multiply_logits"
    assert model.spec.networks.classifier.mean == (0.5, 0.5, 0.5)
    known = {name: value for name, value in model.spec.training.items() if name in TrainingConfig.model_fields}
    assert TrainingConfig.model_validate(known) == CONFIG
    assert model.spec.training["train_patches"] == 8
    assert "Abousamra" in model.spec.citation
    patches = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    assert model.classify(patches).shape == (2, 3)
    assert model.segment(patches).isfinite().all()


def test_pseudo_masks_hold_no_absent_class(dataset: Path, trained: Path) -> None:
    data = read_dataset(dataset)
    for depth in ("middle", "deep", "head"):
        for patch in data.train:
            with Image.open(steps(trained) / "train_PM" / f"PM_{depth}" / patch.name) as image:
                assert image.mode == "P"
                mask = np.array(image)
            assert mask.shape == (96, 96)
            assert set(np.unique(mask)) <= {k for k in range(3) if patch.label[k]} | {3}
            assert image.palette is not None
            assert tuple(image.palette.palette[:3]) == (213, 45, 45)


def test_two_runs_agree_to_the_bit_and_stages_alone_make_the_same(dataset: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    assert run(dataset, out, stage="1") == steps(out) / "stage1"
    assert not out.exists()
    assert run(dataset, out, stage="masks") == steps(out) / "train_PM"
    assert run(dataset, out, stage="2") == out
    for file in ("classifier.safetensors", "segmenter.safetensors"):
        assert (out / file).read_bytes() == (trained / file).read_bytes()


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    dataset: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    original = ClassifierStage.on_train_batch_start

    def interrupted(stage: ClassifierStage, batch: Batch, batch_idx: int) -> None:
        if (stage.current_epoch, batch_idx) == (1, 1):
            raise KeyboardInterrupt
        original(stage, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(ClassifierStage, "on_train_batch_start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(dataset, out)
    assert (steps(out) / "stage1" / "last.ckpt").is_file()
    assert not (steps(out) / "stage1" / "classifier.safetensors").exists()
    with pytest.raises(OutputError, match="--resume"):
        run(dataset, out)
    with pytest.raises(OptionError, match=r"begun with seed 0 \(--seed\), now it is 5"):
        run(dataset, out, CONFIG.changed(seed=5), resume=True)
    run(dataset, out, resume=True)
    for file in ("classifier.safetensors", "segmenter.safetensors"):
        assert (out / file).read_bytes() == (trained / file).read_bytes()


def test_masks_of_another_classifier_are_no_finished_ones(dataset: Path, trained: Path, tmp_path: Path) -> None:
    """Whoever puts other weights into the folder of a run gets their masks."""
    shutil.copytree(steps(trained), tmp_path / "model.training")
    folder = RunFolder.from_output(tmp_path / "model")
    before = folder.masks_done.read_bytes()
    told: list[str] = []

    def masks() -> None:
        told.clear()
        train(dataset, tmp_path / "model", CONFIG, stage="masks", progress=False, say=told.append)

    masks()
    assert "Pseudo masks of 8 patches were there, 0 were made" in told
    assert folder.masks_done.read_bytes() == before
    weights = load_file(folder.classifier)
    weights["fc8.weight"] = -weights["fc8.weight"]
    save_file(weights, folder.classifier)
    masks()
    assert not [text for text in told if "were there" in text]
    assert folder.masks_done.read_bytes() != before


def test_another_seed_is_another_model(dataset: Path, trained: Path, tmp_path: Path) -> None:
    run(dataset, tmp_path / "model", CONFIG.changed(seed=1), stage="1")
    mine, other = (load_file(steps(out) / "stage1" / "classifier.safetensors") for out in (tmp_path / "model", trained))
    assert not torch.equal(mine["fc8.weight"], other["fc8.weight"])


def test_training_learns(dataset: Path, tmp_path: Path) -> None:
    """On eight patches seen twelve times the loss falls far."""
    config = CONFIG.changed(stage1={"epochs": 12, "batch_size": 8, "average_decay": 0.5}, augmentation1={"stain": 0})
    run(dataset, tmp_path / "model", config, stage="1")
    rows = (steps(tmp_path / "model") / "stage1" / "logs" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("train_loss_epoch")
    losses = [float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column]]
    assert len(losses) == 12
    assert losses[-1] < 0.5 * losses[0]


def test_outputs_are_protected(dataset: Path, trained: Path, tmp_path: Path) -> None:
    before = (trained / "model.json").read_bytes()
    with pytest.raises(OutputError, match="--overwrite"):
        run(dataset, trained)
    assert (trained / "model.json").read_bytes() == before
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputError, match="not a model bundle"):
        run(dataset, tmp_path / "mine", overwrite=True)
    (tmp_path / "m.training").mkdir()
    (tmp_path / "m.training" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="not a training of this program"):
        run(dataset, tmp_path / "m", overwrite=True)
    assert (tmp_path / "m.training" / "thesis.txt").read_text() == "mine"
    with pytest.raises(OptionError):
        run(dataset, tmp_path / "n", resume=True, overwrite=True)


@pytest.mark.parametrize(("stage", "needs"), [("masks", "--stage 1"), ("2", "--stage masks")])
def test_stages_need_what_comes_before(dataset: Path, tmp_path: Path, stage: str, needs: str) -> None:
    with pytest.raises(OutputError, match=needs):
        run(dataset, tmp_path / "model", stage=stage)
    assert not list(tmp_path.iterdir())


def test_another_data_set_is_no_resumption(dataset: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(steps(trained), tmp_path / "model.training")
    changed = shutil.copytree(dataset, tmp_path / "patches")
    fields = json.loads((changed / "dataset.json").read_text())
    (changed / "dataset.json").write_text(json.dumps({**fields, "mpp": 0.25}))
    with pytest.raises(DatasetError, match="another data set"):
        run(changed, tmp_path / "model", resume=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cuda"):
        run(dataset, tmp_path / "model", device="cuda")
    assert not list(tmp_path.iterdir())


def test_published_networks_want_initial_weights(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="there is no file"):
        run(dataset, tmp_path / "model", CONFIG.changed(classifier={"initial_weights": "gone.params"}), stage="1")
    assert not list(tmp_path.iterdir())


def test_gate_lets_the_wanted_share_pass() -> None:
    patches = [Patch(Path("x"), "x", (1, int(i < 50)), "g") for i in range(100)]
    probabilities = torch.stack([torch.linspace(0.0, 0.99, 100), torch.full((100,), 0.8)], dim=1)
    chosen = gate_thresholds(probabilities, patches, GateConfig(threshold=0.1, recall=0.99))
    assert chosen[0] == pytest.approx(0.0099, abs=2e-4)
    assert (probabilities[:, 0] > chosen[0]).float().mean() == 0.99
    assert chosen[1] == 0.1
    assert gate_thresholds(probabilities, patches, GateConfig(threshold=0.3)) == [0.3, 0.3]
    assert gate_thresholds(torch.zeros(0, 2), [], GateConfig()) == []


@pytest.mark.parametrize(
    "values", [[0.004 + i / 1000 for i in range(40)], [0.00449] * 50, [0.01 * i for i in range(1, 11)]]
)
@pytest.mark.parametrize("recall", [0.98, 0.9, 1.0])
def test_gate_never_lets_less_pass_than_promised(values: list[float], recall: float) -> None:
    patches = [Patch(Path("x"), "x", (1,), "g") for _ in values]
    probabilities = torch.tensor(values)[:, None]
    (threshold,) = gate_thresholds(probabilities, patches, GateConfig(threshold=0.9, recall=recall))
    passing = allowed_passing(probabilities, threshold)
    assert passing >= recall - 1e-6
    higher = float(np.nextafter(np.float32(threshold), np.float32(1)))
    assert allowed_passing(probabilities, higher) < passing or len(set(values)) == 1


def allowed_passing(probabilities: torch.Tensor, threshold: float) -> float:
    return float((probabilities > torch.tensor([threshold])).float().mean())


def test_average_precision_leaves_out_classes_that_do_not_occur() -> None:
    labels = torch.tensor([[1, 0], [0, 0], [1, 0]])
    assert average_precision(torch.tensor([[0.9, 0.1], [0.1, 0.5], [0.8, 0.2]]), labels) == 1.0
    assert average_precision(torch.tensor([[0.1, 0.1], [0.9, 0.5], [0.2, 0.2]]), labels) == pytest.approx(
        (1 / 2 + 2 / 3) / 2
    )
    assert average_precision(torch.rand(3, 2), torch.zeros(3, 2, dtype=torch.long)) == 0


@pytest.mark.slow
def test_published_networks_train(tmp_path: Path, sample_data: Path) -> None:
    """Both stages of the published preset, from random weights, on five small patches; 165 million parameters."""
    root = tmp_path / "patches"
    (root / "train").mkdir(parents=True)
    for number, path in enumerate(sorted((sample_data / "patches" / "images").iterdir())[:5]):
        with Image.open(path) as image:
            image.crop((0, 0, 32, 32)).save(root / "train" / f"{number}-[1 0 {number % 2} 0].png")
    config = published_config().changed(
        classifier={"initial_weights": "none"},
        segmenter={"initial_weights": "none"},
        stage1={"epochs": 1, "batch_size": 4},
        stage2={"epochs": 1, "batch_size": 4},
        attention={"first_epoch": 0},
        val_share=0.2,
    )
    out = run(root, tmp_path / "model", config, mpp=1.0, classes=KNOWN_CLASSES["luad-histoseg"])
    model = load_model(out, runtime="torch")
    assert model.spec.gate == (0.1,) * 4
    assert model.spec.networks.segmenter.architecture == "deeplabv3plus_resnet101"
    assert model.segment(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).isfinite().all()
