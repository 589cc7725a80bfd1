"""OpenVINO's compiled networks are kept for the next process: equal values, and no stale ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.bundles import coarse_bundle
from wsiseg import load_model
from wsiseg.models.runtime.kept_networks import MOST_BYTES
from wsiseg.models.tissue_model import TissueModel

pytest.importorskip("openvino")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "wsiseg" / "openvino"


@pytest.fixture(scope="module")
def patches() -> torch.Tensor:
    return torch.randint(0, 256, (5, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an encoder that compiles quickly."""
    return coarse_bundle(tmp_path_factory.mktemp("bundle") / "model")


def loaded(bundle: Path) -> TissueModel:
    return load_model(bundle, runtime="openvino")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_kept_network_gives_the_same_bytes(kept: Path, bundle: Path, patches: torch.Tensor) -> None:
    first = loaded(bundle)
    wanted, probabilities = first.segment(patches), first.classify(patches)
    stored = names(kept)
    assert len(stored) == 2
    assert sum(path.stat().st_size for path in kept.iterdir()) < MOST_BYTES // 10
    second = loaded(bundle)
    assert torch.equal(second.segment(patches), wanted)
    assert torch.equal(second.classify(patches), probabilities)
    assert names(kept) == stored
    assert second.computed_by == {"segmenter": "openvino", "classifier": "openvino"}
    assert "_network" not in vars(second._network("segment")._network), "it was not folded, so it was not converted"

    # Other weights under the same hash of the bundle are another network.
    with torch.no_grad():
        first.segmenter.network.segmentation_head[0].bias.add_(1.0)
    changed = first.prepare("openvino", "float32").use(first.runtime)
    changed._use(first.runtime)
    torch.testing.assert_close(changed.segment(patches), wanted + 1.0, rtol=1e-4, atol=1e-4)
    assert len(names(kept)) == 3


def test_a_damaged_file_is_made_anew(kept: Path, bundle: Path, patches: torch.Tensor) -> None:
    wanted = loaded(bundle).classify(patches)
    (file,) = kept.iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    assert torch.equal(loaded(bundle).classify(patches), wanted)
    assert file.stat().st_size > 1000


def test_without_a_folder_to_keep_them_everything_works(
    tmp_path: Path, bundle: Path, patches: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert loaded(bundle).classify(patches).shape == (5, 3)
