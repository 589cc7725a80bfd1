"""The report's plots, as SVG: an endpoint's distribution over slides, and its slides patient by patient."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wsiseg.report.endpoints import Measured
from wsiseg.report.slide_report import SlideReport
from wsiseg.system.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 40
"""Slides or patients that get a row of their own; more of them are shown as a histogram, or not at all."""

INK, SOFT = "#1f4e79", "#9db7d0"

STYLE: Any = {
    "svg.hashsalt": "wsiseg",  # the same figures give the same bytes
    "svg.fonttype": "path",
    "text.parse_math": False,  # names of slides come from files
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def distribution(name: str, title: str, slides: Sequence[SlideReport]) -> bytes | None:
    """Slides in order of an endpoint, each with its interval; of many slides a histogram. None below two slides."""
    rows = [(slide, one) for slide in slides if (one := slide.of(name)) is not None and one.known]
    if len(rows) < 2:
        return None
    rows.sort(key=lambda row: row[1].value)
    if len(rows) > MOST_ROWS:
        return _figure(lambda axes: _histogram(axes, [one for _, one in rows]), title, 2.6)
    labels = [_label(slide.slide) for slide, _ in rows]
    return _figure(lambda axes: _intervals(axes, labels, [one for _, one in rows]), title, 0.9 + 0.2 * len(rows))


def per_patient(name: str, title: str, slides: Sequence[SlideReport]) -> bytes | None:
    """An endpoint's slides patient by patient, in the order of their means; None without a patient of two slides."""
    values: dict[str, list[float]] = {}
    for slide in slides:
        one = slide.of(name)
        if one is not None and one.known:
            values.setdefault(slide.patient, []).append(one.value)
    if len(values) > MOST_ROWS or max(map(len, values.values()), default=0) < 2:
        return None
    patients = sorted(values, key=lambda patient: float(np.mean(values[patient])))
    return _figure(lambda axes: _dots(axes, patients, values), f"{title}, by patient", 0.9 + 0.2 * len(patients))


def _intervals(axes: Axes, labels: list[str], values: list[Measured]) -> None:
    for row, one in enumerate(values):
        if not math.isnan(one.low):
            axes.plot([one.low, one.high], [row, row], color=SOFT, linewidth=3, solid_capstyle="butt")
    axes.plot([one.value for one in values], range(len(values)), "o", color=INK, markersize=4)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(-0.6, len(labels) - 0.4)  # by itself the lowest row lies on the axis


def _histogram(axes: Axes, values: list[Measured]) -> None:
    axes.hist([one.value for one in values], bins=[*range(0, 101, 5)], color=SOFT, edgecolor=INK)
    axes.set_ylabel("slides")


def _dots(axes: Axes, patients: list[str], values: dict[str, list[float]]) -> None:
    for row, patient in enumerate(patients):
        mine = values[patient]
        axes.plot([min(mine), max(mine)], [row, row], color=SOFT, linewidth=3, solid_capstyle="butt")
        axes.plot(mine, [row] * len(mine), "o", color=INK, markersize=4)
    axes.set_yticks(range(len(patients)), [_label(patient) for patient in patients])
    axes.set_ylim(-0.6, len(patients) - 0.4)


def _label(name: str) -> str:
    return printable(name, 28)


def _figure(draw: Any, title: str, height: float) -> bytes:
    """One plot over 0 to 100 %, as SVG."""
    from matplotlib import rc_context  # noqa: PLC0415  (an extra, and slow to load)
    from matplotlib.figure import Figure  # noqa: PLC0415

    with rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # letters that the font has not
        figure = Figure(figsize=(6.6, height), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.set_xlim(-1, 101)
        axes.set_xlabel(title)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
