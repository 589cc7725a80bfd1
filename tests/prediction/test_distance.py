"""A map says how far its places are from the model's training data, from the one pass, and is else the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.bundles import coarse_bundle
from tests.helpers.color_model import color_model
from tests.helpers.evaluation_data import painted
from tests.helpers.maps import chunks
from wsiseg.models.bundle import load_model
from wsiseg.models.distance import TrainingDistance, save
from wsiseg.models.spec import read_spec
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.run import PredictOptions, predict
from wsiseg.tissue_map.reader import open_map

WIDE = 4400


def red_alone(network_sha256: str = "0" * 64) -> TrainingDistance:
    """As if the model had been trained on red patches: its three features are 1, 0, 0."""
    mean = np.array([1, 0, 0], np.float32)
    variance = np.full(3, 0.25, np.float32)
    return TrainingDistance(mean, np.eye(3, 2, dtype=np.float32), variance, 1.0, network_sha256, 100, 10)


def knowing() -> TissueModel:
    model = color_model(overlap=0.5)
    model.distance = red_alone()
    return model


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quarter blue, the rest red, and wide enough for several pieces."""
    channels = np.zeros((192, WIDE), np.uint8)
    channels[:, WIDE * 3 // 4 :] = 2
    path = tmp_path_factory.mktemp("picture") / "p.png"
    Image.fromarray(painted(channels)).save(path)
    return path


def options(**further: object) -> PredictOptions:
    return PredictOptions(mpp=1.0, tissue="none", max_memory=2**30, device="cpu", batch_size=8, **further)


@pytest.mark.parametrize("context", [0.0, 1.0])
def test_what_the_model_never_saw_is_far(picture: Path, tmp_path: Path, context: float) -> None:
    found = predict(picture, tmp_path / "m.zarr", knowing(), options(gate_context=context))
    assert found.far is not None
    assert found.far.known == 1
    assert found.far.share == pytest.approx(0.25, abs=0.01)
    assert any("25% of the tissue looks unlike" in note for note in found.notes)
    assert found.to_json()["far"] == found.far.to_json()
    tissue = open_map(tmp_path / "m.zarr")
    stored = tissue.distances()
    assert stored is not None
    grid, values = stored
    assert values.shape == (grid.rows, grid.columns) == (5, 137)
    assert (grid.patch_px, grid.stride_px) == (64, 32)
    assert set(values[:, :100].ravel()) == {1}
    # From red to blue, two features move by 1, of deviations of 0.5: the root of 2 * 4.
    assert set(values[:, 104:-1].ravel()) == {255}
    assert tissue.metadata["distance"]["fitted"] == red_alone().sha256
    plain = predict(picture, tmp_path / "plain.zarr", color_model(overlap=0.5), options(gate_context=context))
    assert plain.far is None
    assert open_map(tmp_path / "plain.zarr").distances() is None
    kept = {name: content for name, content in chunks(tmp_path / "m.zarr").items() if "distance" not in name}
    assert kept == chunks(tmp_path / "plain.zarr"), "nothing else of the map is another"


def test_without_a_gate_nobody_asks(picture: Path, tmp_path: Path) -> None:
    found = predict(picture, tmp_path / "m.zarr", knowing(), options(gate=False))
    assert found.far is None
    assert "far" in found.to_json()


class StopError(Exception):
    pass


def died(picture: Path, out: Path) -> None:
    """A run that ended after four fifths of its patches."""

    def die(phase: str, done: int, total: int) -> None:
        if phase == "tiles" and done > 0.8 * total:
            raise StopError

    with pytest.raises(StopError):
        predict(picture, out, knowing(), options(), progress=die)


def test_a_run_that_died_goes_on_to_the_same_bytes(picture: Path, tmp_path: Path) -> None:
    whole = predict(picture, tmp_path / "whole.zarr", knowing(), options())
    died(picture, tmp_path / "m.zarr")
    scratch = next(tmp_path.rglob("distances.u8"))
    assert np.fromfile(scratch, np.uint8).any()
    again = predict(picture, tmp_path / "m.zarr", knowing(), options())
    assert again.resumed > 0.2
    assert again.far == whole.far
    assert chunks(tmp_path / "m.zarr") == chunks(tmp_path / "whole.zarr")


def test_distances_that_were_lost_are_computed_again(picture: Path, tmp_path: Path) -> None:
    whole = predict(picture, tmp_path / "whole.zarr", knowing(), options())
    died(picture, tmp_path / "m.zarr")
    next(tmp_path.rglob("distances.u8")).unlink()
    again = predict(picture, tmp_path / "m.zarr", knowing(), options())
    assert again.far == whole.far
    assert chunks(tmp_path / "m.zarr") == chunks(tmp_path / "whole.zarr")


def test_two_processes_measure_what_one_does(picture: Path, tmp_path: Path) -> None:
    folder = coarse_bundle(tmp_path / "model", mpp=1.0)
    channels = load_model(folder).classify_with_features(torch.zeros(1, 3, 96, 96, dtype=torch.uint8))[1].shape[1]
    known = TrainingDistance(
        np.zeros(channels, np.float32), np.eye(channels, 2, dtype=np.float32), np.ones(3, np.float32), 1.0,
        read_spec(folder).networks.classifier.sha256, 100, 10,
    )  # fmt: skip
    save(known, folder)
    ways = {"overlap": 0.0, "runtime": "torch"}
    one = predict(picture, tmp_path / "1.zarr", folder, options(**ways))
    asked = PredictOptions(mpp=1.0, tissue="none", max_memory=2**30, device="cpu,cpu", batch_size=8, **ways)
    two = predict(picture, tmp_path / "2.zarr", folder, asked)
    assert one.far == two.far
    assert chunks(tmp_path / "1.zarr") == chunks(tmp_path / "2.zarr")
