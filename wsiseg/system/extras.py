"""Libraries that only some commands need: those of the package's extras, and others."""

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
    require_modules(f"'wsiseg[{extra}]'", purpose, *modules)


def require_modules(package: str, purpose: str, *modules: str) -> None:
    """Check that what a package brings is installed, without loading it.

    Args:
        package: what pip is to be given.
        purpose: what the modules are for, the subject of the message.
        modules: names of top-level modules.

    Raises:
        MissingExtraError: a module is missing; the message says what to install.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingExtraError(f"{purpose} needs {', '.join(missing)}: pip install {package}")
