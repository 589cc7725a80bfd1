"""`wsiseg info`: what it shows of real slides."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tifffile
from click.testing import CliRunner

from wsiseg.cli.info import info
from wsiseg.cli.main import main
from wsiseg.errors import BundleError
from wsiseg.geometry import ceil_div

CMU = "CMU-1-Small-Region.svs"


def shown(*arguments):
    result = CliRunner().invoke(info, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_as_json(sample_data):
    facts = json.loads(shown(sample_data / CMU, "--json"))
    assert facts["vendor"] == "aperio"
    assert facts["reader"] == "OpenSlide"
    assert (facts["size"], facts["mpp"], facts["mpp_source"]) == ([2220, 2967], [0.499, 0.499], "openslide.mpp-x")
    assert (facts["objective"], facts["bounds"]) == (20, None)
    assert facts["levels"] == [{"size": [2220, 2967], "downsample": 1, "mpp": [0.499, 0.499]}]
    assert facts["associated"] == {"label": [387, 463], "macro": [1280, 431], "thumbnail": [574, 768]}
    assert facts["tissue_mm2"] == pytest.approx(0.68, abs=0.03)
    assert facts["tissue_share"] == pytest.approx(facts["tissue_mm2"] / (2220 * 2967 * 0.499**2 / 1e6))
    assert facts["damaged_tiles_met"] == 0


def test_for_people(sample_data):
    output = shown(sample_data / "OS-1-detail.ome.tif")
    for words in (
        "ome, read by tifffile",
        "1101 x 1101 px",
        "0.2271 (OME-XML)",
        "not recorded",
        "mm2, 100.0 %",
    ):
        assert words in output


def test_a_missing_mpp_is_shown(shared):
    slide = shared / "data/slides/tcga-cr-7395-01a-01-ts1.svs"
    facts = json.loads(shown(slide, "--json"))
    assert (facts["mpp"], facts["mpp_source"], facts["levels"][1]["mpp"]) == (None, None, None)
    assert "--mpp" in facts["notes"][-1]
    assert "tissue_mm2" not in facts
    assert "not recorded" in shown(slide)
    stated = json.loads(shown(slide, "--json", "--mpp", "0.5"))
    assert (stated["mpp"], stated["mpp_source"], stated["levels"][1]["mpp"]) == ([0.5, 0.5], "stated", [1, 1])
    assert "note" not in stated


def test_what_predict_would_do(sample_data):
    from wsiseg.models.folder import list_bundles
    from wsiseg.models.spec import read_spec

    if not list_bundles():
        pytest.skip("no model ships yet")
    spec = read_spec(list_bundles()[0])
    plan = json.loads(shown(sample_data / CMU, "--json", "--model", spec.name))["predict"]
    assert (plan["model"], plan["level"], plan["patch_size_px"]) == (spec.name, 0, spec.tiling().side_px)
    assert plan["map_mpp"][0] == pytest.approx(spec.mpp, rel=0.05)
    assert plan["map_size"][0] == pytest.approx(2220 * 0.499 / plan["map_mpp"][0], abs=1)
    tiling = spec.tiling()
    stride = tiling.side_px - tiling.overlap_px
    columns, rows = (1 + max(0, ceil_div(side - tiling.side_px, stride)) for side in plan["map_size"])
    assert plan["patches_read"] + plan["patches_skipped"] == columns * rows
    assert 0 < plan["patches_read"] < columns * rows
    assert "patches" in shown(sample_data / CMU, "--model", spec.name)


def test_no_such_model(sample_data):
    with pytest.raises(BundleError):
        shown(sample_data / CMU, "--model", "no-such-model")


def test_it_needs_no_torch(sample_data):
    code = (
        "import sys; from wsiseg.cli.main import cli; "
        f"cli(['info', {str(sample_data / CMU)!r}, '--json'], standalone_mode=False); "
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"


def test_an_objective_that_does_not_fit_the_resolution_is_noted(
    sample_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """20x and 0.499 um fit; 20x and 0.1 um, or 2 um, do not."""
    slide = str(sample_data / "CMU-1-Small-Region.svs")
    for mpp, fits in ((None, True), ("0.25", True), ("1.2", True), ("0.1", False), ("2", False)):
        with pytest.raises(SystemExit) as stop:
            main(["info", slide, "--json", *(["--mpp", mpp] if mpp else [])])
        assert not stop.value.code
        notes = json.loads(capsys.readouterr().out)["notes"]
        assert any("objective of 20x do not go together, about 0.5 is usual" in note for note in notes) is not fits
    with pytest.raises(SystemExit):
        main(["info", slide, "--mpp", "2"])
    assert "do not go together" in " ".join(capsys.readouterr().out.split())


def test_a_file_of_several_images(tmp_path, sample_data):
    """What each is, what is no level and why, and another of them by --series."""
    pixels = tifffile.imread(sample_data / CMU)[900:1200, 700:1100]
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for name, um, part in (("overview", 8.0, pixels[::2, ::2]), ("scan", 0.5, pixels)):
            metadata = {"axes": "YXS", "Name": name, "PhysicalSizeX": um, "PhysicalSizeY": um}
            writer.write(part, tile=(128, 128), photometric="rgb", metadata=metadata)
    facts = json.loads(shown(tmp_path / "a.ome.tif", "--json"))
    assert [image["role"] for image in facts["images"]] == ["overview", "slide"]
    assert (facts["size"], facts["mpp"], facts["left_out"]) == ([400, 300], [0.5, 0.5], [])
    assert "0: overview, 200 x 150 px, 8 um/px" in shown(tmp_path / "a.ome.tif")
    other = json.loads(shown(tmp_path / "a.ome.tif", "--series", "overview", "--json"))
    assert (other["size"], other["mpp"]) == ([200, 150], [8, 8])
