"""What may go wrong, done to the process that calls it."""

import os
import sys
import time
from pathlib import Path

import torch

import wsiseg.system.durable_lines

DIED = 9
"""Exit code of a process that died where it was told to."""


def die_at(number: int, folder: str) -> None:
    """Die at once, as by SIGKILL, before the `number`-th time that something in `folder` is changed or synced.

    A line of the journal counts twice: it may be cut in half.
    """
    seen = 0

    def step() -> bool:
        nonlocal seen
        seen += 1
        return seen == number

    def hook(event: str, arguments: tuple) -> None:
        if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"):
            paths = arguments[:2] if event in ("os.rename", "os.link") else arguments[:1]
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            paths = arguments[:1]
        else:
            return
        if any(isinstance(path, (str, os.PathLike)) and str(path).startswith(folder) for path in paths) and step():
            os._exit(DIED)

    sys.addaudithook(hook)
    sync, line = os.fsync, wsiseg.system.durable_lines._encoded

    def fsync(descriptor: int) -> None:
        if step():
            os._exit(DIED)
        sync(descriptor)

    def cut_line(content: dict) -> bytes:
        whole = line(content)
        if step():
            (journal,) = Path(folder).glob(".*.unfinished/journal.jsonl")
            with journal.open("ab") as file:
                file.write(whole[: len(whole) // 2])
            os._exit(DIED)
        return whole

    os.fsync, wsiseg.system.durable_lines._encoded = fsync, cut_line


def die_after_pieces(number: int) -> None:
    """Die when so many pieces are booked."""
    from wsiseg.prediction.piece_writer import PieceWriter

    write, seen = PieceWriter.write, 0

    def counted(self: PieceWriter, finished: object) -> None:
        nonlocal seen
        write(self, finished)
        seen += 1
        if seen == number:
            os._exit(DIED)

    PieceWriter.write = counted


def wait_after_pieces(number: int, until: str) -> None:
    """Go no further than so many pieces until a file is there."""
    from wsiseg.prediction.piece_writer import PieceWriter

    write, seen = PieceWriter.write, 0

    def waiting(self: PieceWriter, finished: object) -> None:
        nonlocal seen
        write(self, finished)
        seen += 1
        while seen == number and not Path(until).exists():
            time.sleep(0.01)

    PieceWriter.write = waiting


def older_version(version: str, number: int) -> None:
    """Be an older version of the program, that died after some pieces."""
    import wsiseg.prediction.job

    software = wsiseg.prediction.job.software
    wsiseg.prediction.job.software = lambda: {**software(), "wsiseg": version}
    die_after_pieces(number)


def cut_slide(path: str, reads: int, share: float) -> None:
    """Cut a slide off when so many blocks of it were read."""
    import wsiseg.prediction.piece_reader

    read, seen = wsiseg.prediction.piece_reader.read_block, 0

    def cutting(*arguments: object) -> object:
        nonlocal seen
        seen += 1
        if seen == reads:
            os.truncate(path, int(share * Path(path).stat().st_size))
        return read(*arguments)

    wsiseg.prediction.piece_reader.read_block = cutting


def hang(reads: int, mark: str | None = None) -> None:
    """A read of the slide's file that never comes back, and holds the file's lock as one in the system would.

    Args:
        reads: so many come back before.
        mark: a file that is made when it hangs.
    """
    import wsiseg.slides.base
    import wsiseg.system.threads
    from wsiseg.slides.tiff.tiles import TileSource

    ranges, seen = TileSource._ranges, 0

    def hanging(self: TileSource, *arguments: object) -> object:
        nonlocal seen
        seen += 1
        if seen == reads:
            with self._lock:
                if mark is not None:
                    Path(mark).touch()
                time.sleep(10_000)
        return ranges(self, *arguments)

    TileSource._ranges = hanging
    wsiseg.system.threads.PATIENCE_S = wsiseg.slides.base.CLOSE_S = 0.5


def no_numbers(calls: int) -> None:
    """A network that gives a value that is no number, once."""
    from tests.helpers.color_model import ColorSegmenter

    forward, seen = ColorSegmenter.forward, 0

    def broken(self: ColorSegmenter, images: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += 1
        values = forward(self, images)
        if seen == calls:
            values[-1, 1, 3, 4] = float("nan")
        return values

    ColorSegmenter.forward = broken


def small_memory(most: int) -> None:
    """A device whose memory holds no more than so many patches."""
    from tests.helpers.color_model import ColorSegmenter

    forward = ColorSegmenter.forward

    def limited(self: ColorSegmenter, images: torch.Tensor) -> torch.Tensor:
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate a lot")
        return forward(self, images)

    ColorSegmenter.forward = limited
