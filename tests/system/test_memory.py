"""How memory is divided, and how an amount is written."""

import os
import platform
import subprocess
import sys

import pytest

from wsiseg.errors import OptionError
from wsiseg.system.memory import LEAST_BYTES, MOST_BYTES, MemoryPlan, available_bytes, default_max_memory, parse_bytes


def test_pieces_shrink_with_memory_and_classes() -> None:
    for most in (2**30, 2**31, 2**32, 2**36):
        for channels in (2, 4, 7, 33):
            plan = MemoryPlan.from_limit(most, channels)
            assert plan.piece_px % 512 == 0
            assert plan.piece_px == 512 or 5 * plan.piece_px**2 * channels <= most / 4
            assert plan.piece_px <= 3072
    assert MemoryPlan.from_limit(2**32, 4).piece_px == 3072
    assert MemoryPlan.from_limit(2**30, 7).piece_px == 2560
    with pytest.raises(OptionError, match="at least 1G"):
        MemoryPlan.from_limit(2**29, 4)


def test_the_default_is_half_of_the_machine_between_one_and_four_gigabytes() -> None:
    assert LEAST_BYTES <= default_max_memory() <= MOST_BYTES
    assert default_max_memory() == max(LEAST_BYTES, min(MOST_BYTES, available_bytes() // 2))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2G", 2**31), ("1.5 GB", 3 * 2**29), ("800M", 800 * 2**20), ("1024", 1024), ("3gib", 3 * 2**30)],
)
def test_amounts(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-2G", "2X", "1e9"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(OptionError, match="amount of memory"):
        parse_bytes(text)


FREED = """
import numpy as np, sys
from wsiseg.system.memory import keep_little_freed_memory, resident_bytes
if sys.argv[1] == "little":
    keep_little_freed_memory()
np.ones(30 * 2**20, np.uint8)  # freed at once: from now on glibc keeps as much
before = resident_bytes()
arrays = [np.ones(20 * 2**20, np.uint8) for _ in range(2)]
del arrays
print(resident_bytes() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries keep memory in their own ways")
def test_freed_memory_is_returned() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC"))}
    kept = {
        way: int(subprocess.check_output([sys.executable, "-c", FREED, way], env=environment))
        for way in ("little", "much")
    }
    assert kept["little"] < 2**20 < 30 * 2**20 < kept["much"]
