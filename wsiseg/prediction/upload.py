"""A map that is whole is sent to its bucket: parts first, polygons, then the root's metadata, which makes it a map.

What was sent is booked in the run's journal, with what the store calls it (its ETag), so that a run that died goes on
and sends nothing twice. Where an old map is replaced, the new one is sent under a hidden name beside it first. Stores
cannot rename: the old root is removed then, the parts are copied within the store, and the new root is put. So there
is the old map, for a moment none, then the new one, and never half of one.

From the first part to the root an object `.NAME.zarr.unfinished` says that what lies there is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from wsiseg.errors import OutputError
from wsiseg.prediction.journal import Journal
from wsiseg.prediction.progress import Progress
from wsiseg.prediction.unfinished import UnfinishedRun
from wsiseg.system.bucket import BucketFolder, Entry
from wsiseg.system.bucket_leases import BucketLease, hidden
from wsiseg.system.files import says_tissue_map

SENDING, PUT, SENT = "sending", "put", "sent"
"""Steps of the journal: the sending begins; an object is in the bucket; all of them are."""

AT_ONCE = 8
"""Objects that are sent at the same time."""

_ROOT = "zarr.json"


def marker(name: str) -> str:
    """The object that says of the parts of a map that they are those of an unfinished run."""
    return hidden(name, "unfinished")


def root_of(name: str) -> str:
    """The object without which there is no map."""
    return f"{name}/{_ROOT}"


def check_destination(
    bucket: BucketFolder, name: str, polygons: str | None, *, overwrite: bool, sending: bool, root: bytes | None
) -> None:
    """Refuse a map that could not be sent, before any work.

    Args:
        bucket: the folder.
        name: of the map in it.
        polygons: their name, None for none.
        overwrite: replace a map or polygons that are there.
        sending: an earlier run of this command had begun to send them, so that polygons are its own.
        root: what that run would put as the root's metadata.

    Raises:
        OutputError: there is a map, or something else, of that name; or the store cannot be asked.
    """
    found = bucket.get(root_of(name))
    if found is None:
        if bucket.head(marker(name)) is None and next(bucket.list(name), None) is not None:
            raise OutputError(
                f"{bucket.address(name)} holds objects and is no tissue map of this program; remove them yourself, or "
                "choose another name"
            )
    elif found[0] != root:
        if not overwrite:
            raise exists(bucket.address(name))
        if not says_tissue_map(found[0]):
            raise OutputError(
                f"{bucket.address(name)} exists and is not a tissue map of this program; remove it yourself, or choose "
                "another name"
            )
    if polygons is not None and not (overwrite or sending) and bucket.head(polygons) is not None:
        raise exists(bucket.address(polygons))


def exists(address: str) -> OutputError:
    """The error of an output that is there."""
    return OutputError(f"{address} exists; choose another name, or replace it with --overwrite")


@dataclass(frozen=True, slots=True)
class Upload:
    """The way of one map into a bucket.

    Attributes:
        bucket: the folder.
        name: of the map in it.
        polygons: the name of its polygons, None for none.
        overwrite: replace what is there.
        lease: of the map in the bucket.
    """

    bucket: BucketFolder
    name: str
    polygons: str | None
    overwrite: bool
    lease: BucketLease

    def send(self, run: UnfinishedRun, geojson: Path | None, progress: Progress) -> None:
        """Send a map that has its name on this machine.

        Raises:
            LockedError: another run has taken it over.
            OutputError: the store does not take it; what was sent stays booked.
        """
        files = {path.relative_to(run.out).as_posix(): path for path in sorted(run.out.rglob("*")) if path.is_file()}
        root, sending = files.pop(_ROOT), _Sending(self, run.journal, progress, len(files) + 2)
        self.lease.check()
        run.journal.add({"step": SENDING})
        self.bucket.put(marker(self.name), b"")
        old, staged = self.bucket.get(root_of(self.name)), hidden(self.name, "new")
        if old is not None and old[0] != root.read_bytes():  # else this run was killed between its last steps
            self._refuse_other(old[0])
            sending.put_all(files, staged)
            self.lease.check()
            self.bucket.remove([root_of(self.name)])  # from here on there is no map, until the new root is put
        rests = [entry.key for entry in self.bucket.list(self.name) if not sending.is_put(entry)]
        # So that no array of others gets our chunks; the root first.
        self.bucket.remove(sorted(filter(_is_node, rests), key=lambda key: key.count("/")))
        sending.put_all(files, self.name, staged)
        if geojson is not None and self.polygons is not None:
            sending.put_one(self.polygons, geojson)
        kept = {f"{self.name}/{part}" for part in (*files, _ROOT)}
        self.bucket.remove([entry.key for entry in self.bucket.list(self.name) if entry.key not in kept])
        self._put_root(sending, root)
        self.bucket.remove([entry.key for entry in self.bucket.list(staged)])
        self.bucket.remove([marker(self.name)])
        run.journal.add({"step": SENT})

    def _refuse_other(self, root: bytes) -> None:
        """What appeared meanwhile is not replaced unless that was asked for."""
        if not self.overwrite or not says_tissue_map(root):
            raise OutputError(
                f"{self.bucket.address(self.name)} exists by now; choose another name, or replace it with --overwrite"
            )

    def _put_root(self, sending: _Sending, root: Path) -> None:
        key, content = root_of(self.name), root.read_bytes()
        self.lease.check()
        e_tag = self.bucket.create(key, content)
        if e_tag is None:  # somebody made a map meanwhile; or it is ours, and the answer was lost
            found = self.bucket.get(key)
            if found is None or found[0] != content:
                raise OutputError(
                    f"{self.bucket.address(self.name)} was written by somebody else meanwhile; choose another name"
                )
            e_tag = found[1].e_tag
        sending.book(key, len(content), e_tag)


class _Sending:
    """The objects of a run that are in the bucket, or are on their way."""

    def __init__(self, upload: Upload, journal: Journal, progress: Progress, total: int) -> None:
        self._upload, self._bucket = upload, upload.bucket
        self._journal, self._progress, self._total = journal, progress, total
        self._put: dict[str, tuple[int, str]] = {}
        for step in journal.of(PUT):
            self._put[str(step["key"])] = int(step["size"]), str(step["e_tag"])

    def book(self, key: str, size: int, e_tag: str) -> None:
        """An object is in the bucket."""
        self._journal.add({"step": PUT, "key": key, "size": size, "e_tag": e_tag})
        self._put[key] = size, e_tag
        self._progress.step("upload", min(len(self._put), self._total), self._total)

    def put_all(self, files: Mapping[str, Path], folder: str, staged: str | None = None) -> None:
        """Put files into a folder of the bucket, those that are not there; by a copy where `staged` has them.

        Args:
            files: by their names in the folder.
            folder: of the bucket.
            staged: another one.

        Raises:
            OutputError: afterwards they are not there as they were put.
        """
        missing = self._missing(files, folder)
        copied = set(missing) - set(self._missing(files, staged)) if staged is not None and missing else set()

        def place(part: str) -> tuple[str, int, str]:
            key = f"{folder}/{part}"
            if part not in copied:
                return key, files[part].stat().st_size, self._bucket.put(key, files[part])
            self._bucket.copy(f"{staged}/{part}", key)
            entry = self._bucket.head(key)
            return (key, 0, "") if entry is None else (key, entry.size, entry.e_tag)

        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="upload") as pool:
            for some in _in_order(missing):
                self._upload.lease.check()
                puts = [pool.submit(place, part) for part in some]
                for put in sorted(puts, key=lambda put: put.exception() is not None):  # what was sent is booked first
                    self.book(*put.result())
        if left := self._missing(files, folder):
            raise self._altered(f"{folder}/{left[0]}")

    def put_one(self, key: str, path: Path) -> None:
        """Put a file that lies beside the map's folder, unless it is there."""
        if not self.is_put(self._bucket.head(key), path):
            self.book(key, path.stat().st_size, self._bucket.put(key, path))
            if not self.is_put(self._bucket.head(key), path):
                raise self._altered(key)

    def _missing(self, files: Mapping[str, Path], folder: str) -> list[str]:
        there = {entry.key: entry for entry in self._bucket.list(folder)}
        return [part for part, path in files.items() if not self.is_put(there.get(f"{folder}/{part}"), path)]

    def is_put(self, entry: Entry | None, path: Path | None = None) -> bool:
        """Whether an object is the one that this run put, and of a file's size."""
        if entry is None or (path is not None and entry.size != path.stat().st_size):
            return False
        return self._put.get(entry.key) == (entry.size, entry.e_tag)

    def _altered(self, key: str) -> OutputError:
        error = OutputError(
            f"{self._bucket.address(key)} is not there as it was sent; is another program writing there? repeat the "
            "command to send it again"
        )
        error.transient = True
        return error


def _is_node(key: str) -> bool:
    return key.rpartition("/")[2] == _ROOT


def _in_order(parts: Iterable[str]) -> Iterator[list[str]]:
    """Parts that may be sent at once: no array is there before its chunks, no group before its arrays."""

    def turn(part: str) -> int:
        return 1000 - part.count("/") if _is_node(part) else 0

    for _, found in groupby(sorted(parts, key=turn), turn):
        same = list(found)
        yield from (same[begin : begin + 4 * AT_ONCE] for begin in range(0, len(same), 4 * AT_ONCE))
