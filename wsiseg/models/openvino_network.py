"""A network computed by OpenVINO, which must be installed (`pip install 'wsiseg[openvino]'`)."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import torch
from torch import Tensor

from wsiseg.models.patch_network import PatchNetwork, Values, close, probe_patches

_TOLERANCES = {"float32": 1e-3, "bfloat16": 0.15}
"""How far OpenVINO may be from torch in float32 on a probe, as a share of the largest value (or of 1)."""


class OpenVinoError(RuntimeError):
    """OpenVINO cannot compute a network, or computes something else."""


class OpenVinoNetwork:
    """A `PatchNetwork` converted in memory: batches of any number of patches, of one height and width at a time.

    Patches go in and values come out without a copy. A patch's values do not depend on what else is in its batch.

    Args:
        network: what to compute, in float32.
        precision: "float32" or "bfloat16".
    """

    def __init__(self, network: PatchNetwork, precision: str) -> None:
        self._network = network
        self._precision = precision
        self._requests: dict[tuple[int, int], Any] = {}
        self._lock = threading.Lock()

    def __call__(self, patches: Tensor) -> Values:
        """Values, float32, of patches (N, H, W, 3), uint8.

        Raises:
            OpenVinoError: where the network cannot be converted, or its values on a probe are not torch's.
        """
        with self._lock:
            height, width = patches.shape[1:3]
            if (height, width) not in self._requests:
                self._requests[height, width] = self._request(height, width)
            return self._infer(self._requests[height, width], patches)

    def _infer(self, request: Any, patches: Tensor) -> Values:
        from openvino import Tensor as Memory  # noqa: PLC0415 (an optional extra)

        shapes = [output.partial_shape for output in request.model_outputs]
        values = tuple(
            torch.empty(len(patches), *(shape[axis].get_length() for axis in range(1, len(shape)))) for shape in shapes
        )
        # Memory of torch's own, so that the next batch does not write over these values. OpenVINO holds no reference
        # to it: both arrays must live until the network is through.
        pixels = patches.contiguous().numpy()
        request.set_input_tensor(Memory(pixels, shared_memory=True))
        for index, value in enumerate(values):
            request.set_output_tensor(index, Memory(value.numpy(), shared_memory=True))
        request.infer()
        return values

    def _request(self, height: int, width: int) -> Any:
        import openvino  # noqa: PLC0415

        probe = probe_patches(2, height, width)
        example = probe_patches(1, height, width, seed=1)  # another, so that what tracing took for constant shows
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tracing tells of every shape that it takes for a constant
                # A function, not the module: tracing then does not script hundreds of modules one by one.
                traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                    lambda patches: self._network(patches),  # noqa: PLW0108
                    (example,),
                    check_trace=False,
                )
                shape = openvino.PartialShape([-1, height, width, 3])
                graph = openvino.convert_model(traced, input=[(shape, openvino.Type.u8)])
            settings = {
                "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[self._precision],
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
            }
            request = openvino.compile_model(graph, "CPU", settings).create_infer_request()
            values = self._infer(request, probe)
        except Exception as error:  # OpenVINO raises plain RuntimeErrors, torch's tracer of many kinds
            raise OpenVinoError(f"{type(error).__name__}: {' '.join(str(error).split()):.200}") from error
        wanted = self._network(probe)
        # Weights that give no numbers give none here either; that is told where patches are computed.
        if all(value.isfinite().all() for value in wanted) and not close(values, wanted, _TOLERANCES[self._precision]):
            raise OpenVinoError("its values are not torch's")
        return request
