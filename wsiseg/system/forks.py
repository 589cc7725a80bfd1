"""Processes that were forked from one that had computed: the threads of its networks are not in them, and they hang."""

from __future__ import annotations

import os

from wsiseg.errors import OptionError

_STATE = {"computed": False, "forked": False}


def _in_child() -> None:
    _STATE["forked"] = _STATE["computed"]


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_in_child)


def note_computing() -> None:
    """This process computes from here on; what is forked from it must not."""
    _STATE["computed"] = True


def refuse_after_fork() -> None:
    """Refuse to compute where this process was forked from one that had, since it might wait forever.

    Raises:
        OptionError: then.
    """
    if _STATE["forked"]:
        raise OptionError(
            "this process was forked from one that had computed with networks already, and could wait forever for its "
            "threads; start processes before, or with multiprocessing.get_context('spawn')"
        )
