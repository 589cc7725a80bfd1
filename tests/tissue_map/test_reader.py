"""The store: what goes in comes out, validators accept it, and it is whole or not there."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaozarrs
import zarr
from ome_zarr_models import open_ome_zarr

from tests.helpers.maps import CLASSES, PROVENANCE, grid_of, write_map
from wsiseg.errors import MapError, OptionError, OutputError
from wsiseg.geometry import Box, Size
from wsiseg.system.files import check_map, put_folder
from wsiseg.tissue_map.ome import level_sizes
from wsiseg.tissue_map.pyramid import halved
from wsiseg.tissue_map.reader import open_map
from wsiseg.tissue_map.writer import MapWriter


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    path = tmp_path_factory.mktemp("map") / "map.zarr"
    # Three shards high, with odd sizes at every level.
    return path, *write_map(path, Size(1301, 4301))


def test_classes_and_probabilities_come_out_as_they_went_in(written: tuple[Path, np.ndarray, np.ndarray]) -> None:
    path, classes, probabilities = written
    tissue_map = open_map(path)
    assert tissue_map.size == Size(1301, 4301)
    assert tissue_map.classes == CLASSES
    assert tissue_map.grid == grid_of(tissue_map.size)
    assert np.array_equal(tissue_map.class_map().compute(), classes)
    assert np.array_equal(tissue_map.probabilities().compute(), probabilities)
    box = Box(100, 4000, 500, 200)
    assert np.array_equal(tissue_map.read(box), classes[box.slices()])
    assert tissue_map.metadata["slide"]["name"] == "a.svs"


def test_pyramid_is_majority_for_classes_and_mean_for_probabilities(
    written: tuple[Path, np.ndarray, np.ndarray],
) -> None:
    path, classes, probabilities = written
    tissue_map = open_map(path)
    assert tissue_map.levels == len(level_sizes(tissue_map.size)) == 5
    for level in range(1, tissue_map.levels):
        classes = halved(classes, labels=True)  # of the whole at once; see test_halving
        height, width = probabilities.shape[1:]
        padded = np.pad(probabilities, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge").astype(int)
        four = padded[:, ::2, ::2] + padded[:, 1::2, ::2] + padded[:, ::2, 1::2] + padded[:, 1::2, 1::2]
        probabilities = ((four + 2) // 4).astype(np.uint8)
        assert np.array_equal(tissue_map.class_map(level).compute(), classes)
        assert np.array_equal(tissue_map.probabilities(level).compute(), probabilities)
        assert tissue_map.scale_um(level) == (0.5 * 2**level, 0.5 * 2**level)
        assert tissue_map.transform(level).translation == ((2**level - 1) / 4, (2**level - 1) / 4)


@pytest.mark.parametrize("probabilities", [True, False])
@pytest.mark.parametrize("size", [Size(1301, 4301), Size(224, 224), Size(1, 600)], ids=str)
def test_two_independent_validators_accept_image_and_labels(tmp_path: Path, size: Size, probabilities: bool) -> None:
    path = tmp_path / "map.zarr"
    write_map(path, size, probabilities=probabilities)
    for place in (path, path / "labels" / "tissue"):
        yaozarrs.validate_zarr_store(str(place))
        group = open_ome_zarr(zarr.open_group(place, mode="r"))
        assert group.ome_zarr_version == "0.5"
    root = zarr.open_group(path, mode="r")
    datasets = root.attrs["ome"]["multiscales"][0]["datasets"]
    labels = root["labels/tissue"].attrs["ome"]
    assert len(datasets) == len(labels["multiscales"][0]["datasets"]) == len(level_sizes(size))
    assert root["labels"].attrs["labels"] == root["labels"].attrs["ome"]["labels"] == ["tissue"]
    assert labels["image-label"]["properties"][2] == {"label-value": 2, "class": "Stroma"}
    assert labels["image-label"]["colors"][1] == {"label-value": 1, "rgba": [200, 0, 0, 255]}
    scale = datasets[-1]["coordinateTransformations"][0]["scale"]
    assert scale[0] == 1
    side = (0.5 if probabilities else 2) * 2 ** (len(datasets) - 1)
    assert scale[1:] == [side] * 2
    translation = datasets[-1]["coordinateTransformations"][1]["translation"]
    assert translation == [0, (side - 0.5) / 2, (side - 0.5) / 2]
    assert labels["image-label"]["properties"][-1] == {"label-value": 255, "class": "White"}
    assert labels["image-label"]["colors"][-1]["rgba"][3] == 0


def test_without_probabilities_asking_for_them_says_so(tmp_path: Path) -> None:
    write_map(tmp_path / "map.zarr", Size(50, 40), probabilities=False)
    tissue_map = open_map(tmp_path / "map.zarr")
    assert not tissue_map.has_probabilities
    with pytest.raises(OptionError, match="without probabilities"):
        tissue_map.probabilities()
    assert (zarr.open_array(tmp_path / "map.zarr" / "0")[:] == 7).all()


def test_overwriting_replaces_maps_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "map.zarr"
    write_map(path, Size(50, 40))
    with pytest.raises(OutputError, match="exists"):
        check_map(path, overwrite=False)
    check_map(path, overwrite=True)
    classes, _ = write_map(path, Size(70, 30), overwrite=True)
    assert np.array_equal(open_map(path).class_map().compute(), classes)
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.zarr"]
    precious = tmp_path / "thesis.zarr"
    precious.mkdir()
    (precious / "chapter.txt").write_text("years")
    with pytest.raises(OutputError, match="not a tissue map"):
        check_map(precious, overwrite=True)
    with pytest.raises(OutputError, match="does not exist"):
        check_map(tmp_path / "nowhere" / "map.zarr", overwrite=True)


def test_empty_glass_takes_no_file(tmp_path: Path) -> None:
    writer = MapWriter(tmp_path / "map.zarr", CLASSES, grid_of(Size(9000, 9000)), 4096)
    box = Box(8192, 8192, 808, 808)
    classes, values = np.zeros((808, 808), np.uint8), np.zeros((3, 808, 808), np.uint8)
    classes[300:310, 300:310], values[0, 300:310, 300:310] = 1, 255
    writer.write(box, classes, values)
    writer.write(Box(0, 0, 4096, 4096), np.zeros((4096, 4096), np.uint8), np.zeros((3, 4096, 4096), np.uint8))
    list(writer.write_levels())
    writer.write_metadata(PROVENANCE)
    shards = [p for p in (tmp_path / "map.zarr" / "labels" / "tissue" / "0" / "c").rglob("*") if p.is_file()]
    assert len(shards) == 1
    assert writer.sizes_on_disk(Box(0, 0, 4096, 4096)) == [0, 0, 0, 0]
    assert writer.sizes_on_disk(box)[0] == shards[0].stat().st_size > 0
    assert open_map(tmp_path / "map.zarr").class_map().sum().compute() == 100


def test_a_writer_goes_on_with_what_another_began(tmp_path: Path) -> None:
    whole, parts = tmp_path / "a.zarr", tmp_path / "b.zarr"
    classes, values = write_map(whole, Size(1301, 2100), piece_px=512)
    boxes = [Box(x, y, 512, 512).intersect(Box(0, 0, 1301, 2100)) for y in range(0, 2100, 512) for x in (0, 512, 1024)]
    for some in (boxes[::2], boxes[1::2]):  # in another order, by another writer
        writer = MapWriter(parts, CLASSES, grid_of(Size(1301, 2100)), 512)
        for box in reversed(some):
            writer.write(box, classes[box.slices()], values[(slice(None), *box.slices())])
    levels = MapWriter(parts, CLASSES, grid_of(Size(1301, 2100)), 512).write_levels()
    assert [next(levels), next(levels), next(levels)] == [0, 1, 2]
    assert list(MapWriter(parts, CLASSES, grid_of(Size(1301, 2100)), 512).write_levels({2})) == [0, 1, 2, 3]
    for file in whole.rglob("c/**/*"):
        if file.is_file():
            assert file.read_bytes() == (parts / file.relative_to(whole)).read_bytes()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "not written by wsiseg"),
        ({"wsiseg": {"format": 99, "classes": [], "grid": {}}}, "update wsiseg"),
        ({"wsiseg": {"format": True, "classes": [], "grid": {}}}, "map format True"),
        ({"wsiseg": {"format": 1, "classes": [{"index": 1}]}}, "says nothing of its grid"),
        ({"wsiseg": {"format": 1, "classes": [{"index": 1}], "grid": {}, "slide": {}, "model": {}}}, "a class needs"),
    ],
)
def test_stores_of_others_are_refused_with_a_reason(
    tmp_path: Path, attributes: dict[str, object], message: str
) -> None:
    zarr.open_group(tmp_path / "x.zarr", mode="w", attributes=json.loads(json.dumps(attributes)))
    with pytest.raises((MapError, OptionError), match=message):
        open_map(tmp_path / "x.zarr")
    with pytest.raises(MapError, match="does not exist"):
        open_map(tmp_path / "y.zarr")


def test_an_overwrite_that_fails_halfway_leaves_the_old_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, fresh = tmp_path / "map.zarr", tmp_path / ".new.partial"
    write_map(path, Size(50, 40))
    fresh.mkdir()
    rename, calls = Path.rename, []

    def fail_second(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError("no more")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises(OSError, match="no more"):
        put_folder(fresh, path)
    assert open_map(path).size == Size(50, 40)


@pytest.mark.parametrize("name", ["mine.ZARR", "results", ".zarr"])
def test_nobody_elses_folder_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "chapter.txt").write_text("years")
    with pytest.raises((OutputError, OptionError)):
        check_map(tmp_path / name, overwrite=True)
    link = tmp_path / "link.zarr"
    write_map(tmp_path / "map.zarr", Size(20, 20))
    link.symlink_to(tmp_path / "map.zarr")
    with pytest.raises(OutputError):
        check_map(link, overwrite=True)


def test_a_damaged_shard_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "map.zarr"
    write_map(path, Size(50, 40))
    (shard,) = (file for file in (path / "labels" / "tissue" / "0" / "c").rglob("*") if file.is_file())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 255
    shard.write_bytes(data)
    with pytest.raises(MapError, match="damaged"):
        open_map(path).read(Box(0, 0, 50, 40))
    with pytest.raises(MapError, match=r"damaged in level 0 \(.*\); write it anew"):
        open_map(path).class_map().compute()
