"""Time that is left, by a clock that the test holds."""

from wsiseg.cli.time_left import PYRAMID_S, TILES_PER_GATE, VECTORS_S, TimeLeft


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_warming_up_does_not_count_and_later_phases_do() -> None:
    clock = Clock()
    left = TimeLeft(now=clock)
    assert left.seconds() is None
    left.update("tissue", 1, 1)
    left.update("plan", 0, 100_000)
    left.update("tiles", 0, 1000)
    clock.now += 30  # the first batch
    left.update("tiles", 10, 1000)
    assert left.seconds() is None
    clock.now += 9
    left.update("tiles", 100, 1000)
    pyramid, vectors = (fixed + 100 * each for fixed, each in (PYRAMID_S, VECTORS_S))
    assert left.seconds() == 90 + pyramid + vectors
    clock.now += 5  # nothing is heard for a while
    assert left.seconds() == 85 + pyramid + vectors
    clock.now += 1000
    left.update("pyramid", 1, 3)
    assert left.seconds() == pyramid + vectors
    left.update("vectors", 0, 1)
    clock.now += 1
    assert left.seconds() == vectors - 1


def test_what_an_earlier_run_did_took_no_time() -> None:
    clock = Clock()
    left = TimeLeft(vectors=False, now=clock)
    for done in (500, 510, 520):
        left.update("tiles", done, 1000)
        clock.now += 1
    assert left.seconds() == 48 - 1 + PYRAMID_S[0]


def test_a_pass_of_the_gate_is_followed_by_the_tiles() -> None:
    clock = Clock()
    left = TimeLeft(vectors=False, now=clock)
    for done in (0, 10, 20):
        left.update("gate", done, 100)
        clock.now += 1
    clock.now -= 1
    assert left.seconds() == 8 + TILES_PER_GATE * 10 + PYRAMID_S[0]
