"""Pseudo masks on disk: whole, resumed after a kill to the same bytes, made anew when what they are made of changes."""

import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.helpers.training import one_thread, rows_of, some_patches  # noqa: F401
from wsiseg.datasets.dataset import PatchDataset, read_dataset
from wsiseg.errors import DatasetError, OutputError
from wsiseg.models.networks.lite import LiteClassifier
from wsiseg.training.config import TrainingConfig, lite_config
from wsiseg.training.make_masks import WrittenMasks, class_shares, write_masks
from wsiseg.training.mask_files import FINGERPRINT_FILE

ENCODER = "mobilenetv3_small_050"
CONFIG = lite_config(ENCODER).changed(pseudo_masks={"batch_size": 8})
CPU = torch.device("cpu")

WORKER = """
import os, signal, sys, torch
from pathlib import Path
from safetensors.torch import load_file
from wsiseg.models.networks.lite import LiteClassifier
from wsiseg.training.config import lite_config
from wsiseg.training.make_masks import write_masks
from wsiseg.datasets.dataset import read_dataset
root, weights, folder, encoder = sys.argv[1:]
torch.set_num_threads(1)
network = LiteClassifier(3, encoder=encoder)
network.load_state_dict(load_file(weights))
config = lite_config(encoder).changed(pseudo_masks={"batch_size": 8})
masks = 0
def die(event, arguments):
    global masks
    if event == "os.rename" and str(arguments[1]).endswith(".png"):  # else the kill, an event itself, would kill again
        masks += 1
        if masks == 61:
            os.kill(os.getpid(), signal.SIGKILL)  # before it has its name
sys.addaudithook(die)
write_masks(network.eval(), read_dataset(root), config, Path(folder), torch.device("cpu"), False)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> Path:
    """160 of the sample patches, 150 of them for training."""
    source = sample_data / "patches"
    chosen = [*rows_of(source, "train")[::2][:150], *rows_of(source, "val")[:10]]
    return some_patches(source, tmp_path_factory.mktemp("patches"), chosen)


@pytest.fixture(scope="module")
def data(root: Path) -> PatchDataset:
    data = read_dataset(root)
    assert len(data.train) == 150
    return data


@pytest.fixture(scope="module")
def classifier() -> LiteClassifier:
    return seeded(1)


def seeded(seed: int) -> LiteClassifier:
    torch.manual_seed(seed)
    return LiteClassifier(3, encoder=ENCODER).eval()


def write(
    classifier: LiteClassifier, data: PatchDataset, folder: Path, config: TrainingConfig = CONFIG
) -> WrittenMasks:
    return write_masks(classifier, data, config, folder, CPU, progress=False)


@pytest.fixture(scope="module")
def whole(classifier: LiteClassifier, data: PatchDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole") / "train_PM"
    written = write(classifier, data, folder)
    assert (written.computed, written.kept, written.differing) == (150, 0, None)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """What shows that a file was replaced: inode and time of change."""
    found = {path.relative_to(folder).as_posix(): path.stat() for path in folder.rglob("*.png")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items() if Path(name).name[0] != "."}


def test_every_training_patch_has_a_mask_at_each_depth(whole: Path, data: PatchDataset) -> None:
    expected = {f"PM_{depth}/{patch.name}" for depth in ("middle", "deep", "head") for patch in data.train}
    assert set(contents(whole)) == expected | {FINGERPRINT_FILE}


def test_masks_are_those_of_each_patch_by_itself(whole: Path, classifier: LiteClassifier, data: PatchDataset) -> None:
    """Sorted into batches by their labels, patches still get their own masks."""
    from wsiseg.datasets.images import read_image
    from wsiseg.training.pseudo_masks import PseudoMaskOptions, pseudo_masks

    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CONFIG.classifier.mean, CONFIG.classifier.std))
    for patch in data.train[::10]:
        pixels = torch.from_numpy(read_image(patch.path)).permute(2, 0, 1)[None]
        images = (pixels.float() / 255 - mean) / std
        masks = pseudo_masks(classifier, images, pixels, torch.tensor([patch.label]), PseudoMaskOptions())
        for depth, mask in masks.items():
            with Image.open(whole / f"PM_{depth}" / patch.name) as image:
                assert (np.array(image) != mask[0].numpy()).mean() < 0.001  # rounding depends on the batch


def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_bytes(
    root: Path, data: PatchDataset, classifier: LiteClassifier, whole: Path, tmp_path: Path
) -> None:
    weights, folder = tmp_path / "classifier.safetensors", tmp_path / "train_PM"
    save_file(classifier.state_dict(), weights)
    worker = subprocess.run([sys.executable, "-c", WORKER, str(root), str(weights), str(folder), ENCODER], check=False)
    assert worker.returncode == -signal.SIGKILL
    before = stamps(folder)
    assert 50 < len(before) <= 70  # some threads write at once
    (folder / "PM_head" / "images" / ".a.png.0123abcd.partial").write_bytes(b"\x89PNG")  # what a kill may leave

    written = write(classifier, data, folder)

    finished = [p for p in data.train if all(f"PM_{depth}/{p.name}" in before for depth in ("middle", "deep", "head"))]
    assert written.kept == len(finished) > 0
    assert written.computed == 150 - len(finished)
    assert contents(folder) == contents(whole)
    after = stamps(folder)
    for patch in finished:
        for depth in ("middle", "deep", "head"):
            name = f"PM_{depth}/{patch.name}"
            assert after[name] == before[name]
    assert np.array_equal(written.class_shares, class_shares(whole / "PM_head", data.train, 3))


def test_finished_masks_are_kept_and_damaged_ones_made_anew(
    data: PatchDataset, classifier: LiteClassifier, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "train_PM"
    shutil.copytree(whole, folder)
    before = stamps(folder)
    first = write(classifier, data, folder)
    assert (first.computed, first.kept) == (0, 150)
    assert stamps(folder) == before
    names = [patch.name for patch in data.train]
    (folder / "PM_head" / names[3]).write_bytes(b"")  # as a power cut leaves it
    (folder / "PM_deep" / names[50]).unlink()
    Image.new("L", (96, 96), 4).save(folder / "PM_middle" / names[99])  # no class of three
    Image.new("P", (95, 96), 0).save(folder / "PM_middle" / names[149])
    again = write(classifier, data, folder)
    assert (again.computed, again.kept) == (4, 146)
    assert contents(folder) == contents(whole)
    assert again.class_shares.tolist() == first.class_shares.tolist()
    assert first.class_shares.tolist() == class_shares(whole / "PM_head", data.train, 3).tolist()
    assert first.class_shares.sum() == pytest.approx(1)


def test_another_classifier_makes_all_anew(data: PatchDataset, whole: Path, tmp_path: Path) -> None:
    fresh = write(seeded(2), data, tmp_path / "fresh")
    shutil.copytree(whole, tmp_path / "train_PM")
    written = write(seeded(2), data, tmp_path / "train_PM")
    assert (written.computed, written.kept) == (150, 0)
    assert contents(tmp_path / "train_PM") == contents(tmp_path / "fresh")
    assert contents(tmp_path / "train_PM") != contents(whole)
    assert written.class_shares.tolist() == fresh.class_shares.tolist()


@pytest.mark.parametrize("change", ["options", "normalisation", "labels", "fingerprint"])
def test_whatever_else_decides_a_mask_makes_all_anew(
    classifier: LiteClassifier, data: PatchDataset, whole: Path, tmp_path: Path, change: str
) -> None:
    folder, config = tmp_path / "train_PM", CONFIG
    shutil.copytree(whole, folder)
    data = replace(data, train=data.train[:6])
    write(classifier, data, folder)
    assert write(classifier, data, folder).kept == 6
    if change == "options":
        config = CONFIG.changed(pseudo_masks={"bright_above": 150})
    elif change == "normalisation":
        config = CONFIG.changed(classifier={"mean": (0.4, 0.5, 0.5)})
    elif change == "labels":
        data = replace(data, train=(replace(data.train[0], label=(1, 1, 1)), *data.train[1:]))
    else:
        (folder / FINGERPRINT_FILE).write_text("{")
    assert write(classifier, data, folder, config).kept == 0
    assert len(stamps(folder)) == 18  # none of the others is left


def test_a_full_disk_ends_with_one_line_and_nothing_half_written(
    classifier: LiteClassifier, data: PatchDataset, whole: Path, tmp_path: Path
) -> None:
    """A limit on the size of files is a full disk that a test may have: a write fails in the middle."""
    folder, limits = tmp_path / "train_PM", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"^cannot write .*\.png: File too large; choose another place$"):
            write(classifier, data, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    left = contents(folder)
    assert 1 < len(left) < 451
    assert not [name for name in left if name.endswith(".partial")]
    assert all(left[name] == content for name, content in contents(whole).items() if name in left)
    write(classifier, data, folder)
    assert contents(folder) == contents(whole)


def test_a_place_that_takes_no_files(classifier: LiteClassifier, data: PatchDataset, tmp_path: Path) -> None:
    (tmp_path / "train_PM").write_text("a file where the folder should be")
    with pytest.raises(OutputError, match=r"cannot write .*train_PM"):
        write(classifier, data, tmp_path / "train_PM")


def test_a_patch_that_went_away_is_told(classifier: LiteClassifier, data: PatchDataset, tmp_path: Path) -> None:
    root = tmp_path / "patches"
    shutil.copytree(data.root, root)
    data = read_dataset(root)
    data.train[70].path.write_bytes(data.train[70].path.read_bytes()[:300].ljust(data.train[70].path.stat().st_size))
    with pytest.raises(DatasetError, match=data.train[70].path.name):
        write(classifier, data, tmp_path / "train_PM")
    assert not list((tmp_path / "train_PM").rglob(".*.partial"))


def test_two_patches_that_would_share_a_mask_are_refused(
    classifier: LiteClassifier, data: PatchDataset, tmp_path: Path
) -> None:
    twin = replace(data.train[0], name=data.train[0].name.replace(".png", ".tif"))
    with pytest.raises(DatasetError, match="suffix"):
        write(classifier, replace(data, train=(*data.train, twin)), tmp_path / "train_PM")
    assert not list(tmp_path.iterdir())


def test_bfloat16_says_how_much_it_differs(classifier: LiteClassifier, data: PatchDataset, tmp_path: Path) -> None:
    data = replace(data, train=tuple(patch for patch in data.train if sum(patch.label) > 1)[:8])
    config = CONFIG.changed(pseudo_masks={"precision": "bfloat16"})
    exact, rounded = tmp_path / "float32", tmp_path / "bfloat16"
    assert write(classifier, data, exact).differing is None
    written = write(classifier, data, rounded, config)
    pairs = [
        (np.array(Image.open(exact / name)), np.array(Image.open(rounded / name)))
        for name in contents(exact)
        if name.endswith(".png")
    ]
    assert len(pairs) == 24
    assert written.differing == pytest.approx(np.mean([a != b for a, b in pairs]))
    assert 0 < written.differing < 0.2


def test_what_a_person_is_told() -> None:
    shares = np.ones(2) / 2
    assert WrittenMasks(shares, 5, 0, None).notes == []
    assert WrittenMasks(shares, 5, 3, 0.0123).notes == [
        "Pseudo masks of 3 patches were there, 5 were made",
        "In bfloat16 1.23% of mask pixels differ from float32, on the first patches",
    ]
