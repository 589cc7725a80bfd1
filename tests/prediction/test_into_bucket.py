"""`wsiseg predict --out s3://…`: the command line, several slides, and what it refuses, on a real S3 server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.color_model import color_model
from tests.helpers.maps import painted
from tests.helpers.servers import BUCKET, KEYS, s3
from wsiseg.cli.main import main
from wsiseg.prediction.batch import SlideResult
from wsiseg.prediction.many import predict_many
from wsiseg.prediction.options import PredictOptions
from wsiseg.prediction.upload import marker
from wsiseg.system.bucket import BucketFolder

pytest.importorskip("obstore")
pytest.importorskip("moto")

MAPS = f"s3://{BUCKET}/maps"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with s3({}) as found:
        yield found


@pytest.fixture
def bucket(port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> BucketFolder:
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("wsiseg.prediction.run.load_model", lambda *_, **__: color_model())
    for name in "ab":
        painted(tmp_path / f"{name}.png", (90, 70))
    folder = BucketFolder(MAPS, 2)
    folder.remove([entry.key for entry in folder.list()])
    return folder


class Commands:
    """Runs `wsiseg predict`, with a scratch folder in a test's own."""

    def __init__(self, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.work, self._capsys = work, capsys

    def predict(self, *arguments: str, slides: str = "a") -> tuple[int, str, str]:
        """The exit code, and what it said."""
        paths = [str(self.work / f"{name}.png") for name in slides]
        options = ("--mpp", "1", "--tissue", "none", "--device", "cpu", "--runtime", "torch", "--retry-time", "1")
        with pytest.raises(SystemExit) as stop:
            main(["predict", *paths, *options, *arguments])
        said = self._capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err


@pytest.fixture
def commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(tmp_path, capsys)


def contents(folder: BucketFolder) -> dict[str, bytes]:
    found = ((entry.key, folder.get(entry.key)) for entry in folder.list())
    return {key: content[0] for key, content in found if content is not None}


def here(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_a_bucket_gets_what_a_local_one_does(bucket: BucketFolder, commands: Commands) -> None:
    into = ("--out", f"{MAPS}/", "--scratch", str(commands.work / "scratch"))
    assert commands.predict("--out", str(commands.work / "maps"), slides="ab")[0] == 0
    code, said, _ = commands.predict(*into, "--json", slides="ab")
    assert code == 0
    assert [json.loads(line).get("map_path") for line in said.splitlines()[:2]] == [f"{MAPS}/a.zarr", f"{MAPS}/b.zarr"]
    local, there = here(commands.work / "maps"), contents(bucket)
    times = {"a.zarr/zarr.json", "b.zarr/zarr.json"}
    assert there.keys() == local.keys()
    assert {key: there[key] for key in there.keys() - times} == {key: local[key] for key in local.keys() - times}
    assert not here(commands.work / "scratch")
    bucket.remove(["b.geojson"])
    slides = [commands.work / "a.png", commands.work / "b.png"]
    options = PredictOptions(mpp=1, tissue="none", device="cpu", runtime="torch")

    def again(how: PredictOptions) -> list[SlideResult]:
        return list(predict_many(slides, MAPS, color_model(), how, scratch=commands.work / "scratch"))

    first, second = again(options)
    assert first.kept is not None
    assert second.kept is not None
    assert (first.map_path, first.kept.drawn, second.kept.drawn is None) == (f"{MAPS}/a.zarr", None, False)
    assert contents(bucket)["b.geojson"] == local["b.geojson"]
    first, _ = again(replace(options, overlap=0.5))
    assert f"{MAPS}/a.zarr exists and was made with overlap" in (first.error or "")


def test_what_is_there_stays_unless_it_may_be_replaced(bucket: BucketFolder, commands: Commands) -> None:
    into = ("--out", f"{MAPS}/m.zarr", "--scratch", str(commands.work / "scratch"))
    assert commands.predict(*into)[0] == 0
    before = contents(bucket)
    code, _, said = commands.predict(*into)
    assert (code, said) == (
        2, f"wsiseg: {MAPS}/m.zarr exists; choose another name, or replace it with --overwrite\n",
    )  # fmt: skip
    assert contents(bucket) == before
    bucket.put("m.zarr/labels/tissue/0/c/9/9", b"of a larger map")
    assert commands.predict(*into, "--overwrite", "--overlap", "0.5")[0] == 0
    after = contents(bucket)
    assert after.keys() == before.keys()  # nothing of the old map, of the way to the new one, or of the lease
    assert json.loads(after["m.zarr/zarr.json"])["attributes"]["wsiseg"]["parameters"]["overlap"] == 0.5


def test_what_others_left_is_never_touched(bucket: BucketFolder, commands: Commands) -> None:
    into = ("--out", f"{MAPS}/m.zarr", "--scratch", str(commands.work / "scratch"), "--overwrite")
    bucket.put("m.zarr/.zgroup", b"{}")
    code, _, said = commands.predict(*into)
    assert (code, "is no tissue map of this program" in said, list(contents(bucket))) == (2, True, ["m.zarr/.zgroup"])
    bucket.put(marker("m.zarr"), b"")  # what lies there is what a run of ours had sent, whose scratch folder is gone
    assert commands.predict(*into)[0] == 0
    assert not {"m.zarr/.zgroup", marker("m.zarr")} & contents(bucket).keys()
    bucket.put("n.zarr/zarr.json", b'{"attributes": {}}')
    code, _, said = commands.predict("--out", f"{MAPS}/n.zarr", "--scratch", str(commands.work / "s"), "--overwrite")
    assert (code, "exists and is not a tissue map of this program" in said) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "https://host/m.zarr"), "to buckets (s3://, gs://, az://), not to https://"),
        (("--out", "s3:///m.zarr"), "names no bucket"),
        (("--out", f"{MAPS}/m.zarr?key=hush"), "was given with a query"),
        (("--out", f"{MAPS}/m.zarr", "--geojson", "m.geojson"), "lie beside it"),
        (("--out", f"{MAPS}/m.zarr", "--geojson", f"s3://{BUCKET}/other/m.geojson"), "lie beside it"),
        (("--out", "m.zarr", "--geojson", f"{MAPS}/m.geojson"), "not to s3://; name a path"),
        (("--out", "m.zarr", "--scratch", "s"), "--scratch is for outputs in a bucket"),
        (("--out", "s3://no-such-bucket/maps/m.zarr"), "make the bucket first"),
        (("--out", f"{MAPS}/.zarr"), "expected an output name that ends in .zarr"),
        (("--out", f"{MAPS}/m.zarr", "--geojson", f"{MAPS}/m.txt"), "expected an output name that ends in .geojson"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    bucket: BucketFolder, commands: Commands, arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(commands.work)
    monkeypatch.setenv("XDG_CACHE_HOME", str(commands.work / "cache"))
    code, out, error = commands.predict(*arguments)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert said in error
    assert "hush" not in error
    assert not contents(bucket)
