"""Every fault of a network, on every server, for tiles and for strips: an error that names it, never damage."""

import time
from collections import Counter

import numpy as np
import pytest

from tests.helpers.proxy import Fault
from tests.slides.sources.conftest import STRIPED, TILED, Network, pixels_of
from wsiseg.errors import RemoteError
from wsiseg.geometry import Box
from wsiseg.slides import open_slide
from wsiseg.slides.sources import transport

RETRY_S = 0.15

FAULTS = {
    "401": "no right",
    "403": "no right",
    "404": "is gone",
    "416": "changed",
    "429": "429",
    "500": "500",
    "502": "502",
    "503": "503",
    "reset": "ended the connection|refuses",
    "hang": "hangs",
    "drop": "ended|refuses",
    "short": "where",
    "long": "where|ended",
    "total": "changed",
    "length": "ended|hangs",
    "plain": "ranges",
}
"""What the error says of each."""

AT_OPENING = FAULTS | {"404": "does not exist", "416": "416"}
del AT_OPENING["total"]  # one length is as good as another, as long as it stays


READERS = {"tiff": TILED, "tiffslide": STRIPED}
"""Who reads by address, and a slide that each reads in its own way."""


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Several tries within `RETRY_S`; a busy machine that is slow to answer is no hanging server."""
    monkeypatch.setattr(transport, "FIRST_PAUSE_S", 0.02)
    if kind not in ("hang", "length"):
        monkeypatch.setattr(transport, "SHORTEST_TRY_S", 20.0)


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_that_lasts_ends_the_reading(network: Network, reader: str, kind: str) -> None:
    name = READERS[reader]
    with open_slide(network.address(name), reader=reader, retry_s=RETRY_S) as slide:
        network.proxy.fault = Fault(kind)
        with pytest.raises(RemoteError, match=FAULTS[kind]) as raised:
            slide.read_level(0, Box.from_size(slide.size))
        assert name in str(raised.value)
        assert "\n" not in str(raised.value)
        assert slide.damaged_tiles == 0
        network.proxy.fault = None
        with pytest.raises(RemoteError):  # it has ended: what was read stays as it was found
            slide.read_level(0, Box(0, 0, 64, 64))
        assert slide.damaged_tiles == 0


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("kind", AT_OPENING)
def test_a_fault_that_lasts_keeps_a_slide_from_being_opened(network: Network, kind: str) -> None:
    network.proxy.fault = Fault(kind)
    with pytest.raises(RemoteError, match=AT_OPENING[kind]):
        open_slide(network.address(TILED), retry_s=RETRY_S)


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["403", "404", "429", "500", "503", "reset", "drop", "short", "long", "plain"])
def test_a_fault_that_passes_leaves_no_trace(network: Network, served, reader: str, kind: str) -> None:
    name = READERS[reader]
    with open_slide(network.address(name), reader=reader, retry_s=20) as slide:
        network.proxy.fault = Fault(kind, after=1, count=2)
        found = slide.read_level(0, Box.from_size(slide.size))
        assert slide.damaged_tiles == 0
        assert network.proxy.fault.count == 0, "the fault came"
    assert found.damaged is None
    assert np.array_equal(found.pixels, pixels_of(served / name))


def test_a_server_that_hangs_once_is_asked_again(network: Network, served) -> None:
    with open_slide(network.address(TILED), retry_s=2) as slide:
        network.proxy.fault = Fault("hang", count=1)
        found = slide.read_level(0, Box.from_size(slide.size))
    assert np.array_equal(found.pixels, pixels_of(served / TILED))


def test_pauses_grow_and_end_in_time(network: Network) -> None:
    with open_slide(network.address(TILED), retry_s=2) as slide:
        network.proxy.clear()
        network.proxy.fault = Fault("503")
        start = time.monotonic()
        with pytest.raises(RemoteError, match="--retry-time"):
            slide.read_level(0, Box(0, 0, 64, 64))
        assert time.monotonic() - start > 0.7
    tries = Counter(request.range for request in network.proxy.requests)
    assert 2 <= max(tries.values()) <= 6  # a busy machine is too slow for the third


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://127.0.0.1:1/a.svs", "refuses the connection"),
        ("http://no-such-host.invalid/a.svs", "not known"),
        ("s3://bucket/a.svs", "refuses the connection"),
        ("memory://no/such.svs", "does not exist"),
        ("nope://a/b.svs", "nope"),
    ],
)
def test_servers_that_are_not_there(address: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(RemoteError, match=expected):
        open_slide(address, retry_s=RETRY_S)


def test_tls_that_does_not_agree(nginx_port: int) -> None:
    with pytest.raises(RemoteError, match="TLS"):
        open_slide(f"https://127.0.0.1:{nginx_port}/{TILED}", retry_s=RETRY_S)


def test_a_certificate_that_nobody_signed(tmp_path, nginx_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import ssl
    import subprocess
    import threading
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    asked = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    try:
        subprocess.run([*asked, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl")
    server = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{server.server_address[1]}")
    try:
        for address in (f"https://127.0.0.1:{server.server_address[1]}/a.svs", "s3://bucket/a.svs"):
            with pytest.raises(RemoteError, match="certificate"):
                open_slide(address)
    finally:
        server.shutdown()
        server.server_close()


def test_nginx_without_ranges_and_without_rights(nginx_port: int) -> None:
    with pytest.raises(RemoteError, match=r"as a whole only.*download the slide"):
        open_slide(f"http://127.0.0.1:{nginx_port}/whole/{TILED}")
    with pytest.raises(RemoteError, match="no right to read"):
        open_slide(f"http://127.0.0.1:{nginx_port}/closed/{TILED}")
    with pytest.raises(RemoteError, match="does not exist"):
        open_slide(f"http://127.0.0.1:{nginx_port}/none.svs")


def test_s3_without_object_bucket_or_rights(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3_port}")
    with pytest.raises(RemoteError, match="no right to read"):  # as anybody, to whom the bucket is closed
        open_slide(f"s3://slides/{TILED}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    for address in ("s3://slides/none.svs", "s3://no-such-bucket/a.svs"):
        with pytest.raises(RemoteError, match="does not exist"):
            open_slide(address)
