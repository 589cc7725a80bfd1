"""The page that a training ends with: one HTML file that needs no other, for people."""

from __future__ import annotations

import base64
import csv
import json
import platform
import shlex
from collections.abc import Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from wsiseg.system.files import whole_file
from wsiseg.training.history import FIGURES_FILE
from wsiseg.training.run_folder import Run
from wsiseg.training.settings import format_settings

_PACKAGES = ("wsiseg", "torch", "lightning", "timm", "kornia", "numpy")
_NAMES = {"train_loss_epoch": "training loss", "val_map": "validation mAP", "val_miou": "validation mIoU"}
_COLOURS = ("#3557a8", "#c0592b")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 560, 240, 52, 52, 16, 34
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:1240px;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #ddd}
table{border-collapse:collapse}th,td{padding:.25rem .9rem .25rem 0;text-align:right;border-bottom:1px solid #eee}
th:first-child,td:first-child{text-align:left}th{font-weight:600;color:#555}
.curves{display:flex;flex-wrap:wrap;gap:1.5rem}figure{margin:0}figcaption{color:#555}
.swatch{display:inline-block;width:.8em;height:.8em;margin-right:.5em;border:1px solid #999}
pre{background:#f6f6f4;padding:.8rem;overflow-x:auto;font-size:13px}
img{max-width:100%;height:auto;border:1px solid #ddd}
.muted{color:#666}
"""


def write_summary(run: Run, out: Path) -> Path:
    """Write `summary.html` into the folder of a finished training; its path.

    Args:
        run: the training.
        out: the bundle that it made.
    """
    folder, data = run.folder, run.data
    done = json.loads(folder.masks_done.read_text(encoding="utf-8"))
    about = data.about.get("name") or data.root.resolve().name
    parts = [
        f"<h1>{escape(out.name)}</h1>",
        f'<p class="muted">Trained on {escape(about)}: {len(data.train)} patches for training, {len(data.val)} for '
        f"validation, {data.patch_size_px} px at {data.mpp:g} µm/px.</p>",
        "<h2>Classes</h2>",
        _class_table(run, done["class_shares"], done["gate"]),
        "<h2>Loss and validation</h2>",
        '<div class="curves">',
    ]
    for title, stage in (
        ("Stage 1, classifier", folder.classifier.parent),
        ("Stage 2, segmenter", folder.segmenter.parent),
    ):
        rows = read_figures(stage / "logs" / FIGURES_FILE)
        parts.append(f"<figure>{curves(rows)}<figcaption>{title}. {escape(_last(rows))}</figcaption></figure>")
    parts.append("</div>")
    for title, stage in (("Stage 1", folder.classifier.parent), ("Stage 2", folder.segmenter.parent)):
        sheets = sorted((stage / "sheets").glob("epoch_*.png"))
        if sheets:
            content = base64.b64encode(sheets[-1].read_bytes()).decode("ascii")
            parts.append(
                f'<h2>{title}: patches after the last epoch</h2><img alt="" src="data:image/png;base64,{content}">'
            )
    command = f"wsiseg predict SLIDE --model {shlex.quote(str(out))} --out MAP.zarr"
    parts += [
        f"<h2>To go on</h2><pre>{escape(command)}</pre>",
        f"<h2>Settings</h2><pre>{escape(format_settings(run.config))}</pre>",
        f'<h2>Software</h2><p class="muted">{escape(_versions())}</p>',
    ]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(out.name)}</title>'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
    path = folder.root / "summary.html"
    with whole_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def read_figures(path: Path) -> list[dict[str, float]]:
    """The rows of `metrics.csv`, less what is empty; none where there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def curves(rows: Sequence[dict[str, float]]) -> str:
    """An SVG of loss (left axis) and validation figure (right axis, 0 to 1) by epoch."""
    series = [(name, [(row["epoch"] + 1, row[name]) for row in rows if name in row]) for name in _NAMES]
    series = [(name, points) for name, points in series if points]
    if not series:
        return '<p class="muted">No figures were logged.</p>'
    last = max(x for _, points in series for x, _ in points)
    losses = [y for name, points in series if name == "train_loss_epoch" for _, y in points]
    top = max(losses, default=1.0) * 1.05 or 1.0
    plot_width, plot_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" font-size="11" fill="#555">']
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _TOP + plot_height * (1 - share)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{top * share:.2g}</text>')
        parts.append(f'<text x="{_WIDTH - _RIGHT + 6}" y="{y + 4:.1f}">{share:g}</text>')
    for epoch in sorted({1, round((1 + last) / 2), round(last)}):
        x = _LEFT + plot_width * ((epoch - 1) / (last - 1) if last > 1 else 0.5)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 16}" text-anchor="middle">{epoch}</text>')
    parts.append(f'<text x="{_LEFT + plot_width / 2}" y="{_HEIGHT - 2}" text-anchor="middle">epoch</text>')
    for index, (name, points) in enumerate(series):
        high, colour = (top, _COLOURS[0]) if name == "train_loss_epoch" else (1.0, _COLOURS[1])
        places = [
            (
                _LEFT + plot_width * ((x - 1) / (last - 1) if last > 1 else 0.5),
                _TOP + plot_height * (1 - min(max(y / high, 0.0), 1.0)),
            )
            for x, y in points
            if y == y  # noqa: PLR0124  (not NaN)
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        parts.append(f'<text x="{_LEFT + 8 + 150 * index}" y="12" fill="{colour}">{_NAMES[name]}</text>')
    return "".join(parts) + "</svg>"


def _class_table(run: Run, shares: Sequence[float], gate: Sequence[float]) -> str:
    head = ("class", "training patches", "validation patches", "share of pseudo masks", "gate threshold")
    rows = ["<tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"]
    for k, entry in enumerate(run.data.classes):
        counts = [sum(patch.has(k) for patch in part) for part in (run.data.train, run.data.val)]
        rows.append(
            f'<tr><td><span class="swatch" style="background:#{entry.hex_color}"></span>{escape(entry.name)}</td>'
            f"<td>{counts[0]}</td><td>{counts[1]}</td><td>{100 * shares[k]:.1f} %</td><td>{gate[k]:.4g}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def _last(rows: Sequence[dict[str, float]]) -> str:
    if not rows:
        return ""
    figures = [f"{text} {rows[-1][name]:.4f}" for name, text in _NAMES.items() if name in rows[-1]]
    return f"After epoch {rows[-1]['epoch'] + 1:.0f}: {', '.join(figures)}."


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # run from a checkout
            continue
    return ", ".join(found)
