"""A finished map goes into a bucket: all that is below its root first, and last the root's metadata, that makes it one.

What is there already, by size and checksum, is not sent again. A store cannot rename. So a map that replaces another is
sent beside it first; then the old one is taken away, root first, and the new one is copied to its name within the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path

from wsiseg.errors import OutputError
from wsiseg.prediction.progress import Progress
from wsiseg.system.bucket import BucketFolder, Entry
from wsiseg.system.bucket_leases import BucketLease, hidden
from wsiseg.system.durable_lines import DurableLines, read_lines

NODE = "zarr.json"
_THREADS = 8


def marker_key(name: str) -> str:
    """The object that says that what lies under a map's name is what a run has sent of it so far."""
    return hidden(name, "unfinished")


def incoming_key(name: str) -> str:
    """Where a map is sent that replaces another."""
    return hidden(name, "incoming")


@dataclass
class Publisher:
    """Sends a map and its polygons.

    Attributes:
        folder: of the bucket.
        name: of the map in it.
        store: the finished map on this machine.
        geojson: the polygons on this machine and their name in the folder; None for none.
        record: file on this machine of what was sent, with which checksum.
        lease: of the map; nothing is written without it.
        progress: told of each object.
    """

    folder: BucketFolder
    name: str
    store: Path
    geojson: tuple[Path, str] | None
    record: Path
    lease: BucketLease
    progress: Progress

    def publish(self) -> None:
        """Send what is missing; what is there at the end was compared with what was sent.

        Raises:
            OutputError: the store does not take it, or what is sent was altered; the same call goes on.
            LockedError: another run took the map over.
        """
        lines, whole = read_lines(self.record)
        self._sent = {str(line["key"]): (str(line["md5"]), str(line["e_tag"])) for line in lines if "key" in line}
        self._lines = DurableLines(self.record, whole)
        try:
            self._publish(self._files(lines))
        finally:
            self._lines.close()

    def _publish(self, files: Mapping[str, Path]) -> None:
        root = f"{self.name}/{NODE}"
        parts = {key: path for key, path in files.items() if key != NODE}
        self._done, self._total = 0, len(parts) + 2
        there = {entry.key: entry for entry in self.folder.list(self.name)}
        before = self.folder.get(root) if root in there else None
        self.lease.check()
        if before is not None and before[0] == files[NODE].read_bytes():
            self._clean_up()  # an earlier run was killed in its very last steps
            return
        if before is None:
            self.folder.put(marker_key(self.name), b"{}")
            self._send(self.name, parts, there)
        else:
            self._replace(parts, there)
        if self.geojson is not None:
            path, key = self.geojson
            self._put(key, path, _md5(path))
        found = self._compared(self.name, parts)
        self.folder.remove(found.keys() - {f"{self.name}/{key}" for key in files})  # of what was there before
        self.lease.check()
        self.folder.put(root, files[NODE].read_bytes())  # from here on the map is there, and whole
        self._advance()
        self._clean_up()

    def _replace(self, parts: Mapping[str, Path], there: Mapping[str, Entry]) -> None:
        """Put parts in place of those of another map, which stays whole until all of the new one is in the store."""
        incoming = incoming_key(self.name)
        self._send(incoming, parts, {entry.key: entry for entry in self.folder.list(incoming)})
        self._compared(incoming, parts)
        self.lease.check()
        self.folder.put(marker_key(self.name), b"{}")
        nodes = sorted((key for key in there if key.endswith(f"/{NODE}")), key=lambda key: key.count("/"))
        self.folder.remove(nodes)  # the root first: from here on there is no map, and never half of one

        def copy(part: str) -> None:
            self.lease.check()
            self.folder.copy(f"{incoming}/{part}", f"{self.name}/{part}")

        for wave in _waves(parts):
            _all_at_once(copy, wave)
        for part in parts:
            self._sent.pop(f"{self.name}/{part}", None)

    def _send(self, prefix: str, parts: Mapping[str, Path], there: Mapping[str, Entry]) -> None:
        """Send parts that are not there."""

        def send(part: str) -> None:
            key, path = f"{prefix}/{part}", parts[part]
            checksum, entry = _md5(path), there.get(key)
            is_there = entry is not None and entry.size == path.stat().st_size
            if entry is None or not is_there or not self._is_known(entry, checksum):
                self._put(key, path, checksum)
            else:
                self._sent[key] = (checksum, entry.e_tag)
            self._advance()

        for wave in _waves(parts):
            _all_at_once(send, wave)

    def _is_known(self, entry: Entry, checksum: str) -> bool:
        """Whether an object holds what would be sent: its e_tag is the MD5, or the one that it got when it was sent."""
        return entry.e_tag in (checksum, self._sent.get(entry.key, ("", ""))[1]) and (
            entry.e_tag == checksum or self._sent[entry.key][0] == checksum
        )

    def _put(self, key: str, path: Path, checksum: str) -> None:
        self.lease.check()
        e_tag = self.folder.put(key, path)
        self._sent[key] = (checksum, e_tag)
        self._lines.append({"key": key, "md5": checksum, "e_tag": e_tag})

    def _compared(self, prefix: str, parts: Mapping[str, Path]) -> dict[str, Entry]:
        """All that lies under a name now; raises `OutputError` unless each part is there as it was sent."""
        found = {entry.key: entry for entry in self.folder.list(prefix)}
        for part, path in parts.items():
            key = f"{prefix}/{part}"
            entry, sent = found.get(key), self._sent.get(key)
            if entry is None or entry.size != path.stat().st_size or (sent is not None and sent[1] != entry.e_tag):
                failed = OutputError(
                    f"{self.folder.address(key)} is not as it was sent; somebody else writes there, or its store lost "
                    "it; repeat the command to go on"
                )
                failed.transient = True
                raise failed
        return found

    def _clean_up(self) -> None:
        self.folder.remove([entry.key for entry in self.folder.list(incoming_key(self.name))])
        self.folder.remove([marker_key(self.name)])
        self.progress.step("upload", self._total, self._total)

    def _advance(self) -> None:
        self._done += 1
        self.progress.step("upload", min(self._done, self._total - 1), self._total)

    def _files(self, lines: Iterable[Mapping[str, object]]) -> dict[str, Path]:
        """The map's files by their place in it; raises `OutputError` where some are gone since the first time."""
        found = {path.relative_to(self.store).as_posix(): path for path in self.store.rglob("*") if path.is_file()}
        sizes = {key: path.stat().st_size for key, path in sorted(found.items())}
        before = next((line["files"] for line in lines if "files" in line), None)
        if before is None:
            self._lines.append({"files": sizes})
        elif before != sizes:
            raise OutputError(
                f"the finished map that waits in {self.store} to be sent was altered; begin anew with --restart"
            )
        return {key: found[key] for key in sizes}


def _waves(parts: Iterable[str]) -> list[list[str]]:
    """Pixels first, then metadata from the deepest folders on: no group or array is there before what it holds."""
    waves: dict[int, list[str]] = {}
    for part in parts:
        is_node = part == NODE or part.endswith(f"/{NODE}")
        waves.setdefault(-part.count("/") if is_node else -1000, []).append(part)
    return [waves[depth] for depth in sorted(waves)]


def _all_at_once(do: Callable[[str], None], parts: Iterable[str]) -> None:
    """Do something for all parts, several at a time; the first error ends it."""
    pool = ThreadPoolExecutor(_THREADS)
    try:
        futures = [pool.submit(do, part) for part in parts]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            if future.done():
                future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _md5(path: Path) -> str:
    digest = md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def without(path: Path) -> None:
    """Remove a file that may not be there."""
    with suppress(FileNotFoundError):
        path.unlink()
