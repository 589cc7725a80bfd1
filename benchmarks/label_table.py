"""Tables of what `label_loop.py` measured: means over runs, and differences of runs that are paired."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click
import numpy as np

from wsiseg.metrics import SegmentationScores, segmentation_scores

Result = Mapping[str, Any]
Run = tuple[int, int]
"""Fold and seed."""

Curve = dict[tuple[str, int], dict[Run, Result]]
"""(strategy, budget) -> run -> result."""

RARE = 2
"""Channel of the rarest class, of either pool."""

COLUMNS = ("no gate", "predicted gate")
COMPARED = (("classwise", 100, "random", 100), ("classwise", 200, "random", 200), ("classwise", 200, "random", 400),
            ("classwise", 400, "random", 400), ("entropy", 200, "random", 200),
            ("encoder", 200, "random", 200), ("encoder", 200, "random", 400),
            ("refit", 100, "random", 100), ("mosaics", 100, "random", 100))  # fmt: skip


def scores(result: Result, column: str) -> SegmentationScores:
    """The figures of a column of a result."""
    return segmentation_scores(np.array(result[column]))


def mean_iou(column: str) -> Callable[[Result], float]:
    """The mean IoU of a column."""
    return lambda result: scores(result, column).mean_iou


def rare_iou(result: Result) -> float:
    """IoU of the rarest class behind the predicted gate; 0 where it is nowhere."""
    return float(np.nan_to_num(scores(result, "predicted gate").class_iou[RARE]))


def balanced(result: Result) -> float:
    """Mean recall behind the predicted gate."""
    return scores(result, "predicted gate").class_accuracy


FIGURES: dict[str, Callable[[Result], float]] = {
    "mIoU, no gate": mean_iou("no gate"),
    "mIoU, predicted gate": mean_iou("predicted gate"),
    "rarest class, IoU": rare_iou,
    "balanced accuracy": balanced,
}


PRECISIONS: dict[str, Callable[[Result], float]] = {
    "mean average precision": lambda result: float(np.mean(result["average_precision"])),
    "average precision, rarest class": lambda result: float(result["average_precision"][RARE]),
}


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error; NaN for the error of one value."""
    array = np.asarray(values, np.float64)
    error = array.std(ddof=1) / np.sqrt(len(array)) if len(array) > 1 else np.nan
    return float(array.mean()), float(error)


def shown(values: Sequence[float], sign: str = "") -> str:
    """Mean ± standard error."""
    mean, error = mean_and_error(values)
    return f"{mean:{sign}.3f} ± {error:.3f}"


def paired(one: Mapping[Run, Result], other: Mapping[Run, Result], figure: Callable[[Result], float]) -> list[float]:
    """Differences of a figure, run by run, of the runs that both have."""
    return [figure(one[run]) - figure(other[run]) for run in sorted(one.keys() & other.keys())]


def area(points: Iterable[tuple[float, float]]) -> float:
    """Area under a curve of (clicks, figure), over the logarithm of the clicks, divided by its width: a mean height."""
    x, y = (np.array(values) for values in zip(*sorted(points), strict=True))
    x = np.log(x)
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))


def areas(curve: Curve, strategy: str, figure: Callable[[Result], float]) -> dict[Run, float]:
    """Area under the curve of each run that has all budgets which both strategies were measured at."""
    both = {b for s, b in curve if s == "random"} & {b for s, b in curve if s == "classwise"}
    if len(both) < 2:
        return {}
    runs = set.intersection(*(set(curve[strategy, budget]) for budget in both))
    found = {}
    for run in runs:
        chosen = [curve[strategy, budget][run] for budget in both]
        found[run] = area((result["clicks"], figure(result)) for result in chosen)
    return found


def print_table(results: Sequence[Result], precisions: Sequence[Result] = ()) -> None:
    """All tables, as Markdown."""
    curves: dict[tuple[str, str], Curve] = defaultdict(lambda: defaultdict(dict))
    corrections: Curve = defaultdict(dict)
    for result in results:
        run = (result["fold"], result["seed"])
        if result.get("loop") == "correct":
            corrections[result["strategy"], result["round"]][run] = result
        else:
            curves[result["pool"], result["annotator"]][result["strategy"], result["budget"]][run] = result
    for (pool, annotator), curve in curves.items():
        _print_curve(f"{pool}; answers: {annotator}", curve, FIGURES)
    by_pool: dict[str, Curve] = defaultdict(lambda: defaultdict(dict))
    for found in precisions:
        by_pool[found["pool"]][found["strategy"], found["budget"]][found["fold"], found["seed"]] = found
    for pool, curve in by_pool.items():
        _print_curve(f"{pool}; stage 1 on patches held out", curve, PRECISIONS)
    if corrections:
        _print_corrections(corrections)


def _print_curve(title: str, curve: Curve, figures: Mapping[str, Callable[[Result], float]]) -> None:
    click.echo(f"\n{title}\n")
    click.echo(f"| strategy | patches | runs | clicks | with the rarest class | {' | '.join(figures)} |")
    click.echo("|---" * (5 + len(figures)) + "|")
    for (strategy, budget), runs in sorted(curve.items(), key=lambda entry: (entry[0][1], entry[0][0])):
        each = list(runs.values())
        cells = [shown([figure(result) for result in each]) for figure in figures.values()]
        cost, rare = "", ""
        if "clicks" in each[0]:
            cost = f"{np.mean([result['clicks'] for result in each]):.0f}"
            mean, error = mean_and_error([result["positives"][RARE] for result in each])
            rare = f"{mean:.1f} ± {error:.1f}"
        click.echo(f"| {strategy} | {budget} | {len(each)} | {cost} | {rare} | {' | '.join(cells)} |")
    click.echo(f"\n| difference, run by run | runs | {' | '.join(figures)} |")
    click.echo("|---" * (2 + len(figures)) + "|")
    for strategy, budget, against, other in COMPARED:
        one, two = curve.get((strategy, budget), {}), curve.get((against, other), {})
        if one.keys() & two.keys():
            cells = [shown(paired(one, two, figure), "+") for figure in figures.values()]
            count = len(one.keys() & two.keys())
            click.echo(f"| {strategy} {budget} - {against} {other} | {count} | {' | '.join(cells)} |")
    if "clicks" in next(iter(next(iter(curve.values())).values())):
        _print_areas(curve, figures)


def _print_areas(curve: Curve, figures: Mapping[str, Callable[[Result], float]]) -> None:
    """Under the curves of both strategies, where they were measured at two budgets or more."""
    cells, count = [], 0
    for figure in figures.values():
        one, two = areas(curve, "classwise", figure), areas(curve, "random", figure)
        runs = sorted(one.keys() & two.keys())
        cells.append(shown([one[run] - two[run] for run in runs], "+") if runs else "")
        count = len(runs)
    if count:
        click.echo(f"| area under the curve, classwise - random | {count} | {' | '.join(cells)} |")


def _print_corrections(found: Curve) -> None:
    click.echo("\nCorrected regions against new patches, lung\n")
    figures = {name: FIGURES[name] for name in ("mIoU, no gate", "mIoU, predicted gate")}
    gains = " | ".join(f"gain in {name}" for name in figures)
    click.echo(f"| way | round | runs | clicks | {' | '.join(figures)} | {gains} | gain a 100 clicks |")
    click.echo("|---" * (5 + 2 * len(figures)) + "|")
    start = found.get(("start", 0), {})
    for (way, number), runs in sorted(found.items(), key=lambda entry: (entry[0][1], entry[0][0])):
        each = list(runs.values())
        cells = [shown([figure(result) for result in each]) for figure in figures.values()]
        if number and start:
            cells += [shown(paired(runs, start, figure), "+") for figure in figures.values()]
            gain = FIGURES["mIoU, predicted gate"]
            shared = sorted(runs.keys() & start.keys())
            a_click = [100 * (gain(runs[r]) - gain(start[r])) / runs[r]["clicks"] for r in shared]
            cells.append(shown(a_click, "+"))
        else:
            cells += ["", "", ""]
        cost = np.mean([result["clicks"] for result in each])
        click.echo(f"| {way} | {number} | {len(each)} | {cost:.0f} | {' | '.join(cells)} |")
    for number in sorted({n for _, n in found if n}):
        one, two = found.get(("corrected", number), {}), found.get(("new patches", number), {})
        if one.keys() & two.keys():
            cells = [f"{name}: {shown(paired(one, two, figure), '+')}" for name, figure in figures.items()]
            click.echo(f"\nCorrected - new patches, round {number}: {'; '.join(cells)}")
