"""The folder of a model bundle: where it lies, and its files, none of which may lie outside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from wsiseg.errors import BundleError
from wsiseg.system.json_values import JsonObject

SPEC_FILE = "model.json"

EVALUATION_FILE = "evaluation.json"
"""What `wsiseg evaluate` found, where it was put into the bundle; it names the model's hash, and is none of its own."""

CALIBRATION_FILE = "calibration.json"
"""The temperature of its probabilities, where one was chosen; see `wsiseg.models.calibration`."""

CARD_FILE = "card.html"
"""What was measured of it, for people."""

BUNDLES_FOLDER = Path(__file__).parent / "bundles"
"""Where the bundles lie that come with the package."""

MAX_SPEC_BYTES = 4 * 2**20
MAX_WEIGHT_BYTES = 4 * 2**30


def list_bundles() -> list[str]:
    """Names of the bundles that come with the package, sorted."""
    return sorted(path.parent.name for path in BUNDLES_FOLDER.glob(f"*/{SPEC_FILE}"))


def find_bundle(name_or_path: str | Path) -> Path:
    """The folder of a bundle.

    A shipped name wins over a folder of the same name in the working directory (write `./NAME` for that one), so
    that a command means the same wherever it is typed.
    """
    if isinstance(name_or_path, str) and name_or_path in list_bundles():
        return BUNDLES_FOLDER / name_or_path
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder
    shipped = ", ".join(list_bundles()) or "none"
    kind = "is a file, not a bundle's folder" if folder.exists() else "is neither a shipped model nor a folder"
    raise BundleError(f"{str(name_or_path)!r} {kind} (shipped models: {shipped})")


def file_inside(folder: Path, name: str, max_bytes: int) -> Path:
    """The regular file `name` of at most `max_bytes` in `folder`; a link that leads out of it is refused."""
    path = folder / name
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError) as error:  # a loop of links
        raise BundleError(f"{path} cannot be followed, it is a link to itself; copy the bundle again") from error
    if resolved.parent != folder.resolve():
        raise BundleError(f"{path} lies outside its bundle, a bundle's files must be in its own folder")
    if not resolved.is_file():
        raise BundleError(f"{folder} has no {name}: the bundle is incomplete, copy or download it again")
    size = resolved.stat().st_size
    if size > max_bytes:
        raise BundleError(f"{path} has {size} bytes, more than the {max_bytes} that a bundle's file may have")
    return path


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_fields(name_or_path: str | Path) -> tuple[Path, JsonObject]:
    """The path of a bundle's `model.json`, and its content as it stands there, unchecked.

    Raises:
        BundleError: where there is no such bundle, or the file is missing or not JSON.
    """
    folder = find_bundle(name_or_path)
    path = file_inside(folder, SPEC_FILE, MAX_SPEC_BYTES)
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON ({str(error) or type(error).__name__:.100})") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(fields, dict):
        raise BundleError(f"{path} must hold one JSON object, got {type(fields).__name__}")
    return path, fields
