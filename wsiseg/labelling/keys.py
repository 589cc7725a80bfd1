"""Which key does what on the labelling page, and how a person chooses others: in writing, not on the page.

Keys that are chosen are kept for the person in the folder, so that they are the same at every start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wsiseg.errors import OptionError, OutputError
from wsiseg.system.files import sync_path, whole_file


@dataclass(frozen=True, slots=True)
class Binding:
    """What keys do.

    Attributes:
        action: its name, for `--keys`.
        keys: as a browser's `KeyboardEvent.key` names them, "ctrl+" before those with Ctrl, "shift+" before those
            where Shift does not change the name by itself.
        label: the keys as they are shown to people.
        what: what they do; empty where the list of keys does not have them.
    """

    action: str
    keys: tuple[str, ...]
    label: str
    what: str


DEFAULTS: tuple[Binding, ...] = (
    Binding("confirm", ("Enter",), "Enter", "confirm, and go on"),
    Binding("rest", ("shift+Enter",), "Shift Enter", "confirm the rest of the page as shown"),
    Binding("none", ("0",), "0", "none of these classes"),
    Binding("unsure", ("?", "q"), "? q", "cannot tell: kept out of training"),
    Binding("exclude", ("x",), "x", "exclude: artefact, nothing to learn from"),
    Binding("same", (".",), ".", "as the patch before"),
    Binding("left", ("ArrowLeft",), "←", "to another patch"),
    Binding("right", ("ArrowRight",), "→", "to another patch"),
    Binding("up", ("ArrowUp",), "↑", "to another patch"),
    Binding("down", ("ArrowDown",), "↓", "to another patch"),
    Binding("next", ("PageDown", "n"), "Page down n", "next page"),
    Binding("before", ("PageUp", "b"), "Page up b", "page before"),
    Binding("context", ("c", " "), "c Space", "show the surroundings"),
    Binding("undo", ("u", "ctrl+z"), "u Ctrl z", "take back, without end"),
    Binding("redo", ("U", "ctrl+Z", "ctrl+y"), "U Ctrl y", "say again"),
    Binding("opinions", ("p",), "p", "show or hide what the model says"),
    Binding("groups", ("g",), "g", "groups of patches that look alike, or not"),
)

TAKEN = {**{str(digit): f"class {digit}" for digit in range(1, 10)}, "h": "the list of keys"}
"""Keys that cannot be given to anything else."""

NAMED = {
    "Space": " ", "Enter": "Enter", "Backspace": "Backspace", "Delete": "Delete", "Insert": "Insert", "Home": "Home",
    "End": "End", "PageUp": "PageUp", "PageDown": "PageDown", "Left": "ArrowLeft", "Right": "ArrowRight",
    "Up": "ArrowUp", "Down": "ArrowDown",
}  # fmt: skip
"""Keys without a letter, by the name that a person writes."""

_WISH = re.compile(r"\s*([a-z]+)\s*=\s*(\S+)\s*")


def bindings(chosen: Mapping[str, str]) -> tuple[Binding, ...]:
    """All bindings, with the keys that a person chose.

    Args:
        chosen: action -> key; see `chosen_keys`.

    Raises:
        OptionError: no such action or key, or two actions would have one key.
    """
    actions = [one.action for one in DEFAULTS]
    for action in chosen:
        if action not in actions:
            raise OptionError(f"--keys knows {', '.join(actions)}, not {action!r:.40}")
    found = [_with_key(one, chosen[one.action]) if one.action in chosen else one for one in DEFAULTS]
    owner: dict[str, str] = dict(TAKEN)
    for one in found:
        for key in one.keys:
            if key in owner:
                raise OptionError(f"the key {one.label!r} would be {owner[key]} and {one.action}; give one another key")
            owner[key] = one.action
    return tuple(found)


def _with_key(binding: Binding, key: str) -> Binding:
    name = NAMED.get(key, key)
    if len(name) != 1 and key not in NAMED:
        raise OptionError(f"a key is one letter or sign, or {', '.join(NAMED)}, got {key!r:.40}")
    return Binding(binding.action, (name,), key, binding.what)


def chosen_keys(text: str) -> dict[str, str]:
    """What `--keys confirm=Space,context=v` says; "default" says nothing.

    Raises:
        OptionError: it is of another form.
    """
    if text.strip() == "default":
        return {}
    chosen: dict[str, str] = {}
    for part in text.split(","):
        wish = _WISH.fullmatch(part)
        if wish is None or wish[1] in chosen:
            raise OptionError(f"--keys is default, or ACTION=KEY,…, each action once, got {text!r:.80}")
        chosen[wish[1]] = wish[2]
    return chosen


def keys_of(folder: Path, labeller: str, text: str | None) -> tuple[Binding, ...]:
    """The bindings of a person: those that are stated now, which are kept, or those that were kept before.

    Args:
        folder: `labelling` of the data set.
        labeller: who.
        text: see `chosen_keys`; None takes what was kept.

    Raises:
        OptionError: the keys do not do.
        OutputError: the file with them cannot be read or written.
    """
    path = folder / f"keys-{labeller}.json"
    if text is None:
        return bindings(_kept(path))
    chosen = chosen_keys(text)
    found = bindings(chosen)
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(chosen, indent=2) + "\n", encoding="utf-8")
        sync_path(temporary)
    return found


def _kept(path: Path) -> dict[str, str]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot read {path}; remove it, or state --keys anew") from error
    if not isinstance(kept, dict) or not all(isinstance(key, str) for key in kept.values()):
        raise OutputError(f"{path} is not ACTION: KEY; remove it, or state --keys anew")
    return kept
