"""Evaluation of a model whose answer is known, against truths that differ from it by known pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.color_model import color_model
from tests.helpers.evaluation_data import painted, write_dataset
from wsiseg.choices import GateMode
from wsiseg.errors import BundleError, DatasetError, OptionError
from wsiseg.evaluation.gates import Exclude, Limits, MultiplyLogits, orientations, undone
from wsiseg.evaluation.result import TITLES
from wsiseg.evaluation.run import EvaluateOptions, evaluate
from wsiseg.models.large_tiles import Windows
from wsiseg.prediction.run import PredictOptions, predict
from wsiseg.tissue_map.reader import open_map

PLAIN = np.zeros((64, 64), np.uint8)


def halves(left: int, right: int, side: int = 64) -> np.ndarray:
    channels = np.full((side, side), left, np.uint8)
    channels[:, side // 2 :] = right
    return channels


@pytest.fixture
def two_patches(tmp_path: Path) -> Path:
    """One patch that is as it looks, one whose green quarter is truly blue and whose first rows are excluded."""
    shown = halves(0, 1)
    truth = shown.copy()
    truth[32:, 32:] = 2
    truth[:2] = 3
    images = [(PLAIN, PLAIN, "t", "train"), (halves(0, 1), halves(0, 1), "a", "test"), (shown, truth, "b", "test")]
    return write_dataset(tmp_path / "data", images)


def test_figures_are_those_of_the_pixels(two_patches: Path) -> None:
    found = evaluate(color_model(), two_patches, EvaluateOptions(flips=True))
    assert list(found.columns) == list(TITLES)
    assert list(evaluate(color_model(), two_patches).columns) == ["no_gate", "predicted_gate", "oracle_gate"]
    expected = [[2048 + 1984, 0, 0], [0, 2048 + 960, 0], [0, 1024, 0]]
    for key in ("no_gate", "predicted_gate", "flips"):
        assert found.columns[key].confusion.tolist() == expected
    column = found.columns["no_gate"]
    assert column.per_class["Green"]["iou"].value == pytest.approx(3008 / 4032)
    assert column.overall["mean_iou"].value == pytest.approx((1 + 3008 / 4032 + 0) / 3)
    assert column.overall["pixel_accuracy"].value == pytest.approx((4032 + 3008) / 8064)
    assert found.data["groups"] == 2
    assert found.data["pixels"] == {"Red": 4032, "Green": 3008, "Blue": 1024}
    assert "true labels" in found.columns["oracle_gate"].title


def test_the_oracle_shuts_what_is_not_there_and_nothing_else(tmp_path: Path) -> None:
    shown = halves(0, 1)
    truth = np.zeros_like(shown)  # green that is truly red: the oracle knows that there is no green
    data = write_dataset(tmp_path / "d", [(PLAIN, PLAIN, "t", "train"), (shown, truth, "a", "test")])
    found = evaluate(color_model(), data)
    assert found.columns["predicted_gate"].confusion[0].tolist() == [2048, 2048, 0]
    assert found.columns["oracle_gate"].confusion[0].tolist() == [4096, 0, 0]
    assert found.gate.per_class["Green"]["specificity"] == 0
    assert found.gate.per_class["Red"]["recall"] == 1
    assert found.gate.per_class["Blue"]["specificity"] == 1


@pytest.mark.parametrize("mpp", [1.0, 0.5, 2.0])
@pytest.mark.parametrize(
    ("gate", "context", "mode"),
    [(True, 0.0, "patches"), (False, 0.0, "patches"), (True, 1.0, "patches"), (True, 0.0, "windows")],
)
def test_the_map_is_the_one_that_predict_writes(
    tmp_path: Path, mpp: float, gate: bool, context: float, mode: GateMode
) -> None:
    random = np.random.default_rng(0)
    shown = np.kron(random.integers(0, 3, (8, 10)), np.ones((19, 17), int)).astype(np.uint8)  # 152 x 170
    Image.fromarray(painted(shown)).save(tmp_path / "p.png")
    model = color_model(gate=0.9)
    options = PredictOptions(mpp=mpp, tissue="none", gate=gate, gate_context=context, gate_mode=mode)
    predict(tmp_path / "p.png", tmp_path / "m.zarr", model, options)
    written = open_map(tmp_path / "m.zarr")
    classes, step = written.class_map().compute(), written.grid.step_x
    at = [
        np.minimum((np.arange(n) + 0.5) / step, m - 1).astype(int)
        for n, m in zip(shown.shape, classes.shape, strict=True)
    ]
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (shown, classes[np.ix_(*at)] - 1), 1)
    data = write_dataset(tmp_path / "d", [(PLAIN, PLAIN, "t", "train"), (shown, shown, "a", "test")], mpp=mpp)
    found = evaluate(model, data, EvaluateOptions(batch_size=3, gate_context=context, gate_mode=mode))
    assert found.settings["gate_mode"] == mode
    assert found.columns["predicted_gate" if gate else "no_gate"].confusion.tolist() == expected.tolist()


def test_large_tiles_have_the_columns_of_patches(tmp_path: Path) -> None:
    """To networks that see single pixels a window is a patch; the oracle goes by the truth of each window."""
    random = np.random.default_rng(1)
    shown = np.kron(random.integers(0, 3, (6, 6)), np.ones((24, 24), int)).astype(np.uint8)  # 144 x 144
    truth = np.where(random.random(shown.shape) < 0.001, 2, shown).astype(np.uint8)
    data = write_dataset(tmp_path / "d", [(PLAIN, PLAIN, "t", "train"), (shown, truth, "a", "test")])
    patches, windows = (
        evaluate(color_model(overlap=0.5), data, EvaluateOptions(gate_mode=m, flips=True))
        for m in ("patches", "windows")
    )
    for key in TITLES:
        assert windows.columns[key].confusion.tolist() == patches.columns[key].confusion.tolist()
    assert windows.gate.tiles > 0
    for name, row in windows.gate.per_class.items():
        assert row["recall"] == pytest.approx(patches.gate.per_class[name]["recall"], abs=0.1)


@pytest.mark.parametrize("context", [0.0, 1.0])
def test_an_image_of_several_pieces_counts_each_tile_and_pixel_once(tmp_path: Path, context: float) -> None:
    """Patches that reach over the border of a piece are computed for both."""
    shown = halves(0, 1, 64).repeat(52, axis=1)  # 64 x 3328, and pieces are at most 3072 px wide
    data = write_dataset(tmp_path / "d", [(PLAIN, PLAIN, "t", "train"), (shown, shown, "a", "test")])
    told: list[tuple[int, int]] = []
    options = EvaluateOptions(gate_mode="patches", gate_context=context, resamples=0, flips=True)
    found = evaluate(color_model(), data, options, lambda *done: told.append(done))
    assert found.gate.tiles == 1 + -(-(3328 - 64) // 48)
    for column in found.columns.values():
        assert column.confusion.tolist() == np.diag([64 * 1664, 64 * 1664, 0]).tolist()
    assert told == [(0, 1), (1, 1)]


def test_labels_judge_the_gate_of_tiles_patch_by_patch(tmp_path: Path) -> None:
    images = [(PLAIN, PLAIN, "t", "train"), (halves(0, 1), halves(0, 1), "a", "test"), (PLAIN, PLAIN, "b", "test")]
    data = write_dataset(tmp_path / "d", images)
    rows = (data / "labels.csv").read_text().splitlines()
    (data / "labels.csv").write_text("\n".join(row.rsplit(",", 1)[0] for row in rows) + "\n")
    found = evaluate(color_model(), data, EvaluateOptions(gate_mode="windows"))
    assert found.kind == "labels"
    assert found.gate.tiles == 2
    assert found.gate.per_class["Green"]["recall"] == 1
    with pytest.raises(BundleError, match="no shared gate"):
        evaluate(color_model(), data, EvaluateOptions(gate_mode="shared"))


def test_classes_are_matched_by_name_in_any_order(two_patches: Path, tmp_path: Path) -> None:
    order = [2, 0, 1]  # of the data set: Green, Blue, Red
    other = np.array([2, 0, 1, 3], np.uint8)
    image = (halves(0, 1), other[halves(0, 1)], "a", "test")
    data = write_dataset(tmp_path / "d", [(PLAIN, other[PLAIN], "t", "train"), image], ("Green", "Blue", "Red"))
    confusion = evaluate(color_model(), data).columns["no_gate"].confusion
    assert confusion.tolist() == [[2048, 0, 0], [0, 2048, 0], [0, 0, 0]], order


@pytest.fixture
def violet(tmp_path: Path) -> Path:
    """A set for testing alone, which knows violet and no blue: a third is violet, and looks blue."""
    truth = np.zeros((60, 60), np.uint8)
    truth[20:40], truth[40:] = 1, 2
    return write_dataset(tmp_path / "d", [(truth, truth, "a", "test")], ("Red", "Green", "Violet"))


def test_classes_that_the_model_does_not_know_count_as_errors(violet: Path) -> None:
    found = evaluate(color_model(), violet)
    column = found.columns["no_gate"]
    assert found.classes == ("Red", "Green", "Blue", "Violet")
    assert column.confusion.tolist() == [[1200, 0, 0, 0], [0, 1200, 0, 0], [0] * 4, [0, 0, 1200, 0]]
    assert column.overall["mean_iou"].value == 1  # of red and green, which both know
    assert column.overall["pixel_accuracy"].value == pytest.approx(2 / 3)
    assert np.isnan(column.per_class["Violet"]["iou"].value)
    assert found.data["compared"] == ["Red", "Green"]
    assert list(found.gate.per_class) == ["Red", "Green"]
    notes = found.data["notes"]
    assert isinstance(notes, list)
    assert "does not know Violet" in str(notes[0])
    assert "has no Blue" in str(notes[1])


def test_other_classes_are_left_out_or_merged_where_asked(violet: Path) -> None:
    left = evaluate(color_model(), violet, EvaluateOptions(others="leave-out"))
    assert left.columns["no_gate"].confusion.tolist() == np.diag([1200, 1200, 0]).tolist()
    assert left.columns["no_gate"].overall["pixel_accuracy"].value == 1
    merged = evaluate(color_model(), violet, EvaluateOptions(merged={"Violet": "Blue"}))
    assert merged.columns["no_gate"].confusion.tolist() == np.diag([1200, 1200, 1200]).tolist()
    assert merged.classes == ("Red", "Green", "Blue")
    both = evaluate(color_model(), violet, EvaluateOptions(merged={"Violet": "Green", "Red": ""}))
    assert both.columns["no_gate"].confusion.tolist() == [[0, 0, 0], [0, 1200, 1200], [0, 0, 0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EvaluateOptions(merged={"Pink": "Red"}), "the data set has no class 'Pink'"),
        (EvaluateOptions(merged={"Violet": "Pink"}), "the model has no class 'Pink'"),
        (EvaluateOptions(merged={"Red": "", "Green": ""}), "no class in common"),
    ],
)
def test_matches_that_cannot_be_are_named(violet: Path, options: EvaluateOptions, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        evaluate(color_model(), violet, options)


def test_masks_that_begin_at_one_are_read_right(violet: Path) -> None:
    """As BCSS, TIGER and others have them: 0 is unlabelled."""
    path = violet / "masks" / "0.png"
    values = np.array(Image.open(path)) + np.uint8(1)
    values[:, :30] = 0
    Image.fromarray(values).save(path)
    found = evaluate(color_model(), violet, EvaluateOptions(excluded=0, merged={"Violet": "Blue"}))
    assert found.columns["no_gate"].confusion.tolist() == np.diag([600, 600, 600]).tolist()
    (violet / "dataset.json").write_text(
        '{"mpp": 1, "classes": ["Red", "Green", "Violet"], "excluded": 0, "offset": 1}'
    )
    again = evaluate(color_model(), violet, EvaluateOptions(merged={"Violet": "Blue"}))
    assert again.columns["no_gate"].confusion.tolist() == found.columns["no_gate"].confusion.tolist()


def test_dots_of_other_classes(tmp_path: Path) -> None:
    Image.fromarray(painted(halves(0, 1, 96))).save(tmp_path / "a.png")
    (tmp_path / "cells.csv").write_text(
        "file;X;Y;Class\na.png;20,5;3;Red\na.png;20,5;4;9\na.png;90;90;Fat\n"  # semicolons, decimal commas
    )
    names = {"9": "Fat", "Fat": "Fat"}
    found = evaluate(color_model(), tmp_path, EvaluateOptions(mpp=1.0, cell_classes=names, resamples=0))
    assert found.classes == ("Red", "Green", "Blue", "Fat")
    assert found.columns["no_gate"].confusion.sum(axis=1).tolist() == [1, 0, 0, 2]
    options = EvaluateOptions(mpp=1.0, cell_classes=names, merged={"Fat": "Green"}, resamples=0)
    assert evaluate(color_model(), tmp_path, options).columns["no_gate"].confusion[1].tolist() == [1, 1, 0]


def test_thresholds_are_never_chosen_on_test() -> None:
    with pytest.raises(OptionError, match="--split val alone"):
        EvaluateOptions(split="test", gate_recall=0.98)


def test_orientations_are_eight_and_turn_back() -> None:
    patches = torch.arange(2 * 3 * 16).reshape(2, 3, 4, 4)
    turned = orientations(patches)
    assert len({tuple(view[0, 0].flatten().tolist()) for view in turned}) == 8
    for index, view in enumerate(turned):
        assert torch.equal(undone(view, index), patches)


@pytest.mark.parametrize("rule", [Exclude(), MultiplyLogits()])
def test_the_mean_of_equal_views_is_gated_as_each_of_them(rule: Exclude | MultiplyLogits) -> None:
    random = torch.Generator().manual_seed(0)
    logits, presence = torch.randn(2, 3, 8, 8, generator=random), torch.rand(2, 1, 3, generator=random)
    thresholds, windows = torch.tensor([0.3, 0.5, 0.7]), Windows(8, 8, 8)
    limits = Limits(thresholds)
    plain, mean = (rule.apply(values, presence, limits, windows) for values in (logits, rule.mean([logits] * 8)))
    assert (plain[presence[:, 0] > thresholds] > 0).all()
    torch.testing.assert_close(plain, mean)


def test_cells_of_a_table(tmp_path: Path) -> None:
    Image.fromarray(painted(halves(0, 1, 96))).save(tmp_path / "a.png")
    Image.fromarray(painted(halves(1, 2, 96))).save(tmp_path / "b.png")
    (tmp_path / "cells.csv").write_text(
        "file,x,y,class,group,split\n"
        "a.png,47.9,3,Red,A,val\n"  # red
        "a.png,48.1,3,Red,A,val\n"  # green
        "a.png,95.9,95.9,2,A,val\n"  # green
        "b.png,90,90,Blue,B,val\n"  # blue
        "b.png,90,90,Blue,C,test\n"
    )
    options = EvaluateOptions(split="val", mpp=1.0, cell_classes={"2": "Green"}, resamples=50)
    found = evaluate(color_model(), tmp_path, options)
    assert found.kind == "cells"
    assert found.columns["no_gate"].confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert found.columns["no_gate"].overall["balanced_accuracy"].value == pytest.approx((0.5 + 1 + 1) / 3)
    assert found.data["groups"] == 2
    with pytest.raises(DatasetError, match="--cell-classes 2=NAME"):
        evaluate(color_model(), tmp_path, EvaluateOptions(split="val", mpp=1.0))


def test_brca_m2c_rows_are_y_x_class(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.fromarray(painted(halves(0, 1))).save(tmp_path / "images" / "TCGA-A7-A0DB-01Z-00-DX1_1.png")
    (tmp_path / "labels" / "TCGA-A7-A0DB-01Z-00-DX1_1_gt_class_coords.txt").write_text("3 31 2\n3 32 3\n60 1 1\n")
    (tmp_path / "brca_ds_val.txt").write_text("TCGA-A7-A0DB-01Z-00-DX1_1.png\n")
    names = {"2": "Red", "3": "Green", "1": "Blue"}
    found = evaluate(color_model(mpp=0.5), tmp_path, EvaluateOptions(split="val", cell_classes=names))
    assert found.columns["no_gate"].confusion.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert found.data["mpp"] == 0.5


def test_labels_alone_judge_the_gate(sample_data: Path) -> None:
    options = EvaluateOptions(split="val", gate_recall=0.9, resamples=20)
    found = evaluate("tissue-brca-lite", sample_data / "patches", options)
    assert found.kind == "labels"
    assert not found.columns
    assert found.chosen_thresholds is not None
    assert len(found.chosen_thresholds) == 3
    assert 0.5 < found.gate.per_class["Tumour"]["average_precision"] <= 1
