"""Which class of a model is tumour, stroma, lymphocytes…: by a table of names, or as it is stated. Never guessed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from wsiseg.classes import ClassTable
from wsiseg.errors import OptionError
from wsiseg.system.printable import printable

Role = Literal[
    "tumour", "stroma", "lymphocytes", "necrosis", "normal", "in_situ", "fat", "mucin", "muscle", "vessel",
    "background", "other",
]  # fmt: skip
ROLES: tuple[Role, ...] = get_args(Role)
NONE = "none"
"""In `--role none=CLASS`: the class plays no role."""

SYNONYMS: Mapping[Role, tuple[str, ...]] = {
    "tumour": (
        *("tumour", "tumor", "tum", "tumour epithelium", "tumor epithelium", "tumour epithelial", "tumor epithelial"),
        *("te", "invasive tumour", "invasive tumor", "invasive carcinoma", "carcinoma", "cancer", "malignant"),
        *("cancer epithelium", "malignant epithelium", "adenocarcinoma", "colorectal adenocarcinoma epithelium"),
        *("viable tumour", "viable tumor", "neoplasm", "neoplastic", "melanoma"),
    ),
    "stroma": (
        *("stroma", "str", "tas", "tumour associated stroma", "tumor associated stroma", "cancer associated stroma"),
        *("tumour stroma", "tumor stroma", "connective", "connective tissue", "fibrous stroma", "fibrosis"),
        *("desmoplastic stroma", "intratumoral stroma", "intratumoural stroma"),
    ),
    "lymphocytes": (
        *("lymphocytes", "lymphocyte", "lym", "lymph", "lymphocytic infiltrate", "lymphoid infiltrate"),
        *("inflammation", "inflamed stroma", "inflammatory infiltrate", "immune cells", "tils"),
        *("dense lymphocytic infiltrate", "lymphoid tissue", "inflammatory"),
    ),
    "necrosis": (
        *("necrosis", "nec", "necrotic", "necrosis or debris", "necrosis not in situ", "debris", "deb"),
        *("necrotic tumour", "necrotic tumor", "dead tumour", "dead tumor", "non viable tumour", "non viable tumor"),
    ),
    "normal": (
        *("normal", "norm", "normal mucosa", "normal colon mucosa", "normal epithelium", "healthy glands"),
        *(
            "normal glands",
            "normal tissue",
            "benign",
            "benign epithelium",
            "healthy",
            "epidermis",
            "healthy epithelium",
        ),
    ),
    "in_situ": ("in situ", "in situ tumour", "in situ tumor", "in situ carcinoma", "dcis", "carcinoma in situ"),
    "fat": ("fat", "adipose", "adi", "adipose tissue", "adipocytes", "fatty tissue"),
    "mucin": ("mucin", "muc", "mucus"),
    "muscle": ("muscle", "mus", "smooth muscle"),
    "vessel": ("vessel", "vessels", "blood vessel", "blood vessels", "blood"),
    "background": ("background", "back", "glass", "white", "empty", "air", "lumen"),
    "other": ("other", "others", "rest", "artefact", "artifact", "artefacts", "artifacts", "misc"),
}
"""Names, in lower case and with single spaces for all else than letters, that leave no doubt."""

_PHRASES: dict[str, Role] = {phrase: role for role, phrases in SYNONYMS.items() for phrase in phrases}
_WORDS: dict[str, set[Role]] = {}
for _phrase, _role in _PHRASES.items():
    if " " not in _phrase and len(_phrase) > 3:
        _WORDS.setdefault(_phrase, set()).add(_role)


@dataclass(frozen=True, slots=True)
class RoleTable:
    """The roles of a model's classes.

    Attributes:
        classes: the class table.
        of_class: role of each class, by its index; classes without one are left out.
        how: of each class, by its index: "by name", "stated", or "no role".
    """

    classes: ClassTable
    of_class: Mapping[int, Role]
    how: Mapping[int, str]

    def indices(self, role: Role) -> tuple[int, ...]:
        """The class values that play a role."""
        return tuple(index for index, mine in self.of_class.items() if mine == role)

    def has(self, role: Role) -> bool:
        """Whether any class plays it."""
        return bool(self.indices(role))

    def rows(self) -> list[tuple[str, str, str]]:
        """(class, role or "", how it is known), for tables."""
        return [(c.name, self.of_class.get(c.index, ""), self.how[c.index]) for c in self.classes]


def parse_roles(stated: Sequence[str]) -> dict[str, str]:
    """What `--role ROLE=CLASS` says, as class -> role.

    Raises:
        OptionError: another form, an unknown role, or one class with two roles.
    """
    found: dict[str, str] = {}
    for text in stated:
        role, equals, name = text.partition("=")
        role = role.strip().lower().replace("-", "_").replace(" ", "_").replace("tumor", "tumour")
        if not equals or not name or role not in (*ROLES, NONE):
            raise OptionError(
                f"expected --role ROLE=CLASS with a role of {', '.join((*ROLES, NONE))}, got {printable(text, 60)!r}"
            )
        if found.get(name, role) != role:
            raise OptionError(f"--role gives the class {printable(name, 60)!r} the roles {found[name]} and {role}")
        found[name] = role
    return found


def roles_of(classes: ClassTable, stated: Mapping[str, str]) -> RoleTable:
    """The roles of classes: those stated, and of other classes those of names that leave no doubt.

    Args:
        classes: the class table of a map.
        stated: class -> role, of `parse_roles`; names that the table has not are left to the caller.

    Raises:
        OptionError: a class that nothing is stated of, and whose name only has to do with a role.
    """
    of_class: dict[int, Role] = {}
    how: dict[int, str] = {}
    for tissue_class in classes:
        index, name = tissue_class.index, tissue_class.name
        role = stated.get(name) or _PHRASES.get(_phrase_of(name))
        if role is None:
            _refuse_doubt(name)
        how[index] = "no role" if role is None else "stated" if name in stated else "by name"
        if role is not None and role != NONE:
            of_class[index] = cast(Role, role)
    return RoleTable(classes, of_class, how)


def _phrase_of(name: str) -> str:
    return " ".join(re.sub(r"[\W_]+", " ", name.lower()).split())


def _refuse_doubt(name: str) -> None:
    """Raise where a name that is not in the table has a word that is."""
    words = _phrase_of(name).split()
    likely = sorted({role for word in words for role in _WORDS.get(word, ())})
    if likely:
        shown = printable(name, 60)
        raise OptionError(
            f"the class {shown!r} may play the role of {' or '.join(likely)}, which its name does not settle; "
            f"state it: --role {likely[0]}='{shown}', or --role {NONE}='{shown}'"
        )
