"""A model that is loaded already computes as the options say, and the map says what was computed."""

from pathlib import Path

import pytest
from PIL import Image

import wsiseg
from tests.test_prediction import chunks
from wsiseg.geometry import Box
from wsiseg.models.bundle import load_model
from wsiseg.models.runtimes import has_openvino
from wsiseg.prediction import PredictOptions, loaded_model, predict

MODEL = "tissue-brca-lite"
OPTIONS = {"mpp": 0.5, "tissue": "none", "workers": 1, "overlap": 0}


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> Path:
    """A piece of the sample slide with epidermis and dermis."""
    path = tmp_path_factory.mktemp("slide") / "piece.png"
    with wsiseg.open_slide(sample_data / "CMU-1-Small-Region.svs") as opened:
        pixels = opened.read_level(0, Box(900, 900, 130, 100)).pixels
    Image.fromarray(pixels).save(path)
    return path


def made(slide: Path, out: Path, model: object, **options: object) -> tuple[dict[str, bytes], dict[str, object]]:
    """The bytes of a map, and what it says of its parameters."""
    predict(slide, out, model, PredictOptions(**OPTIONS, **options))
    return chunks(out), dict(wsiseg.open_map(out).metadata["parameters"])


def test_float32_that_is_stated_is_obeyed_by_a_model_in_bfloat16(slide: Path, tmp_path: Path) -> None:
    model = load_model(MODEL, runtime="torch", precision="bfloat16")
    kept, said = made(slide, tmp_path / "kept.zarr", model)
    assert (said["precision"], said["runtime"], said["exact"]) == ("bfloat16", "torch", False)
    stated, said = made(slide, tmp_path / "stated.zarr", model, precision="float32", runtime="torch")
    assert (said["precision"], said["runtime"], said["exact"]) == ("float32", "torch", True)
    wanted, _ = made(slide, tmp_path / "wanted.zarr", MODEL, precision="float32", runtime="torch")
    assert stated == wanted != kept
    default, said = made(slide, tmp_path / "default.zarr", MODEL, runtime="torch")
    assert default == wanted
    assert said["precision"] == "float32"


def test_float32_alone_keeps_the_runtime_of_the_model() -> None:
    model = load_model(MODEL, runtime="torch", precision="bfloat16")
    _, resolved = loaded_model(model, PredictOptions(precision="float32"))
    assert (
        (model.runtime.name, model.runtime.precision)
        == ("torch", "float32")
        == (
            resolved.runtime,
            resolved.precision,
        )
    )


@pytest.mark.skipif(not has_openvino(), reason="needs OpenVINO")
@pytest.mark.parametrize("options", [{"gate_rule": "multiply_logits"}, {"faithful": True}])
def test_the_published_rule_is_computed_exactly_by_a_loaded_openvino_model(
    slide: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    model = load_model(MODEL, runtime="openvino")
    assert model.runtime.name == "openvino"
    _, resolved = loaded_model(model, PredictOptions())
    assert resolved.runtime == "openvino"
    found, said = made(slide, tmp_path / "published.zarr", model, **options)
    assert (said["runtime"], said["precision"], said["exact"]) == ("torch", "float32", True)
    assert set(said["computed_by"].values()) == {"torch"}
    wanted, _ = made(slide, tmp_path / "wanted.zarr", MODEL, **options)
    assert found == wanted
    _, resolved = loaded_model(model, PredictOptions(runtime="openvino", **options))  # who says so gets it
    assert resolved.runtime == model.runtime.name == "openvino"


def test_a_folded_model_is_unfolded_for_the_published_rule() -> None:
    model = load_model(MODEL, runtime="torch").prepare("torch", exact=False)
    assert not model.runtime.exact
    loaded_model(model, PredictOptions())
    assert not model.runtime.exact  # as it was prepared
    loaded_model(model, PredictOptions(gate_rule="multiply_logits"))
    assert model.runtime.exact


@pytest.mark.skipif(not has_openvino(), reason="needs OpenVINO")
def test_a_network_that_torch_took_over_is_recorded(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsiseg.models import batch_networks, openvino_network

    def cannot(*_: object) -> None:
        raise openvino_network.OpenVinoError("it was asked not to")

    monkeypatch.setattr(batch_networks.OpenVinoNetwork, "__call__", cannot)
    predict(slide, tmp_path / "m.zarr", MODEL, PredictOptions(**OPTIONS))
    said = wsiseg.open_map(tmp_path / "m.zarr").metadata
    assert said["parameters"]["computed_by"] == {"classifier": "torch", "segmenter": "torch"}
    assert any("torch did" in note for note in said["notes"])
