"""How to predict: one object, checked, stored whole in the map."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from wsiseg.choices import (
    DEFAULT_READ_TIMEOUT_S,
    DEFAULT_RETRY_S,
    GATE_MODES,
    GATE_RULES,
    PRECISIONS,
    PROBABILITIES,
    RUNTIMES,
    GateMode,
    GateRule,
    Probabilities,
    check_choice,
)
from wsiseg.errors import OptionError
from wsiseg.models.gate_kinds import RULES, check_gate_floor
from wsiseg.models.tile_shape import check_gate_mode
from wsiseg.system.control_group import usable_cpus
from wsiseg.system.threads import check_retry_time, check_timeout

if TYPE_CHECKING:
    from wsiseg.models.spec import BundleSpec
    from wsiseg.models.tissue_model import TissueModel

PUBLISHED_RULE: GateRule = "multiply_logits"
"""That of the published program."""

CPU_BATCH_PIXELS, GPU_BATCH_PIXELS = 2**17, 2**22
"""Pixels of a batch where its size is not stated: larger ones gain nothing on either."""

OF_SPEED = ("workers", "max_memory", "read_timeout_s", "retry_s")
"""Options that change how a map is made and none of its bytes, so that a run may be resumed with other values of them.
(`max_memory` sets the side of a piece, which a run is told apart by on its own.)"""


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """How to predict; stored whole in the map.

    Attributes:
        mpp: microns per level-0 pixel of the slide; None takes what the slide records.
        tissue: "otsu", "none" (all of the slide), or the path of a GeoJSON or PNG.
        overlap: share of a patch's side that neighbours share, 0 to below 1; None takes the model's.
        gate: whether the classifier decides which classes may occur in a patch.
        gate_threshold: probability that a class must exceed; None takes the model's, class by class.
        gate_rule: "exclude" takes a class that may not occur out of the patch; "multiply_logits" is the published
            program's rule, which multiplies its logits by 0, so that it wins where all others are negative. None takes
            the model's.
        gate_mode: "patches" gates and segments each patch by itself; "windows" and "shared" do so on larger tiles at
            once, see `wsiseg.models.large_tiles`. None takes the model's, or "patches" where another option needs them.
        gate_context: standard deviation, in sides of a patch, of the Gaussian by which the classifier's probabilities
            are averaged over the patches around each; 0 lets each patch decide alone. None takes the model's.
        gate_floor: share of the probability of a patch's most probable class, above 0 up to 1; a class that reaches it
            is allowed whatever its threshold. 1 allows the most probable class alone. None takes the model's.
        faithful: predict as the published program does: the rule "multiply_logits", and no overlap unless `overlap`
            states one.
        probabilities: how much of them the map keeps: "full", "coarse" or "none"; see
            `wsiseg.tissue_map.probability_levels`. True is "full", False is "none"; None is "full", or "coarse" where
            `wsiseg.cohort` predicts a list of slides.
        white: whether white inside the tissue is told apart and gets no class, see `wsiseg.tissue.white`. None leaves
            that to the model: one that learned white, fat or mucus names them itself. The published gate rule has none.
        device: "auto", "cpu", "cuda", "cuda:1", …; or several, "cuda:0,cuda:1", each of which gets a process
        runtime: what computes the networks: "torch"; "openvino", on CPUs, where the extra is installed; "compiled", by
            torch for this machine; or "auto", OpenVINO where it can be had and results need not be exact, else torch;
            a model that is loaded already then keeps what it was prepared with where that is exact enough.
        batch_size: patches at once; None fits them to the device.
        workers: threads that read ahead; None takes the machine's cores, at most 8.
        precision: "float32"; "bfloat16", faster where the processor has it, and not quite equal; "auto" is bfloat16
            where the processor has it; None is float32, or what a model that is loaded already was prepared with.
        max_memory: bytes that a run may take; None takes half of what the machine or its control group allows, at most
            4 GiB.
        read_timeout_s: seconds after which a read that does not come back ends the run.
        retry_s: seconds for which the server of a slide behind an address is asked again, from each failure on.
        reader: "openslide", "tiff", "tiffslide", "image" or "dicom"; None takes the first that fits.
        series: number or name of the image to read, of a TIFF that holds several; None takes the largest at the finest
            resolution.
    """

    mpp: float | None = None
    tissue: str = "otsu"
    overlap: float | None = None
    gate: bool = True
    gate_threshold: float | None = None
    gate_rule: GateRule | None = None
    gate_mode: GateMode | None = None
    gate_context: float | None = None
    gate_floor: float | None = None
    faithful: bool = False
    probabilities: Probabilities | bool | None = None
    white: bool | None = None
    device: str = "auto"
    precision: str | None = None
    runtime: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    max_memory: int | None = None
    read_timeout_s: float = DEFAULT_READ_TIMEOUT_S
    retry_s: float = DEFAULT_RETRY_S
    reader: str | None = None
    series: str | None = None

    def __post_init__(self) -> None:
        self._check_probabilities()
        if self.overlap is not None and not 0 <= self.overlap < 1:
            raise OptionError(f"the overlap is a share of a patch's side, 0 to below 1, got {self.overlap}")
        if self.gate_threshold is not None and not 0 <= self.gate_threshold <= 1:
            raise OptionError(f"the gate's threshold is a probability, 0 to 1, got {self.gate_threshold}")
        if self.gate_rule is not None and self.gate_rule not in GATE_RULES:
            raise OptionError(f"expected a gate rule among {', '.join(GATE_RULES)}, got {self.gate_rule!r}")
        if self.gate_mode is not None and self.gate_mode not in GATE_MODES:
            raise OptionError(f"expected a gate mode among {', '.join(GATE_MODES)}, got {self.gate_mode!r}")
        if self.gate_context is not None and not 0 <= self.gate_context <= 20:
            raise OptionError(f"the gate's context is 0 to 20 sides of a patch, got {self.gate_context}")
        if self.gate_floor is not None and not 0 < self.gate_floor <= 1:
            raise OptionError(f"the gate's floor is a share, above 0 up to 1, got {self.gate_floor}")
        other_rule = self.gate_rule is not None and not RULES[self.gate_rule].by_sign
        if self.faithful and (not self.gate or other_rule):
            raise OptionError(
                "the faithful way is the gate rule multiply_logits; leave out --faithful for another gate"
            )
        if self.runtime not in RUNTIMES:
            raise OptionError(f"expected a runtime among {', '.join(RUNTIMES)}, got {self.runtime!r}")
        if self.precision is not None and self.precision not in PRECISIONS:
            raise OptionError(f"expected a precision among {', '.join(PRECISIONS)}, got {self.precision!r}")
        check_timeout(self.read_timeout_s)
        check_retry_time(self.retry_s)
        for name, value in (("batch size", self.batch_size), ("number of workers", self.workers)):
            if value is not None and value < 1:
                raise OptionError(f"the {name} must be at least 1, got {value}")

    def _check_probabilities(self) -> None:
        """Say true and false in words, and refuse what is no choice."""
        if isinstance(self.probabilities, bool):
            object.__setattr__(self, "probabilities", "full" if self.probabilities else "none")
        if self.probabilities is not None:
            check_choice("probabilities", self.probabilities, PROBABILITIES)

    def resolved(self, model: TissueModel) -> ResolvedOptions:
        """These options, with every None that the model and the machine decide filled in."""
        return self.resolved_by(model.spec, str(model.device))

    def resolved_by(self, spec: BundleSpec, device: str) -> ResolvedOptions:
        """As `resolved`, for a model that need not be loaded, and the device that it would be on."""
        pixels = CPU_BATCH_PIXELS if device == "cpu" else GPU_BATCH_PIXELS
        overlap = 0.0 if self.faithful else spec.overlap
        overlap = overlap if self.overlap is None else self.overlap
        rule: GateRule = self.gate_rule or (PUBLISHED_RULE if self.faithful else spec.gate_rule)
        context = 0.0 if self.faithful else spec.gate_context
        context = context if self.gate_context is None else self.gate_context
        mode = self.gate_mode or ("patches" if context or RULES[rule].by_sign else spec.gate_mode)
        check_gate_mode(mode, context, rule)
        check_gate_floor(self.gate_floor, rule)
        floor = spec.gate_floor if self.gate_floor is None and not RULES[rule].by_sign else self.gate_floor
        patch = spec.tiling(mode, overlap).side_px ** 2
        decided = {
            "overlap": overlap,
            "gate_rule": rule,
            "gate_mode": mode,
            "gate_context": context,
            "gate_floor": floor,
            "probabilities": self.probabilities or "full",
            "white": not (RULES[rule].by_sign or spec.sees_white) if self.white is None else self.white,
            "device": self.device if "," in self.device else device,
            "batch_size": self.batch_size or _batch_size(pixels / patch),
            "workers": self.workers or min(8, usable_cpus()),
            "precision": self.precision or "float32",
        }
        asked = {one.name: getattr(self, one.name) for one in fields(PredictOptions)}
        return ResolvedOptions(**{**asked, **decided})


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedOptions(PredictOptions):
    """How to predict with one model on one machine: what they decide is no longer None; see `PredictOptions`."""

    overlap: float
    gate_rule: GateRule
    gate_mode: GateMode
    gate_context: float
    probabilities: Probabilities
    white: bool
    precision: str
    batch_size: int
    workers: int

    @property
    def published_gate(self) -> bool:
        """Whether they gate by the published rule, where the sign of a logit decides: results are exact."""
        return self.gate and RULES[self.gate_rule].by_sign


def _batch_size(patches: float) -> int:
    """About so many patches, in fours where it is more than two: OpenVINO's streams then get equal parts."""
    return 4 * max(1, int(patches / 4)) if patches > 2 else max(1, int(patches))
