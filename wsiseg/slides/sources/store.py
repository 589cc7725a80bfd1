"""Ranges of an object in S3, Google Cloud Storage or Azure."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import obstore

from wsiseg.slides.sources.transport import Answer, Cause, Fault, Retry, Transport, of_status, require_all
from wsiseg.system.object_stores import object_store

_STATUS = re.compile(r"status code: (\d{3})")


class StoreTransport(Transport):
    """An object behind an `s3://`, `gs://` or `az://` address.

    Args:
        address: of the object.
        try_s: seconds that one request may take.
    """

    def __init__(self, address: str, try_s: float) -> None:
        scheme, _, rest = address.partition("://")
        bucket, _, self._key = rest.partition("/")
        limit = timedelta(seconds=try_s)
        options: dict[str, Any] = {
            "client_options": {"timeout": limit, "connect_timeout": limit},
            "retry_config": {"max_retries": 0, "retry_timeout": limit},  # tries are counted elsewhere
        }
        try:
            self._store = object_store(scheme.lower(), bucket, options)
        except ImportError:
            raise
        except Exception as error:  # the library's and boto3's own, and ValueError
            raise Fault(Cause.DENIED, f"cannot be asked ({_first_line(error)})", Retry.NEVER) from error

    def get(self, start: int, count: int, *, fresh: bool = False) -> Answer:
        """See `Transport.get`."""
        try:
            found = obstore.get(self._store, self._key, options={"range": (start, start + count)})
            data = bytes(found.bytes())
        except Exception as error:  # whatever the library raises is a failed try
            raise _explained(error) from error
        total = int(found.meta["size"])
        if found.range[0] != start:
            raise Fault(Cause.SERVER, "sent another range than was asked for")
        require_all(data, start, count, total)
        return Answer(data, total, found.meta["e_tag"] or str(found.meta["last_modified"]))

    def close(self) -> None:
        """See `Transport.close`; the library keeps its connections by itself."""


_SAID = (
    (("dns error", "failed to lookup"), "has a name that is not known (DNS)", Retry.LONG),
    (("ertificate",), "has a TLS certificate that is not trusted", Retry.FEW),
    (("InvalidContentType", "corrupt message"), "does not agree on TLS (https)", Retry.FEW),
    (("kind: Connect",), "refuses the connection, or cannot be reached", Retry.LONG),
    (("kind: Timeout",), "does not answer (it hangs)", Retry.LONG),
)
"""What stands in the library's errors, and what it means, the first that fits."""


def _explained(error: Exception) -> Fault:
    """A failed try in our own words; the library's tell all that it knows, over forty lines."""
    text = str(error)
    if status := _STATUS.search(text):
        code = int(status[1])
        if code in (301, 307, 400):
            return Fault(Cause.SERVER, f"says {code}: the bucket may lie in another region (AWS_REGION)", Retry.FEW)
        return of_status(code)
    if isinstance(error, FileNotFoundError):
        return of_status(404)
    if isinstance(error, obstore.exceptions.NotSupportedError) or "NotPartial" in text:
        return Fault(Cause.NO_RANGES, "gives files as a whole only, no ranges of bytes", Retry.FEW)
    found = ((said, retry) for marks, said, retry in _SAID if any(mark in text for mark in marks))
    return Fault(Cause.SERVER, *next(found, ("ended the connection", Retry.LONG)))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
