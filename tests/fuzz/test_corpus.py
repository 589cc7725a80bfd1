"""Files that once broke the program are refused in its own words, or read; see docs/hostile-files.md."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
@pytest.mark.parametrize("target", [pytest.param("area", marks=pytest.mark.slow), "settings"])
def test_a_few_seconds_of_new_cases(target: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz.worker", "--target", target, "--minutes", "0.05"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=3000)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["found"] == {}, result
    assert result["cases"] > 0


def test_the_corpus_stays_small() -> None:
    assert sum(path.lstat().st_size for path in CORPUS.rglob("*") if not path.is_dir()) < 200_000
