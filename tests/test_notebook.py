"""A notebook: its kernel has a running event loop and threads, and a signal interrupts it in the middle of a cell."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.bundles import coarse_bundle
from tests.helpers.maps import chunks
from wsiseg.geometry import Box
from wsiseg.slides import open_slide

manager = pytest.importorskip("jupyter_client.manager", reason="needs jupyter-client")
pytest.importorskip("ipykernel")

SECONDS = 300

FIRST_CELL = """
import asyncio, wsiseg, wsiseg.system.memory
wsiseg.system.memory.PIECE_PX = 512
options = wsiseg.PredictOptions(mpp=0.5, tissue="none", overlap=0.0, device="cpu", runtime="torch", batch_size=4)
steps = []

def told(phase, done, total):
    if phase == "tiles":
        steps.append((done, total))
        if done > total / 2: print("half done", flush=True)

def predict(out):
    steps.clear()
    return wsiseg.predict("slide.png", out, "model", options, progress=told)
"""


class Notebook:
    """A kernel in a process of its own, as Jupyter starts one for a notebook; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.manager, self.client = manager.start_new_kernel(cwd=str(folder), startup_timeout=SECONDS)

    def __enter__(self) -> "Notebook":
        return self

    def __exit__(self, *error: object) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def messages(self, code: str) -> Iterator[dict[str, Any]]:
        """Run a cell: kinds and contents of what it publishes, until the kernel is idle again."""
        cell = self.client.execute(code)
        while True:
            message = self.client.get_iopub_msg(timeout=SECONDS)
            if message["parent_header"].get("msg_id") != cell:
                continue
            content = message["content"]
            if content.get("execution_state") == "idle":
                return
            yield {"kind": message["msg_type"], **content}

    def run(self, code: str) -> list[str]:
        """What a cell prints and shows, as text."""
        shown = []
        for message in self.messages(code):
            assert message["kind"] != "error", "\n".join(message["traceback"])
            shown.append(str(message.get("text") or message.get("data", {}).get("text/plain", "")))
        return [text for text in shown if text]


@pytest.fixture
def folder(tmp_path: Path, sample_data: Path) -> Path:
    """A slide of several pieces, real tissue side by side, and a model."""
    with open_slide(sample_data / "CMU-1-Small-Region.svs") as opened:
        pixels = opened.read_level(0, Box(600, 900, 400, 300)).pixels
    Image.fromarray(np.tile(pixels, (1, 6, 1))).save(tmp_path / "slide.png")
    coarse_bundle(tmp_path / "model", mpp=0.5)
    return tmp_path


def test_predict_interrupt_and_resume(folder: Path) -> None:
    with Notebook(folder) as notebook:
        notebook.run(FIRST_CELL)
        interrupted: list[str] = []
        for message in notebook.messages("predict('m.zarr')"):
            if "half done" in message.get("text", "") and not interrupted:
                interrupted.append("sent")
                notebook.manager.interrupt_kernel()
            if message["kind"] == "error":
                interrupted.append(message["ename"])
        assert interrupted == ["sent", "KeyboardInterrupt"]
        assert not (folder / "m.zarr").exists()
        assert (folder / ".m.zarr.unfinished").is_dir()
        resumed = notebook.run("predict('m.zarr').map_path.name, min(steps)[0] > max(steps)[1] / 5")
        assert resumed[-1] == "('m.zarr', True)"
        # Beside the kernel's own event loop, in a thread.
        assert notebook.run("(await asyncio.to_thread(predict, 'again.zarr')).map_path.name")[-1] == "'again.zarr'"
        [shown] = [m["data"] for m in notebook.messages("wsiseg.open_map('m.zarr')") if m["kind"] == "execute_result"]
        assert "<table" in shown["text/html"]
    assert chunks(folder / "m.zarr") == chunks(folder / "again.zarr")
    assert not list(folder.glob(".*"))
