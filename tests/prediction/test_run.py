"""From slide to map, with a model whose answer is known, and on real slides."""

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image
from rasterio.features import rasterize

from tests.helpers.color_model import COLORS, color_model
from tests.helpers.damage import damaged_copy, no_jpeg
from tests.helpers.maps import chunks, painted
from wsiseg.classes import WHITE_VALUE
from wsiseg.errors import BundleError, OptionError, OutputError
from wsiseg.export.polygons import VectorOptions, export_geojson
from wsiseg.geometry import Box
from wsiseg.prediction.run import PredictOptions, predict
from wsiseg.system import memory
from wsiseg.tissue_map.reader import open_map


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.8])
def test_every_pixel_gets_the_class_that_was_painted(tmp_path: Path, overlap: float) -> None:
    classes = painted(tmp_path / "p.png")
    options = PredictOptions(mpp=1, tissue="none", overlap=overlap, gate=False)
    result = predict(tmp_path / "p.png", tmp_path / "m.zarr", color_model(), options)
    tissue_map = open_map(tmp_path / "m.zarr")
    assert np.array_equal(tissue_map.class_map().compute(), classes)
    assert tissue_map.mpp.mean == 1
    assert [round(area.area_mm2 * 1e6) for area in result.areas] == [int((classes == i).sum()) for i in (1, 2, 3)]
    assert round(result.tissue_mm2 * 1e6) == classes.size
    assert sum(area.share for area in result.areas) == pytest.approx(1)
    assert result.unread_mm2 == 0
    assert result.counts.read == result.counts.tiles


def test_a_finer_slide_is_averaged_and_nothing_shifts(tmp_path: Path) -> None:
    classes = painted(tmp_path / "p.png", factor=2)
    predict(tmp_path / "p.png", tmp_path / "m.zarr", color_model(), PredictOptions(mpp=0.5, tissue="none", gate=False))
    tissue_map = open_map(tmp_path / "m.zarr")
    assert np.array_equal(tissue_map.class_map().compute(), classes)
    assert (tissue_map.grid.step_x, tissue_map.grid.step_y) == (2, 2)


def test_probabilities_are_those_of_the_gated_softmax(tmp_path: Path) -> None:
    classes = painted(tmp_path / "p.png")
    predict(tmp_path / "p.png", tmp_path / "m.zarr", color_model(), PredictOptions(mpp=1, tissue="none", gate=False))
    values = open_map(tmp_path / "m.zarr").probabilities().compute()
    scores = np.exp(np.array([COLORS[i] for i in (1, 2, 3)]) / 255 * 4)
    expected = np.rint(255 * scores / scores.sum(axis=1, keepdims=True))
    for index in (1, 2, 3):
        seen = values[:, classes == index].T.astype(int)
        assert np.abs(seen - expected[index - 1]).max() <= 1


def test_the_gate_shuts_classes_patch_by_patch(tmp_path: Path) -> None:
    classes = painted(tmp_path / "p.png")
    model = color_model(patch_px=50, overlap=0)
    result = predict(tmp_path / "p.png", tmp_path / "m.zarr", model, PredictOptions(mpp=1, tissue="none"))
    corners = [(y, x) for y in range(0, 200, 50) for x in range(0, 300, 50)]
    shares = [[(classes[y : y + 50, x : x + 50] == i).mean() for i in (1, 2, 3)] for y, x in corners]
    shut = np.array(shares) <= 0.01
    assert result.counts.shut == shut.sum(axis=0).tolist()
    assert result.counts.gated == shut.any(axis=1).sum()
    assert result.counts.decided == (shut.sum(axis=1) == 2).sum() > 0
    values = open_map(tmp_path / "m.zarr").probabilities().compute()
    y, x = corners[int(np.flatnonzero(shut.sum(axis=1) == 2)[0])]
    patch = values[:, y : y + 50, x : x + 50]
    assert sorted(np.unique(patch)) == [0, 255]
    open_ = predict(
        tmp_path / "p.png", tmp_path / "n.zarr", model, PredictOptions(mpp=1, tissue="none", gate=False)
    ).counts
    assert (open_.gated, open_.decided, open_.shut) == (0, 0, [0, 0, 0])


def test_threads_change_no_byte_and_batches_only_rounding(tmp_path: Path, sample_data: Path) -> None:
    slide = sample_data / "CMU-1-Small-Region.svs"
    model = color_model(mpp=2)
    for workers in (1, 2, 5):
        options = PredictOptions(workers=workers, batch_size=3)
        predict(slide, tmp_path / f"{workers}.zarr", model, options)
    first = chunks(tmp_path / "1.zarr")
    assert len(first) >= 4
    assert chunks(tmp_path / "2.zarr") == first
    assert chunks(tmp_path / "5.zarr") == first
    predict(slide, tmp_path / "b.zarr", model, PredictOptions(batch_size=1))
    ours, theirs = (open_map(tmp_path / name).probabilities().compute().astype(int) for name in ("1.zarr", "b.zarr"))
    assert np.abs(ours - theirs).max() <= 1


def test_a_real_slide_keeps_its_place_scale_and_provenance(tmp_path: Path, sample_data: Path) -> None:
    slide = sample_data / "CMU-1-Small-Region.svs"
    result = predict(slide, tmp_path / "m.zarr", color_model(mpp=0.5), PredictOptions())
    tissue_map = open_map(tmp_path / "m.zarr")
    # 0.499 is within 5 % of 0.5, so level 0 is read as it is.
    assert tissue_map.grid.step_x == 1
    assert tissue_map.mpp.x == pytest.approx(0.499)
    assert str(tissue_map.size) == "2220 x 2967"
    metadata = tissue_map.metadata
    assert metadata["slide"]["name"] == slide.name
    assert len(metadata["slide"]["quick_hash"]) == 64
    assert (metadata["slide"]["width"], metadata["slide"]["height"]) == (2220, 2967)
    assert metadata["model"]["hash"] == "f" * 64
    assert metadata["parameters"]["overlap"] == 0.25
    assert metadata["parameters"]["gate_thresholds"] == [0.5, 0.5, 0.5]
    assert {"wsiseg", "torch", "zarr", "python"} <= metadata["software"].keys()
    assert metadata["times"]["seconds"]["total"] > 0
    assert metadata["tissue_mm2"] == pytest.approx(result.tissue_mm2)
    assert str(tmp_path) not in json.dumps(dict(metadata))
    assert str(sample_data) not in json.dumps(dict(metadata))


def test_the_exact_polygons_are_the_class_map_pixel_for_pixel(tmp_path: Path, sample_data: Path) -> None:
    predict(sample_data / "CMU-1-Small-Region.svs", tmp_path / "m.zarr", color_model(mpp=2), PredictOptions())
    tissue_map = open_map(tmp_path / "m.zarr")
    export_geojson(tissue_map, tmp_path / "exact.geojson", VectorOptions(exact=True))
    features = json.loads((tmp_path / "exact.geojson").read_text())["features"]
    grid = tissue_map.grid
    shapes = []
    for feature in features:
        geometry = shapely.geometry.shape(feature["geometry"])
        assert geometry.is_valid
        index = 1 + tissue_map.classes.names.index(feature["properties"]["classification"]["name"])
        to_map = shapely.transform(geometry, lambda points: points / [grid.step_x, grid.step_y])
        shapes.append((to_map, index))
    class_map = tissue_map.read(Box.from_size(tissue_map.size))
    assert (class_map == WHITE_VALUE).any()
    class_map[class_map == WHITE_VALUE] = 0  # has no polygon
    assert class_map.any()
    drawn = rasterize(shapes, out_shape=class_map.shape, fill=0, dtype=np.uint8)
    last = int(2967 / grid.step_y)  # the slide ends within this row, above the middle of its pixels
    assert np.array_equal(drawn[:last], class_map[:last])
    assert not drawn[last + 1 :].any()


def test_polygons_come_beside_the_map_when_asked_for(tmp_path: Path) -> None:
    painted(tmp_path / "p.png")
    result = predict(
        tmp_path / "p.png",
        tmp_path / "m.zarr",
        color_model(),
        PredictOptions(mpp=1, tissue="none"),
        geojson=tmp_path / "m.geojson.gz",
    )
    assert result.geojson_path == tmp_path / "m.geojson.gz"
    assert result.vectors is not None
    assert result.vectors.annotations >= 3
    assert {entry.name for entry in tmp_path.iterdir()} == {"p.png", "m.zarr", "m.geojson.gz"}


def test_glass_is_not_read_and_stays_zero(tmp_path: Path) -> None:
    picture = np.full((400, 400, 3), 250, np.uint8)
    picture[20:180, 210:390] = (150, 60, 190)  # stained tissue, blue rather than red
    Image.fromarray(picture).save(tmp_path / "p.png")
    result = predict(tmp_path / "p.png", tmp_path / "m.zarr", color_model(), PredictOptions(mpp=4))
    # 4 um per pixel, enlarged to the model's 1 um.
    class_map = open_map(tmp_path / "m.zarr").class_map().compute()
    assert class_map.shape == (1600, 1600)
    assert result.counts.skipped > result.counts.read > 0
    painted_px = np.zeros((1600, 1600), bool)
    painted_px[80:720, 840:1560] = True
    inside = np.zeros_like(painted_px)
    inside[96:704, 856:1544] = True  # outlines of tissue are known to a pixel or two of the overview's 8 um
    assert (class_map[inside] == 3).all()
    assert (class_map[~painted_px] > 0).mean() < 0.02
    assert result.tissue_mm2 == pytest.approx(painted_px.sum() / 1e6, rel=0.05)


def test_a_slide_without_tissue_gives_an_empty_map_and_a_note(tmp_path: Path) -> None:
    Image.fromarray(np.full((300, 300, 3), 248, np.uint8)).save(tmp_path / "p.png")
    result = predict(
        tmp_path / "p.png", tmp_path / "m.zarr", color_model(), PredictOptions(mpp=4), geojson=tmp_path / "m.geojson"
    )
    assert result.tissue_mm2 == 0
    assert any("no tissue" in note for note in result.notes)
    assert any("enlarged 4 times" in note for note in result.notes)
    assert open_map(tmp_path / "m.zarr").class_map().sum().compute() == 0
    assert json.loads((tmp_path / "m.geojson").read_text())["features"] == []


def test_progress_counts_every_tile_once(tmp_path: Path) -> None:
    painted(tmp_path / "p.png")
    seen: list[tuple[str, int, int]] = []
    predict(
        tmp_path / "p.png",
        tmp_path / "m.zarr",
        color_model(),
        PredictOptions(mpp=1, tissue="none", batch_size=4),
        progress=lambda *step: seen.append(step),
    )
    tiles = [(done, total) for phase, done, total in seen if phase == "tiles"]
    assert tiles[0][0] == 0
    assert tiles[-1][0] == tiles[-1][1]
    assert [done for done, _ in tiles] == sorted({done for done, _ in tiles})


def test_outputs_that_exist_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.geojson").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        predict("nothing.svs", tmp_path / "m.zarr", geojson=tmp_path / "m.geojson")
    assert (tmp_path / "m.geojson").read_text() == "mine"


@pytest.mark.parametrize(
    "values", [{"overlap": 1.0}, {"overlap": -0.1}, {"gate_threshold": 1.5}, {"batch_size": 0}, {"workers": 0}]
)
def test_options_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        PredictOptions(**values)


def test_damaged_tiles_become_zero_and_are_reported(tmp_path: Path, sample_data: Path) -> None:
    source = sample_data / "CMU-1-Small-Region.svs"
    damaged = [44, 47, 84, 95]  # tiles of 240 px in tissue
    slide = damaged_copy(source, tmp_path / "d.svs", damaged, no_jpeg)
    options = PredictOptions(tissue="none", gate=False, white=False)  # specks beside damage may be white
    result = predict(slide, tmp_path / "d.zarr", color_model(mpp=0.5), options)
    predict(source, tmp_path / "s.zarr", color_model(mpp=0.5), options)
    broken, sound = (open_map(tmp_path / name) for name in ("d.zarr", "s.zarr"))
    class_map, truth = broken.class_map().compute(), sound.class_map().compute()
    lost = np.zeros(class_map.shape, bool)
    for tile in damaged:
        row, column = divmod(tile, 10)
        lost[240 * row : 240 * row + 240, 240 * column : 240 * column + 240] = True
    assert (class_map[lost] == 0).all()
    assert (broken.probabilities().compute()[:, lost] == 0).all()
    assert np.array_equal(class_map[~lost], truth[~lost])
    assert result.damage.tiles == 4
    assert result.damage.area_mm2 == pytest.approx(4 * 240**2 * 0.499**2 / 1e6)
    assert result.unread_mm2 == pytest.approx(result.damage.area_mm2)
    assert broken.metadata["damage"]["tiles"] == 4
    assert np.array_equal(broken.unread().compute() == 1, lost)
    assert broken.read_unread(Box.from_size(broken.grid.coarsen(8)), 3).sum() >= lost.sum() / 64
    assert not sound.unread().compute().any()


def test_what_could_not_be_looked_at_is_unread_also_where_no_tissue_is_seen(tmp_path: Path, sample_data: Path) -> None:
    """Where the file is damaged, the search for tissue sees none; the map must not say that there is none."""
    slide = damaged_copy(sample_data / "CMU-1-Small-Region.svs", tmp_path / "d.svs", [44], no_jpeg)
    predict(slide, tmp_path / "d.zarr", color_model(mpp=2), PredictOptions(gate=False))
    broken, step = open_map(tmp_path / "d.zarr"), 2 / 0.499
    rows, columns = slice(round(4 * 240 / step), round(5 * 240 / step)), slice(round(960 / step), round(1200 / step))
    unread = broken.unread().compute()
    assert unread[rows, columns].all()
    assert unread.sum() <= 62 * 62
    assert (broken.class_map().compute()[unread == 1] == 0).all()


def test_a_damaged_tile_is_unread_at_coarser_maps_too(tmp_path: Path, sample_data: Path) -> None:
    slide = damaged_copy(sample_data / "CMU-1-Small-Region.svs", tmp_path / "d.svs", [44], no_jpeg)
    predict(slide, tmp_path / "d.zarr", color_model(mpp=2), PredictOptions(tissue="none", gate=False))
    class_map = open_map(tmp_path / "d.zarr").class_map().compute()
    step = 2 / 0.499
    rows, columns = slice(round(4 * 240 / step), round(5 * 240 / step)), slice(round(960 / step), round(1200 / step))
    assert (class_map[rows, columns] == 0).all()
    assert 60 * 60 <= (class_map == 0).sum() <= 62 * 62


def test_by_the_published_rule_class_1_wins_where_none_passes_and_the_segmenter_is_always_asked(tmp_path: Path) -> None:
    classes = painted(tmp_path / "p.png")
    for rule, same in (("exclude", False), ("multiply_logits", True)):
        options = PredictOptions(mpp=1, tissue="none", overlap=0, gate_threshold=1, gate_rule=rule)
        result = predict(tmp_path / "p.png", tmp_path / "m.zarr", color_model(), options, overwrite=True)
        tissue_map = open_map(tmp_path / "m.zarr")
        assert (tissue_map.class_map().compute() == 1).all() == same
        assert result.counts.decided == (0 if same else result.counts.read)
        assert result.counts.shut[1] == result.counts.read if same else result.counts.shut[1] < result.counts.read
        assert tissue_map.metadata["parameters"]["gate_rule"] == rule
    assert (classes != 1).any()


def test_the_faithful_way_has_no_overlap_unless_one_is_stated(tmp_path: Path) -> None:
    painted(tmp_path / "p.png")
    for stated, used in ((None, 0), (0.25, 0.25)):
        options = PredictOptions(mpp=1, tissue="none", overlap=stated, faithful=True)
        predict(tmp_path / "p.png", tmp_path / "m.zarr", color_model(), options, overwrite=True)
        parameters = open_map(tmp_path / "m.zarr").metadata["parameters"]
        assert (parameters["overlap"], parameters["gate_rule"]) == (used, "multiply_logits")
    with pytest.raises(OptionError, match="exclude, multiply_logits"):
        PredictOptions(gate_rule="times")


def test_the_gate_in_context_outvotes_a_patch_and_spares_its_neighbours(tmp_path: Path) -> None:
    """One green patch among red ones: alone it is believed, in the mean of its surroundings it is not."""
    shown = np.full((7 * 64, 7 * 64), 1)
    shown[3 * 64 : 4 * 64, 3 * 64 : 4 * 64] = 2
    Image.fromarray(np.array([(0, 0, 0), *COLORS.values()], np.uint8)[shown]).save(tmp_path / "p.png")
    model = color_model(overlap=0)
    for context, green in ((0.0, 64 * 64), (0.5, 64 * 64), (1.0, 0)):
        options = PredictOptions(mpp=1, tissue="none", gate_context=context)
        result = predict(tmp_path / "p.png", tmp_path / f"{context}.zarr", model, options)
        classes = open_map(tmp_path / f"{context}.zarr").class_map().compute()
        assert (classes == 2).sum() == green
        assert (classes == 1).sum() == 49 * 64 * 64 - green
        assert result.counts.read == 49
    # 0.5 is asked for. Green's mean there, of a Gaussian cut at two standard deviations, is 1 / (1 + 2 e^-2)^2 = 0.62
    # with half a side of a patch, and 1 / (1 + 2 e^-0.5 + 2 e^-2)^2 = 0.16 with a whole one.
    fingerprints = []
    for batch_size, workers in ((1, 1), (5, 2), (64, 4)):
        options = PredictOptions(mpp=1, tissue="none", gate_context=1.0, batch_size=batch_size, workers=workers)
        predict(tmp_path / "p.png", tmp_path / "s.zarr", model, options, overwrite=True)
        fingerprints.append(open_map(tmp_path / "s.zarr").class_map().compute().tobytes())
    assert len(set(fingerprints)) == 1


def test_large_tiles_draw_the_same_map_whatever_the_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy networks look at single pixels, so windows of a tile see what patches do."""
    classes = painted(tmp_path / "p.png", (700, 900))
    classes[-3:, -5:] = 1  # a speck that no gate lets pass
    maps = []
    for side in (512, 4096):
        monkeypatch.setattr(memory, "PIECE_PX", side)
        options = PredictOptions(mpp=1, tissue="none", gate_mode="windows")
        result = predict(tmp_path / "p.png", tmp_path / f"{side}.zarr", color_model(), options)
        tissue_map = open_map(tmp_path / f"{side}.zarr")
        assert np.array_equal(tissue_map.class_map().compute(), classes)
        assert tissue_map.metadata["parameters"]["patch_px"] == 112  # a patch and a stride of 48
        maps.append((tissue_map.probabilities().compute().astype(int), result.areas, result.counts))
    assert np.abs(maps[0][0] - maps[1][0]).max() <= 1
    assert maps[0][2] == maps[1][2]
    assert maps[0][2].gated > 0
    with pytest.raises(BundleError, match="gate_context"):
        PredictOptions(gate_mode="windows", gate_context=1).resolved(color_model())


def test_the_map_does_not_depend_on_its_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painted(tmp_path / "p.png", (700, 1100))
    for context in (0.0, 1.0):
        maps, counts = [], []
        for side in (512, 1024, 4096):
            monkeypatch.setattr(memory, "PIECE_PX", side)
            options = PredictOptions(mpp=1, tissue="none", gate_context=context, overlap=0.5)
            result = predict(tmp_path / "p.png", tmp_path / "m.zarr", color_model(), options, overwrite=True)
            maps.append(open_map(tmp_path / "m.zarr").probabilities().compute().astype(int))
            counts.append(result.counts)
        assert np.abs(maps[0] - maps[1]).max() <= 1
        assert np.abs(maps[0] - maps[2]).max() <= 1
        assert counts[0] == counts[1] == counts[2]
        assert counts[0].read == counts[0].tiles
