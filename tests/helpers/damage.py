"""Slides that are damaged on purpose."""

from __future__ import annotations

import tifffile


def damaged_copy(source, target, tiles, damage):
    """A slide whose tiles' bytes are what `damage` makes of them, of the same length."""
    with tifffile.TiffFile(source) as tiff:
        page = tiff.pages[0]
        places = [(page.dataoffsets[i], page.databytecounts[i]) for i in tiles]
    content = bytearray(source.read_bytes())
    for offset, count in places:
        data = damage(bytes(content[offset : offset + count]))
        assert len(data) == count
        content[offset : offset + count] = data
    target.write_bytes(content)
    return target


def zeros(data):
    return data[: len(data) // 3] + bytes(len(data) - len(data) // 3)


def no_jpeg(data):
    return b"\0" * len(data)
