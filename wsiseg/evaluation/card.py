"""The card of a bundle: what was measured of it, on one HTML page that needs no other, for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from wsiseg.errors import BundleError
from wsiseg.models.calibration import Calibration
from wsiseg.models.calibration import load as load_calibration
from wsiseg.models.folder import CALIBRATION_FILE, CARD_FILE, EVALUATION_FILE, file_inside
from wsiseg.models.spec import bundle_hash, read_spec
from wsiseg.system.files import whole_file
from wsiseg.system.json_values import JsonObject

_SIDE, _EDGE = 260, 34
_MAX_BYTES = 64 * 2**20
_COLOURS = {"before": "#c0592b", "after": "#3557a8"}
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:900px;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #ddd}
table{border-collapse:collapse}th,td{padding:.25rem .9rem .25rem 0;text-align:right;border-bottom:1px solid #eee}
th:first-child,td:first-child{text-align:left}th{font-weight:600;color:#555}.muted{color:#666}
"""


def write_card(folder: Path) -> Path:
    """Write what a bundle's files say of its measured figures into its folder; the page's path.

    Raises:
        BundleError: the bundle, or a file of it, is damaged.
    """
    spec = read_spec(folder)
    calibration = load_calibration(folder, spec.networks)
    try:
        figures = [*_measured(_evaluation(folder)), *_calibrated(calibration)]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"{EVALUATION_FILE} or {CALIBRATION_FILE} of {folder} holds no figures of wsiseg evaluate: remove it, and "
            "evaluate again"
        ) from error
    parts = [
        f"<h1>{escape(spec.name)}</h1>",
        f'<p class="muted">{escape(", ".join(spec.classes.names))}; patches of {spec.patch_size_px} px at '
        f"{spec.mpp:g} µm/px. Trained on {escape(spec.training_data)}. Licence: {escape(spec.licence)}.</p>",
        *figures,
    ]
    path = folder / CARD_FILE
    with whole_file(path) as part:
        part.write_text(
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(spec.name)}</title>'
            f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n",
            encoding="utf-8",
        )
    return path


def _evaluation(folder: Path) -> JsonObject:
    """What `wsiseg evaluate --into-bundle` wrote of these weights; empty where it wrote nothing."""
    if not (folder / EVALUATION_FILE).is_file():
        return {}
    content = json.loads(file_inside(folder, EVALUATION_FILE, _MAX_BYTES).read_text(encoding="utf-8"))
    return content if content.get("model", {}).get("hash") == bundle_hash(folder) else {}


def _measured(found: JsonObject) -> list[str]:
    if not found:
        return []
    data, column = found["data"], found["columns"]["predicted_gate"]
    rows = [[name.replace("_", " "), _figure(figure)] for name, figure in column["figures"].items()]
    each = [[name, *(_figure(figure) for figure in row.values())] for name, row in column["classes"].items()]
    heads = ["class", *(name for name in next(iter(column["classes"].values())))]
    parts = [
        f"<h2>On {escape(str(data['name']))}, {escape(str(data['split']))}</h2>",
        f'<p class="muted">{data["images"]} images of {data["groups"]} slides or patients; truth: '
        f"{escape(str(found['truth']))}. In brackets: 95 % by slide or patient.</p>",
        _table(["figure, all classes", ""], rows),
        "<br>",
        _table(heads, each),
    ]
    said = found.get("calibration")
    if not said:
        return parts
    before = said.get("before_temperature")
    parts += [
        "<h3>What a probability means there</h3>",
        f"<p>Expected calibration error of the class that won: {_figure(said['expected_calibration_error'])}"
        + (f"; without the temperature {_figure(before['expected_calibration_error'])}" if before else "")
        + ".</p>",
        _reliability({"before": before["reliability"], "after": said["reliability"]} if before else
                     {"before": said["reliability"]}),
    ]  # fmt: skip
    return parts


def _calibrated(calibration: Calibration | None) -> list[str]:
    if calibration is None:
        return ["<h2>Temperature</h2><p>None: probabilities are as the networks give them.</p>"]
    fitted = calibration.fitted
    error, after = fitted.get("expected_calibration_error", {}), ""
    count, kind, images, data, split = (
        escape(str(fitted.get(name, ""))) for name in ("count", "truth", "images", "data", "split")
    )
    if error.get("after") is not None:
        after = (
            f" The expected calibration error falls from {error['before']:.3f} to {error['after']:.3f} on slides or "
            "patients that it was not fitted to."
        )
    return [
        "<h2>Temperature</h2>",
        f"<p>{calibration.temperature:g}, fitted to {count} {kind} of {images} images ({data}, {split}).{after} It "
        "changes no class of a map.</p>",
        _reliability(fitted.get("reliability", {})),
    ]


def _figure(figure: JsonObject) -> str:
    value, low, high = (figure.get(name) for name in ("value", "low", "high"))
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else "")


def _reliability(ways: dict[str, list[dict[str, float | None]]]) -> str:
    """A table of the bins, each way beside the other, and a diagram."""
    heads = ["probability"]
    for way in ways:
        heads += [f"{way}: mean", "right", "count"]
    rows = []
    for bins in zip(*ways.values(), strict=True):
        if any(bin_["count"] for bin_ in bins):
            cells = [f"{bins[0]['low']:.1f} to {bins[0]['high']:.1f}"]
            for bin_ in bins:
                shown = (bin_["mean_probability"], bin_["share"])
                cells += ["-" if value is None else f"{value:.3f}" for value in shown] + [f"{bin_['count']:.0f}"]
            rows.append(cells)
    return _table(heads, rows) + _diagram(ways)


def _diagram(ways: dict[str, list[dict[str, float | None]]]) -> str:
    inner = _SIDE - 2 * _EDGE

    def place(x: float, y: float) -> str:
        return f"{_EDGE + inner * x:.1f},{_SIDE - _EDGE - inner * y:.1f}"

    parts = [
        f'<svg viewBox="0 0 {_SIDE} {_SIDE}" width="{_SIDE}" height="{_SIDE}" font-size="11" fill="#555">',
        f'<rect x="{_EDGE}" y="{_EDGE}" width="{inner}" height="{inner}" fill="none" stroke="#ddd"/>',
        f'<polyline points="{place(0, 0)} {place(1, 1)}" stroke="#bbb" stroke-dasharray="4"/>',
        f'<text x="{_SIDE / 2}" y="{_SIDE - 8}" text-anchor="middle">probability, 0 to 1</text>',
        f'<text x="12" y="{_SIDE / 2}" text-anchor="middle" transform="rotate(-90 12 {_SIDE / 2})">right</text>',
    ]
    for number, (way, bins) in enumerate(ways.items()):
        seen = [(b["mean_probability"], b["share"]) for b in bins]
        line = " ".join(place(x, y) for x, y in seen if x is not None and y is not None)
        colour = _COLOURS.get(way, "#555")
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{_EDGE + 60 * number}" y="{_EDGE - 8}" fill="{colour}">{escape(way)}</text>')
    return "".join(parts) + "</svg>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
