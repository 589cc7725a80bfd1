"""A network computed by OpenVINO, which must be installed (`pip install 'wsiseg[openvino]'`)."""

from __future__ import annotations

import queue
import sys
import threading
import warnings
from contextlib import ExitStack
from functools import cached_property
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from wsiseg.geometry import ceil_div
from wsiseg.models.runtime.kept_networks import can_be_kept, kept_networks, network_key
from wsiseg.models.runtime.patch_network import PatchNetwork, Values, close, probe_patches

_TOLERANCES = {"float32": 1e-3, "bfloat16": 0.15}
"""How far OpenVINO may be from torch in float32 on a probe, as a share of the largest value (or of 1)."""


_TELEMETRY = "openvino_telemetry"
"""OpenVINO's module that sends usage over the network. OpenVINO does without where it is not installed."""

_IMPORTING = threading.Lock()

MOST_STREAMS = 4
"""Parts of a batch that are computed side by side: each takes memory of its own."""


class OpenVinoError(RuntimeError):
    """OpenVINO cannot compute a network, or computes something else."""


class OpenVinoNetwork:
    """A `PatchNetwork` converted in memory: batches of any number of patches, of one height and width at a time.

    Patches go in and values come out without a copy. A patch's values do not depend on what else is in its batch, so
    a batch is divided among OpenVINO's streams: threads that wait for one another only at its end, and not after every
    layer. Several threads may call at once; what one has to do between two calls then costs the streams nothing.

    Args:
        network: what to compute, in float32.
        precision: "float32" or "bfloat16".
        threads: that it may use.
        fold: whether batch normalisations are folded first, see `PatchNetwork.folded`.
        model_hash: of the network's bundle, by which what was compiled is kept for the next process; None keeps
            nothing.
    """

    def __init__(
        self, network: PatchNetwork, precision: str, threads: int, *, fold: bool = False, model_hash: str | None = None
    ) -> None:
        self._plain = network
        self._fold = fold
        self._model_hash = None if model_hash is None or not can_be_kept(network) else model_hash
        self._precision = precision
        self._idle: dict[tuple[int, int], _Requests] = {}
        self._lock = threading.Lock()
        self._threads = threads
        self._streams = max(1, min(MOST_STREAMS, threads))

    def __call__(self, patches: Tensor) -> Values:
        """Values, float32, of patches (N, H, W, 3), uint8.

        Raises:
            OpenVinoError: where the network cannot be converted, or its values on a probe are not torch's.
        """
        height, width = patches.shape[1:3]
        with self._lock:
            if (height, width) not in self._idle:
                self._idle[height, width] = self._compiled(height, width)
        return self._infer(self._idle[height, width], patches)

    def _infer(self, idle: _Requests, patches: Tensor) -> Values:
        share_memory = _openvino().Tensor
        # Memory of torch's own, so that the next batch does not write over these values. OpenVINO holds no reference
        # to it: the arrays must live until the network is through.
        values = tuple(torch.empty(len(patches), *shape) for shape in idle.shapes)
        arrays = [value.numpy() for value in values]
        pixels = patches.contiguous().numpy()
        share = max(1, ceil_div(len(patches), self._streams))
        with ExitStack() as started:  # waits for all of them, whichever fails
            for start in range(0, len(patches), share):
                part = slice(start, start + share)
                request = idle.take()
                request.set_input_tensor(share_memory(pixels[part], shared_memory=True))
                for index, array in enumerate(arrays):
                    request.set_output_tensor(index, share_memory(array[part], shared_memory=True))
                request.start_async()
                started.callback(idle.put, request)
                started.callback(request.wait)
        return values

    @cached_property
    def _network(self) -> PatchNetwork:
        return self._plain.folded() if self._fold else self._plain

    def _compiled(self, height: int, width: int) -> _Requests:
        """From the user's cache, or converted, checked and kept there."""
        settings = {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[self._precision],
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": self._streams,
        }
        if self._model_hash is None:
            return self._converted(height, width, settings)
        kept = kept_networks()
        facts = {**settings, "folded": self._fold}
        key = network_key(self._plain, self._model_hash, facts, height, width)
        found = kept.read(key)
        if found is not None:
            try:
                return _Requests(_openvino().Core().import_model(found, "CPU", settings))
            except RuntimeError:  # as it was written, and yet not for this machine
                kept.forget(key)
        made = self._converted(height, width, settings)
        kept.write(key, made.exported())
        return made

    def _converted(self, height: int, width: int, settings: dict[str, Any]) -> _Requests:
        openvino, network = _openvino(), self._network.settled(height, width)  # folded before it is traced
        probe = probe_patches(2, height, width)
        example = probe_patches(1, height, width, seed=1)  # another, so that what tracing took for constant shows
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tracing tells of every shape that it takes for a constant
                # A function, not the module: tracing then does not script hundreds of modules one by one.
                traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                    lambda patches: network(patches),  # noqa: PLW0108
                    (example,),
                    check_trace=False,
                )
                shape = openvino.PartialShape([-1, height, width, 3])
                graph = openvino.convert_model(traced, input=[(shape, openvino.Type.u8)])
            idle = _Requests(openvino.compile_model(graph, "CPU", settings))
            values = self._infer(idle, probe)
        except Exception as error:  # OpenVINO raises plain RuntimeErrors, torch's tracer of many kinds
            raise OpenVinoError(f"{type(error).__name__}: {' '.join(str(error).split()):.200}") from error
        wanted = self._network(probe)
        # Weights that give no numbers give none here either; that is told where patches are computed.
        if all(value.isfinite().all() for value in wanted) and not close(values, wanted, _TOLERANCES[self._precision]):
            raise OpenVinoError("its values are not torch's")
        return idle


def _openvino() -> Any:
    """OpenVINO, an optional extra, loaded as if its telemetry was not installed.

    Its only opt-out writes into the user's home, for all programs, and tells the network of it. Where somebody else
    has loaded OpenVINO into this process before, it stays as they have it.
    """
    with _IMPORTING:
        if "openvino" in sys.modules:
            return import_module("openvino")
        loaded = sys.modules.get(_TELEMETRY)
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # what makes an import fail
        try:
            return import_module("openvino")
        finally:
            if loaded is None:
                del sys.modules[_TELEMETRY]
            else:
                sys.modules[_TELEMETRY] = loaded


class _Requests:
    """Inference requests of a compiled network that nobody uses at present.

    Attributes:
        shapes: of the values of one patch.
    """

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        shapes = [output.partial_shape for output in compiled.outputs]
        self.shapes = [[shape[axis].get_length() for axis in range(1, len(shape))] for shape in shapes]

    def exported(self) -> bytes:
        """The compiled network, for `import_model` of the same OpenVINO on the same processor."""
        exported: bytes = self._compiled.export_model().getvalue()
        return exported

    def take(self) -> Any:
        """A request that is not in use, or a new one; give it back by `put`."""
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._compiled.create_infer_request()

    def put(self, request: Any) -> None:
        """Give back a request, for others to take."""
        self._idle.put(request)
