"""TIAToolbox's SemanticSegmentor with this program's network on one slide, to compare `wsiseg predict` with.

    uv venv --no-config /tmp/peers
    uv pip install --no-config --python /tmp/peers/bin/python 'tiatoolbox>=2.1' opencv-python-headless timm
    uv pip install --no-config --python /tmp/peers/bin/python segmentation-models-pytorch safetensors pydantic
    PYTHONPATH=$PWD /tmp/peers/bin/python benchmarks/peers.py SLIDE [--mpp UM] [--mask FILE] [--gate]

TIAToolbox has requirements of its own, so it gets an environment of its own. It is given the segmenter in float32 and
the model's patches, overlap and resolution, and writes class map and probabilities as Zarr. By default it does not run
the gate: less work than `wsiseg predict --runtime torch` does. With `--gate` both networks are run as there. Work is
everything from `run()` to the files; start-up is imports and loading. Peak memory is the largest of the process. Every
minute it says on standard error how far it is, since it may not end.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

STARTED = time.perf_counter()

import numpy as np  # noqa: E402 (imports are part of what is measured)
import numpy.typing as npt  # noqa: E402
import torch  # noqa: E402
from tiatoolbox.models.engine.io_config import IOSegmentorConfig  # noqa: E402
from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor  # noqa: E402
from tiatoolbox.models.models_abc import ModelABC  # noqa: E402

from wsiseg.models import DEFAULT_MODEL  # noqa: E402
from wsiseg.models.bundle import load_model  # noqa: E402
from wsiseg.models.gate import allowed_classes, gate_logits  # noqa: E402

if TYPE_CHECKING:
    from wsiseg.models.tissue_model import TissueModel


class Peer(ModelABC):  # type: ignore[misc]
    """This program's networks under TIAToolbox's interface; it notes how long they take.

    Args:
        model: what to compute.
        gate: whether the classifier is asked as well, and the segmenter only where it leaves several classes.
    """

    def __init__(self, model: TissueModel, gate: bool) -> None:
        super().__init__()
        self.model = model
        self.gate = gate
        self.seconds = 0.0
        self.patches = 0

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Probabilities (N, K, H, W) of patches (N, 3, H, W), uint8."""
        if not self.gate:
            return torch.softmax(self.model.segment(patches), dim=1)
        allowed = allowed_classes(self.model.classify(patches), self.model.gate, self.model.spec.gate_floor)
        values = allowed[:, :, None, None].float().repeat(1, 1, *patches.shape[2:])
        several = allowed.sum(dim=1) > 1
        if several.any():
            values[several] = torch.softmax(gate_logits(self.model.segment(patches[several]), allowed[several]), dim=1)
        return values

    @staticmethod
    def infer_batch(model: Peer, batch_data: torch.Tensor, *, device: str) -> npt.NDArray[np.float32]:
        """Probabilities (N, H, W, K) of patches (N, H, W, 3)."""
        del device  # the CPU
        start = time.perf_counter()
        with torch.inference_mode():
            values = model(batch_data.to(torch.uint8).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            model.seconds += time.perf_counter() - start
        model.patches += len(batch_data)
        array: npt.NDArray[np.float32] = values.numpy()
        return array

    @staticmethod
    def postproc(image: Any) -> Any:
        """The class map, as TIAToolbox's own networks make it."""
        return image.argmax(axis=-1)


def tell(peer: Peer, started: float) -> None:
    """Say every minute how far it is."""
    while True:
        time.sleep(60)
        print(
            f"{(time.perf_counter() - started) / 60:.0f} min: {peer.patches} patches, networks {peer.seconds:.0f} s, "
            f"{peak_gib():.1f} GiB",
            file=sys.stderr,
        )


def peak_gib() -> float:
    """Largest memory of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--mpp", type=float, help="of the slide, where it does not say")
    parser.add_argument("--mask", type=Path, help="tissue, a picture of the whole slide; else TIAToolbox finds it")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--gate", action="store_true", help="run the gate as well")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch-size", type=int, default=14)
    parser.add_argument("--workers", type=int, default=0, help="TIAToolbox's processes that read")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.model, "cpu", "torch")
    spec = model.spec
    stride = round(spec.patch_size_px * (1 - spec.overlap))
    peer = Peer(model, args.gate)
    engine = SemanticSegmentor(
        model=peer, batch_size=args.batch_size, num_workers=args.workers, device="cpu", verbose=False
    )
    resolution = [{"units": "mpp", "resolution": spec.mpp}]
    config = IOSegmentorConfig(
        input_resolutions=resolution,
        output_resolutions=resolution,
        patch_input_shape=(spec.patch_size_px,) * 2,
        patch_output_shape=(spec.patch_size_px,) * 2,
        stride_shape=(stride, stride),
        save_resolution=resolution[0],
    )
    started = time.perf_counter()
    threading.Thread(target=tell, args=(peer, started), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        engine.run(
            [args.slide],
            masks=[args.mask] if args.mask else None,
            ioconfig=config,
            patch_mode=False,
            save_dir=Path(folder) / "out",
            output_type="zarr",
            auto_get_mask=args.mask is None,
            return_probabilities=True,
            **({"wsireader_kwargs": {"mpp": (args.mpp, args.mpp)}} if args.mpp else {}),
        )
        written = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    work = time.perf_counter() - started
    rows = {
        "start-up, s": f"{started - STARTED:.1f}",
        "work, s": f"{work:.1f}",
        "networks alone, s": f"{peer.seconds:.1f}",
        "work / networks alone": f"{work / peer.seconds:.2f}",
        "patches": str(peer.patches),
        "peak memory, GiB": f"{peak_gib():.2f}",
        "written, MB": f"{written / 1e6:.1f}",
        "threads of torch": str(args.threads),
    }
    for name, value in rows.items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
