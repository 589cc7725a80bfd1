"""Servers as slides lie on them: nginx, with ranges and without, and S3."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

BUCKET = "slides"
KEYS = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "hush-hush", "AWS_DEFAULT_REGION": "us-east-1"}

NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
{user}
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; keepalive_requests 100000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ root {files}; }}
        location /whole/ {{ alias {files}/; max_ranges 0; }}
        location /closed/ {{ alias {files}/; deny all; }}
    }}
}}
"""


def nginx_program() -> str | None:
    """Where nginx is, None where it is not installed."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until a server listens."""
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode}")
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError("the server did not begin to listen within a minute")


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """A server, until the context ends."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def nginx(files: Path, folder: Path) -> Iterator[int]:
    """nginx on the files of a folder: at `/` with ranges, at `/whole/` without, at `/closed/` forbidden. Its port."""
    program, port = nginx_program(), free_port()
    assert program is not None
    user = "user root;" if os.geteuid() == 0 else ""  # folders of tests are closed to others
    (folder / "nginx.conf").write_text(NGINX.format(files=files, folder=folder, port=port, user=user))
    with running([program, "-p", str(folder), "-c", str(folder / "nginx.conf")], port):
        yield port


@contextmanager
def s3(objects: Mapping[str, Path]) -> Iterator[int]:
    """An S3 server whose bucket `BUCKET` holds files under names. Its port."""
    import boto3

    port = free_port()
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, port):
        client = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"], aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip
        client.create_bucket(Bucket=BUCKET)
        for name, path in objects.items():
            client.put_object(Bucket=BUCKET, Key=name, Body=path.read_bytes())
        yield port


@contextmanager
def proxied(port: int, delay_s: float) -> Iterator[tuple[int, Any]]:
    """The proxy as a process: its port, and what tells what went through."""
    command = [sys.executable, "-m", "tests.helpers.proxy", f"127.0.0.1:{port}", str(delay_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def told() -> Any:
            print(file=stdin, flush=True)
            return json.loads(stdout.readline())

        yield int(stdout.readline()), told
        process.terminate()


@contextmanager
def address_of(kind: str, files: Path, work: Path) -> Iterator[str]:
    """A folder's files behind an address: kind "s3" or "http"; `work` is for nginx. Skips without the server."""
    pytest.importorskip("obstore")
    if kind == "http":
        if nginx_program() is None:
            pytest.skip("needs nginx")
        with nginx(files, work) as port:
            yield f"http://127.0.0.1:{port}"
        return
    pytest.importorskip("moto")
    names = {f"a/{path.relative_to(files)}": path for path in files.rglob("*") if path.is_file()}
    with s3(names) as port, pytest.MonkeyPatch.context() as patch:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
            patch.setenv(name, value)
        yield f"s3://{BUCKET}/a"
