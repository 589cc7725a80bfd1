"""What users of other labelling programs lost or missed, each as a test of this one."""

import ast
import csv
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.browser import done, page_of, settled, wait_until
from tests.helpers.full_disk import largest_file
from tests.helpers.pages import Server, served
from wsiseg.classes import ClassTable
from wsiseg.errors import OptionError, OutputError
from wsiseg.geometry import Box
from wsiseg.labelling.keys import DEFAULTS, TAKEN, bindings, chosen_keys, keys_of
from wsiseg.labelling.labelling import Labelling
from wsiseg.labelling.places import Candidate
from wsiseg.labelling.session import Session, Terms
from wsiseg.system.durable_lines import read_lines

HERE = "labelling/test_complaints.py::"
COMPLAINTS = {
    # Work lost
    "HistomicsTK #443: annotations of several users gone": "labelling/test_workplace.py::test_two_people_at_once",
    "HistomicsTK #390: autosave asked for": HERE + "test_an_answer_that_was_acknowledged_survives_a_kill",
    "CVAT #7996: three days lost, autosave was off": HERE + "test_an_answer_that_was_acknowledged_survives_a_kill",
    "CVAT #5169, #1857, #8462: unsaved work lost": HERE + "test_what_cannot_be_written_is_not_called_saved",
    "X-AnyLabeling #518: labels of one picture saved into another": HERE + "test_keys_faster_than_pages",
    "ilastik #2438: project damaged by a crash": "labelling/test_labelling.py::"
        "test_a_line_that_was_cut_off_loses_one_key",
    "ilastik #1944: labels gone when a setting changes": HERE + "test_another_order_of_classes_shifts_no_label",
    # Classes that change
    "labelImg #592: labels swapped as the class file changed": HERE + "test_another_order_of_classes_shifts_no_label",
    "CVAT #7099: class changed in another tab, work lost": HERE + "test_a_class_that_was_renamed_in_another_tab",
    # Hangs
    "MapReader #166: stops after 20 patches, begins from zero": HERE + "test_a_whole_round_and_on_from_there",
    "Cytomine #162, #184: slow from 250 annotations on": HERE + "test_thousands_of_answers_are_as_quick_as_few",
    # Keys
    "CVAT #4897, #8756: keys reset at each job": HERE + "test_keys_of_ones_own_are_there_again",
    "CVAT #9447, Label Studio #9314: other keys wanted": HERE + "test_keys_of_ones_own_are_there_again",
    "Label Studio #1957: class key collides with a global key": HERE + "test_no_key_has_two_meanings",
    "Label Studio #2311: the next one by itself": HERE + "test_keys_faster_than_pages",
    "Label Studio #201, #3172, multi_label_pigeon #2, make-sense #128, #339, slideflow #425: by keyboard alone":
        "server/test_label_page.py::test_thirty_patches_a_kill_and_undo",
    # Undo
    "QuPath #92, annotorious-openseadragon #163: no undo": "labelling/test_labelling.py::"
        "test_undo_goes_back_to_the_first_key_also_over_restarts",
    # Several people
    "superintendent #36: conflicts": "labelling/test_workplace.py::test_two_people_at_once",
    # Export
    "coco-annotator #503, #376: export incomplete": HERE + "test_the_tables_have_every_answer",
    "QuPath #2115: odd geometries end the export": "geojson/test_write.py::test_difficult_shapes_pass",
    "QuPath #2098: export rotated": "corrections/test_correct.py::test_coordinates_moved_as_a_whole_are_refused",
    "bioformats #3599: displaced on reopening": "corrections/test_correct.py::"
        "test_the_offset_of_a_slides_bounds_is_named",
    "displaced on reopening, of this program's own": "server/test_view_page.py::"
        "test_a_lasso_and_a_key_write_a_correction",
    # Progress
    "ilastik #2807: share of each class while labelling": HERE + "test_shares_and_letters_in_a_dialog",
    # Viewers
    "cytomine #574, OpenSeadragon #2327: opacity of each class": "server/test_view_page.py::"
        "test_a_class_has_an_opacity_of_its_own",
    "ome_seadragon #59: thresholds": "server/test_view_page.py::test_heat_maps",
    "GaNDLF #464: blended export": "server/test_view_page.py::test_the_picture_of_the_view",
    "OpenSeadragon #1917: aligned overlays": "server/test_view_page.py::test_what_is_drawn_is_the_map",
    "tiatoolbox #1047: scale bar, distances": "server/test_view_page.py::test_measure",
    "Cytomine-Web-UI #44: outlines without fill": "server/test_view_page.py::test_toggles_cost_no_request",
}  # fmt: skip
"""Project, number and complaint -> the test that it cannot be made of this program."""

TERMS = Terms(0.5, 64, 0)
CLASSES = ClassTable.from_names(["Tumour", "Stroma"])


def test_every_complaint_has_its_test() -> None:
    for complaint, where in COMPLAINTS.items():
        file, _, name = where.partition("::")
        tree = ast.parse((Path(__file__).parents[1] / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, complaint


@contextmanager
def opened(root: Path, classes: ClassTable | None = CLASSES, count: int = 300) -> Iterator[Labelling]:
    session = Session(root, TERMS, classes)
    places = [Candidate(f"{i:016x}", "s", "s", 64.0 * i, 0.0, Box(64 * i, 0, 64, 64)) for i in range(count)]
    one = Labelling(session, "me", places)
    try:
        yield one
    finally:
        one.close()
        session.close()


def label_command(sample_data: Path, out: Path, *more: object) -> list[object]:
    slide = sample_data / "CMU-1-Small-Region.svs"
    return ["-m", "wsiseg", "label", slide, "--out", out, "--no-browser", "--candidates", 60, *more]


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def round_of(out: Path) -> list[str]:
    """The patches of the first round, in the order in which they are shown."""
    lines, _ = read_lines(out / "labelling" / "journal-me.jsonl")
    return [patch for patch, _ in next(line for line in lines if line["do"] == "round")["items"]]


def test_an_answer_that_was_acknowledged_survives_a_kill(sample_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "patches"
    with served(*label_command(sample_data, out, "--classes", "Tumour,Stroma")) as server:
        server.enter()
        for place in range(25):
            body = {"answers": {str(place): ["Tumour"] if place % 2 else []}, "status": "labelled", "round": 1}
            assert server.post("/api/answer", body).status == 200
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    with served(*label_command(sample_data, out)) as server:
        server.enter()
        items = server.get("/api/page?number=0").json["items"] + server.get("/api/page?number=1").json["items"]
        assert [item["status"] for item in items[:26]] == ["labelled"] * 25 + [None]
        assert [item["present"] for item in items[:25]] == [["Tumour"] if place % 2 else [] for place in range(25)]


def test_what_cannot_be_written_is_not_called_saved(tmp_path: Path) -> None:
    with opened(tmp_path) as one:
        one.answer({0: ["Tumour"]}, "labelled")
        journal = tmp_path / "labelling" / "journal-me.jsonl"
        with largest_file(journal.stat().st_size + 20), pytest.raises(OutputError):
            one.answer({1: ["Tumour"]}, "labelled")
        assert one.status().done == 1
        one.answer({2: ["Stroma"]}, "labelled")
    with opened(tmp_path) as one:
        of = one.round()
        assert [one.answer_at(of, place) is not None for place in range(4)] == [True, False, True, False]


def test_another_order_of_classes_shifts_no_label(tmp_path: Path) -> None:
    with opened(tmp_path) as one:
        one.answer({0: ["Tumour"], 1: ["Stroma"]}, "labelled")
    with opened(tmp_path, ClassTable.from_names(["Fat", "Stroma", "Tumour"])) as one:
        of = one.round()
        assert one.session.classes.names == ("Tumour", "Stroma", "Fat")
        assert [dict(one.answer_at(of, place).classes) for place in range(2)] == [
            {"Tumour": True, "Stroma": False}, {"Tumour": False, "Stroma": True},
        ]  # fmt: skip
    with opened(tmp_path, ClassTable.from_names(["Stroma"])) as one:
        assert one.session.classes.names == ("Tumour", "Stroma", "Fat"), "what is not named is not removed"
        assert one.status().positives == {"Tumour": 1, "Stroma": 1, "Fat": 0}


def test_a_class_that_was_renamed_in_another_tab(sample_data: Path, tmp_path: Path) -> None:
    """A tab that has not heard of it answers with the old name; nothing is lost, and nothing can be removed."""
    out = tmp_path / "patches"
    with served(*label_command(sample_data, out, "--classes", "Tumour,Stroma")) as server:
        server.enter()
        body = {"answers": {"0": ["Tumour"]}, "status": "labelled", "round": 1}
        assert server.post("/api/answer", body).status == 200
        assert server.post("/api/class", {"rename": ["Tumour", "Carcinoma"]}).status == 200
        assert server.post("/api/class", {"remove": "Stroma"}).status == 400
        body = {"answers": {"1": ["Tumour", "Stroma"]}, "status": "labelled", "round": 1}
        assert server.post("/api/answer", body).status == 200
        assert server.post("/api/class", {"add": "Tumour"}).status == 400, "it would catch what the old name meant"
        items = server.get("/api/page?number=0").json["items"]
        assert [item["present"] for item in items[:2]] == [["Carcinoma"], ["Carcinoma", "Stroma"]]
        server.end()
    assert [(row["Carcinoma"], row["Stroma"]) for row in rows(out)] == [("1", "0"), ("1", "1")]


def test_a_whole_round_and_on_from_there(tmp_path: Path) -> None:
    with opened(tmp_path) as one:
        first = one.round()
        for at in range(0, 240, 24):
            one.answer({place: ["Tumour"] for place in range(at, at + 24)}, "labelled")
        assert not one.open_items(first)
        second = one.round()
        new = [place for place, item in enumerate(second.items) if item.source != "repeat"]
        one.answer({new[0]: []}, "labelled")
    with opened(tmp_path) as one:
        assert one.round() == second
        assert second.number == 2
        assert new[0] not in one.open_items(second)
        assert one.status().done == 241


def test_thousands_of_answers_are_as_quick_as_few(tmp_path: Path) -> None:
    """Of the processor's time, a key with 4,800 patches behind it takes less than 30 ms."""

    def a_key(one: Labelling) -> float:
        of = one.round()
        begun = time.process_time()
        for place in one.open_items(of)[:5]:
            one.answer({place: ["Stroma"]}, "labelled", of=of)
            one.status()
            one.open_items(of)
        return (time.process_time() - begun) / 5

    with opened(tmp_path, count=5100) as one:
        took = []
        for number in range(20):
            of = one.round()
            if number in (1, 19):  # 240 and 4,560 patches
                took.append(a_key(one))
            for at in range(0, len(of.items), 24):  # with those that are shown again
                places = range(at, min(at + 24, len(of.items)))
                one.answer({place: ["Tumour"] for place in places}, "labelled", of=of)
    assert max(took) < 0.03, took
    begun = time.process_time()
    with opened(tmp_path, count=5100) as one:
        assert one.status().done == 4800
    assert time.process_time() - begun < 5


def test_no_key_has_two_meanings(tmp_path: Path) -> None:
    keys = [key for one in DEFAULTS for key in one.keys]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & set(TAKEN)
    for clash in ("confirm=1", "confirm=h", "confirm=u", "undo=x", "undo=v,redo=v"):
        with pytest.raises(OptionError, match="another key"):
            keys_of(tmp_path, "me", clash)
    for wrong in ("confirm", "confirm=", "fly=f", "confirm=Hyper", "confirm=v,confirm=w", "confirm=vw"):
        with pytest.raises(OptionError):
            bindings(chosen_keys(wrong))
    assert not list(tmp_path.iterdir())


def test_keys_of_ones_own_are_there_again(tmp_path: Path) -> None:
    first = keys_of(tmp_path, "anna", "confirm=Space,context=v,undo=Backspace")
    found = {one.action: one.keys for one in first}
    assert (found["confirm"], found["context"], found["undo"]) == ((" ",), ("v",), ("Backspace",))
    assert keys_of(tmp_path, "anna", None) == first, "as they were, at the next start"
    assert keys_of(tmp_path, "bert", None) == DEFAULTS, "another person's are their own"
    assert keys_of(tmp_path, "anna", "default") == DEFAULTS
    (tmp_path / "keys-anna.json").write_text("[")
    with pytest.raises(OutputError, match="state --keys anew"):
        keys_of(tmp_path, "anna", None)


def test_the_tables_have_every_answer(sample_data: Path, tmp_path: Path) -> None:
    """Unsure and excluded ones too; and the data set opens again with every label where it was."""
    out = tmp_path / "patches"
    said = [("labelled", ["Tumour"]), ("labelled", []), ("unsure", ["Stroma"]), ("excluded", [])] * 5
    with served(*label_command(sample_data, out, "--classes", "Tumour,Stroma")) as server:
        server.enter()
        for place, (status, names) in enumerate(said):
            body = {"answers": {str(place): names}, "status": status, "round": 1}
            assert server.post("/api/answer", body).status == 200
        assert server.end()[0] == 0
    found = {Path(row["file"]).stem: row for row in rows(out)}
    patches = round_of(out)
    assert set(found) == set(patches[:20])
    assert all((out / row["file"]).is_file() for row in found.values())
    assert [found[patch]["status"] for patch in patches[:20]] == [status for status, _ in said]
    assert len({(row["x"], row["y"]) for row in found.values()}) == 20
    with (out / "labelling" / "answers.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 20


@pytest.fixture(scope="module")
def labelled(sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Any, Path]]:
    """A page in a browser, with keys of one's own."""
    out = tmp_path_factory.mktemp("complaints") / "patches"
    command = label_command(sample_data, out, "--classes", "Tumour,Stroma,Lymphocytes", "--keys", "confirm=v")
    with served(*command) as server, page_of(server) as page:
        yield server, page, out


def test_keys_faster_than_pages(labelled: tuple[Server, Any, Path]) -> None:
    """Two pages and a half without a wait: each answer is that of the patch that was marked, in order."""
    _, page, out = labelled
    for place in range(60):
        page.keyboard.press(str(1 + place % 3))
        page.keyboard.press("v")
        if place in (23, 47):  # the next page is shown before a person's next key
            wait_until(lambda place=place: f"page {place // 24 + 2} " in page.locator("#where").inner_text() + " ")  # type: ignore[misc]
    settled(page)
    assert done(page) == 60
    lines, _ = read_lines(out / "labelling" / "journal-me.jsonl")
    last = {row["patch"]: row for line in lines if line["do"] == "answer" for row in line["answers"]}
    names = ("Tumour", "Stroma", "Lymphocytes")
    for place, patch in enumerate(round_of(out)):
        assert last[patch]["status"] == "labelled"
        assert [name for name in names if last[patch]["classes"][name]] == [names[place % 3]]


def test_shares_and_letters_in_a_dialog(labelled: tuple[Server, Any, Path]) -> None:
    _, page, _ = labelled
    assert page.locator("#classes .count").all_inner_texts() == ["20", "20", "20"]
    assert page.locator("#classes .percent").all_inner_texts() == ["33 %"] * 3
    page.locator("#rename").click()
    page.locator("#given").fill("2")
    page.keyboard.press("Enter")
    wait_until(lambda: page.locator("#given").input_value() == "Stroma")
    page.locator("#given").fill("")
    page.keyboard.type("vux 1h")  # keys with a meaning on the page are letters here
    page.keyboard.press("Enter")
    wait_until(lambda: "vux 1h" in page.locator("#classes").inner_text())
    assert done(page) == 60
    assert page.locator("dialog.help[open]").count() == 0
