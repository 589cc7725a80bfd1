"""One temperature for all classes: stored, applied to what a map holds, refused where it belongs elsewhere."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.color_model import COLORS, color_model
from wsiseg import PredictOptions, open_map, predict
from wsiseg.errors import BundleError
from wsiseg.models.bundle import load_model
from wsiseg.models.calibration import Calibration, load, networks_of, save
from wsiseg.models.folder import BUNDLES_FOLDER, CALIBRATION_FILE
from wsiseg.models.spec import read_spec

SHIPPED = BUNDLES_FOLDER / "tissue-brca-lite"


@pytest.mark.parametrize("temperature", [0.5, 1.7])
def test_no_order_changes_and_what_is_certain_stays(temperature: float) -> None:
    rng = np.random.default_rng(0)
    values = np.rint(255 * rng.dirichlet([1, 1, 1], 5000)).astype(np.uint8).T
    found = Calibration(temperature, ("", "")).of(values)
    for one in range(3):
        for other in range(3):
            assert (found[one] >= found[other])[values[one] > values[other]].all()
    wanted = (values / 255) ** (1 / temperature)
    assert np.abs(found - 255 * wanted / wanted.sum(axis=0)).max() <= 0.51
    assert (found.max(axis=0).mean() < values.max(axis=0).mean()) == (temperature > 1)
    certain = np.array([[255, 0, 0], [0, 0, 128], [0, 0, 127]], np.uint8)
    kept = Calibration(temperature, ("", "")).of(certain)
    assert kept[:, :2].tolist() == certain[:, :2].tolist()  # of one class alone; and where nothing was read
    assert abs(int(kept[1, 2]) - 128) <= 1


def test_bytes_do_not_depend_on_what_comes_at_once() -> None:
    values = np.random.default_rng(1).integers(0, 256, (4, 33, 21), np.uint8)
    found = Calibration(1.3, ("", "")).of(values)
    for row in range(33):
        assert np.array_equal(Calibration(1.3, ("", "")).of(values[:, row]), found[:, row])


def test_temperature_one_is_nothing() -> None:
    values = np.array([[200, 3], [50, 250], [5, 2]], np.uint8)
    assert Calibration(1.0, ("", "")).of(values).tolist() == values.tolist()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "bundle"))


def test_a_bundle_carries_it_and_its_hash_stays(bundle: Path) -> None:
    spec = read_spec(bundle)
    assert load_model(bundle, runtime="torch").calibration is None
    save(Calibration(1.4, networks_of(spec.networks), {"data": "x"}), bundle)
    model = load_model(bundle, runtime="torch")
    assert model.calibration == Calibration(1.4, networks_of(spec.networks), {"data": "x"})
    assert model.hash == load_model(SHIPPED, runtime="torch").hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0}, "expected a temperature of 0.2 to 5.0, got 0"),
        ({"temperature": True}, "holds no temperature"),
        ({"temperature": "1"}, "holds no temperature"),
        ({"temperature": float("nan")}, "holds no temperature"),
        ({"fitted": []}, "holds no temperature"),
        ({"format": 2}, "was made by a newer wsiseg"),
        ({"classifier_sha256": "0" * 64}, "belongs to other weights"),
        (None, "is not JSON"),
    ],
)
def test_another_file_is_one_line(bundle: Path, change: dict[str, object] | None, message: str) -> None:
    networks = read_spec(bundle).networks
    path = save(Calibration(1.4, networks_of(networks)), bundle)
    path.write_text("{" if change is None else json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BundleError, match=message) as caught:
        load(bundle, networks)
    assert "\n" not in str(caught.value)
    assert CALIBRATION_FILE in str(caught.value)


def test_a_map_keeps_its_classes_and_has_calibrated_probabilities(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(3)
    noisy = np.array([COLORS[k] for k in (1, 2, 3)])[rng.integers(0, 3, (150, 200))]
    pixels = (0.5 * noisy + 0.5 * rng.integers(0, 255, noisy.shape)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "slide.png")
    options = PredictOptions(mpp=1.0, tissue="none", white=False, device="cpu", runtime="torch")
    model = color_model(gate=0.1)
    maps = {}
    for name, calibration, changed in (
        ("plain", None, options),
        ("calibrated", Calibration(1.6, ("", "")), options),
        ("no gate", Calibration(1.6, ("", "")), replace(options, gate=False)),
    ):
        model.calibration = calibration
        predict(tmp_path / "slide.png", tmp_path / f"{name}.zarr", model, options=changed)
        maps[name] = open_map(tmp_path / f"{name}.zarr")
    plain, found = maps["plain"], maps["calibrated"]
    assert np.array_equal(plain.class_map().compute(), found.class_map().compute())
    before, after = (one.probabilities().compute() for one in (plain, found))
    assert before.dtype == np.uint8
    assert not np.array_equal(before, after)
    assert np.array_equal(Calibration(1.6, ("", "")).of(before), after)
    assert found.metadata["parameters"]["temperature"] == 1.6
    assert "temperature" not in plain.metadata["parameters"]
    assert "temperature" not in maps["no gate"].metadata["parameters"]
