"""Reading ahead and writing behind: in order, bounded, and no error is lost."""

import threading

import pytest

from wsiseg.errors import OutputError
from wsiseg.training.background_io import WriteBehind, read_ahead


def test_batches_come_in_order_each_item_read_once_and_in_other_threads() -> None:
    read, threads = [], set()

    def double(item: int) -> int:
        read.append(item)
        threads.add(threading.get_ident())
        return 2 * item

    batches = [[0, 1, 2], [3], [4, 5], [6]]
    assert list(read_ahead(batches, double)) == [([0, 1, 2], [0, 2, 4]), ([3], [6]), ([4, 5], [8, 10]), ([6], [12])]
    assert sorted(read) == list(range(7))
    assert threading.get_ident() not in threads


def test_no_more_is_read_than_was_allowed_ahead() -> None:
    read: list[int] = []
    reading = read_ahead([[i] for i in range(100)], read.append, ahead=3, threads=1)
    next(reading)
    reading.close()
    assert 1 <= len(read) <= 4


def test_what_cannot_be_read_is_told_when_it_is_due() -> None:
    reading = read_ahead([[1], [2], [0], [3]], lambda item: 6 // item)
    assert [next(reading)[1], next(reading)[1]] == [[6], [3]]
    with pytest.raises(ZeroDivisionError):
        next(reading)


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
