"""Files that once broke the program are refused in its own words, or read; see docs/hostile-files.md."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import judge

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("target", sorted(path.name for path in CORPUS.iterdir()))
def test_what_broke_once_breaks_no_more(target: str) -> None:
    # In a process of its own, as they were found: some took the whole process along.
    command = [sys.executable, "-m", "tests.fuzz.worker", "--target", target, "--replay", str(CORPUS / target)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=3000)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["found"] == {}, result
    assert result["cases"] == len(list((CORPUS / target).iterdir())) > 0


# Files of areas that broke once are replayed above, and huge ones beside this.
@pytest.mark.slow
@pytest.mark.parametrize("target", ["area", "settings"])
def test_a_few_seconds_of_new_cases(target: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz.worker", "--target", target, "--minutes", "0.05"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=3000)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["found"] == {}, result
    assert result["cases"] > 0


def test_some_new_cases_of_settings(tmp_path: Path) -> None:
    """In this process, which has torch: no library in C reads settings."""
    target = TARGETS["settings"]
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    target.seeds(seeds)
    outcomes = Counter[str]()
    for number in range(100):
        case = tmp_path / str(number)
        case.mkdir()
        target.make(seeds, case, Random(f"settings {number}"))
        outcome, title, trace = judge(target.run, case)
        assert not title, trace
        outcomes[outcome] += 1
    assert outcomes["OptionError"] > 20, outcomes


def test_the_corpus_stays_small() -> None:
    assert sum(path.lstat().st_size for path in CORPUS.rglob("*") if not path.is_dir()) < 200_000
