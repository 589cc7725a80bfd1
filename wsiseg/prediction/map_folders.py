"""Where maps are written: a folder of this machine, or one of a bucket.

A map of a bucket is made in a scratch folder of this machine, as any other is, and sent when it is whole; see
`wsiseg.prediction.upload`. The bucket keeps the lease of the run that makes it, the scratch folder its journal.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from wsiseg.choices import DEFAULT_RETRY_S
from wsiseg.errors import OptionError
from wsiseg.export.drawn_polygons import DrawnPolygons
from wsiseg.export.vector_options import VectorOptions
from wsiseg.geojson.write import SUFFIXES
from wsiseg.prediction.journal import read_journal
from wsiseg.prediction.output import Output
from wsiseg.prediction.slide_list import plain_part
from wsiseg.prediction.unfinished import pending_commit, unfinished_folder
from wsiseg.prediction.upload import SENDING, SENT, Upload, check_destination, marker, root_of
from wsiseg.system.addresses import without_secrets
from wsiseg.system.bucket import BucketFolder, is_bucket
from wsiseg.system.bucket_leases import held
from wsiseg.system.cache import cache_folder
from wsiseg.system.files import MAP_SUFFIX, cannot_write, check_name, is_tissue_map
from wsiseg.system.locks import locked
from wsiseg.tissue_map.reader import TissueMap, open_map


class MapFolder(Protocol):
    """A folder of maps. A map is known by its path below `root`, on this machine, wherever it is kept.

    Attributes:
        root: the folder of this machine.
    """

    root: Path

    def shown(self, path: Path) -> Path | str:
        """Where a map or polygons lie, for people."""

    def is_whole(self, path: Path) -> bool:
        """Whether a map is there that no run has to go on with."""

    def open(self, path: Path) -> TissueMap:
        """A map that is there."""

    def has(self, geojson: Path) -> bool:
        """Whether polygons are there."""

    def draw(self, tissue_map: TissueMap, geojson: Path, vectors: VectorOptions) -> DrawnPolygons:
        """Write the polygons of a map that is there."""

    def ready(self, output: Output) -> AbstractContextManager[Output]:
        """An output that may be written, as it is handed to the run: checked, and held where others could have it."""


class LocalFolder:
    """A folder of this machine; see `MapFolder`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def shown(self, path: Path) -> Path:
        """See `MapFolder`."""
        return path

    def is_whole(self, path: Path) -> bool:
        """See `MapFolder`."""
        return is_tissue_map(path) and not unfinished_folder(path).exists()

    def open(self, path: Path) -> TissueMap:
        """See `MapFolder`."""
        return open_map(path)

    def has(self, geojson: Path) -> bool:
        """See `MapFolder`."""
        return geojson.exists()

    def draw(self, tissue_map: TissueMap, geojson: Path, vectors: VectorOptions) -> DrawnPolygons:
        """See `MapFolder`."""
        from wsiseg.export.polygons import export_geojson  # noqa: PLC0415  (few runs draw polygons of maps that are there)

        return export_geojson(tissue_map, geojson, vectors)

    @contextmanager
    def ready(self, output: Output) -> Iterator[Output]:
        """See `MapFolder`."""
        output.check()
        yield output


class RemoteFolder:
    """A folder of a bucket; see `MapFolder`.

    Args:
        address: of the folder.
        scratch: where maps are made, in a folder of their own for each address; None takes the user's cache.
        retry_s: for how long a failing request is repeated.

    Raises:
        OptionError: an address that cannot be written.
        OutputError: the store cannot be asked.
    """

    def __init__(self, address: str, scratch: Path | None = None, retry_s: float = DEFAULT_RETRY_S) -> None:
        self.bucket = BucketFolder(address, retry_s)
        base = scratch or cache_folder()
        if base is None:
            raise OptionError("there is no cache folder on this machine for maps under way; name a folder by --scratch")
        server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        digest = blake2b(f"{without_secrets(server)}\0{self.bucket.text}".encode(), digest_size=6).hexdigest()
        self.root = base.absolute() / "outputs" / f"{plain_part(self.bucket.text.rpartition('/')[2])}-{digest}"

    def shown(self, path: Path) -> str:
        """See `MapFolder`."""
        return self.bucket.address(self._name(path))

    def is_whole(self, path: Path) -> bool:
        """See `MapFolder`."""
        if unfinished_folder(path).exists() or self.bucket.head(root_of(self._name(path))) is None:
            return False
        return self.bucket.head(marker(self._name(path))) is None

    def open(self, path: Path) -> TissueMap:
        """See `MapFolder`."""
        return open_map(self.shown(path))

    def has(self, geojson: Path) -> bool:
        """See `MapFolder`."""
        return self.bucket.head(self._name(geojson)) is not None

    def draw(self, tissue_map: TissueMap, geojson: Path, vectors: VectorOptions) -> DrawnPolygons:
        """See `MapFolder`."""
        from wsiseg.export.polygons import export_geojson  # noqa: PLC0415

        with cannot_write(geojson.parent):
            geojson.parent.mkdir(parents=True, exist_ok=True)
        try:
            drawn = export_geojson(tissue_map, geojson, vectors, overwrite=True)
            self.bucket.put(self._name(geojson), geojson)
        finally:
            geojson.unlink(missing_ok=True)
            self._tidy(geojson.parent)
        return drawn

    @contextmanager
    def ready(self, output: Output) -> Iterator[Output]:
        """See `MapFolder`: held here and in the bucket; a run that ended well leaves nothing here."""
        path, name = output.map, self._name(output.map)
        check_name(path, (MAP_SUFFIX,))
        if output.geojson is not None:
            check_name(output.geojson, SUFFIXES)
        polygons = None if output.geojson is None else self._name(output.geojson)
        with cannot_write(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with locked(path) as here:
                self._forget_sent(output)
                sending = not output.restart and pending_commit(path) and bool(_steps(path, SENDING))
                root = (path / "zarr.json").read_bytes() if sending else None
                check_destination(self.bucket, name, polygons, overwrite=output.overwrite, sending=sending, root=root)
                with held(self.bucket, name) as lease:
                    upload = Upload(self.bucket, name, polygons, output.overwrite, lease)
                    # What lies in the scratch folder is this program's own.
                    made = replace(output, overwrite=True, upload=upload, held=here)
                    made.check()
                    yield made
                    self._remove(output)
        finally:
            self._tidy(path.parent)

    def _forget_sent(self, output: Output) -> None:
        """Take away what a run left that was killed after all was sent."""
        if _steps(output.map, SENT):
            self._remove(output)
            shutil.rmtree(unfinished_folder(output.map), ignore_errors=True)

    def _remove(self, output: Output) -> None:
        shutil.rmtree(output.map, ignore_errors=True)
        if output.geojson is not None:
            output.geojson.unlink(missing_ok=True)

    def _tidy(self, folder: Path) -> None:
        """Remove folders that are empty, up to the root of this address."""
        with suppress(OSError):
            while folder.is_relative_to(self.root):
                folder.rmdir()
                folder = folder.parent

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _steps(out: Path, kind: str) -> list[object]:
    _, steps, _ = read_journal(unfinished_folder(out) / "journal.jsonl")
    return [step for step in steps if step.get("step") == kind]


def map_folder(place: str | Path, scratch: str | Path | None = None, retry_s: float = DEFAULT_RETRY_S) -> MapFolder:
    """A folder of maps by its path or address.

    Raises:
        OptionError, OutputError: see `RemoteFolder`; or a scratch folder for a folder of this machine.
    """
    if is_bucket(place):
        return RemoteFolder(str(place), None if scratch is None else Path(scratch), retry_s)
    if scratch is not None:
        raise OptionError("--scratch is for outputs in a bucket; an unfinished map of this machine lies beside it")
    return LocalFolder(Path(place))


def place_of(
    out: str | Path, geojson: str | Path | None, scratch: str | Path | None, retry_s: float
) -> tuple[MapFolder, Path, Path | None]:
    """The folder of one map, and the paths in it of the map and its polygons.

    Raises:
        OptionError, OutputError: see `map_folder`; or the one is in a bucket and the other is not beside it.
    """
    if not is_bucket(out):
        if geojson is not None and is_bucket(geojson):
            raise OptionError("polygons go into a bucket with their map; give --out as an address as well")
        path = Path(out)
        return map_folder(path.parent, scratch, retry_s), path, None if geojson is None else Path(geojson)
    parent, _, name = str(out).rstrip("/").rpartition("/")
    folder = map_folder(parent, scratch, retry_s)
    if geojson is None:
        return folder, folder.root / name, None
    beside, _, polygons = str(geojson).rpartition("/")
    if beside != parent:
        raise OptionError(
            f"the polygons of a map in a bucket lie beside it; expected {without_secrets(parent)}/NAME.geojson, got "
            f"{without_secrets(str(geojson))}"
        )
    return folder, folder.root / name, folder.root / polygons
