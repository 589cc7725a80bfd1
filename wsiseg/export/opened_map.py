"""A tissue map as people have it in Python: what the reader gives, and pictures, polygons, other libraries' types."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsiseg.tissue_map import reader

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import xarray
    from spatialdata import SpatialData

    from wsiseg.export.vector_options import VectorOptions
    from wsiseg.geometry import Box
    from wsiseg.slides.base import SlideReader


class TissueMap(reader.TissueMap):
    """A tissue map that is open for reading, with all that can be made of it.

    What it has besides is described at `wsiseg.tissue_map.reader.TissueMap`, which the rest of the program reads maps
    with. Libraries are loaded when a method needs them.
    """

    def overlay(
        self,
        box: Box | None = None,
        slide: SlideReader | None = None,
        *,
        max_px: int = 1024,
        opacity: float = 0.4,
    ) -> npt.NDArray[np.uint8]:
        """The classes in colour as a picture, (height, width, 3) uint8; see `wsiseg.export.picture.draw`.

        Args:
            box: in level-0 pixels of the slide; None draws all of it.
            slide: the slide to draw on, open for reading; None draws on white.
            max_px: longest side of the picture.
            opacity: of the colours, 0 to 1.
        """
        from wsiseg.export.picture import draw  # noqa: PLC0415  (only pictures need it)

        return draw(self, slide, box, max_px=max_px, opacity=opacity).image

    def to_xarray(self, level: int = 0) -> xarray.Dataset:
        """A level as an `xarray.Dataset`, lazy; see `wsiseg.export.conversions.to_xarray`."""
        from wsiseg.export.conversions import to_xarray  # noqa: PLC0415

        return to_xarray(self, level)

    def polygons(self, options: VectorOptions | None = None) -> Any:
        """The classes' polygons in level-0 pixels; see `wsiseg.export.conversions.polygons`."""
        from wsiseg.export.conversions import polygons  # noqa: PLC0415

        return polygons(self, options)

    def to_spatialdata(self, *, polygons: bool = True) -> SpatialData:
        """A `spatialdata.SpatialData`; see `wsiseg.export.conversions.to_spatialdata`."""
        from wsiseg.export.conversions import to_spatialdata  # noqa: PLC0415

        return to_spatialdata(self, with_polygons=polygons)

    def __repr__(self) -> str:
        from wsiseg.export.display import as_text  # noqa: PLC0415

        return as_text(self)

    def _repr_html_(self) -> str:
        from wsiseg.export.display import as_html  # noqa: PLC0415

        return as_html(self)

    def _repr_png_(self) -> bytes:
        from wsiseg.export.display import as_png  # noqa: PLC0415

        return as_png(self)


def open_map(path: str | Path) -> TissueMap:
    """Open a tissue map.

    Raises:
        MapError: there is none, it is not one of this program's, or it is damaged.
        OptionError: its class table or grid is none.
    """
    return reader.opened(path, TissueMap)
