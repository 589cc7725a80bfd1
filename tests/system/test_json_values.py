"""Class tables, grids, bundles and maps from outside: what is no number, name or colour is refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.color_model import color_model
from tests.helpers.maps import painted
from wsiseg.classes import ClassTable
from wsiseg.errors import BundleError, MapError, OptionError, WsisegError
from wsiseg.geometry import Grid, Mpp, Size
from wsiseg.models.spec import parse_spec, read_spec
from wsiseg.prediction.run import PredictOptions, predict
from wsiseg.tissue_map.ome import grid_from_json, grid_to_json
from wsiseg.tissue_map.reader import open_map

HUGE = 10**400
ROW = {"index": 1, "name": "Tumour", "color": [200, 0, 0]}
GRID = Grid(Size(30, 20), Mpp(0.5, 0.5), 2.0, 2.0, 1, 1.0, 1.0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        *(({"index": value}, "index") for value in (1.9, 1.0, "1", True, None, float("nan"), HUGE)),
        *(({"name": value}, "name") for value in (None, 5, True, ["Tumour"], "", "a\nb")),
        *(({"color": value}, "colour") for value in ("123", 5, None, [1, 2], [1, 2, 3, 4])),
        *(({"color": [1, 2, value]}, "colour") for value in ("3", 3.0, True, None, float("nan"), HUGE, -1, 256)),
    ],
)
def test_a_class_that_is_none_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    assert ClassTable.from_json([ROW]).to_json() == [ROW]
    with pytest.raises(OptionError, match=rf"(?i){named}"):
        ClassTable.from_json([{**ROW, **change}])
    if "color" in change:
        with pytest.raises(OptionError, match="colour"):
            ClassTable.from_names(["Tumour"], [change["color"]])


@pytest.mark.parametrize("rows", [None, 5, "abc", {"index": 1}, [5], [None], ["Tumour"], [{"index": 1}]])
def test_a_table_that_is_none_is_refused(rows: object) -> None:
    with pytest.raises(OptionError, match="index, name and color"):
        ClassTable.from_json(rows)


@pytest.mark.parametrize("value", ["1", True, None, float("nan"), float("inf"), HUGE, [1]])
@pytest.mark.parametrize("key", ["width", "x", "step_x", "step_y", "level", "zoom_x", "zoom_y"])
def test_a_grid_that_is_none_is_refused_by_name(key: str, value: object) -> None:
    written = json.loads(json.dumps(grid_to_json(GRID)))
    assert grid_from_json(written) == GRID
    holder = written["size"] if key == "width" else written["mpp"] if key == "x" else written
    holder[key] = value
    if value == HUGE and key in ("level", "width"):
        return  # whole numbers, which `check_grid` bounds
    with pytest.raises(OptionError, match=f"a grid's {key} must be a"):
        grid_from_json(written)


@pytest.mark.parametrize("value", [None, 5, "grid", [], {"size": 5}, {"size": {"width": 1.0, "height": 2}, "mpp": {}}])
def test_a_grid_of_another_kind_is_refused(value: object) -> None:
    with pytest.raises(OptionError, match=r"a (map's|grid's) .* must be"):
        grid_from_json(value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("mpp", value) for value in ("0.5", True, None, HUGE)),
        *(("patch_size_px", value) for value in (96.0, "96", True)),
        *(("gate", value) for value in (["0.5", 0.5, 0.5], [True, 0.5, 0.5], 0.5)),
        *(("overlap", value) for value in ("0.5", False)),
        *(("name", value) for value in (None, 5)),
        ("classes", [{**ROW, "index": 1.9}]),
    ],
)
def test_a_bundle_says_numbers_as_numbers(key: str, value: object) -> None:
    fields = json.loads(read_spec("tissue-brca-lite").to_json())
    parse_spec(fields, "model.json")
    with pytest.raises(BundleError, match=r"index|" + key):
        parse_spec({**fields, key: value}, "model.json")


@pytest.fixture(scope="module")
def whole_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small map."""
    folder = tmp_path_factory.mktemp("map")
    painted(folder / "p.png", (60, 60))
    predict(folder / "p.png", folder / "m.zarr", color_model(), PredictOptions(mpp=1, tissue="none"))
    return folder / "m.zarr"


@pytest.mark.parametrize(
    ("keys", "value", "named"),
    [
        (("classes", 0, "index"), 1.9, "index"),
        (("classes", 0, "name"), None, "name"),
        (("classes", 0, "color"), "123", "colour"),
        (("grid", "level"), 0.0, "level"),
        (("grid", "step_x"), "1", "step_x"),
        (("slide", "width"), HUGE, "width"),
        (("slide", "width"), True, "width"),
        (("probabilities",), "no", "probabilities"),
        (("areas", 0, "area_mm2"), HUGE, "area_mm2"),
        (("tissue_mm2",), True, "tissue_mm2"),
    ],
)
def test_a_map_whose_metadata_were_altered_is_refused(
    tmp_path: Path, whole_map: Path, keys: tuple[Any, ...], value: object, named: str
) -> None:
    shutil.copytree(whole_map, tmp_path / "m.zarr")
    node = json.loads((tmp_path / "m.zarr" / "zarr.json").read_text())
    place = node["attributes"]["wsiseg"]
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (tmp_path / "m.zarr" / "zarr.json").write_text(json.dumps(node))
    with pytest.raises(WsisegError, match=named) as refused:
        open_map(tmp_path / "m.zarr")
    assert isinstance(refused.value, MapError | OptionError)
