"""What a run writes, and what of it may be there before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wsiseg.export.vector_options import VectorOptions
from wsiseg.prediction.unfinished import check_outputs
from wsiseg.prediction.upload import Upload
from wsiseg.system.leases import Lease


@dataclass(frozen=True, slots=True)
class Output:
    """The files that a run writes, and what it may replace.

    Attributes:
        map: the OME-Zarr store, a name that ends in `.zarr`.
        geojson: polygons for QuPath, None for none.
        vectors: how polygons are made; None as `VectorOptions` says by itself.
        overwrite: replace what is there.
        restart: forget an unfinished run of the map instead of going on with it.
        upload: where map and polygons are sent when they are whole, None where they stay.
        held: the lease of the map, where it is held already.
    """

    map: Path
    geojson: Path | None = None
    vectors: VectorOptions | None = None
    overwrite: bool = False
    restart: bool = False
    upload: Upload | None = None
    held: Lease | None = None

    def check(self) -> None:
        """Refuse what could not be written, before any work.

        Raises:
            OptionError, OutputError: see `wsiseg.prediction.unfinished.check_outputs`.
        """
        check_outputs(self.map, self.geojson, overwrite=self.overwrite, restart=self.restart)
