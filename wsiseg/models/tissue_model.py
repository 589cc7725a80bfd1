"""A model as prediction uses it: a classifier that gates, a segmenter, and where and how they compute."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from wsiseg.classes import ClassTable
from wsiseg.errors import DeviceError, NonFiniteError
from wsiseg.models.calibration import Calibration
from wsiseg.models.devices import keep_to_quota
from wsiseg.models.distance import TrainingDistance
from wsiseg.models.gate_kinds import RULES
from wsiseg.models.networks.classifier import Classifier
from wsiseg.models.networks.segmenter import check_shared_gate
from wsiseg.models.runtime.batches import BatchNetwork
from wsiseg.models.runtime.choose import Runtime, choose_runtime, exact_by_name
from wsiseg.models.runtime.patch_network import PatchNetwork, Task, Values, channels, normalise
from wsiseg.models.spec import BundleSpec

__all__ = ["TissueModel", "checked_device", "normalise"]


class TissueModel:
    """A classifier that gates and a segmenter, with everything that prediction needs to know of them.

    As it is made, torch computes in float32 and exactly what the networks say; see `prepare`.

    Attributes:
        spec: what the bundle says about itself.
        hash: SHA-256 of the bundle; see `wsiseg.models.spec.bundle_hash`.
        classifier: stage 1, in evaluation mode.
        segmenter: stage 2, in evaluation mode.
        device: where both are.
        runtime: what computes them, with which precision.
        distance: how far patches are from the training data; None where the bundle does not know.
        calibration: of the map's probabilities; None where none was chosen.
    """

    def __init__(
        self,
        spec: BundleSpec,
        digest: str,
        classifier: Classifier,
        segmenter: nn.Module,
        distance: TrainingDistance | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.spec = spec
        self.hash = digest
        self.distance = distance
        self.calibration = calibration
        # Channels last, as patches come from the slide: 1.2 times as fast on a CPU.
        channels_last = torch.channels_last
        self.classifier = classifier.eval().requires_grad_(False).to(memory_format=channels_last)
        self.segmenter = segmenter.eval().requires_grad_(False).to(memory_format=channels_last)
        self.device = torch.device("cpu")
        self._use(Runtime())

    @property
    def classes(self) -> ClassTable:
        """The tissue classes, in the order of the networks' channels."""
        return self.spec.classes

    @property
    def gate(self) -> Tensor:
        """The gate's thresholds (K,) on the model's device."""
        return torch.tensor(self.spec.gate, dtype=torch.float32, device=self.device)

    @property
    def notes(self) -> list[str]:
        """What a person should know of the computing so far: another runtime took over, batches became smaller."""
        return [note for network in self._networks.values() for note in network.notes]

    @property
    def threads(self) -> int:
        """The threads that a batch is divided among; 0 on a device that has none of its own to choose."""
        if self.device.type != "cpu":
            return 0
        return self._threads if self.runtime.own_threads else torch.get_num_threads()

    def to(self, device: str | torch.device) -> Self:
        """Move this model to `device` and return it; raises `DeviceError` where there is none such.

        The networks are then computed as those of a new model are, until `prepare` is called.
        """
        self.device = checked_device(device)
        self.classifier.to(self.device)
        self.segmenter.to(self.device)
        self._use(Runtime())
        return self

    def prepare(
        self,
        runtime: str = "auto",
        precision: str = "float32",
        *,
        exact: bool | None = None,
        batch_size: int | None = None,
    ) -> Self:
        """Choose how this model is computed, and return it; its networks are made ready by the first patches.

        Args:
            runtime: "auto", "torch", "compiled" or "openvino"; see `wsiseg.models.runtime.choose.choose_runtime`.
            precision: "float32", "bfloat16" or "auto".
            exact: whether torch must compute layer by layer what the networks say, and "auto" by torch. None asks for
                that of "torch", the reference, and where the model's gate has the published rule, by which the sign of
                a logit decides.
            batch_size: patches at once that will be given, where it is known.

        Raises:
            OptionError: for an unknown runtime or precision.
            DeviceError: where this machine or this device cannot do what was asked for.
        """
        if exact is None:
            exact = exact_by_name(runtime) or RULES[self.spec.gate_rule].by_sign
        return self.use(choose_runtime(runtime, precision, self.device, exact=exact, batch_size=batch_size))

    def use(self, runtime: Runtime) -> Self:
        """Have this model computed by a runtime that fits its device, and return it; see `prepare`."""
        if runtime != self.runtime:
            self._use(runtime)
        return self

    @property
    def computed_by(self) -> dict[str, str]:
        """The runtime that computed each network that was asked so far; it need not be the one that was chosen."""
        return {network.name: network.computed_by for network in self._networks.values()}

    @torch.inference_mode()
    def classify(self, patches: Tensor) -> Tensor:
        """Probability (N, K), float32, that each class occurs in each patch (N, 3, H, W), uint8.

        Raises:
            NonFiniteError: where one is no finite number.
            DeviceError: where the device cannot compute the network.
        """
        return self._computed("classify", patches)[0]

    @torch.inference_mode()
    def classify_with_features(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """As `classify`, and the means (N, C), float32, over the shallowest of its three feature maps, in one pass.

        Raises:
            NonFiniteError: where a value is no finite number.
            DeviceError: where the device cannot compute the network.
        """
        probabilities, features = self._computed("classify_with_features", patches)
        return probabilities, features

    @torch.inference_mode()
    def segment(self, patches: Tensor) -> Tensor:
        """Logits (N, K, H, W), float32, of each pixel of patches (N, 3, H, W), uint8; not gated.

        Raises:
            NonFiniteError: where one is no finite number.
            DeviceError: where the device cannot compute the network.
        """
        return self._computed("segment", patches)[0]

    @torch.inference_mode()
    def activations(self, patches: Tensor) -> Tensor:
        """The classifier's deepest feature map (N, C, h, w), float32, of patches (N, 3, H, W), uint8.

        Raises:
            NonFiniteError: where a value is no finite number.
            DeviceError: where the device cannot compute the network.
        """
        return self._computed("activations", patches)[0]

    @torch.inference_mode()
    def segment_scored(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K, H, W) as of `segment`, and what the shared gate averages, scores (N, K, h, w), in one pass.

        Raises:
            BundleError: where the segmenter has no shared gate.
            NonFiniteError: where a value is no finite number.
            DeviceError: where the device cannot compute the network.
        """
        check_shared_gate(self.segmenter, self.spec.name)
        logits, scores = self._computed("segment_scored", patches)
        return logits, scores

    def normalised(self, kind: str, patches: Tensor) -> Tensor:
        """Patches (N, 3, H, W), uint8, as the "classifier" or the "segmenter" sees them, float32, on the device."""
        network = getattr(self.spec.networks, kind)
        mean, std = (channels(values).to(self.device) for values in (network.mean, network.std))
        return normalise(patches.to(self.device), mean, std)

    def _use(self, runtime: Runtime) -> None:
        self.runtime = runtime
        keep_to_quota()
        self._threads = torch.get_num_threads()  # now: who asks for patches may have torch use fewer
        self._networks: dict[Task, BatchNetwork] = {}

    def _network(self, task: Task) -> BatchNetwork:
        """The network that a task is asked of; made when it is first asked."""
        if task not in self._networks:
            kind = "segmenter" if task in ("segment", "segment_scored") else "classifier"
            described = getattr(self.spec.networks, kind)
            network = PatchNetwork(getattr(self, kind), described.mean, described.std, task).to(self.device)
            self._networks[task] = BatchNetwork(kind, network, self.runtime, self._threads, self.hash)
        return self._networks[task]

    def _computed(self, task: Task, patches: Tensor) -> Values:
        if patches.dtype != torch.uint8 or patches.ndim != 4 or patches.shape[1] != 3:
            raise ValueError(f"patches must be uint8 (N, 3, H, W), got {patches.dtype} {tuple(patches.shape)}")
        network = self._network(task)
        values = network(patches)
        # One sum instead of a test of each: a NaN or an infinity anywhere makes it one too.
        if not all(torch.isfinite(value.sum()) for value in values):
            advice = "use --precision float32" if self.runtime.half else "its weights are damaged, use another model"
            raise NonFiniteError(
                f"the {network.name} of {self.spec.name} gave values that are no finite numbers: {advice}"
            )
        return values


def checked_device(device: str | torch.device) -> torch.device:
    """A device that exists on this machine.

    Raises:
        DeviceError: where it does not.
    """
    try:
        wanted = torch.device(device)
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        have = "cpu" + (f", cuda (x{torch.cuda.device_count()})" if torch.cuda.is_available() else "")
        raise DeviceError(f"device {str(device)!r} cannot be used on this machine, which has {have}") from error
    if wanted.type == "meta":
        raise DeviceError("device 'meta' computes nothing, use cpu or cuda")
    return wanted
