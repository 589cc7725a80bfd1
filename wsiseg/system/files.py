"""Outputs that are whole or not there: checked before any work, written under a temporary name, renamed at the end."""

from __future__ import annotations

import csv
import glob
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from wsiseg.errors import OptionError, OutputError, WsisegError
from wsiseg.system.addresses import names_elsewhere
from wsiseg.system.printable import table_cell

MAP_SUFFIX = ".zarr"


def check_map(path: Path, overwrite: bool) -> None:
    """Refuse a tissue map that could not be written, before any work is done.

    Raises:
        OptionError: a name that does not end in `.zarr`.
        OutputError: it exists, or its folder does not or takes no files. With `overwrite` only what is a tissue map
            is replaced: nobody's other folder.
    """
    check_store(path, overwrite, is_tissue_map, "tissue map")


def check_store(path: Path, overwrite: bool, ours: Callable[[Path], bool], kind: str) -> None:
    """Refuse a Zarr store that could not be written, before any work is done.

    Args:
        path: of the store.
        overwrite: replace one that is there.
        ours: whether a folder is one of those that may be replaced.
        kind: what those are called.

    Raises:
        OptionError, OutputError: as `check_map`.
    """
    check_name(path, (MAP_SUFFIX,))
    _check_folder(path)
    if not (path.exists() or path.is_symlink()):
        return
    if not overwrite:
        raise OutputError(f"{path} exists; choose another name, or replace it with --overwrite")
    if not ours(path):
        raise OutputError(
            f"{path} exists and is not a {kind} of this program; remove it yourself, or choose another name"
        )


def check_file(path: Path, suffixes: tuple[str, ...], overwrite: bool) -> None:
    """Refuse a file that could not be written, before any work is done.

    Raises:
        OptionError: a name that ends in none of `suffixes`, whatever the case of its letters.
        OutputError: it exists, or its folder does not or takes no files.
    """
    check_name(path, suffixes)
    _check_folder(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; choose another name, or replace it with --overwrite")


def refuse_address(path: str | Path) -> None:
    """Raise `OptionError` on an output that is not a local path, before a folder called `s3:` is made."""
    if names_elsewhere(path):
        scheme = str(path).partition(":")[0]
        raise OptionError(
            f"outputs are written to folders of this machine, not to {scheme}://; name a path, and copy it there then"
        )


def is_tissue_map(path: Path) -> bool:
    """Whether a folder (not a link to one) is a map that this program wrote."""
    if path.is_symlink():
        return False
    try:
        return says_tissue_map((path / "zarr.json").read_bytes())
    except OSError:
        return False


def says_tissue_map(root: bytes) -> bool:
    """Whether a root's metadata, `zarr.json`, is that of a map that this program wrote."""
    try:
        content = json.loads(root)
    except ValueError:
        return False
    return isinstance(content, dict) and "wsiseg" in (content.get("attributes") or {})


def check_name(path: Path, suffixes: tuple[str, ...]) -> None:
    """Raise `OptionError` at a name that ends in none of `suffixes`, or is nothing else, or an address."""
    refuse_address(path)
    name = path.name.lower()
    if not name.endswith(suffixes) or name in suffixes:
        raise OptionError(f"expected an output name that ends in {' or '.join(suffixes)}, got {path}")


def _check_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist; create it, or choose another output than {path}")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OutputError(f"cannot write into {path.parent}: {error.strerror}; choose another folder") from error


def folds_case(folder: Path) -> bool:
    """Whether the file system of a folder, which need not be there yet, takes a.zarr and A.zarr for one."""
    there = next((one for one in (folder, *folder.absolute().parents) if one.is_dir()), None)
    try:
        with tempfile.NamedTemporaryFile(prefix=".wsiseg-case-", dir=there) as file:
            return Path(file.name).with_name(Path(file.name).name.upper()).exists()
    except OSError:
        return False  # nothing can be written there, which is told when it is tried


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it when all went well; else nothing is left.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield temporary
        temporary.replace(path)
    except WsisegError:  # a slide's or map's own fault as well
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str | float]]) -> None:
    """Write a table as CSV in UTF-8; every table that this program writes comes from here.

    Args:
        path: the file, mostly one of `whole_file`.
        columns: names of the columns.
        rows: cells in the order of the columns. Numbers are written as they are, text so that no spreadsheet takes it
            for a formula, see `table_cell`.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        for row in (columns, *rows):
            table.writerow([table_cell(cell) if isinstance(cell, str) else cell for cell in row])


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that gets its name, and its place, when all went well; else nothing is left.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with cannot_write(path):
            temporary.mkdir()
            yield temporary
            put_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_cut_file(path: Path) -> None:
    """Remove what a kill left of `whole_file(path)`."""
    for cut in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        cut.unlink(missing_ok=True)


@contextmanager
def cannot_write(path: Path) -> Iterator[None]:
    """Turn the system's errors of writing into one of ours."""
    try:
        yield
    except OSError as error:
        if isinstance(error, WsisegError):
            raise
        raise OutputError(
            f"cannot write {path.name}: {error.strerror or error}; make room, or choose another folder"
        ) from error


def retired_name(temporary: Path) -> Path:
    """Where `put_folder` keeps the old folder until the new one has its name."""
    return temporary.with_suffix(".old")


def put_folder(temporary: Path, path: Path) -> None:
    """Give a finished folder its name. An old folder of that name is removed only after the new one has it."""
    if not path.exists():
        temporary.rename(path)
        return
    retired = retired_name(temporary)
    path.rename(retired)
    try:
        temporary.rename(path)
    except BaseException:  # an interrupt as well
        retired.rename(path)
        raise
    shutil.rmtree(retired)


def sync_path(path: Path) -> None:
    """See a file's contents, or a folder's entries, onto the disk, where the system can."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """See a folder, and all that is in it, onto the disk; see `sync_path`."""
    for parent, _, files in os.walk(folder):
        for name in files:
            sync_path(Path(parent, name))
        sync_path(Path(parent))
