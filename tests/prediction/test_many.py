"""Many slides: a map each, one that fails keeps no other, and the same call goes on."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.helpers.color_model import color_model
from tests.helpers.damage import damaged_copy, zeros
from tests.helpers.maps import chunks, painted
from wsiseg.errors import OptionError
from wsiseg.export.polygons import VectorOptions, export_geojson
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.batch import BatchSummary, SlideResult
from wsiseg.prediction.many import predict_many
from wsiseg.prediction.run import PredictOptions, predict
from wsiseg.tissue_map.reader import TissueMap, open_map

OPTIONS = PredictOptions(mpp=1, tissue="none")


def batch(slides: list[Path], folder: Path, options: PredictOptions = OPTIONS, **more: Any) -> dict[str, SlideResult]:
    """Results by the slide's name."""
    model = more.pop("model", None) or color_model()
    return {Path(found.slide).name: found for found in predict_many(slides, folder, model, options, **more)}


def test_each_slide_gets_the_map_that_it_gets_alone(tmp_path: Path) -> None:
    slides = [tmp_path / f"{name}.png" for name in "abc"]
    for index, slide in enumerate(slides):
        painted(slide, (200 + 10 * index, 300))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    given = [slides[0], tmp_path / "broken.png", *slides[1:]]
    found = list(predict_many(given, tmp_path / "maps", color_model(), OPTIONS))
    assert [Path(result.slide).name for result in found] == ["a.png", "broken.png", "b.png", "c.png"]
    assert [result.error is None for result in found] == [True, False, True, True]
    assert "broken.png" in (found[1].error or "")
    for slide in slides:
        predict(slide, tmp_path / "alone.zarr", color_model(), OPTIONS, overwrite=True)
        assert chunks(tmp_path / "maps" / f"{slide.stem}.zarr") == chunks(tmp_path / "alone.zarr") != {}
        assert (tmp_path / "maps" / f"{slide.stem}.geojson").exists()
    assert sorted(entry.name for entry in (tmp_path / "maps").iterdir()) == [
        *("a.geojson", "a.zarr", "b.geojson", "b.zarr", "c.geojson", "c.zarr")
    ]
    (tmp_path / "broken.png").unlink()
    painted(tmp_path / "broken.png")
    again = batch([*slides, tmp_path / "broken.png"], tmp_path / "maps")
    assert {name: result.status for name, result in again.items()} == {
        **dict.fromkeys(("a.png", "b.png", "c.png"), "kept"),
        "broken.png": "done",
    }
    assert np.unique(open_map(tmp_path / "maps" / "broken.zarr").class_map().compute()).tolist() == [1, 2, 3]


def test_missing_polygons_are_drawn_from_the_map_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painted(tmp_path / "a.png")
    batch([tmp_path / "a.png"], tmp_path / "maps")
    polygons = tmp_path / "maps" / "a.geojson"
    before = polygons.read_bytes()
    polygons.unlink()
    monkeypatch.setattr("wsiseg.prediction.many.loaded_model", None)  # no network is needed for that
    found = batch([tmp_path / "a.png"], tmp_path / "maps")["a.png"]
    assert found.status == "kept"
    assert found.kept is not None
    assert found.kept.drawn is not None
    assert found.kept.drawn.annotations > 0
    assert polygons.read_bytes() == before
    again = batch([tmp_path / "a.png"], tmp_path / "maps", vectors=VectorOptions(min_area_um2=5))["a.png"]
    assert "stay as they are" in again.notes[0]
    assert polygons.read_bytes() == before


@pytest.mark.parametrize("with_polygons", [False, True])
def test_a_batch_that_was_interrupted_while_polygons_were_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_polygons: bool
) -> None:
    """Before they were written, or when they were and the run did not get to note it: the next batch has them whole."""
    slides = [tmp_path / f"{name}.png" for name in "abc"]
    for index, slide in enumerate(slides):
        painted(slide, (200 + 10 * index, 300))
    batch(slides, tmp_path / "undisturbed")

    def draws(out: TissueMap, path: Path, *more: Any, **options: Any) -> Any:
        if path.name != "b.geojson":
            return export_geojson(out, path, *more, **options)
        if with_polygons:
            export_geojson(out, path, *more, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("wsiseg.export.polygons.export_geojson", draws)
        batch(slides, tmp_path / "maps")
    assert (tmp_path / "maps" / "a.geojson").exists()
    assert not (tmp_path / "maps" / "c.zarr").exists()
    assert (tmp_path / "maps" / "b.geojson").exists() is with_polygons

    found = batch(slides, tmp_path / "maps")
    assert all(result.error is None for result in found.values())
    assert (found["a.png"].status, found["c.png"].status) == ("kept", "done")
    for name in "abc":
        polygons = tmp_path / "maps" / f"{name}.geojson"
        assert polygons.read_bytes() == (tmp_path / "undisturbed" / polygons.name).read_bytes()
        assert chunks(polygons.with_suffix(".zarr")) == chunks(tmp_path / "undisturbed" / f"{name}.zarr")
    assert not list((tmp_path / "maps").glob(".*"))


def other_model(hash_: str) -> TissueModel:
    model = color_model()
    model.hash = hash_
    return model


@pytest.mark.parametrize(
    ("options", "more", "named"),
    [
        (replace(OPTIONS, overlap=0.5), {}, "with overlap 0.25, this run has 0.5"),
        (replace(OPTIONS, gate=False), {}, "with gate true, this run has false"),
        (replace(OPTIONS, gate_threshold=0.9), {}, "with gate threshold null, this run has 0.9"),
        (replace(OPTIONS, gate_rule="multiply_logits"), {}, "with gate rule exclude, this run has multiply_logits"),
        (replace(OPTIONS, probabilities=False), {}, "with probabilities full, this run has none"),
        (replace(OPTIONS, tissue="otsu"), {}, "with tissue none, this run has otsu"),
        (replace(OPTIONS, precision="bfloat16"), {}, "with precision float32, this run has bfloat16"),
        (replace(OPTIONS, mpp=1.01), {}, "with the slide's mpp"),
        (OPTIONS, {"model": "e"}, "by another model"),
    ],
)
def test_a_map_of_other_options_or_another_model_is_not_taken_for_done(
    tmp_path: Path, options: PredictOptions, more: dict[str, Any], named: str
) -> None:
    painted(tmp_path / "a.png", (60, 60))
    painted(tmp_path / "new.png", (60, 60))
    batch([tmp_path / "a.png"], tmp_path / "maps", polygons=False)
    before = chunks(tmp_path / "maps" / "a.zarr")
    model = other_model(64 * more["model"]) if more else None
    found = batch([tmp_path / "a.png", tmp_path / "new.png"], tmp_path / "maps", options, polygons=False, model=model)
    assert found["a.png"].status == "failed"
    assert named in (found["a.png"].error or "")
    assert "--overwrite" in (found["a.png"].error or "")
    assert found["new.png"].status == "done"  # the batch goes on
    assert chunks(tmp_path / "maps" / "a.zarr") == before
    found = batch([tmp_path / "a.png"], tmp_path / "maps", options, polygons=False, model=model, overwrite=True)
    assert found["a.png"].status == "done"
    assert batch([tmp_path / "a.png"], tmp_path / "maps", options, polygons=False, model=model)["a.png"].kept


def test_a_map_of_another_image_of_the_file_is_not_taken_for_done(tmp_path: Path) -> None:
    pixels = np.full((96, 96, 3), (200, 120, 180), np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        for side, name in ((96, "first"), (64, "second")):
            about = {"axes": "YXS", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0, "Name": name}
            file.write(pixels[:side, :side], tile=(32, 32), photometric="rgb", metadata=about)
    second = replace(OPTIONS, mpp=None, series="1")
    for status in ("done", "kept"):
        found = batch([tmp_path / "a.ome.tif"], tmp_path / "maps", second)["a.ome.tif"]
        assert found.status == status, found.error
    assert open_map(tmp_path / "maps" / "a.zarr").metadata["slide"]["width"] == 64
    for other in (None, "0"):
        assert batch([tmp_path / "a.ome.tif"], tmp_path / "maps", replace(second, series=other))["a.ome.tif"].error


def test_what_changes_no_map_is_taken_for_done(tmp_path: Path) -> None:
    painted(tmp_path / "a.png", (60, 60))
    batch([tmp_path / "a.png"], tmp_path / "maps")
    for options in (
        replace(OPTIONS, workers=1, batch_size=3, max_memory=2 * 2**30, read_timeout_s=20),
        replace(OPTIONS, overlap=0.25, gate_rule="exclude"),  # what the model says anyway
        replace(OPTIONS, precision="auto"),
        replace(OPTIONS, precision="float32"),
    ):
        assert batch([tmp_path / "a.png"], tmp_path / "maps", options)["a.png"].status == "kept"


def test_an_altered_slide_and_one_that_is_gone_are_not_taken_for_done(tmp_path: Path, sample_data: Path) -> None:
    whole = sample_data / "CMU-1-Small-Region.svs"
    slide, gone = tmp_path / "a.svs", tmp_path / "b.png"
    damaged_copy(whole, slide, range(40, 60), zeros)  # a part never arrived
    painted(gone, (60, 60))
    options = PredictOptions(mpp=2)
    model = color_model(mpp=8)
    assert batch([slide, gone], tmp_path / "maps", options, model=model)["a.svs"].status == "done"
    shutil.copy(whole, slide)
    gone.unlink()
    found = batch([slide, gone], tmp_path / "maps", options, model=model)
    assert "another slide, or from this one before its file was altered" in (found["a.svs"].error or "")
    assert "does not exist" in (found["b.png"].error or "")


def test_a_map_of_other_versions_is_kept_and_they_are_named(tmp_path: Path) -> None:
    painted(tmp_path / "a.png", (60, 60))
    batch([tmp_path / "a.png"], tmp_path / "maps")
    file = tmp_path / "maps" / "a.zarr" / "zarr.json"
    node = json.loads(file.read_text())
    node["attributes"]["wsiseg"]["software"]["pillow"] = "1.2.3"
    file.write_text(json.dumps(node))
    found = batch([tmp_path / "a.png"], tmp_path / "maps")["a.png"]
    assert found.status == "kept"
    assert any("pillow 1.2.3 (now " in note for note in found.notes)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def gone(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def somebodys(path: Path) -> None:
    (path.parent / "maps" / "b.zarr").mkdir(parents=True)


def damaged_map(path: Path) -> None:
    (path.parent / "maps" / "b.zarr").mkdir(parents=True)
    (path.parent / "maps" / "b.zarr" / "zarr.json").write_text('{"attributes": {"wsiseg": {"format": 1}}}')


def foreign_polygons(path: Path) -> None:
    (path.parent / "maps").mkdir()
    (path.parent / "maps" / "b.geojson").write_text("mine")


def unfinished_of_others(path: Path) -> None:
    run = path.parent / "maps" / ".b.zarr.unfinished"
    run.mkdir(parents=True)
    (run / "journal.jsonl").symlink_to("/dev/null")


@pytest.mark.parametrize(
    "fault", [cut, gone, folder, somebodys, damaged_map, foreign_polygons, unfinished_of_others, "network", "defect"]
)
def test_a_batch_goes_on_after_each_kind_of_failure(
    tmp_path: Path, fault: Callable[[Path], None] | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slides = [tmp_path / f"{name}.png" for name in "abc"]
    for slide in slides:
        painted(slide, (60, 60))
    if isinstance(fault, str):
        from wsiseg.errors import NonFiniteError
        from wsiseg.prediction import many

        predicted = many.predict_opened

        def fail(job: Any, *rest: Any, **options: Any) -> Any:
            if job.slide.name == "b.png":
                raise (
                    NonFiniteError("no finite numbers") if fault == "network" else ZeroDivisionError("division by zero")
                )
            return predicted(job, *rest, **options)

        monkeypatch.setattr(many, "predict_opened", fail)
    else:
        fault(slides[1])
    found = batch(slides, tmp_path / "maps")
    assert [found[f"{name}.png"].status for name in "abc"] == ["done", "failed", "done"]
    error = found["b.png"].error or ""
    assert error
    assert "\n" not in error
    assert (found["b.png"].defect is not None) == (fault == "defect")
    assert ("defect of this program" in error) == (fault == "defect")
    for name in "ac":
        assert open_map(tmp_path / "maps" / f"{name}.zarr").metadata["slide"]["name"] == f"{name}.png"
    assert not list((tmp_path / "maps").glob(".*.lock"))


def test_folders_are_kept_and_none_that_is_empty_stays(tmp_path: Path) -> None:
    for folder_ in ("x", "y", "z"):
        (tmp_path / folder_).mkdir()
        painted(tmp_path / folder_ / "a.png", (60, 60))
    cut(tmp_path / "z" / "a.png")
    slides = sorted(tmp_path.glob("*/a.png"))
    with pytest.raises(OptionError, match="--keep-folders"):
        list(predict_many(slides, tmp_path / "maps", color_model(), OPTIONS))
    assert not (tmp_path / "maps").exists()
    found = list(predict_many(slides, tmp_path / "maps", color_model(), OPTIONS, keep_folders=True))
    assert [result.status for result in found] == ["done", "done", "failed"]
    made = sorted(path.relative_to(tmp_path / "maps").as_posix() for path in (tmp_path / "maps").glob("*/*"))
    assert made == ["x/a.geojson", "x/a.zarr", "y/a.geojson", "y/a.zarr"]
    assert not (tmp_path / "maps" / "z").exists()
    failed = list(predict_many([slides[2]], tmp_path / "none" / "deep", color_model(), OPTIONS))
    assert failed[0].status == "failed"
    assert not (tmp_path / "none").exists()


def test_the_summary_lists_each_kind(tmp_path: Path, sample_data: Path) -> None:
    from PIL import Image

    pixels = np.full((300, 300, 3), 255, np.uint8)
    pixels[60:240, 80:220] = (190, 60, 120)
    Image.fromarray(pixels).save(tmp_path / "good.png")
    Image.fromarray(np.full((300, 300, 3), 255, np.uint8)).save(tmp_path / "white.png")
    damaged_copy(sample_data / "CMU-1-Small-Region.svs", tmp_path / "holes.svs", range(40, 60), zeros)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (tmp_path / "notes.txt").write_text("mine")
    given = sorted(tmp_path.iterdir())
    options = PredictOptions(mpp=2, tissue="otsu")
    for status in ("done", "kept"):
        results = list(predict_many(given, tmp_path / "maps", color_model(mpp=8), options, polygons=False))
        summary = BatchSummary.from_results(results)
        facts = summary.to_json()
        listed = {
            kind: [Path(one if isinstance(one, str) else one["slide"]).name for one in facts[kind]]
            for kind in facts["counts"]
        }
        other = "kept" if status == "done" else "done"
        assert listed == {
            status: ["good.png", "holes.svs", "white.png"], other: [], "without_tissue": ["white.png"],
            "with_damage": ["holes.svs"], "failed": ["bad.png"], "skipped": ["notes.txt"],
        }  # fmt: skip
        assert facts["slides"] == 4
        assert facts["counts"] == {kind: len(found) for kind, found in listed.items()}
        shown = "\n".join(summary.lines())
        assert "1 failed; 1 without tissue, 1 with damage; 1 names skipped" in shown
        for name in ("white.png", "holes.svs: ", "bad.png: ", "notes.txt: "):
            assert f"  {tmp_path / name}" in shown
        by_name = {Path(result.slide).name: result for result in results}
        assert any("damaged" in note for note in by_name["holes.svs"].notes)
        if status == "done":
            assert any("no tissue was found" in note for note in by_name["white.png"].notes)
            assert any("do not go together" in note for note in by_name["holes.svs"].notes)
    shutil.rmtree(tmp_path / "maps")


def test_it_is_seen_whether_a_file_system_tells_cases_apart(tmp_path: Path) -> None:
    from wsiseg.system.files import folds_case

    (tmp_path / "a").touch()
    assert folds_case(tmp_path / "not" / "there") == (tmp_path / "A").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
