"""Networks as they are called: on one device, by one runtime, in batches that its memory holds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wsiseg.errors import DeviceError
from wsiseg.models.runtime.choose import Runtime
from wsiseg.models.runtime.openvino import OpenVinoError, OpenVinoNetwork
from wsiseg.models.runtime.patch_network import PatchNetwork, Values

Network = Callable[[Tensor], Values]
"""Values, float32, of patches (N, H, W, 3), uint8."""


class BatchNetwork:
    """A network that its runtime computes; it is made ready by the first batch.

    Args:
        name: "classifier" or "segmenter", as errors call it.
        network: what to compute, on its device.
        runtime: how.
        threads: of the processor that OpenVINO may use.
        model_hash: of the bundle, by which OpenVINO's compiled network is kept for the next process.
    """

    def __init__(
        self, name: str, network: PatchNetwork, runtime: Runtime, threads: int = 1, model_hash: str | None = None
    ) -> None:
        self.name = name
        self.runtime = runtime
        self._threads = threads
        self._model_hash = model_hash
        self._fallback: str | None = None
        self._plain = network
        self._network: Network | None = None
        self._batches = SmallerBatches()

    @property
    def computed_by(self) -> str:
        """Name of the runtime that computes it: torch where another gave up."""
        return "torch" if self._fallback else self.runtime.name

    @property
    def notes(self) -> list[str]:
        """What a person should know: that another runtime took over, that batches became smaller."""
        notes = [self._fallback] if self._fallback else []
        if self._batches.most:
            notes.append(
                f"the memory of {self._plain.mean.device} was too small for a batch of patches in the {self.name}, "
                f"which got {self._batches.most} at once from then on"
            )
        return notes

    def __call__(self, patches: Tensor) -> Values:
        """Values of patches (N, 3, H, W), uint8, best channels last in memory; float32, on the network's device."""
        pixels = patches.permute(0, 2, 3, 1)
        if self._network is None:
            self._network = self._made_ready()
        try:
            return self._batches(self._network, pixels)
        except OpenVinoError as error:
            cannot = f"OpenVINO cannot compute the {self.name} ({error})"
            if not self.runtime.optional:
                raise DeviceError(f"{cannot}: use --runtime torch") from error
            self._fallback = f"{cannot}, torch did"
            torch.set_num_threads(self._threads)  # who took these networks for OpenVINO's may have left torch fewer
            self._network = self._torch()
            return self._batches(self._network, pixels)

    def _made_ready(self) -> Network:
        ways = {"torch": self._torch, "compiled": self._compiled, "openvino": self._openvino}
        try:
            return ways[self.runtime.name]()
        except torch.OutOfMemoryError as error:  # a copy of its weights is made
            raise DeviceError(
                f"the memory of {self._plain.mean.device} is too small for the {self.name}, use --device cpu"
            ) from error

    def _openvino(self) -> Network:
        return OpenVinoNetwork(
            self._plain, self.runtime.precision, self._threads, fold=True, model_hash=self._model_hash
        )

    def _torch(self) -> Network:
        network = self._with_precision()
        device = network.mean.device
        return lambda pixels: network(pixels.to(device, non_blocking=True))

    def _compiled(self) -> Network:
        return compiled(self._with_precision(), self.runtime.batch_size)

    def _with_precision(self) -> PatchNetwork:
        """The network for torch, as exact and as precise as was asked for."""
        network = self._plain if self.runtime.exact else self._plain.folded()
        if self.runtime.half:
            network = (network if network is not self._plain else self._plain.copied()).in_bfloat16()
        return network


class SmallerBatches:
    """Calls a network with as many patches at once as the device's memory holds.

    Attributes:
        most: patches at once, halved whenever memory was too small for more; None until then.
    """

    def __init__(self) -> None:
        self.most: int | None = None

    def __call__(self, network: Network, patches: Tensor) -> Values:
        """The network's values of all patches, in order.

        Raises:
            DeviceError: where memory is too small for one patch.
        """
        while True:
            parts = torch.split(patches, self.most or max(1, len(patches)))
            try:
                values = [network(part) for part in parts]
            except torch.OutOfMemoryError as error:
                most = len(parts[0]) // 2
                if not most:
                    side = f"{patches.shape[2]} x {patches.shape[1]}"
                    raise DeviceError(
                        f"the device's memory is too small for one patch of {side} pixels, use --device cpu"
                    ) from error
                self.most = most
            else:
                return values[0] if len(values) == 1 else tuple(torch.cat(parts) for parts in zip(*values, strict=True))
            # Not in the except clause: the error holds on to the tensors of the batch that failed.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def compiled(network: PatchNetwork, batch_size: int | None) -> Network:
    """The network compiled by torch for its device, on the first call.

    On a GPU batches are filled up to a few sizes, `batch_size` and its halves, for each of which a CUDA graph is
    recorded. On a CPU one program does for all sizes.

    Raises:
        DeviceError: where nothing here can compile; by the first call.
    """
    device = network.mean.device
    on_gpu = device.type == "cuda"
    run = torch.compile(network, dynamic=not on_gpu, mode="reduce-overhead" if on_gpu else "default")

    def call(pixels: Tensor) -> Values:
        count = len(pixels)
        pixels = pixels.to(device, non_blocking=True)
        if on_gpu:
            size = graph_size(count, batch_size or count)
            pixels = torch.cat([pixels, pixels.new_zeros(size - count, *pixels.shape[1:])])
        try:
            values: Values = tuple(value[:count] for value in run(pixels))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # torch's compilers raise many children of it
            reason = " ".join(str(error).split())
            raise DeviceError(f"torch cannot compile for {device} here ({reason:.200}): use --runtime torch") from error
        # A CUDA graph writes its next values to the same place.
        return tuple(value.clone() for value in values) if on_gpu else values

    return call


def graph_size(count: int, batch_size: int) -> int:
    """The smallest of `batch_size`, its half, its quarter, … that holds `count` patches; `count` where none does."""
    size = batch_size
    while size // 2 >= count:
        size //= 2
    return max(size, count)
