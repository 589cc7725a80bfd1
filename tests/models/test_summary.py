"""What commands tell of a model is what its checked specification says."""

import json
import shutil

import pytest

from wsiseg.errors import BundleError
from wsiseg.models.folder import SPEC_FILE, find_bundle, list_bundles
from wsiseg.models.spec import read_spec
from wsiseg.models.summary import read_summary


def agree(name, spec):
    found = read_summary(name)
    assert (found.name, found.classes, found.mpp) == (spec.name, spec.classes.names, spec.mpp)
    assert (found.patch_size_px, found.tiling) == (spec.patch_size_px, spec.tiling())
    assert (found.licence, found.training_data) == (spec.licence, spec.training_data)


@pytest.mark.parametrize("name", list_bundles())
def test_shipped_models(name):
    agree(name, read_spec(name))


def shipped_as(monkeypatch, tmp_path, **changes):
    shutil.copytree(find_bundle("tissue-brca-lite"), tmp_path / "other")
    path = tmp_path / "other" / SPEC_FILE
    fields = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))
    monkeypatch.setattr("wsiseg.models.folder.BUNDLES_FOLDER", tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"gate_mode": "shared", "gate_context": 0},
        {"gate_mode": "windows", "tile_px": 240, "tile_margin_px": 3},
        {"overlap": None, "tile_px": None, "tile_margin_px": None},
    ],
)
def test_tiles_and_what_may_be_left_out(monkeypatch, tmp_path, changes):
    shipped_as(monkeypatch, tmp_path, **changes)
    assert list_bundles() == ["other"]
    agree("other", read_spec("other"))
    agree(tmp_path / "other", read_spec("other"))  # of a folder


@pytest.mark.parametrize("changes", [{"classes": None}, {"classes": 3}, {"patch_size_px": "96"}])
def test_an_altered_model_is_told_as_its_specification_tells_it(monkeypatch, tmp_path, changes):
    shipped_as(monkeypatch, tmp_path, **changes)
    with pytest.raises(BundleError) as expected:
        read_spec("other")
    with pytest.raises(BundleError) as found:
        read_summary("other")
    assert str(found.value) == str(expected.value)
