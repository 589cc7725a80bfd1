"""The report's page: one HTML file that needs no network, prints, and takes nothing from files for markup."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsiseg.report.endpoints import ENDPOINTS, MAIN, Measured, cannot_give, overlooked
from wsiseg.report.methods import Methods
from wsiseg.report.plots import distribution, per_patient
from wsiseg.report.slide_report import SlideReport
from wsiseg.system.printable import printable

TEMPLATES = Path(__file__).parent / "templates"
DASH = "\N{EN DASH}"
LONGEST = 120
"""Letters of a name from a file."""


@dataclass(frozen=True, eq=False)
class Page:
    """All that the page shows.

    Attributes:
        title: of the report.
        slides: in order.
        cohort: of `wsiseg.report.slide_report.cohort`.
        methods: the paragraph.
        parameters: (name, value) of all that was chosen.
        notes: on the whole report, one sentence each.
        further: names of the columns that the table of patients brought.
        made: date and version, as text.
    """

    title: str
    slides: Sequence[SlideReport]
    cohort: Sequence[tuple[Measured, int, int, float, float]]
    methods: Methods
    parameters: Sequence[tuple[str, str]]
    notes: Sequence[str]
    further: Sequence[str]
    made: str


def save_page(page: Page, path: Path) -> None:
    """Write the page; pictures are put in as it is written, so that memory does not grow with them."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415  (an extra)
    from markupsafe import Markup  # noqa: PLC0415

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "name": lambda text: printable(text, LONGEST), "number": number, "interval": interval, "percent": _percent,
        "data_uri": data_uri,
    }  # fmt: skip
    script = (TEMPLATES / "table.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    columns = [endpoint for endpoint in ENDPOINTS if endpoint.name in MAIN and _any(page.slides, endpoint.name)]
    stream = environment.get_template("report.html").generate(
        page=page,
        columns=columns,
        patients=any(slide.patient != slide.slide for slide in page.slides),
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=digest,
        plots=_plots(page.slides),
        class_sets=_class_sets(page.slides),
    )
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(stream)


def number(value: float, digits: int = 1) -> str:
    """A number for people; a dash where there is none."""
    if math.isnan(value):
        return DASH
    if digits and abs(value) < 0.5 * 10**-digits and value != 0:
        return f"< {10**-digits:g}"
    return f"{value:.{digits}f}"


def interval(one: Measured) -> str:
    """An interval for people, "" where there is none."""
    return "" if math.isnan(one.low) else f"{one.low:.1f}{DASH}{one.high:.1f}"


def _percent(share: float) -> str:
    return DASH if math.isnan(share) else f"{100 * share:.0f} %"


def data_uri(content: Path | bytes) -> str:
    """A picture as an address that holds it."""
    data = content if isinstance(content, bytes) else content.read_bytes()
    kinds = {".png": "image/png", ".jpg": "image/jpeg"}
    kind = "image/svg+xml" if isinstance(content, bytes) else kinds[content.suffix]
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _any(slides: Sequence[SlideReport], name: str) -> bool:
    return any((one := slide.of(name)) is not None and one.known for slide in slides)


def _plots(slides: Sequence[SlideReport]) -> list[tuple[str, bytes]]:
    """(what it shows, SVG) of each plot that there is anything for."""
    found = []
    for endpoint in ENDPOINTS:
        if endpoint.name in MAIN:
            for draw, what in ((distribution, "slides"), (per_patient, "patients")):
                plot = draw(endpoint.name, endpoint.title, slides)
                if plot is not None:
                    found.append((f"{endpoint.title}, {what}", plot))
    return found


@dataclass(slots=True)
class ClassSet:
    """Classes that one or several maps have.

    Attributes:
        model: that made the first of the maps.
        rows: class, role, and how it is known.
        missing: what they cannot give, and why.
        overlooked: what figures of them include without saying so.
        slides: how many.
    """

    model: str
    rows: list[tuple[str, str, str]]
    missing: list[tuple[str, str]]
    overlooked: list[str]
    slides: int = 0


def _class_sets(slides: Sequence[SlideReport]) -> list[ClassSet]:
    """Each set of classes once."""
    found: dict[tuple[tuple[str, str, str], ...], ClassSet] = {}
    for slide in slides:
        rows = slide.roles.rows()
        entry = found.setdefault(
            tuple(rows), ClassSet(slide.model.name, rows, cannot_give(slide.roles), overlooked(slide.roles))
        )
        entry.slides += 1
    return list(found.values())
