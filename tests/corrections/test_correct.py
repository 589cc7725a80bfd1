"""From a map over QuPath's file to patches: masks and labels are those of an independent painting, pixel by pixel."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from shapely import affinity

from tests.helpers.commands import Run, run  # noqa: F401
from tests.helpers.corrections import TISSUE, area_of, drawn, exported, regions, value_of
from tests.helpers.stored_maps import CLASSES
from wsiseg.cli.main import main
from wsiseg.corrections.offset import require_in_place
from wsiseg.corrections.run import CorrectOptions, correct
from wsiseg.datasets.check import check_dataset
from wsiseg.datasets.dataset import read_dataset, read_image
from wsiseg.errors import OptionError, WsisegError
from wsiseg.geojson.drawn import drawn_feature
from wsiseg.geometry import Box, Size
from wsiseg.slides import open_slide
from wsiseg.tissue_map.reader import open_map

PATCH = 96
UNKNOWN = 3
"""What `Patch.read_truth` returns where nothing is known."""


def corrected(mapped: Path, slide: Path, out: Path, features: list[Any], form: str = "0.7", **options: Any) -> Any:
    file = exported(out.with_name("corrected.geojson"), features, form)
    with open_slide(slide) as opened:
        return correct(open_map(mapped / "map.zarr"), file, opened, out, CorrectOptions(**options))


def painted(areas: list[tuple[Any, int]], height: int, width: int) -> np.ndarray:
    """Values of the areas at pixel centres, later ones over earlier ones, by shapely's own test of points."""
    found = np.zeros((height, width), np.int16)
    for area, value in areas:
        left, top, right, bottom = (int(v) for v in area.bounds)
        left, top = max(0, left - 1), max(0, top - 1)
        x, y = np.meshgrid(np.arange(left, min(width, right + 2)), np.arange(top, min(height, bottom + 2)))
        shapely.prepare(area)
        inside = shapely.contains_xy(area, x.ravel() + 0.5, y.ravel() + 0.5).reshape(x.shape)
        found[y[inside], x[inside]] = value
    return found


def off_border(wrong: np.ndarray, areas: list[Any]) -> int:
    """Of some pixels, those that have no centre on a border nearby: on a border two painters may differ."""
    borders = shapely.union_all([area.boundary for area in areas])
    shapely.prepare(borders)
    around = [(dx, dy) for dx in (-0.5, 0.5, 1.5) for dy in (-0.5, 0.5, 1.5)]  # a margin carries it to the next pixel
    rows, columns = np.nonzero(wrong)
    near = [
        any(shapely.dwithin(borders, shapely.Point(x + dx, y + dy), 1e-6) for dx, dy in around)
        for y, x in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    return len(near) - sum(near)


def grown(mask: np.ndarray) -> np.ndarray:
    found = np.zeros_like(mask)
    height, width = mask.shape
    padded = np.pad(mask, 1)
    for dy in range(3):
        for dx in range(3):
            found |= padded[dy : dy + height, dx : dx + width]
    return found


def masks_of(out: Path, shape: tuple[int, int]) -> tuple[np.ndarray, dict[tuple[int, int], Any]]:
    """All masks put together on the slide, and the patches by place."""
    found, patches = np.full(shape, UNKNOWN, np.uint8), {}
    for patch in read_dataset(out).train:
        assert patch.provenance is not None
        x, y = (int(value or 0) for value in (patch.provenance.x, patch.provenance.y))
        patches[x // PATCH, y // PATCH] = patch
        if patch.mask is not None:
            part = found[y : y + PATCH, x : x + PATCH]
            part[:] = patch.read_truth(3)[: part.shape[0], : part.shape[1]]
    return found, patches


def test_every_kind_of_change_gives_the_mask_of_another_painter(mapped: Path, slide: Path, tmp_path: Path) -> None:
    features = regions(mapped)
    before = [(area_of(f), value_of(f)) for f in features]
    recoloured, border, removed, emptied = features[3], features[4], features[5], features[6]
    target = CLASSES.names[value_of(recoloured) % 3]
    recoloured["properties"]["classification"] = {"name": target, "color": [0, 0, 0]}
    whole = area_of(border)
    x, y = whole.representative_point().coords[0]
    bite = shapely.box(x - 40, y - 30, x + 25, y + 35)
    border["geometry"] = json.loads(json.dumps(shapely.geometry.mapping(whole.difference(bite))))
    del emptied["properties"]["classification"]
    place = area_of(features[0]).representative_point()
    ellipse = affinity.scale(affinity.rotate(place.buffer(60), 30), 1.0, 0.6)
    hole = ellipse.difference(place.buffer(15))
    kept = [f for f in features if f is not removed] + [drawn(hole, "Lymphocytes")]
    record = corrected(mapped, slide, tmp_path / "out", kept)

    with open_slide(slide) as opened:
        height, width = opened.size.shape
        pixels = opened.read(open_map(mapped / "map.zarr").grid, Box(0, 0, width, height)).pixels
    after_areas = [
        *((area_of(f), value_of(f)) for f in features if f not in (recoloured, border, removed, emptied)),
        (area_of(recoloured), CLASSES.names.index(target) + 1),
        (area_of(border), value_of(border)),
        (hole, 3),
    ]
    was, now = painted(before, height, width), painted(after_areas, height, width)
    stated = painted([(area_of(recoloured), 1), (hole, 1)], height, width) > 0
    evidence = grown((was != now) | stated)
    expected = np.where(evidence & (now > 0), now - 1, UNKNOWN)
    found, patches = masks_of(tmp_path / "out", (height, width))
    # Written patches alone: one with next to nothing known is left out.
    there = np.zeros((height, width), np.bool_)
    for column, row in patches:
        there[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = True
    wrong = (found != expected) & there
    assert wrong.sum() < 100
    assert off_border(wrong, [a for a, _ in (*before, *after_areas)]) == 0
    assert (expected != UNKNOWN).sum() > 5000
    assert ((expected != UNKNOWN) & ~there).sum() < 0.01 * PATCH**2 * 60
    for (column, row), patch in patches.items():
        part = pixels[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
        np.testing.assert_array_equal(read_image(patch.path)[: part.shape[0], : part.shape[1]], part)
        for channel in range(3):
            box = (slice(row * PATCH, (row + 1) * PATCH), slice(column * PATCH, (column + 1) * PATCH))
            share = (expected[box] == channel).sum() / PATCH**2
            other = ((expected[box] != UNKNOWN) & (expected[box] != channel)) | (
                evidence[box] & (now[box] == 0) & (was[box] == channel + 1)
            )
            label = 1 if share >= 0.05 else 0 if share == 0 and other.sum() >= 0.95 * PATCH**2 else -1
            if abs(share - 0.05) > 0.005 and abs(other.mean() - 0.95) > 0.005:
                assert patch.label[channel] == label, (column, row, CLASSES.names[channel], share)
    assert record["changes"] == {
        "unchanged": len(features) - 4, "class changed": 1, "edited": 1, "deleted": 2, "new": 1,
    }  # fmt: skip
    moved = {(r["from"], r["to"]): r["area_um2"] for r in record["moved"]}
    um2 = 0.499**2
    for (a, b), area in moved.items():
        names = ["no region", *CLASSES.names]
        count = ((was == names.index(a)) & (now == names.index(b))).sum()
        assert area / um2 == pytest.approx(count, abs=100)
    assert sum(moved.values()) / um2 == pytest.approx((was != now).sum(), abs=100)
    check = check_dataset(tmp_path / "out")
    assert not [k for k in check.problems if k in ("layout", "label", "mask", "disagree", "table", "contradiction")]


def test_what_was_left_as_it_was_says_nothing(mapped: Path, slide: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="as they were"):
        corrected(mapped, slide, tmp_path / "out", regions(mapped))
    assert not (tmp_path / "out").exists()
    record = corrected(mapped, slide, tmp_path / "out", regions(mapped), trust_locked=True)
    assert record["changes"]["of these confirmed by lock"] == len(regions(mapped))
    for feature in regions(mapped):
        assert feature["properties"]["isLocked"], "so that a lock by itself confirms nothing"


def test_reviewed_area_confirms_what_lies_inside_and_nothing_else(mapped: Path, slide: Path, tmp_path: Path) -> None:
    left, top = 4 * PATCH, 5 * PATCH
    box = shapely.box(left, top, left + 2 * PATCH, top + PATCH)
    record = corrected(mapped, slide, tmp_path / "out", [*regions(mapped), drawn(box, name="reviewed ")])
    found, patches = masks_of(tmp_path / "out", (2967, 2220))
    assert set(patches) == {(4, 5), (5, 5)}
    now = painted([(area_of(f), value_of(f)) for f in regions(mapped)], 2967, 2220)
    part = (slice(top, top + PATCH), slice(left, left + 2 * PATCH))
    wrong = np.zeros(found.shape, np.bool_)
    wrong[part] = found[part] != np.where(now[part] > 0, now[part] - 1, UNKNOWN)
    assert wrong.sum() < 50
    assert off_border(wrong, [area_of(f) for f in regions(mapped)]) == 0
    assert record["patches"] == 2
    for column, row in patches:
        inside = now[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
        for channel, value in enumerate(patches[column, row].label):
            share = (inside == channel + 1).mean()
            assert value == (1 if share >= 0.05 else 0 if share == 0 else -1)


def test_points_lines_collections_and_derived_classes(mapped: Path, slide: Path, tmp_path: Path) -> None:
    here = shapely.box(500, 400, 620, 520)
    collection = {
        "type": "GeometryCollection",
        "geometries": [
            {"type": "GeometryCollection", "geometries": [shapely.geometry.mapping(here)]},
            shapely.geometry.mapping(shapely.box(700, 400, 800, 500)),
        ],
    }
    features = [
        *regions(mapped),
        drawn({"type": "Point", "coordinates": [1500.5, 2000.25]}, "Lymphocytes"),
        drawn({"type": "MultiPoint", "coordinates": [[1500, 2500, 0], [100, 100]]}, "Tumour"),
        drawn({"type": "Point", "coordinates": [900, 2500]}),
        drawn(shapely.LineString([(0, 0), (50, 50)]), "Tumour"),
        drawn(collection, "Tumor: Positive"),
        drawn(shapely.box(1200, 1200, 1500, 1500)),
        {**drawn(shapely.box(0, 0, 9, 9), "Tumour"), "geometry": None},
        drawn(shapely.box(0, 0, 9, 9), "Tumour", objectType="detection"),
    ]
    record = corrected(mapped, slide, tmp_path / "out", features)
    assert record["changes"] == {
        "unchanged": len(regions(mapped)), "class points": 3, "new": 1, "left out, without a class of the model": 1,
        "left out, points without a class of the model": 1,
    }  # fmt: skip
    assert len(record["notes"]) == 3
    _, patches = masks_of(tmp_path / "out", (2967, 2220))
    assert patches[1500 // PATCH, 2000 // PATCH].label == (-1, -1, 1)
    assert patches[1500 // PATCH, 2000 // PATCH].mask is None
    assert patches[1500 // PATCH, 2500 // PATCH].label == patches[1, 1].label == (1, -1, -1)
    assert patches[550 // PATCH, 450 // PATCH].label[0] == 1
    assert patches[760 // PATCH, 450 // PATCH].label[0] == 1


def test_forms_of_older_versions_are_one(mapped: Path, slide: Path, tmp_path: Path) -> None:
    features = [*regions(mapped), drawn(shapely.box(500, 400, 700, 600), "Stroma")]
    new = corrected(mapped, slide, tmp_path / "new", features)
    old = corrected(mapped, slide, tmp_path / "old", features, "0.4")
    one = corrected(mapped, slide, tmp_path / "one", features[-1:], "one", partial=True)
    assert new["labels"] == old["labels"] == one["labels"]
    assert new["moved"] == old["moved"] == one["moved"]
    for name in new["files"]:
        assert (tmp_path / "new" / name).read_bytes() == (tmp_path / "old" / name).read_bytes()


def test_a_whole_hierarchy_is_read(mapped: Path, slide: Path, tmp_path: Path) -> None:
    """QuPath may put objects into the properties of those that hold them; cells are none of ours."""
    features = regions(mapped)
    inner = drawn(shapely.box(500, 400, 700, 600), "Stroma")
    inner["properties"]["childObjects"] = [
        drawn(shapely.box(510, 410, 520, 420), "Tumour", objectType="cell"),
        {**drawn(shapely.box(510, 410, 520, 420), "Tumour"), "id": "PathDetectionObject"},
    ]
    del inner["properties"]["childObjects"][1]["properties"]["objectType"]
    features[0]["properties"]["childObjects"] = [*features[1:], inner]
    record = corrected(mapped, slide, tmp_path / "out", features[:1])
    assert record["changes"] == {"unchanged": len(features), "new": 1}
    assert record["notes"] == [
        "corrected.geojson: left out 2 objects that are no annotations (detections, cells, cores)"
    ]
    deep: dict[str, Any] = drawn(shapely.box(500, 400, 700, 600), "Stroma")
    for _ in range(60):
        deep = drawn(shapely.box(500, 400, 700, 600), "Stroma", childObjects=[deep])
    with pytest.raises(OptionError, match="without their hierarchy"):
        corrected(mapped, slide, tmp_path / "deep", [deep], partial=True)


def test_ids_lost_on_the_way_are_found_by_place(mapped: Path, slide: Path, tmp_path: Path) -> None:
    features = regions(mapped)
    for feature in features:
        feature["id"] = "PathAnnotationObject"
    features[0]["properties"]["classification"]["name"] = CLASSES.names[value_of(features[0]) % 3]
    record = corrected(mapped, slide, tmp_path / "out", features)
    assert record["changes"] == {"unchanged": len(features) - 1, "class changed": 1}


def test_ignored_tissue_is_none_of_the_classes(mapped: Path, slide: Path, tmp_path: Path) -> None:
    box = shapely.box(4 * PATCH, 5 * PATCH, 5 * PATCH, 6 * PATCH)
    record = corrected(mapped, slide, tmp_path / "out", [*regions(mapped), drawn(box, "Ignore*")])
    _, patches = masks_of(tmp_path / "out", (2967, 2220))
    assert patches[4, 5].label == (0, 0, 0)
    assert patches[4, 5].mask is None or (patches[4, 5].read_truth(3) == UNKNOWN).all()
    assert {row["to"] for row in record["moved"]} == {"none of the classes"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: affinity.translate(a, 1200, -300), r"moved by \(1200, -300\) px as a whole"),
        (lambda a: affinity.translate(a, 2, 0), r"moved by \(2, 0\) px"),
        (lambda a: affinity.scale(a, 0.5, 0.5, origin=(0, 0)), "scaled by 0.5"),
        (lambda a: affinity.rotate(a, 90, origin=(1110, 1480)), "turned or mirrored"),
        (lambda a: affinity.scale(a, 1, -1, origin=(1110, 1480)), "turned or mirrored"),
    ],
)
def test_coordinates_moved_as_a_whole_are_refused(
    mapped: Path, slide: Path, tmp_path: Path, change: Any, message: str
) -> None:
    features = regions(mapped)
    for feature in features:
        feature["geometry"] = json.loads(json.dumps(shapely.geometry.mapping(change(area_of(feature)))))
    features.append(drawn(shapely.box(500, 400, 700, 600), "Stroma"))
    with pytest.raises(OptionError, match=message):
        corrected(mapped, slide, tmp_path / "out", features)
    assert not (tmp_path / "out").exists()


def test_the_offset_of_a_slides_bounds_is_named() -> None:
    """Programs count from the corner of the scan or of the file (QuPath 820, 1278; bioformats 3599)."""
    areas = [shapely.box(x, 0, x + 50, 70) for x in (0, 100, 200)]
    moved = [(area, affinity.translate(area, 4000, 7000)) for area in areas]
    with pytest.raises(OptionError, match=r"the slide's bounds \(they begin at 4000, 7000\)"):
        require_in_place(moved, Box(4000, 7000, 100, 100), "c.geojson")
    require_in_place([(area, area) for area in areas], Box(4000, 7000, 100, 100), "c.geojson")
    require_in_place([*((area, area) for area in areas), moved[0]], None, "c.geojson")


def test_one_region_that_was_dragged_is_an_edit(mapped: Path, slide: Path, tmp_path: Path) -> None:
    features = regions(mapped)
    moved = affinity.translate(area_of(features[5]), 30, 10)
    features[5]["geometry"] = json.loads(json.dumps(shapely.geometry.mapping(moved)))
    assert corrected(mapped, slide, tmp_path / "out", features)["changes"]["edited"] == 1


def test_another_slide_model_drawing_or_selection_is_refused_by_name(
    mapped: Path, slide: Path, sample_data: Path, tmp_path: Path
) -> None:
    out, features = tmp_path / "out", [*regions(mapped), drawn(shapely.box(500, 400, 700, 600), "Stroma")]
    with pytest.raises(OptionError, match=r"not from OS-1-detail\.ome\.tif"):
        corrected(mapped, sample_data / "OS-1-detail.ome.tif", out, features)
    for key, message in (("Slide hash", "regions of another slide"), ("Model hash", "regions of another model")):
        other = json.loads(json.dumps(features))
        other[0]["properties"]["metadata"][key] = "f" * 64
        with pytest.raises(OptionError, match=message):
            corrected(mapped, slide, out, other)
    other = json.loads(json.dumps(features))
    for feature in other[:-1]:
        feature["properties"]["metadata"]["Tolerance um"] = "5"
    with pytest.raises(OptionError, match=r"simplified by 5 um, those of the map here by 2 um; .* --original"):
        corrected(mapped, slide, out, other)
    with pytest.raises(OptionError, match=r"holds 2 of the map's \d+ regions, as if only a selection"):
        corrected(mapped, slide, out, [*features[:2], features[-1]])
    twice = [*features, json.loads(json.dumps(features[0]))]
    twice[-1]["properties"]["classification"]["name"] = "Stroma" if value_of(features[0]) != 2 else "Tumour"
    with pytest.raises(OptionError, match="have one id and differ"):
        corrected(mapped, slide, out, twice)
    away = [drawn(shapely.box(90_000, 90_000, 90_500, 90_500), "Stroma")]
    with pytest.raises(OptionError, match="no area lies on CMU-1-Small-Region"):
        corrected(mapped, slide, out, away, partial=True)
    assert not out.exists()
    same_twice = [*features, json.loads(json.dumps(features[0]))]
    assert corrected(mapped, slide, out, same_twice)["changes"] == {"unchanged": len(features) - 1, "new": 1}


def test_unknown_classes_are_refused_with_a_guess(mapped: Path, slide: Path, tmp_path: Path) -> None:
    features = [*regions(mapped), drawn(shapely.box(500, 400, 700, 600), "Stromma")]
    with pytest.raises(OptionError, match=r"no class .Stromma.*did you mean Stroma.*--map .Stromma=Stroma"):
        corrected(mapped, slide, tmp_path / "out", features)
    record = corrected(mapped, slide, tmp_path / "out", features, names={"Stromma": "Stroma"})
    assert record["labels"]["Stroma"]["present"]
    assert record["map_names"] == {"Stromma": "Stroma"}
    with pytest.raises(OptionError, match="no class 'Fat'"):
        corrected(mapped, slide, tmp_path / "other", features, names={"Stromma": "Fat"})
    with pytest.raises(OptionError, match="as they were"):
        corrected(mapped, slide, tmp_path / "other", features, names={"Stromma": ""})


def test_other_planes_are_refused(mapped: Path, slide: Path, tmp_path: Path) -> None:
    for plane in ({"c": -1, "z": 2, "t": 0}, {"c": -1, "z": 0, "t": 1}):
        feature = drawn(shapely.box(500, 400, 700, 600), "Stroma")
        feature["geometry"]["plane"] = plane
        with pytest.raises(OptionError, match="plane"):
            corrected(mapped, slide, tmp_path / "out", [*regions(mapped), feature])
    feature["geometry"]["plane"] = {"c": -1, "z": 0, "t": 0}
    assert corrected(mapped, slide, tmp_path / "out", [*regions(mapped), feature])["changes"]["new"] == 1


def test_new_areas_that_contradict_each_other_are_unknown(mapped: Path, slide: Path, tmp_path: Path) -> None:
    one, other = shapely.box(480, 480, 576, 576), shapely.box(528, 480, 672, 576)
    features = [*regions(mapped), drawn(one, "Stroma"), drawn(other, "Tumour")]
    record = corrected(mapped, slide, tmp_path / "out", features)
    found, _ = masks_of(tmp_path / "out", (2967, 2220))
    assert (found[481:575, 530:575] == UNKNOWN).all()
    assert (found[481:575, 481:527] == 1).all()
    assert (found[481:575, 577:671] == 0).all()
    assert any("different classes" in note for note in record["notes"])


def test_areas_that_cross_themselves_are_mended(mapped: Path, slide: Path, tmp_path: Path) -> None:
    bow = {"type": "Polygon", "coordinates": [[[500, 400], [700, 600], [700, 400], [500, 600], [500, 400]]]}
    record = corrected(mapped, slide, tmp_path / "out", [*regions(mapped), drawn(bow, "Stroma")])
    assert any("mended 1" in note for note in record["notes"])
    found, _ = masks_of(tmp_path / "out", (2967, 2220))
    assert found[500, 520] == found[500, 680] == 1
    assert found[420, 600] == UNKNOWN


def test_what_was_drawn_in_the_viewer_is_a_part_of_its_own(mapped: Path, slide: Path, tmp_path: Path) -> None:
    """Its file holds no region of the map, which nobody deleted, and replaces nothing that came from QuPath."""
    out = tmp_path / "out"
    corrected(mapped, slide, out, [*regions(mapped), drawn(shapely.box(768, 480, 864, 576), "Tumour")])
    whole = Size(2220, 2967)
    square, other = [[480, 480], [576, 480], [576, 576], [480, 576]], [[480, 768], [576, 768], [576, 864], [480, 864]]
    features = [drawn_feature(square, CLASSES[2], whole), drawn_feature(other, None, whole)]
    file = tmp_path / "drawn.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    with open_slide(slide) as opened:
        record = correct(open_map(mapped / "map.zarr"), file, opened, out, CorrectOptions())
    assert record["partial"] is True and record["replaced_patches"] == 0
    rows = {(row["x"], row["y"]): row for row in csv.DictReader((out / "labels.csv").open())}
    assert rows["768", "480"]["Tumour"] == "1"
    assert [rows["480", "480"][name] for name in CLASSES.names] == ["0", "1", "0"]
    assert [rows["480", "768"][name] for name in CLASSES.names] == ["0", "0", "0"]


def test_a_newer_file_replaces_what_an_earlier_one_said(mapped: Path, slide: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = drawn(shapely.box(480, 480, 576, 576), "Stroma")
    second = drawn(shapely.box(768, 480, 864, 576), "Tumour")
    corrected(mapped, slide, out, [*regions(mapped), first], labeller="A")
    corrected(mapped, slide, out, [*regions(mapped), first], labeller="B", group="patient 7")
    record = corrected(mapped, slide, out, [*regions(mapped), second], labeller="A")
    assert record["replaced_patches"] > 0
    rows = list(csv.DictReader((out / "labels.csv").open()))
    assert {
        (row["labeller"], row["x"], row["group"]) for row in rows if row["Stroma"] == "1" or row["Tumour"] == "1"
    } >= {
        ("A", "768", "CMU-1-Small-Region"),
    }
    assert not [row for row in rows if row["labeller"] == "A" and row["x"] == "480"]
    assert {row["source"] for row in rows} == {"corrected"}
    assert {row["round"] for row in rows} <= {"1", "2"}
    assert len(list((out / "corrections").glob("*.json"))) == 3
    read_dataset(out)


def test_command(mapped: Path, slide: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    file = exported(tmp_path / "c.geojson", [*regions(mapped), drawn(shapely.box(500, 400, 700, 600), "immune cells")])
    arguments = ["correct", mapped / "map.zarr", "--corrected", file, "--slide", slide, "--out", tmp_path / "out"]
    told = run(*arguments)
    assert "1 new" in told
    assert "to Lymphocytes" in told
    record = json.loads(run(*arguments, "--json"))
    assert record["slide"]["name"] == slide.name
    assert len(record["model"]["hash"]) == len(record["corrected"]["sha256"]) == 64
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in [*arguments, "--map", "x"]])
    assert stop.value.code == 2
    assert "expected --map Name=Class" in capsys.readouterr().err


def test_map_without_its_file_is_drawn_again(mapped: Path, slide: Path, tmp_path: Path) -> None:
    shutil.copytree(mapped / "map.zarr", tmp_path / "map.zarr")
    record = corrected(
        tmp_path, slide, tmp_path / "out", [*regions(mapped), drawn(shapely.box(500, 400, 700, 600), "Stroma")]
    )
    assert record["original"] == "drawn again with default options"
    assert record["changes"]["unchanged"] == len(regions(mapped))


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, NaN]]]}}', "[]", "{}", "7",
        '{"type": "FeatureCollection"}', '{"type": "FeatureCollection", "features": [7]}',
        json.dumps({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}),
        json.dumps({"type": "Polygon", "coordinates": [[[0, 0], [1e300, 1], [1, 1]]]}),
        json.dumps({"type": "GeometryCollection", "geometries": 7}),
        json.dumps({"type": "Circle"}),
        json.dumps([{"type": "Feature", "id": [1], "geometry": {"type": "Point", "coordinates": ["a", 1]}}]),
        json.dumps([{"type": "Feature", "properties": [], "geometry": {"type": "Point"}}]),
    ],
)  # fmt: skip
def test_hostile_files_end_with_one_line(mapped: Path, slide: Path, tmp_path: Path, content: str) -> None:
    file = tmp_path / "c.geojson"
    file.write_text(content)
    with open_slide(slide) as opened, pytest.raises(WsisegError) as caught:
        correct(open_map(mapped / "map.zarr"), file, opened, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_tissue_of_the_map_is_where_it_should_be(mapped: Path) -> None:
    assert all(
        shapely.box(TISSUE.x, TISSUE.y, TISSUE.right, TISSUE.bottom).buffer(5).covers(area_of(f))
        for f in regions(mapped)
    )
