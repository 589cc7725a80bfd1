"""How far patches are from the training data: fitted, stored, and refused where the file is not what was written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from wsiseg.errors import BundleError
from wsiseg.models.bundle import load_model
from wsiseg.models.distance import DISTANCE_FILE, TrainingDistance, fit, load, save
from wsiseg.models.folder import BUNDLES_FOLDER, list_bundles

DIGEST = "a" * 64


def cloud(count: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Features (count, 40) that vary much in 8 directions and little in the others; shifted in one of the latter."""
    rng = np.random.default_rng(seed)
    spread = np.concatenate([np.linspace(5, 1, 8), np.full(32, 0.2)])
    features = rng.standard_normal((count, 40)) * spread
    features[:, -1] += shift
    return (features @ np.linalg.qr(np.random.default_rng(0).standard_normal((40, 40)))[0]).astype(np.float32)


def fitted(others: np.ndarray | None = None) -> TrainingDistance:
    found = fit(cloud(600, 1), [f"slide {n % 20}" for n in range(600)], DIGEST, others)
    assert found is not None
    return found


def test_what_is_like_the_training_patches_is_near_and_what_is_not_is_far() -> None:
    found = fitted()
    assert 0 < (found.of(cloud(4000, 2)) > 1).mean() < 0.02
    # Two units of a direction that varies by 0.2: nothing beside the other directions, to a plain distance.
    assert (found.of(cloud(1000, 3, shift=2.0)) > 1).mean() > 0.97
    assert (found.patches, found.groups) == (600, 20)


def test_patches_that_were_not_learned_from_take_part_in_the_limit() -> None:
    assert fitted(cloud(200, 5, shift=2.0)).limit > 1.2 * fitted().limit


def test_too_few_patches_or_a_single_group_give_none() -> None:
    assert fit(cloud(30, 1), [str(n) for n in range(30)], DIGEST) is None
    assert fit(cloud(300, 1), ["one"] * 300, DIGEST) is None


def test_values_do_not_depend_on_what_comes_at_once() -> None:
    found, features = fitted(), cloud(257, 4)
    alone = np.concatenate([found.of(features[n : n + 1]) for n in range(len(features))])
    assert np.array_equal(found.of(features), alone)


def test_what_is_stored_is_what_was_fitted(tmp_path: Path) -> None:
    found = fitted()
    path = save(found, tmp_path)
    assert path.stat().st_size < 20_000
    again = load(tmp_path, DIGEST)
    assert again is not None
    assert again.sha256 == found.sha256
    features = cloud(50, 6)
    assert np.array_equal(again.of(features), found.of(features))
    assert load(tmp_path / "..", DIGEST) is None


def altered(path: Path, *, facts: dict[str, object] | None = None, **arrays: np.ndarray) -> None:
    with safe_open(path, framework="numpy") as file:
        said = dict(file.metadata())
    said |= {name: json.dumps(value) for name, value in (facts or {}).items()}
    save_file({**load_file(path), **arrays}, path, metadata=said)


@pytest.mark.parametrize(
    ("facts", "arrays", "words"),
    [
        ({"limit": 0.001}, {}, "was altered or is damaged"),
        ({"limit": "much"}, {}, "was altered or is damaged"),
        ({"format": 2}, {}, "newer wsiseg"),
        ({}, {"mean": np.zeros(40, np.float32)}, "was altered or is damaged"),
        ({}, {"mean": np.zeros(3, np.float32)}, "was altered or is damaged"),
        ({}, {"variance": np.zeros(25, np.float32)}, "was altered or is damaged"),
        ({}, {"more": np.zeros(25, np.float32)}, "was altered or is damaged"),
    ],
)
def test_an_altered_file_is_refused(tmp_path: Path, facts: dict, arrays: dict, words: str) -> None:
    altered(save(fitted(), tmp_path), facts=facts, **arrays)
    with pytest.raises(BundleError, match=words):
        load(tmp_path, DIGEST)


def test_a_file_of_other_weights_or_no_such_file_is_refused(tmp_path: Path) -> None:
    save(fitted(), tmp_path)
    with pytest.raises(BundleError, match="belongs to other weights"):
        load(tmp_path, "b" * 64)
    (tmp_path / DISTANCE_FILE).write_bytes(b"no tensors")
    with pytest.raises(BundleError, match="not a whole safetensors file"):
        load(tmp_path, DIGEST)
    (tmp_path / DISTANCE_FILE).unlink()
    (tmp_path / DISTANCE_FILE).symlink_to("/etc/hostname")
    with pytest.raises(BundleError, match="lies outside"):
        load(tmp_path, DIGEST)


def test_features_of_another_network_are_refused() -> None:
    with pytest.raises(BundleError, match="of 40 features, the classifier has 41"):
        fitted().of(np.zeros((2, 41), np.float32))


@pytest.mark.parametrize("name", list_bundles())
def test_shipped_models_know_it_and_work_without(name: str, tmp_path: Path) -> None:
    known = load_model(name).distance
    assert known is not None
    assert known.patches > 500
    copy = shutil.copytree(BUNDLES_FOLDER / name, tmp_path / name)
    (copy / DISTANCE_FILE).unlink()
    without = load_model(copy)
    assert without.distance is None
    assert without.hash == load_model(name).hash, "the file is none of the model's own"
