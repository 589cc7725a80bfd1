"""Writing behind: all of it, bounded, and no error is lost."""

import threading

import pytest

from wsiseg.errors import OutputError
from wsiseg.training.background_io import WriteBehind


def test_all_is_written_at_the_end_and_no_more_waits_than_allowed() -> None:
    gate, done = threading.Event(), []

    def write(item: int) -> None:
        gate.wait(10)
        done.append(item)

    with WriteBehind(limit=2, threads=1) as writer:
        writer.submit(write, 0)
        writer.submit(write, 1)
        threading.Timer(0.05, gate.set).start()
        writer.submit(write, 2)  # waits for the first
        assert 0 in done
    assert done == [0, 1, 2]


@pytest.mark.parametrize("later", [0, 5])
def test_an_error_of_a_write_ends_the_run(later: int) -> None:
    def fail() -> None:
        raise OutputError("disk full")

    with pytest.raises(OutputError, match="disk full"), WriteBehind(limit=1) as writer:
        writer.submit(fail)
        for _ in range(later):
            writer.submit(lambda: None)


def test_after_an_error_what_waits_is_dropped() -> None:
    gate, done = threading.Event(), []
    with pytest.raises(KeyboardInterrupt), WriteBehind(threads=1) as writer:
        writer.submit(gate.wait, 10)
        for item in range(50):
            writer.submit(done.append, item)
        threading.Timer(0.05, gate.set).start()
        raise KeyboardInterrupt
    assert len(done) < 50
