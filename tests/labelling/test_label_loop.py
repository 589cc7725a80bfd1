"""The parts of `benchmarks/label_loop.py` that its figures rest on: rules, costs, thinning, order, pairing."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from wsiseg.classes import ClassTable
from wsiseg.datasets.spreadsheet import read_spreadsheet
from wsiseg.labelling.places import Candidate

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    """Imports a benchmark by its name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        return import_module(name)

    yield load
    for name in [name for name, module in sys.modules.items() if _is_benchmark(module)]:
        del sys.modules[name]


def _is_benchmark(module: ModuleType) -> bool:
    return Path(getattr(module, "__file__", None) or "/").parent == BENCHMARKS


def patches(pool: ModuleType, labels: list[tuple[int, ...]], cover: tuple[float, ...] = ()) -> list:
    """Patches of ten patients with these labels."""
    return [
        pool.Answerable(Candidate(f"p{n}", f"s{n % 10}", f"g{n % 10}", n, 0, None), Path("none"), label, cover)
        for n, label in enumerate(labels)
    ]


def test_a_class_is_present_from_five_per_cent_of_a_patch_on(bench) -> None:
    present = bench("lung_patches").present
    truth = np.zeros((100, 100), np.uint8)
    truth[:5] = 1
    assert present(truth) == (1, 1, 0)
    truth[4, -1] = 0
    assert present(truth) == (1, 0, 0)


def test_the_person_answers_the_truth_flips_a_share_or_misses_small_classes(bench) -> None:
    pool = bench("label_pool")
    given = patches(pool, [(1, 0, 1)] * 2000, (0.8, 0.0, 0.07))
    assert {pool.Annotator().answer(one) for one in given} == {(1, 0, 1)}
    assert {pool.Annotator(misses=True).answer(one) for one in given} == {(1, 0, 0)}
    unsure = pool.Annotator(flips=0.1, seed=3)
    answers = np.array([unsure.answer(one) for one in given])
    assert np.abs((answers != (1, 0, 1)).mean(axis=0) - 0.1).max() < 0.02
    assert unsure.answer(given[7]) == unsure.answer(given[7])


def test_clicks_are_classes_patches_and_five_a_page(bench) -> None:
    clicks = bench("label_pool").clicks
    assert clicks([]) == 0
    assert clicks([(1, 0, 1)]) == 2 + 1 + 5
    assert clicks([(1, 0, 0)] * 24) == 24 + 24 + 5
    assert clicks([(0, 0, 0)] * 25) == 25 + 10


def test_thinning_leaves_two_per_cent_and_drops_no_other_patch(bench) -> None:
    pool = bench("label_pool")
    given = patches(pool, [(1, 0, 0)] * 980 + [(0, 1, 1)] * 300)
    thinned = pool.thin([one.label for one in given], given, 2, 0.02, seed=0)
    assert len(thinned) == 1000
    assert sum(one.label[2] for one in thinned) == 20
    assert sum(one.label[0] for one in thinned) == 980


def test_every_beginning_of_the_order_is_spread_over_patients(bench) -> None:
    pool = bench("label_pool")
    given = patches(pool, [(1, 0, 0)] * 200)
    order = pool.in_chance_order(given, 5)
    assert len({one.place.id for one in order}) == 200
    assert len({one.place.group for one in order[:10]}) == 10
    assert [one.place.id for one in order] == [one.place.id for one in pool.in_chance_order(given, 5)]
    assert [one.place.id for one in order] != [one.place.id for one in pool.in_chance_order(given, 6)]


def test_differences_are_of_runs_that_both_strategies_have(bench) -> None:
    table = bench("label_table")
    one = {(0, 0): {"x": 3.0}, (1, 0): {"x": 5.0}, (2, 0): {"x": 9.0}}
    other = {(1, 0): {"x": 4.0}, (0, 0): {"x": 1.0}}
    assert table.paired(one, other, lambda result: result["x"]) == [2.0, 1.0]
    assert table.mean_and_error([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1 / np.sqrt(3)))
    assert table.area([(100, 0.5), (50, 0.5), (400, 0.5)]) == pytest.approx(0.5)
    assert table.area([(1, 0.0), (4, 1.0)]) == pytest.approx(0.5)


def test_the_largest_wrong_region_is_corrected_once(bench) -> None:
    corrections = bench("label_corrections")
    truth = np.zeros((20, 20), np.uint8)
    truth[:, 10:] = 1
    truth[0, :] = 3  # not counted
    drawn = np.zeros((20, 20), np.int64)
    drawn[15:, :5] = 1
    known = np.full((20, 20), 255, np.uint8)
    region = corrections.largest_wrong(drawn, truth, known, 3)
    assert region.sum() == 19 * 10
    assert region[1:, 10:].all()
    known[region] = truth[region]
    assert corrections.largest_wrong(drawn, truth, known, 3).sum() == 5 * 5


def test_random_patches_of_a_chosen_round_are_validation(bench, tmp_path: Path) -> None:
    pool, loop = bench("label_pool"), bench("label_loop")
    picture = tmp_path / "pixels.png"
    Image.new("RGB", (48, 48), (200, 150, 180)).save(picture)
    given = [pool.Answerable(one.place, picture, one.label) for one in patches(pool, [(1, 0, 0), (0, 1, 0), (0, 1, 1)])]
    whole = pool.Pool("tiny", ClassTable.from_names(["A", "B", "C"]), 1.0, 48, 0.0, 2, {0: (), 1: given}, {0: ()})
    setting = loop.Setting(whole, False, 0, 0, pool.Annotator())
    labelled = [
        loop.Labelled(given[0], (1, 0, 0), 0, "random"),
        loop.Labelled(given[1], (0, 1, 0), 1, "classwise", "abc"),
        loop.Labelled(given[2], (0, 1, 1), 1, "random", "abc"),
    ]
    table = read_spreadsheet(loop.write_patches(tmp_path / "data", setting, labelled) / "labels.csv")
    rows = [dict(zip(table.header, row, strict=False)) for _, row in table.rows]
    assert [row.get("split", "") for row in rows] == ["", "", "val"]
    assert [row["C"] for row in rows] == ["0", "0", "1"]
    taken = loop.Loop(tmp_path / "out", setting).labelled("random", 3)
    assert [one.patch.place.id for one in taken] == [one.place.id for one in pool.in_chance_order(given, 0)]
