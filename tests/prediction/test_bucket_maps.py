"""Maps that are written into a bucket: on a real S3 server, behind a proxy that breaks as networks do."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
import zarr

import wsiseg
import wsiseg.system.memory
from tests.helpers.color_model import color_model
from tests.helpers.maps import painted
from tests.helpers.proxy import Fault, Proxy
from tests.helpers.servers import BUCKET, KEYS, s3
from wsiseg.errors import LockedError, OptionError, OutputError, RemoteError
from wsiseg.prediction.options import PredictOptions
from wsiseg.prediction.unfinished import unfinished_folder
from wsiseg.system.bucket import BucketFolder
from wsiseg.system.bucket_leases import held

pytest.importorskip("moto")
pytest.importorskip("obstore")

OPTIONS = PredictOptions(mpp=1, tissue="none", device="cpu", retry_s=0.5, workers=1, runtime="torch")
ROOT = "zarr.json"


class Bucket:
    """A folder of a bucket of its own, for one test.

    Attributes:
        address: of the folder.
        proxy: that everything goes through.
    """

    def __init__(self, port: int, proxy: Proxy, name: str) -> None:
        self.proxy, self._prefix = proxy, f"{name}/"
        self.address = f"s3://{BUCKET}/{name}"
        self.client = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
            aws_access_key_id="a", aws_secret_access_key="b",
        )  # fmt: skip

    def objects(self, below: str = "") -> dict[str, bytes]:
        """All objects, or those below a name, by their names."""
        prefix = self._prefix + below
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
        read = {key: self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}
        return {key.removeprefix(prefix): content for key, content in read.items()}

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=self._prefix + key, Body=content)

    def puts(self, below: str) -> list[str]:
        """Names that were put through the proxy, below a name."""
        said = [request for request in self.proxy.requests if request.method == "PUT" and request.status == 200]
        names = [request.path.partition("?")[0].partition(self._prefix)[2] for request in said]
        return [name for name in names if name.startswith(below)]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with s3({}) as found:
        yield found


@pytest.fixture
def bucket(port: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Bucket]:
    monkeypatch.setattr(wsiseg.system.memory, "PIECE_PX", 512)
    with Proxy("127.0.0.1", port) as proxy:
        for name, value in KEYS.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        yield Bucket(port, proxy, request.node.name.replace("[", "-").strip("]"))


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    painted(tmp_path / "a.png", (700, 600))
    return tmp_path / "a.png"


def predict(slide: Path, out: str, scratch: Path, **more: Any) -> Any:
    return wsiseg.predict(slide, out, color_model(), OPTIONS, scratch=scratch, **more)


def local_files(slide: Path, folder: Path) -> tuple[dict[str, bytes], bytes]:
    """The files of the same map made here, and its polygons."""
    folder.mkdir()
    wsiseg.predict(slide, folder / "a.zarr", color_model(), OPTIONS, geojson=folder / "a.geojson")
    store = folder / "a.zarr"
    files = {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}
    return files, (folder / "a.geojson").read_bytes()


def same(found: dict[str, bytes], expected: dict[str, bytes]) -> bool:
    """Whether two maps have the same files with the same bytes, but for when they were made."""
    return {key: _timeless(key, content) for key, content in found.items()} == {
        key: _timeless(key, content) for key, content in expected.items()
    }


def _timeless(key: str, content: bytes) -> object:
    if key != ROOT:
        return content
    root = json.loads(content)
    del root["attributes"]["wsiseg"]["times"]
    return root


def left(scratch: Path) -> list[Path]:
    """Maps, polygons and unfinished runs of a scratch folder."""
    return [path for path in scratch.rglob("*") if path.name.endswith((".zarr", ".geojson", ".unfinished"))]


def test_the_same_files_as_here_and_nothing_else(bucket: Bucket, slide: Path, tmp_path: Path) -> None:
    files, polygons = local_files(slide, tmp_path / "here")
    out = f"{bucket.address}/a.zarr"
    found = predict(slide, out, tmp_path / "scratch", geojson=f"{bucket.address}/a.geojson")
    assert (str(found.map_path), str(found.geojson_path)) == (out, f"{bucket.address}/a.geojson")
    there = bucket.objects()
    assert there.pop("a.geojson") == polygons
    assert same({key.removeprefix("a.zarr/"): content for key, content in there.items()}, files)
    assert bucket.puts("a.zarr/")[-1] == f"a.zarr/{ROOT}"
    assert bucket.puts("a.zarr/").count(f"a.zarr/{ROOT}") == 1
    assert left(tmp_path / "scratch") == []
    secrets = "".join(content.decode(errors="replace") for content in bucket.objects().values())
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in secrets
    opened = wsiseg.open_map(out)
    assert opened.metadata["tissue_mm2"] == pytest.approx(found.tissue_mm2)


@pytest.mark.parametrize("kind", ["403", "503", "reset"])
def test_a_fault_while_it_is_sent_is_gone_on_with(kind: str, bucket: Bucket, slide: Path, tmp_path: Path) -> None:
    files, polygons = local_files(slide, tmp_path / "here")
    out, scratch = f"{bucket.address}/a.zarr", tmp_path / "scratch"
    bucket.proxy.fault = Fault(kind, after=5, method="PUT", path="a.zarr/")
    with pytest.raises(OutputError) as caught:
        predict(slide, out, scratch, geojson=f"{bucket.address}/a.geojson")
    assert caught.value.transient is (kind != "403")
    assert "\n" not in str(caught.value)
    assert f"{bucket.address}/" in str(caught.value)
    assert KEYS["AWS_ACCESS_KEY_ID"] not in str(caught.value)
    sent = bucket.objects("a.zarr/")
    assert 1 <= len(sent) < len(files)
    assert ROOT not in sent
    with pytest.raises(RemoteError, match="is not a tissue map, or the server does not have it"):
        wsiseg.open_map(out)
    bucket.proxy.clear()
    again = predict(slide, out, scratch, geojson=f"{bucket.address}/a.geojson")
    assert again.resumed == 1
    assert same(bucket.objects("a.zarr/"), files)
    assert bucket.objects("a.geojson")[""] == polygons
    assert not {f"a.zarr/{key}" for key in sent} & set(bucket.puts("a.zarr/")), "nothing was sent twice"
    assert left(scratch) == []


def test_passing_faults_are_overcome(bucket: Bucket, slide: Path, tmp_path: Path) -> None:
    bucket.proxy.fault = Fault("503", after=3, count=4, method="PUT")
    bucket.proxy.delay_s = 0.01
    options = PredictOptions(mpp=1, tissue="none", device="cpu", retry_s=20, workers=1, runtime="torch")
    out = f"{bucket.address}/a.zarr"
    wsiseg.predict(slide, out, color_model(), options, scratch=tmp_path / "scratch")
    assert wsiseg.open_map(out).levels > 0
    assert sum(request.fault == "503" for request in bucket.proxy.requests) == 4


def test_a_map_that_is_there_is_kept_or_replaced_as_a_whole(bucket: Bucket, slide: Path, tmp_path: Path) -> None:
    out, scratch = f"{bucket.address}/a.zarr", tmp_path / "scratch"
    predict(slide, out, scratch)
    before = bucket.objects("a.zarr/")
    bucket.put("a.zarr/gate/9/zarr.json", b"{}")  # a part that the new map has not

    def never(phase: str, done: int, total: int) -> None:
        raise AssertionError(f"{phase} was begun")

    with pytest.raises(OutputError, match="exists; choose another name, or replace it with --overwrite"):
        predict(slide, out, scratch, progress=never)
    painted(slide, (500, 900))
    bucket.proxy.fault = Fault("403", after=4, method="PUT", path="/.a.zarr.")
    with pytest.raises(OutputError):
        predict(slide, out, scratch, overwrite=True)
    bucket.proxy.clear()
    there = bucket.objects("a.zarr/")
    del there["gate/9/zarr.json"]
    assert there == before, "the old map is whole until the new one is in the store"
    (tmp_path / "here").mkdir()
    wsiseg.predict(slide, tmp_path / "here" / "a.zarr", color_model(), OPTIONS)
    predict(slide, out, scratch, overwrite=True)
    store = tmp_path / "here" / "a.zarr"
    expected = {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}
    assert same(bucket.objects("a.zarr/"), expected)
    assert {key.partition("/")[0] for key in bucket.objects()} == {"a.zarr"}


def test_what_is_no_map_is_left_alone(bucket: Bucket, slide: Path, tmp_path: Path) -> None:
    bucket.put("a.zarr/.zgroup", b"{}")
    with pytest.raises(OutputError, match="no tissue map of this program"):
        predict(slide, f"{bucket.address}/a.zarr", tmp_path / "scratch", overwrite=True)
    bucket.put("b.zarr/zarr.json", b'{"attributes": {}}')
    with pytest.raises(OutputError, match="is not a tissue map of this program"):
        predict(slide, f"{bucket.address}/b.zarr", tmp_path / "scratch", overwrite=True)
    bucket.put("c.geojson", b"mine")
    with pytest.raises(OutputError, match=r"c\.geojson exists"):
        predict(slide, f"{bucket.address}/c.zarr", tmp_path / "scratch", geojson=f"{bucket.address}/c.geojson")
    assert set(bucket.objects()) == {"a.zarr/.zgroup", "b.zarr/zarr.json", "c.geojson"}


def test_a_second_run_is_kept_away(bucket: Bucket, slide: Path, tmp_path: Path) -> None:
    out = f"{bucket.address}/a.zarr"
    with (
        held(BucketFolder(bucket.address, 1), "a.zarr"),
        pytest.raises(LockedError, match=r"another run is writing s3:"),
    ):
        predict(slide, out, tmp_path / "scratch")
    predict(slide, out, tmp_path / "scratch")


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("https://host/a.zarr", "not to https://"), ("ftp://host/a.zarr", "not to ftp://"),
        ("s3://bucket/a.zarr?versionId=1", "with a query"), ("s3://bucket/maps/a.tif", "ends in .zarr"),
    ],
)  # fmt: skip
def test_addresses_that_cannot_be_written(out: str, said: str, slide: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=said):
        predict(slide, out, tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


def test_a_bucket_that_is_not_there_or_closed(bucket: Bucket, slide: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is not there"):
        predict(slide, "s3://no-such-bucket/a.zarr", tmp_path / "scratch")
    bucket.proxy.fault = Fault("403", method="PUT")
    with pytest.raises(OutputError, match="gives no right to do so"):
        predict(slide, f"{bucket.address}/a.zarr", tmp_path / "scratch")
    assert bucket.objects() == {}


PROGRAM = """
import os, sys
from pathlib import Path
import wsiseg.system.memory
wsiseg.system.memory.PIECE_PX = 512
from tests.helpers.color_model import color_model
from wsiseg.prediction.options import PredictOptions
import wsiseg

slide, out, scratch, phase, share = sys.argv[1:]

def report(now, done, total):
    if now == phase and done >= float(share) * total:
        os.kill(os.getpid(), 9)

options = PredictOptions(mpp=1, tissue="none", device="cpu", retry_s=0.5, workers=1, runtime="torch")
wsiseg.predict(slide, out, color_model(), options, scratch=scratch, geojson=out[:-4] + "geojson", progress=report)
"""


@contextmanager
def killed(slide: Path, out: str, scratch: Path, phase: str, share: float) -> Iterator[None]:
    """After a run that killed itself as it was so far."""
    command = [sys.executable, "-c", PROGRAM, str(slide), out, str(scratch), phase, str(share)]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], env={**os.environ}, check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    yield


def test_killed_and_gone_on_with(bucket: Bucket, slide: Path, tmp_path: Path) -> None:
    """While it computes, and while it is sent: the same command ends with the same bytes."""
    files, polygons = local_files(slide, tmp_path / "here")
    out, scratch = f"{bucket.address}/a.zarr", tmp_path / "scratch"
    for phase, share in (("tiles", 0.4), ("upload", 0.5)):
        with killed(slide, out, scratch, phase, share):
            assert f"a.zarr/{ROOT}" not in bucket.objects()
            with pytest.raises((FileNotFoundError, RemoteError)):
                wsiseg.open_map(out)
            with pytest.raises(Exception, match=r"(?i)no group found|not found"):
                zarr.open_group(store_of(out), mode="r", zarr_format=3)
    assert any(unfinished_folder(path) for path in left(scratch))
    predict(slide, out, scratch, geojson=f"{bucket.address}/a.geojson")
    there = bucket.objects()
    assert there.pop("a.geojson") == polygons
    assert same({key.removeprefix("a.zarr/"): content for key, content in there.items()}, files)
    assert left(scratch) == []


def store_of(out: str) -> Any:
    from zarr.storage import ObjectStore

    from wsiseg.system.object_stores import folder_store

    return ObjectStore(folder_store(out), read_only=True)
