"""Under what licence published weights are, as their page states it, and whether a bundle may hold them.

A page on the Hugging Face hub is a README.md whose front matter names the licence by the hub's identifiers.
"""

from __future__ import annotations

from pathlib import Path

from wsiseg.errors import OptionError
from wsiseg.models.weights.encoder_sources import HUB, hub_file
from wsiseg.models.weights.foundation import foundation_of

CARD = "README.md"
NOT_STATED = "not stated"

PERMISSIVE = frozenset(
    (
        *("apache-2.0", "mit", "isc", "zlib", "ncsa", "ms-pl", "unlicense", "wtfpl", "0bsd", "ecl-2.0"),
        *("bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear"),
        *("cc0-1.0", "pddl", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0"),
    )
)
"""Licences, by the hub's identifiers, that let anybody hand weights on, for any use; attribution may be asked for."""

_CARD_BYTES = 2**20


def may_be_shared(licence: str) -> bool:
    """Whether a bundle may hold weights under a licence; not where it is unknown here, or not stated."""
    return licence.lower() in PERMISSIVE


def card_licence(folder: Path) -> str:
    """The licence that a snapshot's README.md states; "" where there is no such file, or it states none."""
    from huggingface_hub.repocard import metadata_load  # noqa: PLC0415  (only where it is needed)
    from yaml import YAMLError  # noqa: PLC0415

    path = folder / CARD
    try:
        if not path.is_file() or path.stat().st_size > _CARD_BYTES:
            return ""
        fields = metadata_load(path) or {}
    except (OSError, ValueError, RecursionError, YAMLError):  # no text, or no YAML: it states nothing
        return ""
    stated, name = fields.get("license"), fields.get("license_name")
    if stated == "other" and isinstance(name, str) and name:
        stated = name
    several = stated if isinstance(stated, list) else [stated]
    return ", ".join(" ".join(str(one).split())[:100] for one in several if isinstance(one, str))[:300]


def source_licence(encoder: str, weights: str) -> str:
    """The licence of an encoder's weights.

    Args:
        encoder: its name in timm.
        weights: "imagenet" for timm's own; "hf-hub:OWNER/NAME", a folder of a snapshot, or a file.

    Returns:
        As it is stated; `NOT_STATED` where weights of the hub or a snapshot come without one; "" where nothing is
        known of a file, which is then taken for the user's own, or of timm's weights.
    """
    if weights == "imagenet":
        return _of_timm(encoder)
    if weights.startswith(HUB):
        entry = foundation_of(weights)
        return entry.licence if entry is not None else _of_hub(weights)
    path = Path(weights)
    return (card_licence(path) or NOT_STATED) if path.is_dir() else card_licence(path.parent)


def timm_source(encoder: str) -> str:
    """Where timm has the weights of an encoder, as "hf-hub:OWNER/NAME"; "" where they are not on the hub."""
    import timm  # noqa: PLC0415

    config = timm.get_pretrained_cfg(encoder)
    return f"{HUB}{config.hf_hub_id}" if config is not None and config.hf_hub_id else ""


def _of_timm(encoder: str) -> str:
    import timm  # noqa: PLC0415

    config = timm.get_pretrained_cfg(encoder)
    return "" if config is None else str(config.license or "")


def _of_hub(source: str) -> str:
    try:
        return card_licence(hub_file(source, [CARD]).parent) or NOT_STATED
    except OptionError:  # no such page, or no network
        return NOT_STATED
