"""Which slides an address with wildcards means: the objects of a bucket, or the files of whatever fsspec reaches."""

from __future__ import annotations

import re
from collections.abc import Iterator

from wsiseg.errors import MissingExtraError, OptionError, RemoteError
from wsiseg.system.addresses import without_secrets
from wsiseg.system.object_stores import object_store

_WILD = re.compile(r"[*?\[]")
_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl")


def has_wildcards(text: str) -> bool:
    """Whether a path or an address is a pattern."""
    return _WILD.search(text) is not None


def addresses_matching(pattern: str) -> Iterator[str]:
    """The addresses that a pattern means (`*` within a folder, `**` across folders), as they come: of buckets by name.

    Raises:
        OptionError: nothing can be listed there.
        RemoteError: the server does not list it.
    """
    scheme = pattern.partition("://")[0].lower()
    if scheme in ("http", "https"):
        raise OptionError(
            f"web servers do not list their files, so {without_secrets(pattern)} cannot be a pattern; give a list of "
            "addresses"
        )
    try:
        yield from _objects(pattern) if scheme in _STORES else _files(pattern)
    except OptionError:
        raise
    except ImportError as error:
        raise MissingExtraError(
            f"listing {without_secrets(pattern)} needs the package {error.name}: pip install 'wsiseg[remote]'"
        ) from error
    except Exception as error:  # obstore's, boto3's, fsspec's and those of its back ends
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        failed = RemoteError(
            f"{without_secrets(pattern)} cannot be listed ({without_secrets(reason):.150}); check the address and the "
            "credentials, or try again later"
        )
        failed.transient = not isinstance(error, PermissionError | FileNotFoundError | ValueError)
        raise failed from error


def _objects(pattern: str) -> Iterator[str]:
    import obstore  # noqa: PLC0415
    from fsspec.utils import glob_translate  # noqa: PLC0415

    scheme, _, rest = pattern.partition("://")
    bucket, _, key = rest.partition("/")
    fixed = key[: match.start()].rpartition("/")[0] if (match := _WILD.search(key)) else key
    wanted = re.compile(glob_translate(key))
    store = object_store(scheme.lower(), bucket, {"client_options": {}})
    for chunk in obstore.list(store, fixed or None):
        for found in chunk:
            if wanted.match(found["path"]):
                yield f"{scheme}://{bucket}/{found['path']}"


def _files(pattern: str) -> Iterator[str]:
    import fsspec  # noqa: PLC0415

    files, path = fsspec.core.url_to_fs(pattern)
    yield from (files.unstrip_protocol(found) for found in sorted(files.glob(path)))
