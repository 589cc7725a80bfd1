"""Outputs of a bucket that a run held whose machine is gone: found, and freed."""

from __future__ import annotations

from wsiseg.system.bucket import BucketFolder
from wsiseg.system.bucket_leases import lease_key, lease_of, watched
from wsiseg.system.leases import Holder, place

_ENDING = ".lease"


def held_outputs(address: str) -> list[tuple[BucketFolder, str]]:
    """The outputs that somebody holds, or held when it was killed: that of an address, or all in a folder.

    Raises:
        OptionError, OutputError: the address cannot be one of an output, or its store cannot be asked.
    """
    parent, _, name = address.rstrip("/").rpartition("/")
    if not parent.endswith("/"):  # else it is the bucket itself
        folder = BucketFolder(parent)
        if lease_of(folder, name) is not None:
            return [(folder, name)]
    folder = BucketFolder(address)
    names, places = [], [""]
    while places:
        objects, folders = folder.within(places.pop())
        places += [one for one in folders if not one.rstrip("/").endswith(".zarr")]  # maps hold no leases
        names += [found for entry in objects if (found := _leased(entry.key)) is not None]
    return [(folder, found) for found in sorted(names)]


def _leased(key: str) -> str | None:
    """The output whose lease an object is; None where it is none."""
    path, slash, last = key.rpartition("/")
    if not (last.startswith(".") and last.endswith(_ENDING)):
        return None
    return f"{path}{slash}{last[1 : -len(_ENDING)]}"


def free(folder: BucketFolder, name: str, *, force: bool = False) -> tuple[str, bool]:
    """Free an output whose run is gone; see `wsiseg.system.locks.unlock`.

    Args:
        folder: of the output.
        name: of the output in it.
        force: do not watch for a sign of life. Even then a run of this machine that lives keeps its output.

    Returns:
        Who held it, for people, and whether it is free now.

    Raises:
        OutputError: it cannot be freed.
    """
    found = lease_of(folder, name)
    if found is None:
        return "", True
    holder, lease = found
    if _lives_here(holder) or not (force or holder.has_ended() or watched(folder, lease)):
        return holder.text, False
    folder.remove([lease_key(name)])
    return holder.text, True


def _lives_here(holder: Holder) -> bool:
    return bool(holder.place) and holder.place == place() and not holder.has_ended()
