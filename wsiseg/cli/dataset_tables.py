"""The tables of `wsiseg dataset check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wsiseg.datasets.check import ClassInSplit, DatasetCheck
from wsiseg.datasets.problems import KINDS

EXAMPLES, COMBINATIONS, SIZES = 2, 20, 8
FILE_WIDTH = 140
"""Characters of a line in files and pipes, where no terminal sets it."""
_STYLE = {"error": "red", "warning": "yellow", "note": "dim"}


def show(check: DatasetCheck) -> None:
    """Counts first, then everything that is wrong, so that it is what stays on the screen."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, FILE_WIDTH)
    splits = [split for split, patches in check.splits.items() if patches]
    if splits:
        _show_counts(console, check, splits)
    if not check.problems:
        console.print("Nothing is wrong.", style="green")
        return
    table = Table(title="What was found", title_justify="left", show_lines=True)
    for name in ("", "problem", "how many", "for example", "what to do"):
        table.add_column(name, justify="right" if name == "how many" else "left", overflow="fold")
    for kind, found in check.ordered_problems():
        about = KINDS[kind]
        texts = [_brief(check, message) for _, message in found[:EXAMPLES]]
        examples = "\n".join(texts) + ("\n…" if len(found) > EXAMPLES else "")
        severity = f"[{_STYLE[about.severity]}]{about.severity}[/]"
        table.add_row(severity, about.title, str(len(found)), escape(examples), about.advice)
    console.print(table)
    if check.sound:
        console.print("Nothing is wrong.", style="green")


def _brief(check: DatasetCheck, message: str) -> str:
    """A message with paths below the data set's folder, without control characters."""
    for folder in (check.root.resolve(), check.root):
        message = message.replace(f"{folder}/", "")
    return "".join(c if c.isprintable() else "?" for c in message)[:200]


def _show_counts(console: Console, check: DatasetCheck, splits: Sequence[str]) -> None:
    counts = check.split_counts()
    mpp = f"{check.mpp:g} um/px" if check.mpp else "resolution unknown"
    console.print(f"{escape(str(check.root))}: {mpp}\n", highlight=False)
    rows: list[list[Any]] = [[s, *(counts[s][key] for key in ("patches", "groups", "masks"))] for s in splits]
    _table(console, ["split", "patches", "groups", "masks"], rows)
    shares = any(check.facts.get(s) and any(f.pixels is not None for f in check.facts[s]) for s in splits)
    header = ["class", *splits, *(f"{s}, % of pixels" for s in splits if shares)]
    rows = []
    for row in check.class_counts():
        pixels = [row.splits[s].pixel_share for s in splits if shares]
        rows.append(
            [
                row.name,
                *(_patches(row.splits[s]) for s in splits),
                *("" if v is None else f"{100 * v:.1f}" for v in pixels),
            ]
        )
    _table(console, header, rows)
    combined = list(check.combinations().items())
    rows = [[" + ".join(names) or "no class", *(found[s] for s in splits)] for names, found in combined[:COMBINATIONS]]
    if len(combined) > COMBINATIONS:
        rows.append([f"{len(combined) - COMBINATIONS} more"])
    _table(console, ["combination", *splits], rows)
    sizes = list(check.sizes().items())
    rows = [[f"{w} x {h} px", split, n] for (split, (w, h)), n in sizes[:SIZES]]
    if len(sizes) > SIZES:
        rows.append([f"{len(sizes) - SIZES} more"])
    _table(console, ["size", "split", "patches"], rows)


def _patches(counts: ClassInSplit) -> str | int:
    """Patches that have a class, and in brackets those of which it is unknown."""
    return f"{counts.patches} (+{counts.unknown}?)" if counts.unknown else counts.patches


def _table(console: Console, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row))
    console.print(table)
    console.print()
