"""Whole runs on slides behind addresses: batches, resuming, objects that change, secrets, where outputs may lie."""

import json
import os
from pathlib import Path

import boto3
import numpy as np
import pytest
from click.testing import CliRunner

import wsiseg
import wsiseg.prediction.run
import wsiseg.system.memory
from tests.helpers.color_model import color_model
from tests.helpers.proxy import Fault
from tests.helpers.servers import BUCKET
from tests.slides.sources.conftest import TILED, Network
from wsiseg.cli.main import cli
from wsiseg.errors import OptionError, OutputError, RemoteError, SlideError, WsisegError
from wsiseg.geometry import Box
from wsiseg.prediction.many import predict_many
from wsiseg.prediction.run import PredictOptions
from wsiseg.slides import open_slide
from wsiseg.slides.expected import expected
from wsiseg.slides.watch import SlideWatch
from wsiseg.system.files import check_file

OPTIONS = PredictOptions(retry_s=0.6, tissue="none", device="cpu", runtime="torch", workers=1)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsiseg.system.memory, "PIECE_PX", 512)
    monkeypatch.setattr(wsiseg.slides.expected, "GROUP_PX", 1)  # else all of a small slide is on its way at once


def breaking(network: Network, kind: str):
    """Progress of a run that breaks the network once a third of the patches are done."""

    def report(phase: str, done: int, total: int) -> None:
        if phase == "tiles" and 3 * done > total and network.proxy.fault is None:
            network.proxy.fault = Fault(kind)

    return report


def chunks_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("c/**/*") if path.is_file()}


def test_a_run_that_a_fault_ended_is_gone_on_with(network: Network, served: Path, tmp_path: Path) -> None:
    model = color_model()
    wsiseg.predict(served / TILED, tmp_path / "local.zarr", model, OPTIONS)
    with pytest.raises(SlideError, match="503"):
        wsiseg.predict(network.address(TILED), tmp_path / "a.zarr", model, OPTIONS, progress=breaking(network, "503"))
    assert not (tmp_path / "a.zarr").exists()
    journal = (tmp_path / ".a.zarr.unfinished" / "journal.jsonl").read_text()
    assert 1 <= journal.count('"step":"piece"') < 9
    network.proxy.fault = None
    found = wsiseg.predict(network.address(TILED), tmp_path / "a.zarr", model, OPTIONS)
    assert 0 < found.resumed < 1
    assert found.damage.tiles == 0
    assert chunks_of(tmp_path / "a.zarr") == chunks_of(tmp_path / "local.zarr")


def test_one_slide_that_fails_does_not_end_a_batch(network: Network, served: Path, tmp_path: Path) -> None:
    missing = network.address("missing.svs")
    slides = [missing, network.address(TILED)]
    first, second = predict_many(slides, tmp_path / "maps", color_model(), OPTIONS, polygons=False)
    assert "does not exist" in str(first.error)
    assert second.error is None
    assert second.map_path == tmp_path / "maps" / "tiled.zarr"


def test_each_directory_is_read_once(network: Network) -> None:
    with open_slide(network.address(TILED)) as slide:
        slide.quick_hash()
    network.proxy.clear()
    with open_slide(network.address(TILED)) as slide:
        slide.quick_hash()
    assert len(network.proxy.requests) == 1, "one request tells that it is the same slide"


def test_a_row_of_tiles_is_one_request(network: Network) -> None:
    with open_slide(network.address(TILED)) as slide:
        slide.read_level(0, Box(0, 0, 240, 240))  # once, sixteen tiles are looked at, whether they are whole
        network.proxy.clear()
        row = Box(0, 2400, slide.size.width, 240)
        slide.read_level(0, row)
        assert 1 <= len(network.proxy.requests) <= 3  # one, but for tiles that were among the sixteen
        before = network.proxy.sent
        slide.read_level(0, row)
        assert network.proxy.sent == before


@pytest.fixture
def bucket(s3_port: int):
    return boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{s3_port}", region_name="us-east-1",
        aws_access_key_id="a", aws_secret_access_key="b",
    )  # fmt: skip


def test_boxes_that_come_next_are_fetched_together_and_once(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four boxes beside each other over the same rows of tiles come with one request a row, and none comes twice."""
    monkeypatch.setattr(wsiseg.slides.expected, "GROUP_PX", 8_000_000)
    with open_slide(network.address(TILED)) as slide:
        grid = slide.grid(slide.mpp.mean)
        boxes = [Box(x, 0, 480, 480) for x in range(0, 1920, 480)]
        one_by_one = [slide.read(grid, box).pixels for box in boxes]
        slide.forget()
        network.proxy.clear()
        given = expected(slide, grid, boxes, lambda box: box)
        first = next(given)
        found = [slide.read(grid, box).pixels for box in (first, *given)]
    assert 1 <= len(network.proxy.requests) <= 6  # two or three rows of tiles, some of which were among those looked at
    assert all(np.array_equal(one, other) for one, other in zip(one_by_one, found, strict=True))


def test_a_fault_of_what_was_fetched_ahead_is_told_where_it_is_read(network: Network) -> None:
    with open_slide(network.address(TILED), retry_s=0.3) as slide:
        grid = slide.grid(slide.mpp.mean)
        boxes = [Box(0, y, 480, 480) for y in (960, 1440)]
        network.proxy.fault = Fault("500")
        with pytest.raises(RemoteError, match="500"):
            for box in expected(slide, grid, boxes, lambda box: box):
                slide.read(grid, box)
        assert slide.damaged_tiles == 0


@pytest.mark.parametrize("network", ["s3"], indirect=True)
def test_an_object_that_changes_while_it_is_read(network: Network, served: Path, bucket) -> None:
    content = (served / TILED).read_bytes()
    bucket.put_object(Bucket=BUCKET, Key="changing.svs", Body=content)
    with open_slide(network.address("changing.svs"), retry_s=0.6) as slide:
        watch = SlideWatch(slide)
        watch.check()
        bucket.put_object(Bucket=BUCKET, Key="changing.svs", Body=content[:-1] + b"x")
        with pytest.raises(SlideError, match="changed while it was read"):
            watch.check()
        with pytest.raises(SlideError, match="changed while it was read"):
            slide.read_level(0, Box(0, 0, 500, 500))
        assert slide.damaged_tiles == 0
    with open_slide(network.address("changing.svs"), retry_s=0.6) as slide:
        watch = SlideWatch(slide)
        bucket.delete_object(Bucket=BUCKET, Key="changing.svs")
        with pytest.raises(SlideError, match="is gone"):
            watch.check()


@pytest.mark.parametrize("network", ["s3"], indirect=True)
def test_another_version_is_another_run(network: Network, served: Path, tmp_path: Path, bucket) -> None:
    """Also where its content is the same, which a server does not promise: parts make another ETag."""
    content = (served / TILED).read_bytes()
    bucket.put_object(Bucket=BUCKET, Key="versions.svs", Body=content)
    address, model = network.address("versions.svs"), color_model()
    with pytest.raises(SlideError):
        wsiseg.predict(address, tmp_path / "a.zarr", model, OPTIONS, progress=breaking(network, "503"))
    network.proxy.fault = None
    place = {"Bucket": BUCKET, "Key": "versions.svs"}
    upload = {**place, "UploadId": bucket.create_multipart_upload(**place)["UploadId"]}
    part = bucket.upload_part(**upload, PartNumber=1, Body=content)
    bucket.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    with pytest.raises(OutputError, match="state of the slide on its server"):
        wsiseg.predict(address, tmp_path / "a.zarr", model, OPTIONS)


def test_signatures_and_passwords_stay_secret(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: Path
) -> None:
    """In the map, its journal, the log, what is printed, and errors."""
    if network.kind == "s3":
        client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
        address = client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": TILED})
        secrets = [part.split("=")[1] for part in address.split("?")[1].split("&") if "ignature" in part]
        assert secrets
    else:
        address = f"http://some:hush-hush@127.0.0.1:{network.proxy.port}/{TILED}?token=hush-hush#x"
        secrets = []
    secrets += ["hush-hush"]
    monkeypatch.setattr(wsiseg.prediction.run, "load_model", lambda *_, **__: color_model())
    log = tmp_path / "run.log"
    asked = ["--retry-time", "0.6", "--tissue", "none", "--log", str(log), "--runtime", "torch", "--device", "cpu"]
    done = CliRunner().invoke(cli, ["predict", address, "--out", str(tmp_path / "a.zarr"), *asked])
    assert done.exit_code == 0, done.output
    told = CliRunner().invoke(cli, ["info", address, "--json"])
    assert json.loads(told.stdout)["slide"].endswith(f"/{TILED}")
    network.proxy.fault = Fault("404", after=6)
    failed = CliRunner().invoke(cli, ["predict", address, "--out", str(tmp_path / "b.zarr"), *asked])
    assert isinstance(failed.exception, WsisegError)
    network.proxy.fault = Fault("403")
    batch = CliRunner().invoke(cli, ["predict", address, address + "1", "--out", str(tmp_path / "c"), *asked])
    texts = [done.output, told.output, failed.output, str(failed.exception), batch.output, str(batch.exception)]
    texts += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    for text in texts:
        for secret in secrets:
            assert secret not in text
    attributes = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())["attributes"]["wsiseg"]
    assert attributes["slide"]["name"] == TILED
    assert str((served / TILED).stat().st_size) in attributes["slide"]["version"]


@pytest.mark.parametrize("out", ["s3://bucket/a.zarr", "https://host/a.zarr", "file:///tmp/a.zarr", "memory://a.zarr"])
def test_outputs_are_local_but_maps_in_buckets(
    sample_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    slide = str(sample_data / "CMU-1-Small-Region.svs")
    scheme = out.partition(":")[0]
    commands = [
        ["predict", slide, "--out", "a.zarr", "--geojson", out.replace("zarr", "geojson")],
        ["predict", slide, "--out", "a.zarr", "--log", out],
    ]
    if scheme != "s3":  # maps may lie there, see test_into_bucket.py
        commands += [["predict", slide, "--out", out], ["predict", slide, slide + "x", "--out", out]]
    for arguments in commands:
        done = CliRunner().invoke(cli, arguments)
        assert isinstance(done.exception, OptionError), (arguments, done.output)
        assert f"not to {scheme}://" in str(done.exception)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(OptionError, match=f"not to {scheme}://"):  # as `wsiseg export` checks its outputs
        check_file(Path(out.replace("zarr", "csv")), (".csv",), overwrite=False)


def test_the_same_pixels_from_python(network: Network, served: Path) -> None:
    with open_slide(network.address(TILED)) as there, open_slide(served / TILED) as here:
        assert there.quick_hash() == here.quick_hash()
        grid = here.grid(1.0)
        box = Box(100, 100, 500, 400)
        assert np.array_equal(there.read(there.grid(1.0), box).pixels, here.read(grid, box).pixels)
