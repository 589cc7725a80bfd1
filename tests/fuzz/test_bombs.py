"""A few bytes that claim gigabytes are refused within a bounded address space, in seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import bombs

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("target", ["slide", "area", "dataset", "map"])
def test_what_claims_to_be_huge(target: str, tmp_path: Path) -> None:
    {"slide": bombs.slides, "area": bombs.areas, "dataset": bombs.datasets, "map": bombs.maps}[target](tmp_path)
    command = [sys.executable, "-m", "tests.fuzz.worker", "--target", target, "--replay", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=3000)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["found"] == {}, result
    assert result["cases"] == len(list(tmp_path.iterdir()))
    # The one whose description only would be huge is a sound picture otherwise.
    assert result["outcomes"].get("read", 0) == (target == "slide"), result
