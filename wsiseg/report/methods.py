"""The methods paragraph of a report, from what was run, and the works that it cites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from wsiseg.report.bulk import BEYOND_UM
from wsiseg.report.confusion import ErrorMatrix
from wsiseg.report.endpoints import ENDPOINTS
from wsiseg.report.hot_spot import LEAST_FILLED
from wsiseg.report.intervals import LEAST_BLOCKS
from wsiseg.report.measure import MeasureOptions
from wsiseg.report.slide_report import SlideReport
from wsiseg.system.printable import printable

REFERENCES = {
    "han2022": "Han C et al. Multi-layer pseudo-supervision for histopathology tissue semantic segmentation using "
               "patch-level classification labels. Med Image Anal 2022. arXiv:2110.08048",
    "tiger": "TIGER challenge, baseline algorithm: DIAGNijmegen/pathology-tiger-baseline (tumour bulk)",
    "vanpelt2018": "van Pelt GW et al. Virchows Arch 2018; 473: 405-412 (stroma by the hot spot, Leiden)",
    "hagenaars2022": "Hagenaars SC et al. 2022. PMC9114083 (stroma, cut at 50 %)",
    "dikland2025": "Dikland et al. 2025. doi:10.3389/or.2025.1605383 (76 studies of stroma; the choice of field varies "
                   "most)",
    "smit2023": "Smit et al. 2023. PMC9922811 (visual and automatic stroma compared)",
    "tilwg": "International Immuno-Oncology Biomarker Working Group. PMC6267863 (TILs as share of the stroma's area)",
    "amgad2020": "npj Breast Cancer 2020. doi:10.1038/s41523-020-0154-2 (computational assessment of TILs)",
    "travis2020": "Travis WD et al. 2020. doi:10.1016/j.jtho.2020.01.005 (IASLC: viable tumour, necrosis, stroma of "
                  "the bed)",
    "margin": "Gradients over the interface of tumour and stroma: PMC7600992 (bands along the invasive margin)",
    "hesterberg2015": "Hesterberg TC. What teachers should know about the bootstrap. Am Stat 2015; 69: 371-386",
    "care": "CARE. arXiv:2505.19585 (miscalibration of ratios of segmented areas)",
    "olofsson2014": "Olofsson P et al. Good practices for estimating area and assessing accuracy of land change. "
                    "Remote Sens Environ 2014; 148: 42-57",
}  # fmt: skip
"""What can be cited, by key."""


@dataclass(frozen=True, slots=True)
class Methods:
    """A paragraph with numbered citations.

    Attributes:
        text: the paragraph; citations stand as [1], [2, 3].
        references: the works, in order of their numbers.
    """

    text: str
    references: tuple[str, ...]


def methods(
    slides: Sequence[SlideReport], options: MeasureOptions, matrix: ErrorMatrix | None, *, patients: bool
) -> Methods:
    """What was run, in sentences for a paper.

    Args:
        slides: those of the report.
        options: what they were measured with.
        matrix: of the evaluation, if one was used.
        patients: whether a table said whose the slides are.
    """
    writer = _Writer()
    models = sorted({(slide.model.name, slide.model.hash[:12]) for slide in slides})
    names = ", ".join(f"{printable(name, 60)} (SHA-256 {digest}…)" for name, digest in models)
    maps = f"Tissue maps of {len(slides)} slide{'' if len(slides) == 1 else 's'}" if slides else "No tissue map"
    writer.say(f"{maps} by the model{'' if len(models) == 1 else 's'} {names} {writer.cite('han2022')} were measured "
               f"with wsiseg {version('wsiseg')}, at cells of at most {options.cell_um:g} um.")  # fmt: skip
    shown = {one.name for slide in slides for one in slide.measures}
    used = [endpoint for endpoint in ENDPOINTS if endpoint.name in shown]
    if any(endpoint.zone != "bed" for endpoint in used):
        _say_bulk(writer, options)
    for endpoint in used:
        if endpoint.zone in ("bulk", "field", "bed"):
            writer.say(f"{endpoint.title}: {endpoint.definition} {writer.cite(*endpoint.sources)}.")
    if any(endpoint.zone == "field" for endpoint in used):
        writer.say(
            f"The hot spot field is the circle of {options.field_um / 1000:g} mm with the largest share of stroma "
            "whose centre lies in the bulk, of whose border each eighth has tumour, and of which tumour and stroma "
            f"are at least {LEAST_FILLED:.0%}."
        )
    if any(endpoint.zone == "inner" for endpoint in used):
        writer.say(
            f"The invasive margin is {2 * options.bulk.margin_um / 1000:g} mm wide, half of it on either side of the "
            f"bulk's outline, without the buffer, and outside only where there is tissue {writer.cite('margin')}; the "
            f"share of the outline is given outside of which, at {BEYOND_UM:g} um, tissue goes on."
        )
    _say_intervals(writer, options, matrix, patients)
    return Methods(" ".join(writer.sentences), tuple(REFERENCES[key] for key in writer.cited))


class _Writer:
    """Sentences, and what they cite."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.cited: list[str] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def cite(self, *keys: str) -> str:
        for key in keys:
            if key not in self.cited:
                self.cited.append(key)
        return f"[{', '.join(str(self.cited.index(key) + 1) for key in keys)}]"


def _say_bulk(writer: _Writer, options: MeasureOptions) -> None:
    bulk = options.bulk
    writer.say(
        f"The tumour bulk was found with the parameters of a {bulk.specimen} {writer.cite('tiger')}: tumour regions "
        f"below {bulk.speck_mm2:g} mm² were left out, the others closed and opened by a disc of {bulk.diameter_um:g} "
        f"um, parts below {bulk.least_mm2:g} mm² left out, holes filled, and a buffer of {bulk.buffer_um:g} um added."
    )


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def _say_intervals(writer: _Writer, options: MeasureOptions, matrix: ErrorMatrix | None, patients: bool) -> None:
    if options.resamples == 0:
        writer.say("No intervals were computed.")
        return
    writer.say(
        f"Intervals are 95 % bootstrap intervals over blocks of {options.block_um / 1000:g} mm ({options.resamples} "
        f"resamples, percentiles widened for few blocks {writer.cite('hesterberg2015')}; none below {LEAST_BLOCKS:g} "
        "blocks in effect). They include how much another part of the same tumour would differ; they do not include "
        "errors of the model, of staining and scanning, or of the choice of the block of tissue."
    )
    writer.say(
        "Beside each ratio of counted areas stands the ratio of summed probabilities: where the two differ, the model "
        f"is not calibrated for this ratio {writer.cite('care')}."
    )
    if matrix is not None:
        extent = f"{matrix.kind} in {_images(matrix.images)}" if matrix.images else matrix.kind
        writer.say(
            f"Corrected figures use the confusion matrix of {printable(matrix.file, 60)} ({extent} of "
            f"{printable(matrix.data, 60) or 'unnamed data'}) as a stratified estimator {writer.cite('olofsson2014')}; "
            "their intervals include the matrix's sampling error as well, at the sample size that its intervals over "
            "whole slides or patients imply. They assume that what is mapped as a class is right as often as there."
        )
    who = "a table of patients" if patients else "each slide taken for a patient of its own"
    writer.say(
        f"Cohort figures are means over patients of the means over their slides ({who}); their intervals resample "
        "patients, and slides within them."
    )
