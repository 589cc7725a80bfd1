"""Many slides: a map each, one that fails keeps no other, and the same call goes on."""

from pathlib import Path

import numpy as np
import pytest

from tests.color_model import color_model
from tests.test_prediction import chunks, painted
from wsiseg.errors import OptionError
from wsiseg.many import map_paths, predict_many
from wsiseg.prediction import PredictOptions, predict
from wsiseg.tissue_map import open_map

OPTIONS = PredictOptions(mpp=1, tissue="none")


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
    (tmp_path / "maps" / "b.geojson").unlink()
    (tmp_path / "broken.png").unlink()
    painted(tmp_path / "broken.png")
    again = list(predict_many([*slides, tmp_path / "broken.png"], tmp_path / "maps", color_model(), OPTIONS))
    made = {Path(result.slide).name: result.prediction is not None for result in again}
    assert made == {"a.png": False, "b.png": False, "c.png": False, "broken.png": True}
    assert "exists" in next(result.error for result in again if result.slide.endswith("b.png"))
    assert np.unique(open_map(tmp_path / "maps" / "broken.zarr").class_map().compute()).tolist() == [1, 2, 3]


def test_two_slides_of_one_name_are_refused(tmp_path: Path) -> None:
    assert map_paths(["x/a.ome.tif", "s3://bucket/b.svs"], tmp_path) == [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    with pytest.raises(OptionError, match=r"both become a\.zarr"):
        list(predict_many(["x/a.svs", "y/a.tif"], tmp_path))
