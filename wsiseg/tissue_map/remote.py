"""Tissue maps behind addresses: the same checks before anything is opened, then Zarr reads by ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zarr

from wsiseg.errors import MapError, OptionError, RemoteError
from wsiseg.system.addresses import place_text, without_secrets
from wsiseg.system.extras import require_extra
from wsiseg.system.object_stores import folder_store
from wsiseg.tissue_map.checks import check_length, check_node
from wsiseg.tissue_map.distance import DISTANCE
from wsiseg.tissue_map.gate import GATE
from wsiseg.tissue_map.ome import LABELS, UNREAD

SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https")

MOST_LEVELS = 32
_NODE = "zarr.json"


def open_remote(address: str) -> zarr.Group:
    """The root group of a map, whose groups and arrays were checked as those on a disk are.

    Raises:
        OptionError: an address of another kind.
        MissingExtraError: what reads addresses is not installed.
        RemoteError: the server does not have the map, or does not give it.
        MapError: it is no map, or damaged.
    """
    scheme = address.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise OptionError(f"maps are read from {', '.join(SCHEMES)} and from this machine, not from {scheme}://")
    require_extra("remote", f"a map at {scheme}://", "obstore", "boto3")
    from zarr.storage import ObjectStore  # noqa: PLC0415

    shown = Path(without_secrets(address))
    try:
        store = folder_store(address)
    except Exception as error:  # obstore's and boto3's own, and ValueError
        raise unreachable(shown, error) from error
    if not _check(store, shown, ""):
        raise RemoteError(f"{without_secrets(address)} is not a tissue map, or the server does not have it")
    for part in ("labels", f"labels/{LABELS}"):
        _check(store, shown, part)
    folders = [f"labels/{LABELS}/", ""]
    for part, of_part in (
        (f"labels/{UNREAD}", f"labels/{UNREAD}/"),
        (GATE, f"{GATE}/"),
        (DISTANCE, f"{DISTANCE}/"),
    ):
        if _check(store, shown, part):  # maps of earlier versions have none
            folders.append(of_part)
    for folder in folders:
        for level in range(MOST_LEVELS):
            if not _check(store, shown, f"{folder}{level}"):
                break
    return zarr.open_group(ObjectStore(store, read_only=True), mode="r", zarr_format=3)


def unreachable(path: Path, error: Exception) -> RemoteError:
    """What a server's fault means; never that the map is damaged."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return RemoteError(
        f"{place_text(path)} cannot be read from its server ({without_secrets(reason):.200}); try again later"
    )


def is_fault_of_server(error: BaseException) -> bool:
    """Whether an error of reading came from the way to the server and not from what is stored."""
    return type(error).__module__.startswith(("obstore", "botocore")) or isinstance(error, OSError)


def _check(store: Any, shown: Path, part: str) -> bool:
    """Check a group or array; false where there is none."""
    import obstore  # noqa: PLC0415

    key = f"{part}/{_NODE}" if part else _NODE
    try:
        found = obstore.get(store, key)
        check_length(shown / key, int(found.meta["size"]))
        check_node(shown / key, bytes(found.bytes()))
    except FileNotFoundError:
        return False
    except MapError:
        raise
    except Exception as error:  # whatever the library raises
        raise unreachable(shown, error) from error
    return True
