"""The bytes of a slide behind an address: many ranges at once, asked again where a server fails, none asked twice."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from wsiseg.choices import DEFAULT_RETRY_S
from wsiseg.errors import RemoteError
from wsiseg.slides.sources.blocks import BLOCK, BlockFile, ByteCache, Run, merged
from wsiseg.slides.sources.source import ByteSource, LocalSource, Range
from wsiseg.slides.sources.transport import Answer, Cause, Fault, Retry, Transport, insist, try_seconds
from wsiseg.system.addresses import is_address, last_part, local_path
from wsiseg.system.threads import ReaderPool

CONNECTIONS = 16
"""Requests of one slide that are under way at once."""

GAP, LONGEST = 2**14, 2**20
"""Tiles are read in one request where no more bytes lie between them, up to so many in all."""

KEPT_BYTES = 64 * 2**20
"""Tiles as they came that are kept: blocks of patches and pieces of the map overlap."""

DIRECTORY_BYTES, DIRECTORIES = 8 * 2**20, 8
"""Blocks that are kept of a slide's directories, and of how many slides after they were closed."""


class _Directory:
    """What outlives an open slide: blocks of its directories, and its hash."""

    def __init__(self) -> None:
        self.blocks: ByteCache[int] = ByteCache(DIRECTORY_BYTES)
        self.hash: str | None = None


_directories: OrderedDict[tuple[str, str], _Directory] = OrderedDict()
_directories_lock = threading.Lock()


def _directory(address: str, version: str) -> _Directory:
    """What was already read from a file in one state; a slide is opened several times in a run."""
    with _directories_lock:
        found = _directories.setdefault((address, version), _Directory())
        _directories.move_to_end((address, version))
        while len(_directories) > DIRECTORIES:
            _directories.popitem(last=False)
        return found


class RemoteSource(ByteSource):
    """A file behind an address.

    Args:
        address: of the file.
        retry_s: seconds for which a server that fails is asked again.

    Raises:
        RemoteError: it cannot be had.
    """

    def __init__(self, address: str, retry_s: float = DEFAULT_RETRY_S) -> None:
        self.name = last_part(address)
        self._host = urlsplit(address).hostname if address.lower().startswith("http") else None
        self._retry_s = retry_s
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._failed: RemoteError | None = None
        self._pending: dict[Range, Future[bytes]] = {}
        self._kept: ByteCache[Range] = ByteCache(KEPT_BYTES)
        self._pool: ReaderPool | None = None
        try:
            self._transport = _transport(address, try_seconds(retry_s))
            first = insist(lambda: self._transport.get(0, BLOCK, fresh=True), retry_s, self._stopped, opening=True)
        except Fault as fault:
            raise self._error(fault, opening=True) from fault
        self.length = first.total
        self.version = f"{first.total} bytes, {first.version or 'no version'}"
        if self.length == 0:
            raise RemoteError(f"{self.name} is empty (0 bytes); put it there again")
        self._stated = first.version
        self._directory = _directory(address, self.version)
        self._directory.blocks.put(0, first.data)

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """See `ByteSource.read_many`; the order of requests is the file's, and those under way are waited for."""
        self.check()
        inside = [(start, max(0, min(count, self.length - start))) for start, count in ranges]
        found = {each: self._at_hand(each) for each in inside}
        waiting, runs = self._claimed([each for each, data in found.items() if data is None])
        for run in runs[1:]:
            self._threads().submit(self._fetch, run)
        if runs:
            self._fetch(runs[0])
        for each, future in waiting.items():
            found[each] = future.result()
        return [cast("bytes", found[each]) for each in inside]

    def expect(self, ranges: Sequence[Range]) -> None:
        """See `ByteSource.expect`: the requests of what is not kept go out; `read_many` waits for their answers."""
        if self._failed is not None or self._stopped.is_set():
            return
        inside = [(start, min(count, self.length - start)) for start, count in ranges if start < self.length]
        _, runs = self._claimed([each for each in inside if self._at_hand(each) is None])
        for run in runs:
            self._threads().submit(self._fetch, run)

    def _at_hand(self, wanted: Range) -> bytes | None:
        """The bytes of a range, where they are kept; None where they have to be fetched."""
        return b"" if wanted[1] == 0 else self._kept.get(wanted) or self._in_block(wanted)

    def _claimed(self, missing: Sequence[Range]) -> tuple[dict[Range, Future[bytes]], list[Run]]:
        """What each missing range is waited for with, and the runs that whoever calls has to fetch."""
        mine: list[Range] = []
        with self._lock:
            for each in missing:
                if each not in self._pending:
                    self._pending[each] = Future()
                    mine.append(each)
            waiting = {each: self._pending[each] for each in missing}
        return waiting, merged(mine, GAP, LONGEST)

    def _in_block(self, wanted: Range) -> bytes | None:
        """The bytes of a range within a block of the directory that is kept, None of any other."""
        number, first = divmod(wanted[0], BLOCK)
        if first + wanted[1] > BLOCK:
            return None
        block = self._directory.blocks.get(number)
        return None if block is None else block[first : first + wanted[1]]

    def _fetch(self, run: Run) -> None:
        """Ask for a run, and give its ranges to whoever waits for them."""
        (start, count), inside = run
        error: BaseException | None = None
        data = b""
        try:
            data = self._ask(start, count).data
        except BaseException as raised:  # told to those who wait
            error = raised
        for each in inside:
            part = data[each[0] - start : each[0] - start + each[1]]
            if error is None:
                self._kept.put(each, part)
            with self._lock:
                future = self._pending.pop(each)
            if error is None:
                future.set_result(part)
            else:
                future.set_exception(error)

    def _ask(self, start: int, count: int, *, fresh: bool = False) -> Answer:
        def once() -> Answer:
            self.check()
            answer = self._transport.get(start, count, fresh=fresh)
            if (answer.total, answer.version) != (self.length, self._stated):
                raise Fault(Cause.CHANGED, "has another file of that name now", Retry.FEW)
            return answer

        try:
            return insist(once, self._retry_s, self._stopped, opening=False)
        except Fault as fault:
            with self._lock:
                self._failed = self._failed or self._error(fault, opening=False)
                self._stopped.set()
            raise self._failed from fault

    def _threads(self) -> ReaderPool:
        with self._lock:
            if self._pool is None:
                self._pool = ReaderPool(CONNECTIONS)
            return self._pool

    def _error(self, fault: Fault, *, opening: bool) -> RemoteError:
        """The error, on one line, for a fault that asking again did not mend."""
        error = self._told(fault, opening=opening)
        error.transient = fault.retry is Retry.LONG
        return error

    def _told(self, fault: Fault, *, opening: bool) -> RemoteError:
        server = f"its server {self._host}" if self._host else "its server"
        said = f"{server} {fault.text}"
        if fault.cause is Cause.MISSING:
            return RemoteError(
                f"{self.name} does not exist: {said}; check the address" if opening else
                f"{self.name} is gone: it was there when it was opened, and now {said}; put it back and repeat the "
                "command, which resumes from there"
            )  # fmt: skip
        if fault.cause is Cause.DENIED:
            return RemoteError(
                f"no right to read {self.name}: {said}; check the credentials, and whether they have expired"
            )
        if fault.cause is Cause.NO_RANGES:
            return RemoteError(
                f"{self.name} cannot be read by ranges: {said}; download the slide, or serve it with byte ranges"
            )
        if fault.cause is Cause.CHANGED and not opening:
            return RemoteError(
                f"{self.name} changed while it was read: {said}; put back the slide and repeat the command, or begin "
                "anew with --restart"
            )
        if fault.retry is Retry.LONG:
            todo = f"repeat the command when it does better (it was given {self._retry_s:g} s, --retry-time)"
        else:
            todo = "check the address, or download the slide"
        return RemoteError(f"{self.name} cannot be read: {said}; {todo}")

    def check(self) -> None:
        """See `ByteSource.check`."""
        if self._failed is not None:
            raise self._failed
        if self._stopped.is_set():
            raise RemoteError(f"{self.name} was closed; open it again")

    def require_unchanged(self) -> None:
        """See `ByteSource.require_unchanged`: one small request."""
        self._ask(0, 1, fresh=True)

    def quick_hash(self) -> str:
        """See `ByteSource.quick_hash`; computed once for a state of the file."""
        if self._directory.hash is None:
            self._directory.hash = super().quick_hash()
        return self._directory.hash

    def forget(self) -> None:
        """See `ByteSource.forget`."""
        self._kept.clear()

    def file(self) -> BinaryIO:
        """See `ByteSource.file`."""
        return io.BufferedReader(BlockFile(self.length, self.read_many, self._directory.blocks), 2**12)

    def close(self) -> None:
        """See `ByteSource.close`; a request that hangs is left to itself."""
        self._stopped.set()
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.abandon()
        self._transport.close()
        self.forget()


def _transport(address: str, try_s: float) -> Transport:
    """The transport that fetches an address; its libraries come with the extra `wsiseg[remote]`."""
    scheme = address.partition("://")[0].lower()
    try:
        if scheme in ("http", "https"):
            from wsiseg.slides.sources.http import HttpTransport  # noqa: PLC0415

            return HttpTransport(address, try_s, CONNECTIONS)
        if scheme in ("s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl"):
            from wsiseg.slides.sources.store import StoreTransport  # noqa: PLC0415

            return StoreTransport(address, try_s)
        from wsiseg.slides.sources.fsspec import FsspecTransport  # noqa: PLC0415

        return FsspecTransport(address)
    except ImportError as error:
        raise RemoteError(
            f"{last_part(address)}: {scheme}:// needs what comes with wsiseg[remote]; pip install 'wsiseg[remote]' "
            f"({error.name} is not installed)"
        ) from error


def open_source(path: str, retry_s: float = DEFAULT_RETRY_S) -> ByteSource:
    """The bytes of a file, or of what lies behind an address.

    Raises:
        SlideError: it cannot be read.
    """
    path = local_path(path)
    return RemoteSource(path, retry_s) if is_address(path) else LocalSource(Path(path))
