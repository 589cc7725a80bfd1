"""Which names are slides, and what their maps are called."""

import shutil
import time
from pathlib import Path

import pytest

from tests.helpers.color_model import color_model
from tests.helpers.maps import painted
from wsiseg.errors import OptionError
from wsiseg.prediction.run import PredictOptions, predict
from wsiseg.prediction.slide_list import map_paths, slides_among, stem


def names(*slides: str, **options: bool) -> list[str]:
    return [path.as_posix() for path in map_paths(slides, Path("o"), **options)]


def test_maps_are_called_after_their_slides() -> None:
    assert names("x/a.ome.tif", "s3://bucket/b.svs", "c.d.svs") == ["o/a.zarr", "o/b.zarr", "o/c.d.zarr"]
    assert stem("https://host/some%20slide.svs?X-Amz-Signature=0a&part=../../x#y") == "some slide"
    assert stem("https://host/..%2f..%2fa.svs?sig=s") == "a"
    assert names("https://host/p/a.svs?sig=1", "https://host/p/b.svs?sig=1") == ["o/a.zarr", "o/b.zarr"]


def test_names_that_differ_in_the_ending_alone_keep_it() -> None:
    assert names("x/a.svs", "x/a.tif", "x/b.svs") == ["o/a.svs.zarr", "o/a.tif.zarr", "o/b.zarr"]
    assert names("s3://b/a.svs?versionId=1", "s3://b/a.tif") == ["o/a.svs.zarr", "o/a.tif.zarr"]


def test_two_slides_of_one_name_are_refused_with_the_option_that_helps() -> None:
    slides = [f"{folder}/{index}.svs" for folder in ("x", "y") for index in range(500)]
    with pytest.raises(OptionError, match=r"x/0\.svs and y/0\.svs would both become 0\.zarr \(and 499 more .*--keep-f"):
        names(*slides)
    found = names(*slides, keep_folders=True)
    assert found[0] == "o/x/0.zarr"
    assert found[-1] == "o/y/499.zarr"
    assert len(set(found)) == 1000
    assert names("/d/one/x/a.svs", "/d/two/a.svs", "/d/b.svs", keep_folders=True) == [
        *("o/one/x/a.zarr", "o/two/a.zarr", "o/b.zarr"),
    ]
    addresses = ["https://host/p/a.svs?key=SECRET", "https://host/q/a.svs?key=SECRET"]
    assert names(*addresses, keep_folders=True) == ["o/p/a.zarr", "o/q/a.zarr"]
    with pytest.raises(OptionError) as refused:
        names(*addresses)
    assert "SECRET" not in str(refused.value)


def test_no_address_leads_out_of_the_folder() -> None:
    for found in names("s3://b/../../x.svs", "s3://b/x/..%2f/y.svs", "s3://c/./y.svs", "z.svs", keep_folders=True):
        assert ".." not in Path(found).parts
        assert found.startswith("o/")


def test_letters_that_differ_in_case_are_two_names_where_the_file_system_has_two() -> None:
    assert names("x/a.svs", "x/A.svs") == ["o/a.zarr", "o/A.zarr"]
    with pytest.raises(OptionError, match="rename one of them"):
        names("x/a.svs", "x/A.SVS", folds_case=True)
    assert names("x/a.svs", "x/A.tif", folds_case=True) == ["o/a.svs.zarr", "o/A.tif.zarr"]
    with pytest.raises(OptionError, match="--keep-folders"):
        names("x/a.svs", "y/A.svs", folds_case=True)


def test_time_grows_with_the_number_of_slides() -> None:
    begun = time.process_time()
    slides, _ = slides_among([f"/d/{index % 7}/{index}.svs" for index in range(20_000)])
    assert len(map_paths(slides, Path("o"), keep_folders=True)) == 20_000
    assert time.process_time() - begun < 10  # comparing each with each takes minutes


def test_what_a_pattern_matches_beside_slides_is_named_and_left_out(tmp_path: Path) -> None:
    painted(tmp_path / "p.png", (60, 60))
    predict(tmp_path / "p.png", tmp_path / "p.zarr", color_model(), PredictOptions(mpp=1, tissue="none"))
    for name in ("._p.png", ".DS_Store", "Thumbs.db", "p.geojson", "list.csv", "a.mrxs", "v.vsi", "alone.jpg"):
        (tmp_path / name).write_bytes(b"x")
    for folder in ("a", "_v_/stack1", "other"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "a" / "Slidedat.ini").write_text("[GENERAL]\n")
    given = sorted(str(path) for path in tmp_path.iterdir())
    slides, others = slides_among([*given, str(tmp_path / "other" / ".." / "p.png")])
    assert [Path(name).name for name in slides] == ["a.mrxs", "alone.jpg", "other", "p.png", "v.vsi"]
    assert {Path(name).name: reason for name, reason in others[:-1]} == {
        **{"._p.png": "a hidden file", ".DS_Store": "a hidden file", "Thumbs.db": "a file of the system"},
        **{"a": "a part of a.mrxs", "_v_": "a part of v.vsi", "p.zarr": "a tissue map, no slide"},
        **dict.fromkeys(("p.geojson", "list.csv"), "a table, a text or polygons, no slide"),
    }
    assert others[-1][1] == "it was given before"
    (tmp_path / "a.mrxs").unlink()
    assert str(tmp_path / "a") in slides_among([str(tmp_path / "a")])[0]  # its reader says which slide to give
    shutil.rmtree(tmp_path / "a")
