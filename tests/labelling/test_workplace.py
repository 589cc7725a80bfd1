"""From slides to a data set that trainings take, with pixels that are the slide's own."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsiseg.classes import ClassTable
from wsiseg.datasets.dataset import read_dataset
from wsiseg.datasets.provenance import CORRECTED, Provenance
from wsiseg.datasets.write import DatasetWriter, PatchRow
from wsiseg.errors import OptionError, OutputError
from wsiseg.geometry import Box
from wsiseg.labelling.workplace import Wishes, patient_of, regions_of, workplace
from wsiseg.slides import open_slide

CLASSES = ClassTable.from_names(["Tumour", "Stroma"])


def wishes(sample_data: Path, root: Path, **changes: object) -> Wishes:
    given = {
        "root": root, "slides": [str(sample_data / "CMU-1-Small-Region.svs")], "classes": CLASSES, "mpp": 0.5,
        "patch_px": 112, "most": 60,
    }  # fmt: skip
    return Wishes(**(given | changes))


def rows(root: Path) -> list[dict[str, str]]:
    with (root / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_labels_become_a_data_set(sample_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "patches"
    with workplace(wishes(sample_data, root)) as place:
        one = place.labelling
        one.answer({0: ["Tumour"], 1: ["Tumour", "Stroma"], 2: []}, "labelled")
        one.answer({3: ["Stroma"]}, "unsure")
        one.answer({4: []}, "excluded")
        one.answer({5: ["Stroma"]}, "draft")
        one.answer({6: ["Stroma"]}, "labelled")
        place.save()
        assert len(rows(root)) == 6
        one.undo()
        items = one.round().items
        candidates = one.candidates
    found = {Path(row["file"]).stem: row for row in rows(root)}
    assert list(found) == [items[i].patch for i in range(5)], "what was taken back is gone, drafts never were there"
    assert not (root / "images" / f"{items[6].patch}.png").exists()
    assert [found[items[i].patch]["status"] for i in range(5)] == ["labelled"] * 3 + ["unsure", "excluded"]
    assert [(found[items[i].patch]["Tumour"], found[items[i].patch]["Stroma"]) for i in range(3)] == [
        ("1", "0"), ("1", "1"), ("0", "0"),
    ]  # fmt: skip
    data = read_dataset(root, val_share=0)
    assert {patch.label for patch in data.train} == {(1, 0), (1, 1), (0, 0)}
    assert data.patch_size_px == 112
    with open_slide(sample_data / "CMU-1-Small-Region.svs") as slide:
        for patch, row in found.items():
            written = np.asarray(Image.open(root / row["file"]))
            x, y = round(float(row["x"])), round(float(row["y"]))
            assert (x, y) == (candidates[patch].x, candidates[patch].y)
            np.testing.assert_array_equal(written, slide.read_level(0, Box(x, y, 112, 112)).pixels)
            assert row["slide"] == "CMU-1-Small-Region.svs"
            assert row["labeller"] == "me"


def test_it_goes_on_where_it_stopped(sample_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "patches"
    with workplace(wishes(sample_data, root)) as place:
        place.labelling.answer({0: ["Tumour"]}, "labelled")
        first = place.labelling.round()
    with workplace(wishes(sample_data, root, classes=None)) as place:
        assert place.labelling.round() == first
        place.labelling.rename_class("Tumour", "Carcinoma")
        place.labelling.add_class("Fat")
        place.labelling.answer({1: ["Carcinoma", "Fat"]}, "labelled")
    table = rows(root)
    assert [(row["Carcinoma"], row["Stroma"], row["Fat"]) for row in table] == [("1", "0", ""), ("1", "0", "1")]
    assert read_dataset(root, val_share=0).classes.names == ("Carcinoma", "Stroma", "Fat")
    with workplace(wishes(sample_data, root, classes=None)) as place:
        assert place.labelling.undo() == (first.items[1].patch,)
    assert len(rows(root)) == 1


def test_a_second_process_of_the_same_person_is_kept_out(sample_data: Path, tmp_path: Path) -> None:
    with workplace(wishes(sample_data, tmp_path / "p")), pytest.raises(OutputError):  # noqa: SIM117
        with workplace(wishes(sample_data, tmp_path / "p")):
            pass


def test_two_people_at_once(sample_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "p"
    with workplace(wishes(sample_data, root, labeller="anna")) as anna:
        for place in range(40):
            anna.labelling.answer({place: ["Tumour"]}, "labelled")
        with workplace(wishes(sample_data, root, labeller="bert")) as bert:
            theirs = bert.labelling.round()
            mine = {item.patch for item in anna.labelling.round().items[:40]}
            common = [place for place, item in enumerate(theirs.items) if item.patch in mine]
            assert common
            bert.labelling.answer({common[0]: ["Tumour", "Stroma"]}, "labelled")
            patch = theirs.items[common[0]].patch
    row = next(row for row in rows(root) if Path(row["file"]).stem == patch)
    assert (row["Tumour"], row["Stroma"], row["labeller"]) == ("1", "", "anna+bert"), "a disagreement is unknown"
    with (root / "labelling" / "answers.csv").open(newline="") as file:
        both = [line for line in csv.DictReader(file) if line["patch"] == patch]
    assert [(line["labeller"], line["Stroma"]) for line in both] == [("anna", "0"), ("bert", "1")]


def test_a_cache_that_is_lost_is_cut_again(sample_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "p"
    with workplace(wishes(sample_data, root)) as place:
        place.labelling.answer({0: ["Tumour"]}, "labelled")
        patch = place.labelling.round().items[0].patch
        png = place.cache.png(patch)
    (root / "labelling" / "patches.sqlite").unlink()
    with workplace(wishes(sample_data, root)) as place:
        assert place.cutter.wait([patch], 60)
        assert place.cache.png(patch) == png
    (root / "labelling" / "patches.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(OutputError, match="remove it"), workplace(wishes(sample_data, root)):
        pass


def test_patients_and_regions(tmp_path: Path) -> None:
    assert patient_of("TCGA-A1-A0SK-01Z-00-DX1.svs", {}) == "TCGA-A1-A0SK"
    assert patient_of("case-7.ome.tiff", {}) == "case-7"
    assert patient_of("case-7.ome.tiff", {"case-7": "p1"}) == "p1"
    (tmp_path / "a.geojson").write_text("{}")
    assert regions_of(tmp_path, "a.svs") == tmp_path / "a.geojson"
    with pytest.raises(OptionError, match=r"add b\.geojson"):
        regions_of(tmp_path, "b.svs")


def test_rows_that_others_wrote_stay(sample_data: Path, tmp_path: Path) -> None:
    """Corrections of a named person in the same folder are nobody's answers here."""
    root = tmp_path / "patches"
    with workplace(wishes(sample_data, root)) as place:
        place.labelling.answer({0: ["Tumour"]}, "labelled")
    corrected = Provenance(slide="other.svs", x=0.0, y=0.0, size_px=112, mpp=0.5, status="labelled", labeller="anna")
    with DatasetWriter(root, CLASSES, 0.5, 112) as writer:
        row = PatchRow({"Stroma": 1}, "other", provenance=replace(corrected, source=CORRECTED))
        file = writer.add(np.zeros((112, 112, 3), np.uint8), row)
        writer.finish()
    with workplace(wishes(sample_data, root)) as place:
        place.labelling.answer({1: ["Stroma"]}, "labelled")
    assert [row["file"] == file for row in rows(root)].count(True) == 1
    assert (root / file).is_file()
    assert len(rows(root)) == 3


def test_the_cache_may_go_before_its_answers_are_in_the_table(sample_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "patches"
    with workplace(wishes(sample_data, root)) as place:
        place.labelling.answer({5: ["Tumour"]}, "labelled")
        patch = place.labelling.round().items[5].patch
    shutil.rmtree(root / "images")
    (root / "labels.csv").unlink()
    (root / "dataset.json").unlink()
    (root / "labelling" / "patches.sqlite").unlink()
    with workplace(wishes(sample_data, root)):
        assert [Path(row["file"]).stem for row in rows(root)] == [patch]


def test_a_class_that_another_person_adds_or_renames_meanwhile(sample_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "patches"
    with workplace(wishes(sample_data, root, labeller="anna")) as anna:
        anna.labelling.answer({0: ["Tumour"]}, "labelled")
        with workplace(wishes(sample_data, root, labeller="bert")) as bert:
            bert.labelling.add_class("Fat")
            bert.labelling.rename_class("Tumour", "Carcinoma")
            bert.labelling.answer({3: ["Fat"]}, "labelled")
        anna.save()
        assert anna.labelling.session.classes.names == ("Carcinoma", "Stroma", "Fat")
        anna.labelling.answer({1: ["Carcinoma"]}, "labelled")
    found = [(row["Carcinoma"], row["Fat"], row["labeller"]) for row in rows(root)]
    assert ("1", "", "anna") in found
    assert ("1", "0", "anna") in found
    assert ("0", "1", "bert") in found


def test_one_file_of_regions_is_for_one_slide(sample_data: Path, tmp_path: Path) -> None:
    slides = [str(sample_data / "CMU-1-Small-Region.svs"), str(sample_data / "OS-1-detail.ome.tif")]
    regions = tmp_path / "a.geojson"
    regions.write_text("{}")
    with pytest.raises(OptionError, match="folder with NAME"):  # noqa: SIM117
        with workplace(wishes(sample_data, tmp_path / "p", slides=slides, regions=regions)):
            pass
