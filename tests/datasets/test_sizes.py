"""Patches of any size and shape in one set become squares; labels and pixels stay."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsiseg.classes import ClassTable
from wsiseg.datasets.check import check_dataset
from wsiseg.datasets.dataset import read_dataset
from wsiseg.datasets.sizes import read_square, read_square_truth, square_side, squared
from wsiseg.errors import DatasetError
from wsiseg.training.loading import PatchImages, plain_loader

CLASSES = ClassTable.from_names(["Tumour", "Stroma", "Normal"])
SLIDE = Path(__file__).parents[2] / "sample_data" / "OS-1-detail.ome.tif"


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """Real pixels, 1000 px a side."""
    import tifffile

    return np.ascontiguousarray(tifffile.imread(SLIDE)[:1000, :1000, :3])


def save(folder: Path, name: str, pixels: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)


@pytest.fixture
def lung(tmp_path: Path, tissue: np.ndarray) -> Path:
    """The form of WSSS4LUAD: sizes from 170 to 280 px, of any shape, the labels in the names."""
    sizes = [(170, 211), (280, 275), (224, 224), (199, 171), (251, 180), (224, 224)]
    labels = ["[1, 0, 0]", "[0, 1, 0]", "[1, 1, 0]", "[0, 0, 1]", "[1, 0, 0]", "[0, 1, 0]"]
    for n, ((width, height), label) in enumerate(zip(sizes, labels, strict=True)):
        cut = tissue[100 * n : 100 * n + height, 50 * n : 50 * n + width]
        save(tmp_path / "training", f"{436167 + n // 2}-{16477 + n}-39054-{label}.png", cut)
    return tmp_path


def test_sizes_of_any_shape_are_mirrored_to_one(lung: Path, tissue: np.ndarray) -> None:
    data = read_dataset(lung, 1.0, CLASSES, val_share=0)
    assert data.patch_size_px == 288  # 280, up to a multiple of 32
    assert data.notes == (
        "patches of 199 x 171 px to 280 x 275 px are mirrored at their borders to squares of 288 px; labels stay as "
        "they are",
    )
    assert not [text for text in data.check_for_training() if "px" in text]
    assert [patch.label for patch in data.train] == [(1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1), (1, 0, 0), (0, 1, 0)]
    assert len({patch.group for patch in data.train}) == 3
    pixels = read_square(data.train[0])
    assert pixels.shape == (288, 288, 3)
    assert (pixels[:211, :170] == tissue[:211, :170]).all()
    assert (pixels[:211, 170:] == tissue[:211, 52:170][:, ::-1]).all()  # the border twice, then back
    assert (pixels[211:] == pixels[134:211][::-1]).all()
    batch = next(iter(plain_loader(PatchImages(data.train, 3), 6)))
    assert batch["pixels"].shape == (6, 3, 288, 288)


def test_a_check_says_so_and_finds_nothing_wrong(lung: Path) -> None:
    found = check_dataset(lung, CLASSES, 1.0)
    assert found.sound
    assert len(found.problems["mirrored"]) == 6


def test_the_side_is_that_of_most() -> None:
    assert square_side([(224, 224)] * 9 + [(224, 200), (400, 400)]) == 224
    assert square_side([(224, 224)] * 5 + [(200, 260)] * 5) == 288
    assert square_side([(224, 224), (224, 200)], [(230, 300)]) == 320
    assert square_side([(96, 96)]) == 96
    assert square_side([(100, 60)]) == 128


def test_larger_and_far_smaller_ones_are_refused(lung: Path, tissue: np.ndarray) -> None:
    folder = lung / "training"
    for n in range(9):
        save(folder, f"5-{n}-[1, 0, 0].png", tissue[:224, n : n + 224])
    with pytest.raises(DatasetError, match="280 x 275 px, larger than a patch of 224 x 224 px"):
        read_dataset(lung, 1.0, CLASSES)
    next(folder.glob("436167-16478*")).unlink()
    next(folder.glob("436169-16481*")).unlink()
    next(folder.glob("436169-16482*")).unlink(missing_ok=True)
    for path in folder.glob("4361*"):
        with Image.open(path) as image:
            if max(image.size) > 224:
                path.unlink()
    assert read_dataset(lung, 1.0, CLASSES).patch_size_px == 224
    save(folder, "6-0-[1, 0, 0].png", tissue[:111, :224])
    with pytest.raises(DatasetError, match="224 x 111 px, less than half of a patch of 224 x 224 px"):
        read_dataset(lung, 1.0, CLASSES)
    found = check_dataset(lung, CLASSES, 1.0)
    assert [where for where, _ in found.problems["size"]] == ["training/6-0-[1, 0, 0].png"]


def test_masks_of_mirrored_patches(tmp_path: Path, tissue: np.ndarray) -> None:
    """What is mirrored is no truth twice: it is excluded."""
    for n in range(3):
        save(tmp_path / "train", f"a-{n}-[1, 0, 0].png", tissue[:64, n : n + 64])
    save(tmp_path / "val" / "img", "b.png", tissue[:50, :40])
    mask = np.zeros((50, 40), np.uint8)
    mask[10:, :] = 2
    save(tmp_path / "val" / "mask", "b.png", mask)
    data = read_dataset(tmp_path, 1.0, CLASSES)
    assert data.check_for_training() is not None
    truth = read_square_truth(data.val[0], 3)
    assert truth.shape == (64, 64)
    assert (truth[:50, :40] == mask).all()
    assert (truth[50:] == 3).all()
    assert (truth[:, 40:] == 3).all()
    assert data.val[0].label == (1, 0, 1)


def test_square_patches_are_as_they_were(tissue: np.ndarray) -> None:
    assert squared(tissue, 0) is tissue
    assert squared(tissue, 1000) is tissue
