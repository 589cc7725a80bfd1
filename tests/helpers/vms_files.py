"""A small Hamamatsu VMS slide out of known pixels, as OpenSlide reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image


def write_vms(path: Path, pixels: npt.NDArray[np.uint8], columns: int = 2, rows: int = 1) -> Path:
    """Write `path` (NAME.vms), its JPEGs, map and macro; sides divide evenly into multiples of 16."""
    stem = path.stem
    height, width = pixels.shape[0] // rows, pixels.shape[1] // columns
    lines = ["[Virtual Microscope Specimen]", f"NoLayers=1\nNoJpegColumns={columns}\nNoJpegRows={rows}"]
    for row in range(rows):
        for column in range(columns):
            name = f"{stem}.jpg" if row == column == 0 else f"{stem}({column},{row}).jpg"
            part = pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
            blocks = width // 8
            Image.fromarray(part).save(path.parent / name, quality=95, subsampling=0, restart_marker_blocks=blocks)
            key = "ImageFile" if row == column == 0 else f"ImageFile({column},{row})"
            lines.append(f"{key}={name}")
    small = Image.fromarray(pixels[::4, ::4])
    for kind in ("map2", "macro"):
        small.save(path.parent / f"{stem}_{kind}.jpg", restart_marker_blocks=small.width // 16)
    lines += [f"MapFile={stem}_map2.jpg", f"MacroImage={stem}_macro.jpg", f"OptimisationFile={stem}.opt"]
    lines += ["SourceLens=20", f"PhysicalWidth={pixels.shape[1] * 500}", f"PhysicalHeight={pixels.shape[0] * 500}"]
    path.write_text("\n".join(lines) + "\n")
    return path
