"""A model that is loaded already computes as the options say, and the map says what was computed."""

from pathlib import Path

import pytest

import wsiseg
from tests.helpers.color_model import color_model
from tests.helpers.maps import chunks, painted
from wsiseg.models.runtime.choose import has_openvino
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.run import PredictOptions, loaded_model, predict

OPTIONS = {"mpp": 1, "tissue": "none", "workers": 1}


def made(folder: Path, name: str, model: TissueModel, **options: object) -> tuple[dict[str, bytes], dict[str, object]]:
    """The bytes of a map of a painted slide, and what it says of its parameters."""
    if not (folder / "p.png").exists():
        painted(folder / "p.png")
    predict(folder / "p.png", folder / f"{name}.zarr", model, PredictOptions(**OPTIONS, **options))
    return chunks(folder / f"{name}.zarr"), dict(wsiseg.open_map(folder / f"{name}.zarr").metadata["parameters"])


def test_float32_that_is_stated_is_obeyed_by_a_model_in_bfloat16(tmp_path: Path) -> None:
    model = color_model().prepare("torch", "bfloat16")
    _, said = made(tmp_path, "kept", model)
    assert (said["precision"], said["runtime"], said["exact"]) == ("bfloat16", "torch", False)
    stated, said = made(tmp_path, "stated", model, precision="float32")
    assert (said["precision"], said["runtime"], said["exact"]) == ("float32", "torch", True)
    wanted, said = made(tmp_path, "wanted", color_model().prepare("torch", exact=False))
    assert said["precision"] == "float32"
    assert stated == wanted
    exact, said = made(
        tmp_path, "exact", color_model().prepare("torch", "bfloat16"), runtime="torch", precision="float32"
    )
    assert said["exact"] is True
    assert exact == made(tmp_path, "reference", color_model())[0]


def test_a_model_by_name_computes_in_float32_unless_told() -> None:
    _, resolved = loaded_model("tissue-brca-lite", PredictOptions(runtime="torch"))
    assert (resolved.precision, resolved.runtime) == ("float32", "torch")


@pytest.mark.skipif(not has_openvino(), reason="needs OpenVINO")
@pytest.mark.parametrize("options", [{"gate_rule": "multiply_logits"}, {"faithful": True}])
def test_the_published_rule_is_computed_exactly_by_a_loaded_openvino_model(
    tmp_path: Path, options: dict[str, object]
) -> None:
    model = color_model().prepare("openvino")
    _, said = made(tmp_path, "plain", model)
    assert said["runtime"] == "openvino"
    assert set(said["computed_by"].values()) == {"openvino"}
    found, said = made(tmp_path, "published", model, **options)
    assert (said["runtime"], said["precision"], said["exact"]) == ("torch", "float32", True)
    assert set(said["computed_by"].values()) == {"torch"}
    assert found == made(tmp_path, "wanted", color_model(), **options)[0]
    _, resolved = loaded_model(model, PredictOptions(runtime="openvino", **options))  # who says so gets it
    assert resolved.runtime == model.runtime.name == "openvino"


def test_a_folded_model_is_unfolded_for_the_published_rule() -> None:
    model = color_model().prepare("torch", exact=False)
    loaded_model(model, PredictOptions())
    assert not model.runtime.exact  # as it was prepared
    loaded_model(model, PredictOptions(gate_rule="multiply_logits"))
    assert model.runtime.exact


@pytest.mark.skipif(not has_openvino(), reason="needs OpenVINO")
def test_a_network_that_torch_took_over_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsiseg.models.runtime import batches as batch_networks
    from wsiseg.models.runtime import openvino as openvino_network

    def cannot(*_: object) -> None:
        raise openvino_network.OpenVinoError("it was asked not to")

    monkeypatch.setattr(batch_networks.OpenVinoNetwork, "__call__", cannot)
    _, said = made(tmp_path, "m", color_model().prepare("auto"))
    assert said["computed_by"] == {"classifier": "torch", "segmenter": "torch"}
    assert any("torch did" in note for note in wsiseg.open_map(tmp_path / "m.zarr").metadata["notes"])
