"""What is reported: each endpoint's zone, what is divided by what, and where the definition comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from wsiseg.arrays import Float64Array
from wsiseg.report.roles import Role, RoleTable
from wsiseg.report.tally import Zone

STROMA: tuple[Role, ...] = ("stroma", "lymphocytes")
"""Stroma with its inflammation."""

Parameters: TypeAlias = dict[str, str | float]
"""What a figure was computed with, by name."""

ALL: tuple[Role, ...] = ()
"""In a denominator: all that has a class."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One share of areas.

    Attributes:
        name: in tables.
        title: for people.
        zone: where it is measured.
        over: roles of the numerator.
        under: roles of the denominator; `ALL` for everything that has a class.
        needs: roles that the class set must have.
        sources: keys of `wsiseg.report.methods.REFERENCES`.
    """

    name: str
    title: str
    zone: Zone
    over: tuple[Role, ...]
    under: tuple[Role, ...]
    needs: tuple[Role, ...]
    sources: tuple[str, ...]

    @property
    def method(self) -> str:
        """Id of the method; its number is raised when the definition changes."""
        return f"wsiseg:{self.name}/1"

    @property
    def definition(self) -> str:
        """What is divided by what, in words."""
        under = " + ".join(_word(role) for role in self.under) or "all that has a class"
        over = " + ".join(_word(role) for role in self.over)
        return f"{f'({over})' if len(self.over) > 1 else over} / ({under}), {PLACES[self.zone]}"

    def missing(self, roles: RoleTable) -> list[Role]:
        """The roles that it needs and the classes lack."""
        return [role for role in self.needs if not roles.has(role)]

    def parts(self, areas: Float64Array, roles: RoleTable) -> tuple[Float64Array, Float64Array]:
        """Numerator and denominator in mm2, (...) each, of areas (..., K) in mm2."""
        over = areas[..., _columns(self.over, roles)].sum(axis=-1)
        under = areas if not self.under else areas[..., _columns(self.under, roles)]
        return over, under.sum(axis=-1)


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure of a slide or of a cohort.

    Attributes:
        name: of the endpoint.
        title: for people.
        value: NaN where there is none.
        low: lower end of its 95 % interval, NaN where it is not estimable.
        high: upper end likewise.
        unit: "%", "mm2" or "".
        denominator_mm2: area that the value is a share of; NaN where it is no share.
        method: id of the method.
        includes: what the interval includes, as "spatial + confusion"; "" without an interval.
        reason: why there is no value or no interval, else "".
        parameters: what it was computed with.
    """

    name: str
    title: str
    value: float
    low: float = math.nan
    high: float = math.nan
    unit: str = "%"
    denominator_mm2: float = math.nan
    method: str = ""
    includes: str = ""
    reason: str = ""
    parameters: Parameters = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether there is a value."""
        return not math.isnan(self.value)


PLACES: dict[Zone, str] = {
    "bulk": "in the tumour bulk",
    "field": "in the hot spot field",
    "core": "in the tumour's core",
    "inner": "in the inner half of the invasive margin",
    "outer": "in the outer half of the invasive margin",
    "bed": "in the tumour bed drawn by a person",
}

_NST: tuple[Role, ...] = ("tumour", "necrosis", *STROMA)
_STROMA_NEEDS: tuple[Role, ...] = ("tumour", "stroma")
_DENSE = "Dense lymphocytic infiltrate, % of stroma"

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("stroma_pct", "Stroma, % of tumour + stroma", "bulk", STROMA, ("tumour", *STROMA), _STROMA_NEEDS,
             ("vanpelt2018", "hagenaars2022", "dikland2025")),
    Endpoint("stroma_hot_spot_pct", "Stroma, % of tumour + stroma, in the hot spot field", "field", STROMA,
             ("tumour", *STROMA), _STROMA_NEEDS, ("vanpelt2018", "smit2023")),
    Endpoint("dense_infiltrate_pct", _DENSE, "bulk", ("lymphocytes",), STROMA, ("tumour", "stroma", "lymphocytes"),
             ("tilwg", "amgad2020")),
    Endpoint("necrosis_of_tumour_pct", "Necrosis, % of tumour + necrosis", "bulk", ("necrosis",),
             ("necrosis", "tumour"), ("tumour", "necrosis"), ("travis2020",)),
    Endpoint("necrosis_of_bulk_pct", "Necrosis, % of tumour + necrosis + stroma", "bulk", ("necrosis",), _NST,
             ("tumour", "necrosis", "stroma"), ("travis2020",)),
    Endpoint("bed_viable_tumour_pct", "Viable tumour, % of the bed's tumour + necrosis + stroma", "bed", ("tumour",),
             _NST, ("tumour", "necrosis", "stroma"), ("travis2020",)),
    Endpoint("bed_necrosis_pct", "Necrosis, % of the bed's tumour + necrosis + stroma", "bed", ("necrosis",), _NST,
             ("tumour", "necrosis", "stroma"), ("travis2020",)),
    Endpoint("bed_necrosis_of_tumour_pct", "Necrosis, % of the bed's tumour + necrosis", "bed", ("necrosis",),
             ("necrosis", "tumour"), ("tumour", "necrosis"), ("travis2020",)),
    *(
        Endpoint(f"{zone}_{name}_pct", f"{title}, {PLACES[zone].removeprefix('in the ')}", zone, over, under, needs,
                 ("margin",))
        for zone in ("core", "inner", "outer")
        for name, title, over, under, needs in (
            ("tumour", "Tumour, % of classified area", ("tumour",), ALL, ("tumour",)),
            ("stroma", "Stroma, % of classified area", STROMA, ALL, _STROMA_NEEDS),
            ("dense_infiltrate", _DENSE, ("lymphocytes",), STROMA, ("tumour", "stroma", "lymphocytes")),
        )
    ),
)  # fmt: skip
"""All of them, in the order of the report."""

MAIN = ("stroma_pct", "stroma_hot_spot_pct", "dense_infiltrate_pct", "necrosis_of_tumour_pct", "bed_viable_tumour_pct")
"""Those that a cohort is shown by."""


def _columns(roles: tuple[Role, ...], table: RoleTable) -> list[int]:
    return [index - 1 for role in roles for index in table.indices(role)]


def _word(role: Role) -> str:
    return role.replace("_", " ")


def percent(over: Float64Array, under: Float64Array) -> Float64Array:
    """100 * over / under, NaN where there is nothing under it."""
    over, under = np.broadcast_arrays(np.asarray(over, np.float64), np.asarray(under, np.float64))
    out: Float64Array = np.divide(100 * over, under, out=np.full(over.shape, np.nan), where=under > 0)
    return out


def cannot_give(roles: RoleTable) -> list[tuple[str, str]]:
    """(endpoint's title, why) of all that the class set cannot give, and what its figures overlook."""
    found = [
        (endpoint.title, f"no class is {' or '.join(map(_word, missing))}")
        for endpoint in ENDPOINTS
        if (missing := endpoint.missing(roles))
    ]
    found.append(("Stromal TILs (sTIL)", "a map has areas and no cells; scattered lymphocytes are not counted"))
    return found


OVERLOOKED: tuple[tuple[Role, str], ...] = (
    ("normal", "no class is normal tissue: normal glands and epithelium count as whatever they look most alike, often "
               "as tumour"),
    ("necrosis", "no class is necrosis: necrosis counts as whatever it looks most alike"),
    ("in_situ", "no class is in situ: carcinoma in situ counts as tumour"),
    ("fat", "no class is fat: fat that is not told as white counts as whatever it looks most alike, mostly stroma"),
    ("muscle", "no class is muscle: muscle mostly counts as stroma"),
)  # fmt: skip


def overlooked(roles: RoleTable) -> list[str]:
    """What figures of this class set include without saying so, one sentence each."""
    return [sentence for role, sentence in OVERLOOKED if roles.has("tumour") and not roles.has(role)]
