"""What tests of training share: some of the sample patches, and one thread."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Bits depend on how sums are shared out among threads, so on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows_of(source: Path, split: str) -> list[str]:
    """The lines of a data set's table that end with a split."""
    return [row for row in (source / "labels.csv").read_text().splitlines()[1:] if row.endswith(split)]


def some_patches(source: Path, root: Path, rows: Sequence[str]) -> Path:
    """A data set of some rows of another, in `root`."""
    (root / "images").mkdir()
    header = (source / "labels.csv").read_text().splitlines()[0]
    (root / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    for file in (row.split(",")[0] for row in rows):
        shutil.copy(source / file, root / file)
    shutil.copy(source / "dataset.json", root)
    return root
