"""From an evaluation on validation images to the temperature that a bundle brings with it."""

from __future__ import annotations

from math import isnan

from wsiseg.errors import OptionError
from wsiseg.evaluation.calibration import reliability_json
from wsiseg.evaluation.result import Evaluation
from wsiseg.models.calibration import Calibration, networks_of
from wsiseg.models.spec import Networks


def calibration_from(result: Evaluation, networks: Networks) -> Calibration:
    """The single temperature of an evaluation, and what it does there.

    Args:
        result: on images that the model did not learn from, and that it will not be judged on.
        networks: of the model.

    Raises:
        OptionError: too little is known to choose one, or it would not help on slides or patients that it was not
            fitted to.
    """
    found = result.calibration
    if found is None or found.temperatures is None or found.fitted is None:
        raise OptionError(
            "no temperature can be chosen: that takes masks or cell dots of at least two classes, of 200 pixels or "
            "cells; give such a data set"
        )
    best = found.temperatures
    before, after = best.error[:2]
    if after >= before:
        raise OptionError(
            f"no temperature is chosen: {best.one:.2f} would bring the calibration error from {before:.3f} to "
            f"{after:.3f} on slides or patients that it was not fitted to; the model needs none"
        )
    data = result.data
    fitted = {
        "data": data["name"], "split": data["split"], "truth": result.kind, "images": data["images"],
        "groups": data["groups"], "count": best.pixels,
        "expected_calibration_error": {"before": round(before, 6),
                                       "after": None if isnan(after) else round(after, 6)},
        "reliability": {
            name: reliability_json(rows) for name, rows in zip(("before", "after"), found.fitted, strict=True)
        },
    }  # fmt: skip
    return Calibration(round(best.one, 4), networks_of(networks), fitted)
