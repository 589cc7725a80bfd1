"""What may go wrong, done to the process that calls it."""

import os
import sys
from pathlib import Path

import wsiseg.journal

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
    sync, line = os.fsync, wsiseg.journal._line

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

    os.fsync, wsiseg.journal._line = fsync, cut_line
