"""One temperature that makes a model's probabilities mean what they say, and what it did on the data it was chosen on.

Probabilities are taken to the power of 1 / temperature and add up to 1 again (Guo et al., 2017, whose logits are here
the logarithms of the map's own probabilities, behind gate and blending). One number for all classes keeps their order
at every pixel, so that no pixel of the class map changes. It lies in a file of its own, which a bundle may lack.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wsiseg.arrays import UInt8Array
from wsiseg.errors import BundleError
from wsiseg.models.folder import CALIBRATION_FILE, file_inside
from wsiseg.models.spec import Networks
from wsiseg.system.files import whole_file
from wsiseg.system.json_values import JsonObject, is_number, is_whole

RANGE = (0.2, 5.0)
"""Of temperatures."""

FORMAT = 1
MAX_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature, and where it comes from.

    Attributes:
        temperature: above 1 makes probabilities less sure.
        networks: SHA-256 of the classifier's and the segmenter's weights.
        fitted: data, number of pixels or cells and groups, and errors and reliability before and after; for people.
    """

    temperature: float
    networks: tuple[str, str]
    fitted: JsonObject = field(default_factory=dict)

    def of(self, values: UInt8Array) -> UInt8Array:
        """Probabilities (K, …), 255 is 1, at this temperature; what is 0 stays 0, and where all are 0, they stay.

        Stored probabilities are what goes in, so that the same bytes come out whatever was computed at once.
        """
        weights = ((np.arange(256) / 255) ** (1 / self.temperature)).astype(np.float32)[values]
        total = weights.sum(axis=0)
        shares = weights / np.where(total > 0, total, np.float32(1))
        found: UInt8Array = np.rint(shares * np.float32(255)).astype(np.uint8)
        return found

    def to_json(self) -> JsonObject:
        """The content of the file."""
        networks = dict(zip(("classifier_sha256", "segmenter_sha256"), self.networks, strict=True))
        return {"format": FORMAT, "temperature": self.temperature, **networks, "fitted": self.fitted}


def networks_of(networks: Networks) -> tuple[str, str]:
    """What a calibration belongs to."""
    return networks.classifier.sha256, networks.segmenter.sha256


def save(calibration: Calibration, folder: Path) -> Path:
    """Write it into a bundle's folder, in place of what is there; the file's path."""
    path = folder / CALIBRATION_FILE
    with whole_file(path) as part:
        part.write_text(json.dumps(calibration.to_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path


def load(folder: Path, networks: Networks) -> Calibration | None:
    """That of a bundle, or None where it has none.

    Args:
        folder: of the bundle.
        networks: what its `model.json` says of them.

    Raises:
        BundleError: the file is damaged, newer than this program, or belongs to other weights.
    """
    if not (folder / CALIBRATION_FILE).exists() and not (folder / CALIBRATION_FILE).is_symlink():
        return None
    path = file_inside(folder, CALIBRATION_FILE, MAX_BYTES)
    advice = "make it again with wsiseg evaluate --calibrate, or remove it, and probabilities are as the networks say"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON; {advice}") from error
    fields = fields if isinstance(fields, dict) else {}
    if is_whole(fields.get("format")) and fields["format"] > FORMAT:
        raise BundleError(f"{path} was made by a newer wsiseg; update this one, or remove the file")
    temperature, fitted = fields.get("temperature"), fields.get("fitted")
    if fields.get("format") != FORMAT or not is_number(temperature) or not isinstance(fitted, dict):
        raise BundleError(f"{path} holds no temperature with what it was fitted to; {advice}")
    if not math.isfinite(temperature) or not RANGE[0] <= temperature <= RANGE[1]:
        raise BundleError(
            f"{path}: expected a temperature of {RANGE[0]} to {RANGE[1]}, got {temperature!r:.40}; {advice}"
        )
    found = (fields.get("classifier_sha256"), fields.get("segmenter_sha256"))
    if found != networks_of(networks):
        raise BundleError(f"{path} belongs to other weights than this bundle's; {advice}")
    return Calibration(float(temperature), networks_of(networks), fitted)
