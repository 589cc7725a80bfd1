"""A process that was forked from one that had computed waits forever in torch; this program refuses there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os, sys
import wsiseg.prediction.run as run
from wsiseg.system.forks import note_computing
if sys.argv[1] == "after": note_computing()
child = os.fork()
if child == 0:
    try:
        run.loaded_model("no such model", run.PredictOptions())
    except wsiseg.WsisegError as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("moment", "expected"), [("after", "OptionError this process was forked"), ("before", "BundleError")]
)
def test_a_process_forked_after_computing_is_refused(tmp_path: Path, moment: str, expected: str) -> None:
    code = "import wsiseg\n" + CODE
    done = subprocess.run(
        [sys.executable, "-c", code, moment], capture_output=True, text=True, cwd=tmp_path, timeout=200, check=True
    )
    assert done.stdout.startswith(expected), done
    assert done.stdout.count("\n") == 1
