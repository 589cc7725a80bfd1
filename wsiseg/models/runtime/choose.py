"""What may compute a model's networks, and in which arithmetic: names, and what "auto" means on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from wsiseg.choices import PRECISIONS, RUNTIMES, check_choice, half, left_open
from wsiseg.errors import DeviceError

if TYPE_CHECKING:
    import torch

_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""What Linux calls arithmetic in bfloat16, on x86 and on ARM."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """How networks are computed.

    Attributes:
        name: "torch", "compiled" (torch, compiled for this processor) or "openvino".
        precision: "float32" or "bfloat16".
        exact: compute layer by layer what the networks say. Else a batch normalisation may be folded into the
            convolution before it, which differs by float32's rounding, and takes a third less time.
        optional: whether it was this program's choice, so that another may take its place.
        batch_size: patches at once that the caller means to give; None where it does not know.
    """

    name: str = "torch"
    precision: str = "float32"
    exact: bool = True
    optional: bool = False
    batch_size: int | None = None

    @property
    def own_threads(self) -> bool:
        """Whether it computes in threads of its own, not torch's: it is then best given two batches at once."""
        return self.name == "openvino"

    @property
    def half(self) -> bool:
        """Whether it computes in bfloat16."""
        return half(self.precision)


def exact_by_name(runtime: str) -> bool:
    """Whether who asks for a runtime by its name means the reference, which computes what the networks say."""
    return runtime == "torch"


def choose_runtime(
    runtime: str, precision: str, device: torch.device, *, exact: bool, batch_size: int | None = None
) -> Runtime:
    """Decide every "auto": how networks are computed on a device.

    Args:
        runtime: of `RUNTIMES`. "auto" is OpenVINO on a CPU where it is installed, else torch; where results must be
            exact, torch.
        precision: of `PRECISIONS`. "auto" is bfloat16 where the device has it, else float32.
        device: where the networks are.
        exact: whether results must be; see `Runtime`.
        batch_size: see `Runtime`.

    Raises:
        OptionError: for another name.
        DeviceError: where this machine or this device cannot do what was asked for.
    """
    check_choice("a runtime", runtime, RUNTIMES)
    check_choice("a precision", precision, PRECISIONS)
    if runtime == "openvino" and device.type != "cpu":
        raise DeviceError(
            f"OpenVINO computes on the CPU here, the device is {device}: use --device cpu or another runtime"
        )
    if runtime == "openvino" and not has_openvino():
        raise DeviceError("OpenVINO is not installed: pip install 'wsiseg[openvino]', or use --runtime torch")
    if left_open(precision):
        precision = "bfloat16" if has_bfloat16(device) else "float32"
    automatic = left_open(runtime)
    if automatic:
        runtime = "openvino" if device.type == "cpu" and not exact and has_openvino() else "torch"
    exact = exact and exact_by_name(runtime) and precision == "float32"
    return Runtime(runtime, precision, exact, automatic, batch_size)


def has_openvino() -> bool:
    """Whether OpenVINO is installed; it is not loaded for that."""
    return find_spec("openvino") is not None


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself; where it does not, bfloat16 is slower than float32."""
    if device.type == "cuda":
        import torch  # noqa: PLC0415 (names of runtimes must cost nothing)

        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and bool(_cpu_flags() & _CPU_FLAGS)


@cache
def _cpu_flags() -> frozenset[str]:
    """What the processor can do, as Linux lists it; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split())
