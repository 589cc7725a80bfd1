"""Folders of buckets and leases in them, on a real S3 server behind a proxy that breaks."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.helpers.proxy import Fault, Proxy
from tests.helpers.servers import BUCKET, KEYS, s3
from wsiseg.cli.main import main
from wsiseg.errors import LockedError, OptionError, OutputError
from wsiseg.system import leases
from wsiseg.system.bucket import BucketFolder, fault, is_bucket
from wsiseg.system.bucket_leases import held, lease_key, lease_of, seems_held
from wsiseg.system.leases import Holder, Watcher

pytest.importorskip("moto")
pytest.importorskip("obstore")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with s3({}) as found:
        yield found


@pytest.fixture
def proxy(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", port) as found:
        for name, value in KEYS.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{found.port}")
        yield found


@pytest.fixture
def folder(proxy: Proxy, request: pytest.FixtureRequest) -> BucketFolder:
    return BucketFolder(f"s3://{BUCKET}/{request.node.name}/", retry_s=0.4)


def put_lease(folder: BucketFolder, name: str, holder: Holder) -> None:
    folder.put(lease_key(name), json.dumps(asdict(holder)).encode())


ELSEWHERE = replace(Holder.myself(), host="other-node", place="another boot 1", token="theirs")


def test_objects(folder: BucketFolder, tmp_path: Path) -> None:
    assert folder.get("x/a b.json") is None
    first = folder.create("x/a b.json", b"1")
    assert first is not None
    assert folder.create("x/a b.json", b"2") is None
    assert folder.replace("x/a b.json", b"3", "0" * 32) is None
    assert folder.replace("none", b"3", first) is None
    assert folder.replace("x/a b.json", b"33", first) not in (None, first)
    content, entry = folder.get("x/a b.json") or (b"", None)
    assert (content, entry and (entry.key, entry.size)) == (b"33", ("x/a b.json", 2))
    (tmp_path / "file").write_bytes(b"four")
    folder.put("x2/b", tmp_path / "file")
    folder.copy("x2/b", "c")
    assert {(entry.key, entry.size) for entry in folder.list()} == {("x/a b.json", 2), ("x2/b", 4), ("c", 4)}
    assert [entry.key for entry in folder.list("x")] == ["x/a b.json"]
    objects, folders = folder.within()
    assert ([entry.key for entry in objects], sorted(name.rstrip("/") for name in folders)) == (["c"], ["x", "x2"])
    folder.remove(["x2/b", "x2/b", "none", "c"])
    assert [entry.key for entry in folder.list()] == ["x/a b.json"]


@pytest.mark.parametrize(
    ("kind", "said", "transient"),
    [("403", "gives no right", False), ("503", "says 503", True), ("reset", "ended the connection", True),
     ("400", "refuses it", False)],
)  # fmt: skip
def test_faults_are_one_line(kind: str, said: str, transient: bool, folder: BucketFolder, proxy: Proxy) -> None:
    proxy.fault = Fault(kind, method="PUT")
    with pytest.raises(OutputError, match=said) as caught:
        folder.put("a", b"1")
    assert caught.value.transient is transient
    assert "\n" not in str(caught.value)
    assert KEYS["AWS_ACCESS_KEY_ID"] not in str(caught.value)
    proxy.clear()
    proxy.fault = Fault("503", count=2, method="PUT")
    folder_that_waits = BucketFolder(folder.text, retry_s=20)
    folder_that_waits.put("a", b"1")
    assert folder_that_waits.get("a") is not None


def test_a_full_quota_lasts() -> None:
    error = RuntimeError("status code: 403: <Error><Code>QuotaExceeded</Code></Error>")
    found = fault("s3://b/a", error)
    assert ("has no room left (QuotaExceeded)" in str(found), found.transient) == (True, False)


def test_addresses() -> None:
    assert is_bucket("s3://bucket/a")
    assert is_bucket("GS://bucket/a")
    assert not is_bucket("maps/a.zarr")
    for address, said in (("https://u:secret@h/a", "not to https://"), ("s3://b/a?X-Amz-Signature=secret", "a query"),
                          ("memory://a", "not to memory://")):  # fmt: skip
        with pytest.raises(OptionError, match=said) as caught:
            is_bucket(address)
        assert "secret" not in str(caught.value)
    with pytest.raises(OptionError, match="names no bucket"):
        BucketFolder("s3://")


def test_one_run_holds_an_output(folder: BucketFolder) -> None:
    with held(folder, "x/a.zarr"):
        assert [entry.key for entry in folder.list()] == ["x/.a.zarr.lease"]
        assert seems_held(lease_of(folder, "x/a.zarr"))
        with (
            pytest.raises(LockedError, match=r"another run is writing s3://.*a\.zarr \(process"),
            held(folder, "x/a.zarr"),
        ):
            pass
        with held(folder, "x/b.zarr"):
            pass
    assert list(folder.list()) == []


def test_a_run_of_this_machine_that_ended_is_succeeded(folder: BucketFolder) -> None:
    put_lease(folder, "a.zarr", replace(Holder.myself(), process=2**22 - 1))
    with held(folder, "a.zarr") as lease:
        lease.check()


def test_a_lease_of_elsewhere_is_watched(folder: BucketFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    put_lease(folder, "a.zarr", ELSEWHERE)
    now = 0.0
    watcher = Watcher(clock=lambda: now)
    for now in range(0, 300, 30):  # noqa: B007  (the watcher's clock)
        with pytest.raises(LockedError, match="other-node"), held(folder, "a.zarr", watcher):
            pass
    put_lease(folder, "a.zarr", replace(ELSEWHERE, beat=1))  # a sign of life: watched anew
    for now in range(300, 600, 30):  # noqa: B007
        with pytest.raises(LockedError), held(folder, "a.zarr", watcher):
            pass
    now = 601.0
    with held(folder, "a.zarr", watcher) as lease:
        lease.check()
        monkeypatch.setattr(leases, "RENEWED_S", -1.0)  # nothing was heard of this one for long
        lease.check()
        put_lease(folder, "a.zarr", ELSEWHERE)
        with pytest.raises(LockedError, match="was taken over by another run"):
            lease.check()
    assert lease_of(folder, "a.zarr") is not None, "another's lease is left alone"


def test_unlock(folder: BucketFolder, capsys: pytest.CaptureFixture[str]) -> None:
    def unlock(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main(["unlock", *arguments])
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out + said.err

    put_lease(folder, "x/a.zarr", ELSEWHERE)
    put_lease(folder, "b.zarr", replace(Holder.myself(), process=2**22 - 1))
    folder.put("b.zarr/zarr.json", b"{}")
    code, said = unlock(folder.address("b.zarr"))
    assert code == 0
    assert f"{folder.address('b.zarr')}: freed (process" in said
    code, said = unlock(folder.text, "--force")
    assert (code, f"{folder.address('x/a.zarr')}: freed (process" in said) == (0, True)
    assert "nobody holds it" in unlock(folder.text)[1]
    assert [entry.key for entry in folder.list()] == ["b.zarr/zarr.json"]
    with held(folder, "a.zarr"):
        assert unlock(folder.text, "--force")[0] == 2
        assert lease_of(folder, "a.zarr") is not None
