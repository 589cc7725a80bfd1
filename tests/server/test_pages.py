"""The files of pages: typed, and their libraries put in place where they are nowhere."""

import os
import shutil
import stat
import subprocess
import webbrowser
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from wsiseg.errors import MissingExtraError, OptionError
from wsiseg.server import serve, static
from wsiseg.server.app import with_preloads


def npm() -> str:
    found = shutil.which("npm")
    if found is None:
        pytest.skip("needs npm")
    return found


def test_types(tmp_path: Path) -> None:
    """`npm install && npm run check`, in a copy."""
    shutil.copytree(static.PAGES, tmp_path / "pages", ignore=shutil.ignore_patterns("node_modules", "static"))
    install = [npm(), "install", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(install, cwd=tmp_path / "pages", capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm reaches no packages: {done.stderr[:200]}")
    check = [npm(), "run", "check"]
    done = subprocess.run(check, cwd=tmp_path / "pages", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_libraries_are_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm()
    monkeypatch.setattr(static, "STATIC", tmp_path / "static")
    try:
        assert static.ensure_static() == tmp_path / "static"
    except MissingExtraError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("PATH", "")
    assert static.ensure_static() == tmp_path / "static"  # without npm
    assert sorted(path.name for path in (tmp_path / "static").iterdir()) == sorted(static.LIBRARIES)
    # One that was altered is not shown, and is had again.
    (tmp_path / "static" / "openseadragon.min.js").write_text("alert(1)")
    monkeypatch.setattr(static, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="npm"):
        static.ensure_static()


def test_npm_that_fails_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bin" / "npm"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'npm error network' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(static, "STATIC", tmp_path / "static")
    with pytest.raises(MissingExtraError, match=r"npm failed \(npm error network\)") as caught:
        static.ensure_static()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "static").exists()


def test_what_is_not_writable_leads_to_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "STATIC", tmp_path / "file" / "static")
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    installed: list[Path] = []
    monkeypatch.setattr(static, "install", installed.append)
    assert static.ensure_static() == installed[0]
    assert installed[0].is_relative_to(tmp_path / "cache" / "wsiseg" / "pages")


def test_a_wheel_without_libraries_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `uv build` makes it of a checkout that has not fetched them, or with one that was altered."""
    own = [path for path in static.PAGES.rglob("*") if path.suffix in static.SHOWN]
    whole = {f"wsiseg/pages/{path.relative_to(static.PAGES).as_posix()}": path.read_bytes() for path in own}
    library = "wsiseg/pages/static/openseadragon.min.js"
    altered = {**whole, library: b"alert(1)", "wsiseg/pages/static/openseadragon.LICENSE.txt": b"BSD"}
    without = {name: content for name, content in whole.items() if "/static/" not in name}
    for files, why in ((altered, "another one than was tested"), (without, "does not hold wsiseg/pages/static")):
        with zipfile.ZipFile(tmp_path / "w.whl", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        assert static.main([str(tmp_path / "w.whl")]) == 2
        said = capsys.readouterr().err
        assert why in said
        assert "python -m wsiseg.server.static" in said
    (tmp_path / "w.whl").write_bytes(b"no archive")
    assert static.main([str(tmp_path / "w.whl")]) == 2


def test_a_built_wheel_holds_all_pages(tmp_path: Path) -> None:
    uv = shutil.which("uv")
    if uv is None or not static._is_whole(static.STATIC):
        pytest.skip("needs uv, and OpenSeadragon in the checkout")
    done = subprocess.run(
        [uv, "build", "--wheel", "--quiet", "--out-dir", tmp_path, ROOT], capture_output=True, text=True, check=False
    )
    if done.returncode and "uv_build" in done.stderr:
        pytest.skip(f"the builder cannot be had: {done.stderr[:200]}")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    static.check_wheel(wheel)


def test_a_page_names_its_modules_at_once() -> None:
    files = static.page_files("view") if static._is_whole(static.STATIC) else {"/pages/view/a.js": Path("a.js")}
    html = with_preloads(b"<head></head><body>", files).decode()
    for address in files:
        assert (f'<link rel="modulepreload" href="{address}" />' in html) == address.startswith("/pages/") * (
            address.endswith(".js")
        )


def test_the_browser_is_not_started_with_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    opener = serve.Opener()
    opener.open("http://127.0.0.1:1/?token=secret")
    path = Path(opened[0].removeprefix("file://"))
    assert "secret" not in opened[0]
    assert "url=http://127.0.0.1:1/?token=secret" in path.read_text()
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    opener.close()
    assert not path.exists()


@pytest.mark.parametrize("port", [-1, 65536])
def test_impossible_ports(port: int) -> None:
    with pytest.raises(OptionError, match=f"got {port}"):
        serve._listening(port)


def test_a_port_that_is_taken() -> None:
    with serve._listening(0) as first, pytest.raises(OptionError, match="give another one by --port"):
        first.listen()
        serve._listening(first.getsockname()[1])
