"""A folder of an object store that is written: objects are read, put, listed, copied and removed; faults in our words.

An object is whole or not there: stores have no half-written ones. They have no renaming either, and no appending.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

from wsiseg.errors import OptionError, OutputError, WsisegError
from wsiseg.system.addresses import names_elsewhere, without_secrets
from wsiseg.system.extras import require_extra
from wsiseg.system.object_stores import object_store

if TYPE_CHECKING:
    from obstore import ObjectMeta, UpdateVersion

WRITABLE = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")

RETRY_S = 60.0
"""For how long a failing request is repeated, unless stated."""

PARTS_ABOVE = 64 * 2**20
"""Files above this size, in bytes, are sent in parts, several at once."""

_ANSWER_S, _CONNECT_S = 120, 20
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_SAID = {400: "refuses it", 401: "wants credentials", 403: "gives no right to do so", 507: "has no room left"}


@dataclass(frozen=True, slots=True)
class Entry:
    """An object.

    Attributes:
        key: its name within the folder.
        size: in bytes.
        e_tag: what changes whenever it is put, quotes left out; mostly its MD5.
        modified: when it was put, by the clock of its store.
    """

    key: str
    size: int
    e_tag: str
    modified: datetime


def is_bucket(place: str | Path) -> bool:
    """Whether an output lies in an object store.

    Raises:
        OptionError: at an address that cannot be written.
    """
    if not names_elsewhere(place):
        return False
    scheme = str(place).partition(":")[0].lower()
    if scheme not in WRITABLE:
        raise OptionError(
            f"outputs are written to folders of this machine and to buckets (s3://, gs://, az://), not to {scheme}://; "
            "name one of these"
        )
    if "://" not in str(place):
        raise OptionError(f"an output in a bucket is given as text, {scheme}://…, and not as a Path")
    if "?" in str(place) or "#" in str(place):
        raise OptionError(
            f"{without_secrets(str(place))} was given with a query (?…) or a fragment (#…), which no output can have; "
            "credentials come from the environment"
        )
    return True


class BucketFolder:
    """What lies below an address of an object store.

    Args:
        address: `s3://bucket/prefix` and the like.
        retry_s: for how long a failing request is repeated.

    Raises:
        OptionError: an address that cannot be written.
        MissingExtraError: what object stores need is not installed.
        OutputError: the store cannot be asked.
    """

    def __init__(self, address: str, retry_s: float = RETRY_S) -> None:
        if not is_bucket(address):
            raise OptionError(f"expected an address, s3://bucket/folder, got {address}")
        scheme, _, rest = address.partition("://")
        bucket, _, prefix = rest.partition("/")
        self.text = without_secrets(address).rstrip("/")
        if not bucket:
            raise OptionError(f"{self.text}:// names no bucket; expected {scheme}://bucket/folder")
        require_extra("remote", f"an output at {scheme}://", "obstore", "boto3")
        with self._told(""):
            self._store = object_store(scheme.lower(), bucket, {
                "client_options": {
                    "timeout": timedelta(seconds=_ANSWER_S), "connect_timeout": timedelta(seconds=_CONNECT_S),
                },
                "retry_config": {
                    "max_retries": 1000, "retry_timeout": timedelta(seconds=retry_s),
                    "backoff": {
                        "init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=8), "base": 2,
                    },
                },
                "prefix": prefix.strip("/"),
            })  # fmt: skip

    def address(self, key: str) -> str:
        """The address of an object."""
        return f"{self.text}/{key}"

    def get(self, key: str) -> tuple[bytes, Entry] | None:
        """An object's content and what it is; None where there is none."""
        import obstore  # noqa: PLC0415

        with self._told(key):
            try:
                found = obstore.get(self._store, key)
                return bytes(found.bytes()), _entry(found.meta)
            except FileNotFoundError:
                return None

    def head(self, key: str) -> Entry | None:
        """What an object is; None where there is none."""
        import obstore  # noqa: PLC0415

        with self._told(key):
            try:
                return _entry(obstore.head(self._store, key))
            except FileNotFoundError:
                return None

    def put(self, key: str, content: bytes | Path) -> str:
        """Put an object, in place of one that is there; returns its new e_tag."""
        import obstore  # noqa: PLC0415

        in_parts = isinstance(content, Path) and content.stat().st_size > PARTS_ABOVE
        with self._told(key):
            return _plain(obstore.put(self._store, key, content, use_multipart=in_parts)["e_tag"])

    def create(self, key: str, content: bytes) -> str | None:
        """Put an object if there is none of that name; returns its e_tag, None where there is one."""
        return self._put_if(key, content, "create")

    def replace(self, key: str, content: bytes, e_tag: str) -> str | None:
        """Put an object in place of the one with an e_tag; returns the new one, None where it is another by now."""
        return self._put_if(key, content, e_tag)

    def _put_if(self, key: str, content: bytes, condition: str) -> str | None:
        import obstore  # noqa: PLC0415
        from obstore.exceptions import AlreadyExistsError, PreconditionError  # noqa: PLC0415

        with self._told(key):
            try:
                if condition == "create":
                    return _plain(obstore.put(self._store, key, content, mode="create", use_multipart=False)["e_tag"])
                mode = cast("UpdateVersion", {"e_tag": f'"{condition}"'})  # the library takes no None as a version
                return _plain(obstore.put(self._store, key, content, mode=mode, use_multipart=False)["e_tag"])
            except (AlreadyExistsError, PreconditionError):
                return None
            except FileNotFoundError:
                if condition == "create":
                    raise
                return None  # somebody removed it meanwhile

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """The objects in a folder of this one, in whatever order."""
        import obstore  # noqa: PLC0415

        with self._told(prefix):
            for chunk in obstore.list(self._store, prefix.rstrip("/") or None):
                yield from map(_entry, chunk)

    def within(self, prefix: str = "") -> tuple[Sequence[Entry], Sequence[str]]:
        """What lies directly in a folder of this one: its objects, and the names of its folders."""
        import obstore  # noqa: PLC0415

        with self._told(prefix):
            found = obstore.list_with_delimiter(self._store, prefix.rstrip("/") or None)
            return [_entry(meta) for meta in found["objects"]], [str(name) for name in found["common_prefixes"]]

    def copy(self, key: str, to: str) -> None:
        """Copy an object within the store."""
        import obstore  # noqa: PLC0415

        with self._told(key):
            obstore.copy(self._store, key, to)

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are not there are no fault."""
        import obstore  # noqa: PLC0415

        for key in keys:
            with self._told(key):
                try:
                    obstore.delete(self._store, key)
                except FileNotFoundError:
                    continue

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Turn whatever the libraries raise into one line of ours; they tell all that they know, over forty lines."""
        try:
            yield
        except (WsisegError, ImportError, TypeError):  # a TypeError is a defect of this program
            raise
        except Exception as error:  # obstore's and boto3's own, and ValueError
            raise fault(self.address(key) if key else self.text, error) from None  # its text may hold what is secret


def fault(address: str, error: Exception) -> OutputError:
    """What an object store's fault means, and whether the same command may do better later."""
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    number = int(status[1]) if status else 0
    named = f" ({code[1]})" if code else ""
    quota = bool(code) and "quota" in code[1].lower() if code else False
    lasting = quota or (bool(status) and number < 500 and number not in (408, 429)) or number == 507
    if quota:
        said = f"has no room left{named}; make room, and repeat the command to go on"
    elif isinstance(error, FileNotFoundError) or number == 404:
        said, lasting = f"is not there{named or ' (404)'}; make the bucket first, or name another", True
    elif isinstance(error, ValueError):
        said, lasting = "cannot be such a name; name another", True
    elif status and lasting:
        what = _SAID.get(number, "refuses it")
        said = f"cannot be read or written, its store {what} ({number}{f', {code[1]}' if code else ''}); repeat the "
        said += "command to go on once that is right"
    else:
        what = f"says {number}" if status else _network(text)
        said = f"cannot be reached, its store {what}{named}; repeat the command later to go on"
    found = OutputError(f"{address} {said}")
    found.transient = not lasting
    return found


def _network(text: str) -> str:
    marks = (
        ("dns error", "has a name that is not known (DNS)"), ("failed to lookup", "has a name that is not known (DNS)"),
        ("ertificate", "has a TLS certificate that is not trusted"), ("kind: Timeout", "does not answer (it hangs)"),
        ("kind: Connect", "refuses the connection"),
    )  # fmt: skip
    return next((said for mark, said in marks if mark in text), "ended the connection")


def _plain(e_tag: str | None) -> str:
    return (e_tag or "").strip('"')


def _entry(meta: ObjectMeta) -> Entry:
    return Entry(meta["path"], meta["size"], _plain(meta["e_tag"]), meta["last_modified"])
