"""Endpoints on maps of known composition, and intervals that hold what they promise."""

import math
from pathlib import Path

import numpy as np
import pytest
import shapely
from scipy import ndimage

from tests.helpers.report_maps import L, N, S, T, disc, ground, made_map, striped
from wsiseg.classes import WHITE_VALUE
from wsiseg.errors import OptionError
from wsiseg.geometry import Mpp
from wsiseg.report.bulk import BulkOptions
from wsiseg.report.coarse import CoarseMap
from wsiseg.report.confusion import ErrorMatrix, corrected_shares, read_evaluation
from wsiseg.report.endpoints import ENDPOINTS, percent
from wsiseg.report.hot_spot import find_field
from wsiseg.report.intervals import effective, likeness, nested, spatial, tails
from wsiseg.report.measure import MeasureOptions, Measures, measure
from wsiseg.report.methods import methods
from wsiseg.report.roles import roles_of
from wsiseg.report.tally import tally
from wsiseg.tissue_map.reader import open_map

CELLS = Mpp(8, 8)


def measured(path: Path, options: MeasureOptions | None = None, **further: object) -> Measures:
    source = open_map(path)
    return measure(CoarseMap.of(source), roles_of(source.classes, {}), options or MeasureOptions(), **further)


def test_shares_of_stripes(tmp_path: Path) -> None:
    found = measured(made_map(tmp_path / "m.zarr", striped(5, 5), confidence=0.7))
    bulk = {one.name: one for one in found.counted}
    assert bulk["stroma_pct"].value == pytest.approx(60, abs=0.6)
    assert bulk["dense_infiltrate_pct"].value == pytest.approx(100 / 3, abs=0.4)
    assert bulk["necrosis_of_tumour_pct"].value == 0
    assert bulk["core_tumour_pct"].value == pytest.approx(40, abs=0.4)
    # The outline follows the first and the last stripe of tumour, so that there is a little more of it inside.
    assert bulk["inner_stroma_pct"].value == pytest.approx(60, abs=1.5)
    assert bulk["stroma_pct"].denominator_mm2 == pytest.approx(25, rel=0.01)
    assert bulk["stroma_pct"].low < 60 < bulk["stroma_pct"].high
    assert bulk["stroma_pct"].high - bulk["stroma_pct"].low < 2, "every block is like the others"
    # Of probabilities 0.7, 0.1, 0.1, 0.1 the sums are 0.4 * 0.7 + 0.6 * 0.1 of tumour, and so on.
    soft = next(one for one in found.variants["stroma_pct"] if one.name == "stroma_pct_by_probability")
    tumour, stroma = 0.4 * 0.7 + 0.6 * 0.1, (0.4 + 0.2) * 0.7 + (0.6 + 0.8) * 0.1
    assert soft.value == pytest.approx(100 * stroma / (stroma + tumour), abs=0.5)
    assert soft.includes == "spatial"
    assert soft.method == "wsiseg:stroma_pct/1+probability"


def test_white_unread_and_other_tissue_are_in_no_share(tmp_path: Path) -> None:
    classes = striped(5, 5)
    columns = np.arange(classes.shape[1]) % 40
    classes[:, columns < 10], classes[:, columns >= 35] = WHITE_VALUE, 0
    found = measured(made_map(tmp_path / "m.zarr", classes, probabilities=False))
    one = found.of("stroma_pct")
    assert one is not None
    assert one.value == pytest.approx(60, abs=0.6)
    assert one.denominator_mm2 == pytest.approx(25 * 5 / 8, rel=0.02)
    assert found.variants["stroma_pct"] == []


def test_a_bed_drawn_by_a_person(tmp_path: Path) -> None:
    classes = ground(6, 6, S)
    classes[disc(classes, 3, 3, 1)] = T
    classes[disc(classes, 3, 3, 0.5)] = N
    bed = [shapely.box(1000 * 2, 1000 * 2, 1000 * 10, 1000 * 10)]  # level-0 pixels of 0.5 um: 1 mm to 5 mm
    found = measured(made_map(tmp_path / "m.zarr", classes), bed=bed)
    tumour, necrosis, area = math.pi * 0.75, math.pi * 0.25, 16.0
    values = {one.name: one.value for one in found.counted}
    assert values["bed_viable_tumour_pct"] == pytest.approx(100 * tumour / area, rel=0.01)
    assert values["bed_necrosis_pct"] == pytest.approx(100 * necrosis / area, rel=0.01)
    assert values["bed_necrosis_of_tumour_pct"] == pytest.approx(25, rel=0.01)
    assert values["necrosis_of_tumour_pct"] == pytest.approx(25, rel=0.01)
    assert found.zone_mm2["bed"] == pytest.approx(area, rel=0.01)
    assert "bed_viable_tumour_pct" not in {one.name for one in measured(tmp_path / "m.zarr").counted}


def test_margins_know_inside_from_outside(tmp_path: Path) -> None:
    """A disc whose inner rim is half lymphocytes, in stroma whose next half millimetre is a quarter of them."""
    classes = ground(9, 9, S)
    rows = np.arange(classes.shape[0])[:, None] % 4
    outer, middle, core = (disc(classes, 4.5, 4.5, radius) for radius in (2.5, 2.0, 1.5))
    classes[outer & (rows == 0)] = L
    classes[middle] = np.where(rows < 2, T, np.where(rows == 2, L, S)).repeat(classes.shape[1], axis=1)[middle]
    classes[core] = T
    values = {one.name: one.value for one in measured(made_map(tmp_path / "m.zarr", classes)).counted}
    assert values["core_tumour_pct"] == pytest.approx(100, abs=0.5)
    assert values["inner_dense_infiltrate_pct"] == pytest.approx(50, abs=1)
    assert values["outer_dense_infiltrate_pct"] == pytest.approx(25, abs=1)
    assert values["outer_tumour_pct"] == pytest.approx(0, abs=1)


def test_the_hot_spot_has_tumour_on_all_sides() -> None:
    classes = ground(9, 14, S)
    whole = np.zeros_like(classes, bool)
    whole[100:1000, 100:1600] = True
    rows = np.arange(classes.shape[0])[:, None] % 10
    classes[whole & (rows < 5)] = T
    inside = disc(classes, 4, 4.5, 0.8)
    classes[inside] = S  # stroma within tumour: the hot spot
    edge = disc(classes, 13, 4.5, 2.2)
    classes[edge] = S  # as much stroma at the border, with tumour on one side alone
    tumour, stroma = classes == T, classes == S
    field = find_field(tumour, stroma, whole, CELLS, 2000)
    assert field is not None
    assert np.hypot(field.x * 0.008 - 4, field.y * 0.008 - 4.5) < 0.3
    mask = field.mask(classes.shape, CELLS)
    assert np.count_nonzero(mask) * 64e-6 == pytest.approx(math.pi, rel=0.01)
    assert stroma[mask].mean() == pytest.approx(0.5 + 0.5 * 0.8**2, abs=0.03)
    assert find_field(tumour & ~whole, stroma, whole, CELLS, 2000) is None
    assert find_field(tumour[:50, :50], stroma[:50, :50], whole[:50, :50], CELLS, 2000) is None


def test_no_bulk_is_said(tmp_path: Path) -> None:
    found = measured(made_map(tmp_path / "m.zarr", ground(2, 2, S)))
    assert found.bulk is None
    assert all(not one.known and "no tumour bulk of 1 mm²" in one.reason for one in found.counted)
    biopsy = measured(made_map(tmp_path / "b.zarr", striped(4, 4)), MeasureOptions(BulkOptions.of("biopsy")))
    reasons = {one.name: one.reason for one in biopsy.counted}
    assert reasons["core_tumour_pct"] == "there is no invasive margin on a biopsy"


def test_few_blocks_give_no_interval(tmp_path: Path) -> None:
    one = measured(made_map(tmp_path / "m.zarr", striped(1, 1)), MeasureOptions(BulkOptions.of("biopsy"))).of(
        "stroma_pct"
    )
    assert one is not None and one.known
    assert math.isnan(one.low)
    assert one.includes == ""
    assert one.reason.startswith("interval not estimable: 1 block of 1 mm, ")
    assert measured(tmp_path / "m.zarr", MeasureOptions(BulkOptions.of("biopsy"), resamples=0)).counted[0].low != 0


def test_the_same_draws_give_the_same_interval(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    classes = np.where(ndimage.gaussian_filter(rng.standard_normal((400, 400)), 8) > 0, T, S).astype(np.uint8)
    path = made_map(tmp_path / "m.zarr", classes)
    one, other = (measured(path).of("stroma_pct") for _ in range(2))
    assert one == other
    third = measured(path, MeasureOptions(seed=1)).of("stroma_pct")
    assert third is not None and one is not None
    assert third.value == one.value
    assert third.low != one.low


def test_intervals_over_blocks_cover_the_truth() -> None:
    """Of fields of 25 mm2 with a known share. Neighbouring blocks are a little alike, which costs some of the 95 %."""
    rng = np.random.default_rng(0)
    hits, widths = 0, []
    for trial in range(200):
        field = ndimage.gaussian_filter(rng.standard_normal((125, 125)), 3) > 0  # cells of 40 um, structures of 0.3 mm
        stroma = field.reshape(5, 25, 5, 25).sum(axis=(1, 3)).ravel().astype(float)  # blocks of 1 mm
        blocks = np.stack([stroma, 25.0**2 - stroma], axis=1)
        low, high = spatial(blocks, lambda areas: percent(areas[:, 0], areas.sum(axis=1)), 500, trial, len(blocks))
        hits += low <= 50 <= high
        widths.append(high - low)
    assert 0.87 <= hits / 200 <= 0.97
    assert 2 < np.mean(widths) < 15


@pytest.mark.parametrize(("structure", "least"), [(4, 0.9), (6, 0.87)])
def test_neighbours_that_are_alike_widen_the_interval(structure: float, least: float) -> None:
    """Structures of 0.4 and 0.6 mm in blocks of 1 mm, with and without a look at the neighbours."""
    rng = np.random.default_rng(1)
    places = np.argwhere(np.ones((6, 6)))
    hits = np.zeros(2)
    for trial in range(150):
        field = ndimage.gaussian_filter(rng.standard_normal((200, 200)), structure)[25:175, 25:175] > 0
        stroma = field.reshape(6, 25, 6, 25).sum(axis=(1, 3)).ravel().astype(float)
        blocks = np.stack([stroma, np.full(36, 25.0**2)], axis=1)
        alike = likeness(stroma - 625 * stroma.mean() / 625, places)
        assert alike >= 1
        for index, factor in enumerate((1.0, alike)):
            low, high = spatial(blocks, lambda areas: percent(areas[:, 0], areas[:, 1]), 300, trial, 36, factor)
            hits[index] += low <= 50 <= high
    assert hits[0] < hits[1]
    assert least <= hits[1] / 150 <= 0.99


def test_likeness_is_that_of_neighbours() -> None:
    places = np.argwhere(np.ones((20, 20)))
    rows, columns = places.T
    noise = np.random.default_rng(0).standard_normal(400)
    assert likeness(noise, places) < 1.6
    # Two by two the same: a side's neighbour in every second pair, so that four blocks say what one does.
    pairs = np.random.default_rng(1).standard_normal((10, 10))[rows // 2, columns // 2]
    assert 2.8 < likeness(pairs, places) < 5.2
    assert likeness(np.where((rows + columns) % 2, 1.0, -1.0), places) == 1, "chance or a pattern narrows nothing"
    assert likeness(np.zeros(400), places) == 1
    assert likeness(np.ones(1), places[:1]) == 1


@pytest.mark.parametrize("count", [6, 12, 60])
def test_few_and_unequal_blocks_cover_as_well(count: int) -> None:
    rng = np.random.default_rng(count)
    hits = 0
    for trial in range(300):
        size = rng.uniform(0.5, 1, count)
        share = rng.beta(6, 4, count)
        blocks = np.stack([size * share, size], axis=1)
        low, high = spatial(blocks, lambda areas: percent(areas[:, 0], areas[:, 1]), 400, trial, effective(size))
        hits += low <= 60 <= high
    assert 0.91 <= hits / 300 <= 0.985


def test_cohorts_of_patients_with_several_slides() -> None:
    """Slides of a patient are alike: an interval that took them for patients would be too narrow."""
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        groups = [rng.normal(50 + rng.normal(0, 10), 3, rng.integers(1, 6)) for _ in range(12)]
        low, high = nested(groups, 400, trial)
        hits += low <= 50 <= high
    assert 0.92 <= hits / 300 <= 0.99


def test_percentiles_move_out_for_few_draws() -> None:
    assert tails(1e6) == pytest.approx((2.5, 97.5), abs=0.01)
    assert tails(6)[0] < 0.5
    assert effective(np.array([1.0, 1, 1, 1])) == 4
    assert effective(np.array([1.0, 0, 0, 0])) == 1
    assert effective(np.zeros(3)) == 0


def test_blocks_hold_all_of_a_zone(tmp_path: Path) -> None:
    classes = striped(5.5, 3.2)
    coarse = CoarseMap.of(open_map(made_map(tmp_path / "m.zarr", classes)))
    whole = np.ones(classes.shape, bool)
    found = tally(coarse, {"bulk": whole}, 1000)["bulk"]
    assert found.counted.shape == (6 * 4, 4)
    assert found.counted.sum(axis=0) == pytest.approx([(classes == c).sum() * 64e-6 for c in (T, S, L, N)])
    assert found.counted.sum(axis=1).max() == pytest.approx(1.0)
    assert found.summed is not None
    assert found.summed.sum() == pytest.approx(found.counted.sum(), rel=0.01)


OLOFSSON = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]], float)
"""Table 8 of Olofsson et al. (2014): rows are mapped."""


def test_the_published_example_of_corrected_areas() -> None:
    mapped = np.array([200_000, 150_000, 3_200_000, 6_450_000], float)
    share, error = corrected_shares(mapped, OLOFSSON)
    assert share.sum() == pytest.approx(1)
    assert share[0] * 1e7 == pytest.approx(235_086, abs=1)
    assert 1.96 * error[0] * 1e7 == pytest.approx(68_418, abs=1)


def test_drawn_matrices_spread_as_the_estimator_says() -> None:
    mapped = np.array([200_000, 150_000, 3_200_000, 6_450_000], float)
    total = OLOFSSON.sum(axis=1)
    matrix = ErrorMatrix(tuple("abcd"), OLOFSSON / total[:, None], total, "h", "pixels", "d", "f")
    shares = np.einsum("i,rij->rj", mapped / mapped.sum(), matrix.draws(20_000, 0))
    wanted, error = corrected_shares(mapped, OLOFSSON)
    assert shares.mean(axis=0) == pytest.approx(wanted, rel=0.01)
    assert shares.std(axis=0) == pytest.approx(error, rel=0.05)


def test_endpoints_corrected_by_a_confusion_matrix(tmp_path: Path) -> None:
    """A quarter of what is mapped as stroma is tumour: of 40 T, 40 S, 20 L it makes 50 T, 30 S, 20 L."""
    truth = np.eye(4)
    truth[1] = [0.25, 0.75, 0, 0]
    path = made_map(tmp_path / "m.zarr", striped(4, 4))
    small = ErrorMatrix(
        ("Tumour", "Stroma", "Lymphocytes", "Necrosis"), truth, np.full(4, 40.0), "1" * 64, "pixels", "d", "f"
    )
    found = measured(path, matrix=small)
    one = next(one for one in found.variants["stroma_pct"] if one.method.endswith("+confusion"))
    assert one.value == pytest.approx(50, abs=0.6)
    assert one.includes == "spatial + confusion"
    counted = found.of("stroma_pct")
    assert counted is not None
    assert one.high - one.low > 5 * (counted.high - counted.low)
    # 40 observations of stroma: the share of tumour in it has a standard error of 6.8 %, of 40 % of the area.
    assert one.high - one.low == pytest.approx(2 * 1.96 * 0.4 * 100 * math.sqrt(0.25 * 0.75 / 40), rel=0.2)
    large = ErrorMatrix(small.classes, truth, np.full(4, 4000.0), "1" * 64, "pixels", "d", "f")
    narrow = next(
        one for one in measured(path, matrix=large).variants["stroma_pct"] if one.method.endswith("+confusion")
    )
    assert narrow.high - narrow.low < (one.high - one.low) / 4
    none = ErrorMatrix(small.classes, truth, np.array([40.0, 2, 40, 40]), "1" * 64, "pixels", "d", "f")
    blank = next(one for one in measured(path, matrix=none).variants["stroma_pct"] if one.method.endswith("+confusion"))
    assert not blank.known
    assert "too little of what is mapped as Stroma" in blank.reason


def test_what_evaluate_writes_is_read(tmp_path: Path) -> None:
    from wsiseg.evaluation.figures import bootstrap, confusion_figures
    from wsiseg.evaluation.gate import GateReport
    from wsiseg.evaluation.result import Evaluation, column_of

    rng = np.random.default_rng(0)
    shares = np.array([[0.8, 0.2], [0.1, 0.9]])
    groups = np.stack([np.stack([rng.multinomial(900, row) for row in shares]) for _ in range(30)])
    figures = bootstrap(groups, confusion_figures, 400, 0)
    column = column_of("predicted_gate", groups.sum(axis=0), figures, "pixels", ("Stroma", "Tumour"))
    made = Evaluation(
        "pixels", ("Stroma", "Tumour"), {"predicted_gate": column}, GateReport.__new__(GateReport), None,
        {"name": "d", "images": 30}, {"name": "m", "hash": "1" * 64}, {},
    )  # fmt: skip
    import json

    content = {
        "format": 1, "model": made.model, "data": made.data, "truth": made.kind, "classes": list(made.classes),
        "columns": {"predicted_gate": column.to_json()},
    }  # fmt: skip
    path = tmp_path / "e.json"
    path.write_text(json.dumps(content))
    found = read_evaluation(path)
    assert found.truth.sum(axis=1) == pytest.approx([1, 1])
    assert found.truth[0] == pytest.approx([0.8 / 0.9, 0.1 / 0.9], abs=0.02)
    # Pixels that are independent are worth their number.
    assert found.sample == pytest.approx(groups.sum(axis=(0, 1)), rel=0.4)
    turned = found.for_classes(["Tumour", "Stroma"])
    assert turned is not None
    assert turned.truth[1, 1] == found.truth[0, 0]
    said = methods([], MeasureOptions(), turned, patients=False).text
    assert "confusion matrix of e.json (pixels in 30 images of d)" in said
    assert any(
        one.definition.startswith("(stroma + lymphocytes) / (tumour + stroma + lymphocytes)") for one in ENDPOINTS
    )
    assert found.for_classes(["Tumour", "Fat"]) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"classes": ["a"], "columns": {}}', '{"classes": 3, "columns": null}']
)
def test_what_is_no_evaluation_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "e.json"
    path.write_text(text)
    with pytest.raises(OptionError, match="evaluate --json"):
        read_evaluation(path)
    with pytest.raises(OptionError, match="cannot read"):
        read_evaluation(tmp_path / "other.json")
