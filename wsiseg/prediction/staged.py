"""A map for a bucket is made in a scratch folder of this machine, as any other, then sent whole.

A run that dies goes on in the scratch folder, while it computes and while it sends. The folder is found again by the
map's address; where several machines share it, another one of them goes on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from wsiseg.errors import OptionError, OutputError
from wsiseg.export.vector_options import VectorOptions
from wsiseg.geojson.write import SUFFIXES
from wsiseg.prediction.output import Output
from wsiseg.prediction.progress import Progress
from wsiseg.prediction.publish import NODE, Publisher, marker_key, without
from wsiseg.prediction.result import Prediction
from wsiseg.prediction.unfinished import pending_commit, unfinished_folder
from wsiseg.system.addresses import without_secrets
from wsiseg.system.bucket import BucketFolder
from wsiseg.system.bucket_leases import BucketLease, held
from wsiseg.system.cache import cache_folder
from wsiseg.system.files import MAP_SUFFIX, cannot_write


@dataclass(frozen=True)
class Staged:
    """A map on its way into a bucket, which no other run writes meanwhile.

    Attributes:
        folder: of the bucket.
        name: of the map in it, with "/" between folders.
        geojson: name of the polygons in it; None for none.
        scratch: folder of this machine for all maps of that folder.
        lease: of the map.
        vectors: how polygons are made.
        overwrite: replace what is there.
        restart: forget what an earlier run had begun.
    """

    folder: BucketFolder
    name: str
    geojson: str | None
    scratch: Path
    lease: BucketLease
    vectors: VectorOptions | None = None
    overwrite: bool = False
    restart: bool = False

    @property
    def output(self) -> Output:
        """What is written on this machine. Whatever is there is this map's own."""
        return Output(self.map, self._polygons, self.vectors, overwrite=True, restart=self.restart)

    @property
    def map(self) -> Path:
        """The map on this machine."""
        return self.scratch.joinpath(*self.name.split("/"))

    @property
    def _polygons(self) -> Path | None:
        if self.geojson is None:
            return None
        return self.map.with_suffix(".geojson.gz" if self.geojson.lower().endswith(".gz") else ".geojson")

    def check(self) -> None:
        """Refuse what could not be written, before any work.

        Raises:
            OutputError: the map or its polygons exist, and may not be replaced.
        """
        with cannot_write(self.map.parent):
            self.map.parent.mkdir(parents=True, exist_ok=True)
        there = self.folder.get(f"{self.name}/{NODE}")
        if there is not None and pending_commit(self.map) and (self.map / NODE).read_bytes() == there[0]:
            return  # a run that was killed after the last of it was sent
        if there is not None:
            self._check_map(there[0])
        elif self.folder.get(marker_key(self.name)) is not None:
            return  # what is there is what a run had sent so far
        elif next(self.folder.list(self.name), None) is not None:
            raise OutputError(
                f"{self.folder.address(self.name)} holds objects that are no tissue map of this program; remove them "
                "yourself, or choose another name"
            )
        if self.geojson is not None and not self.overwrite and self.folder.get(self.geojson) is not None:
            raise _exists(self.folder.address(self.geojson))

    def _check_map(self, root: bytes) -> None:
        if not self.overwrite:
            raise _exists(self.folder.address(self.name))
        if not is_map(root):
            raise OutputError(
                f"{self.folder.address(self.name)} exists and is not a tissue map of this program; remove it yourself, "
                "or choose another name"
            )

    def publish(self, progress: Progress) -> None:
        """Send the map that was made; see `Publisher.publish`."""
        local = self._polygons
        polygons = None if self.geojson is None or local is None else (local, self.geojson)
        record = unfinished_folder(self.map) / "sent.jsonl"
        Publisher(self.folder, self.name, self.map, polygons, record, self.lease, progress).publish()

    def clean(self) -> None:
        """Remove this machine's copy of a map that is in the bucket."""
        shutil.rmtree(self.map, ignore_errors=True)
        if self._polygons is not None:
            without(self._polygons)

    def told(self, made: Prediction) -> Prediction:
        """A result that names what is in the bucket."""
        polygons = None if self.geojson is None else self.folder.address(self.geojson)
        return replace(made, map_path=self.folder.address(self.name), geojson_path=polygons)


def is_map(root: bytes) -> bool:
    """Whether the metadata of a Zarr store's root say that this program wrote it."""
    try:
        content = json.loads(root)
    except ValueError:
        return False
    return isinstance(content, dict) and "wsiseg" in (content.get("attributes") or {})


def _exists(address: str) -> OutputError:
    return OutputError(f"{address} exists; choose another name, or replace it with --overwrite")


def scratch_for(folder: BucketFolder, scratch: str | Path | None) -> Path:
    """The folder of this machine where maps for a folder of a bucket are made; found again by the same address.

    Args:
        folder: of the bucket.
        scratch: folder for all such folders; None is one in the user's cache folder.

    Raises:
        OptionError: there is no such folder.
    """
    base = cache_folder() if scratch is None else Path(scratch)
    if base is None:
        raise OptionError("there is no home folder to make maps in that go to a bucket; give one with --scratch")
    base = base / "outputs" if scratch is None else base
    digest = blake2b(folder.text.encode(), digest_size=8).hexdigest()
    made = base.absolute() / f"wsiseg-{digest}"
    try:
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
        (made / "address.txt").write_text(f"{folder.text}\n", encoding="utf-8")  # for people
    except OSError as error:
        raise OptionError(
            f"{made} cannot be made ({error.strerror}); give a folder with room for the map with --scratch"
        ) from error
    return made


@contextmanager
def staged_map(
    address: str,
    geojson: str | Path | None,
    vectors: VectorOptions | None,
    scratch: str | Path | None,
    *,
    overwrite: bool,
    restart: bool,
    retry_s: float,
) -> Iterator[Staged]:
    """One map that is made for an address; see `wsiseg.predict`.

    Raises:
        OptionError: names that cannot be.
        LockedError: another run writes it.
        OutputError: it exists, or the bucket cannot be written.
    """
    parent, _, name = address.rstrip("/").rpartition("/")
    if not name.lower().endswith(MAP_SUFFIX) or name.lower() == MAP_SUFFIX or parent.endswith("/"):
        raise OptionError(f"expected an output name that ends in {MAP_SUFFIX}, got {without_secrets(address)}")
    polygons = None if geojson is None else _beside(parent, str(geojson))
    folder = BucketFolder(parent, retry_s)
    with held(folder, name) as lease:
        staged = Staged(folder, name, polygons, scratch_for(folder, scratch), lease, vectors, overwrite, restart)
        staged.check()
        yield staged
        staged.clean()


def _beside(parent: str, geojson: str) -> str:
    if not geojson.lower().endswith(SUFFIXES):
        raise OptionError(
            f"expected an output name that ends in {' or '.join(SUFFIXES)}, got {without_secrets(geojson)}"
        )
    folder, _, name = geojson.rpartition("/")
    if folder != parent:
        raise OptionError(
            f"the polygons of a map in a bucket lie beside it, in {without_secrets(parent)}; got "
            f"{without_secrets(geojson)}; name them there, or write them from the map with `wsiseg export`"
        )
    return name
