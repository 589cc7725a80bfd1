"""Extras of the package: libraries that only some commands need."""

from __future__ import annotations

from importlib.util import find_spec

from wsiseg.errors import MissingExtraError


def require_extra(extra: str, purpose: str, *modules: str) -> None:
    """Check that what an extra brings is installed, without loading it.

    Args:
        extra: its name, as in `wsiseg[extra]`.
        purpose: what the modules are for, the subject of the message.
        modules: names of top-level modules.

    Raises:
        MissingExtraError: a module is missing; the message says what to install.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingExtraError(f"{purpose} needs {', '.join(missing)}: pip install 'wsiseg[{extra}]'")
