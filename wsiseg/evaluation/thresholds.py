"""A copy of a bundle with other thresholds of its gate."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from wsiseg.choices import GateMode
from wsiseg.errors import OutputError
from wsiseg.models.distance import DISTANCE_FILE
from wsiseg.models.folder import SPEC_FILE, find_bundle
from wsiseg.models.spec import THRESHOLDS, checked_weights, parse_spec, read_spec
from wsiseg.system.files import put_folder, refuse_address


def check_new_bundle(out: Path) -> None:
    """Refuse, before any work, a folder that exists or cannot be made."""
    refuse_address(out)
    if out.exists() or out.is_symlink():
        raise OutputError(f"{out} exists; choose another name for the bundle")
    if not out.parent.is_dir():
        raise OutputError(f"the folder {out.parent} does not exist; create it, or choose another output than {out}")


def write_bundle(model: str | Path, out: Path, thresholds: Sequence[float], gate_mode: GateMode = "patches") -> None:
    """Copy a bundle, weights byte for byte, with new thresholds.

    Its figures are left out: they were measured with the old ones. In mode "shared" the thresholds are the shared
    gate's, else the classifier's.

    Raises:
        OutputError: `out` exists or cannot be written.
    """
    check_new_bundle(out)
    folder, spec = find_bundle(model), read_spec(model)
    fields = spec.model_dump(mode="json")
    fields.update({THRESHOLDS[gate_mode]: [float(value) for value in thresholds], "metrics": []})
    temporary = out.with_name(f".{out.name}.{os.getpid()}-{secrets.token_hex(3)}.tmp")
    try:
        temporary.mkdir()
        for network in (spec.networks.classifier, spec.networks.segmenter):
            shutil.copyfile(checked_weights(folder, network), temporary / network.file)
        for name in ("LICENSE", DISTANCE_FILE):  # how far the training data reach goes by the weights alone
            if (folder / name).is_file():
                shutil.copyfile(folder / name, temporary / name)
        (temporary / SPEC_FILE).write_text(parse_spec(fields, str(out)).to_json(), encoding="utf-8")
        put_folder(temporary, out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
