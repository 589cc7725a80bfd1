"""Readers run ahead, in order and no further than told; a writer lags behind by one; errors come out."""

import threading
import time

import pytest

from wsiseg.system.threads import ReadTimeoutError, WriteBehind, read_ahead


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (3, 2), (4, 9)])
def test_results_come_in_order_and_a_bounded_number_ahead(workers: int, ahead: int) -> None:
    taken, started, most = 0, 0, 0
    lock = threading.Lock()

    def read(item: int) -> int:
        nonlocal started, most
        with lock:
            started += 1
            most = max(most, started - taken)
        time.sleep(0.001 * (item % 3))
        return item * item

    for item, result in read_ahead(range(60), read, workers=workers, ahead=ahead):
        assert result == item * item
        taken += 1
    assert taken == 60
    assert most <= ahead + 1


def test_an_error_of_a_read_is_raised_in_its_place() -> None:
    def read(item: int) -> int:
        if item == 3:
            raise KeyError(item)
        return item

    seen = []
    with pytest.raises(KeyError):
        for item, _ in read_ahead(range(9), read, workers=2, ahead=4):
            seen.append(item)
    assert seen == [0, 1, 2]


def test_a_read_that_hangs_ends_the_work_in_time() -> None:
    never = threading.Event()
    with pytest.raises(ReadTimeoutError, match=r"more than 0\.2 s"):  # it comes back without the read
        list(read_ahead(range(3), lambda item: never.wait() if item == 1 else item, workers=2, ahead=3, timeout_s=0.2))
    never.set()


def test_what_is_put_is_written_in_order_before_the_end() -> None:
    written: list[int] = []

    def write(item: int) -> None:
        time.sleep(0.002)
        written.append(item)

    with WriteBehind(write) as behind:
        for item in range(20):
            behind.put(item)
            assert item - len(written) <= 3
    assert written == list(range(20))


def test_an_error_of_a_write_comes_out_and_nothing_is_written_after_it() -> None:
    written: list[int] = []

    def write(item: int) -> None:
        if item == 2:
            raise OSError("full")
        written.append(item)

    with pytest.raises(OSError, match="full"), WriteBehind(write) as behind:
        for item in range(50):
            behind.put(item)
    assert written == [0, 1]
    with pytest.raises(OSError, match="full"), WriteBehind(write) as behind:
        behind.put(2)


def test_after_an_error_elsewhere_what_waits_is_dropped() -> None:
    written: list[int] = []
    held = threading.Event()

    def write(item: int) -> None:
        held.wait(5)
        written.append(item)

    with pytest.raises(RuntimeError), WriteBehind(write) as behind:
        behind.put(0)
        behind.put(1)
        held.set()
        raise RuntimeError
    assert written in ([0], [0, 1])
