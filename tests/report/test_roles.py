"""Roles of classes: by names that leave no doubt, or stated; never guessed."""

import pytest

from wsiseg.classes import ClassTable
from wsiseg.errors import OptionError
from wsiseg.report.endpoints import cannot_give, overlooked
from wsiseg.report.roles import SYNONYMS, RoleTable, parse_roles, roles_of


def table(*names: str, **stated: str) -> RoleTable:
    return roles_of(ClassTable.from_names(names), stated)


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (["Tumour", "Stroma", "Lymphocytes"], ["tumour", "stroma", "lymphocytes"]),
        (["Tumor epithelium", "Necrosis", "LYM", "Tumor-associated stroma"],
         ["tumour", "necrosis", "lymphocytes", "stroma"]),
        (["tumor", "stroma", "normal"], ["tumour", "stroma", "normal"]),
        (["ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"],
         ["fat", "background", "necrosis", "lymphocytes", "mucin", "muscle", "normal", "stroma", "tumour"]),
        (["invasive tumor", "tumor-associated stroma", "in-situ tumor", "healthy glands", "necrosis not in-situ",
          "inflamed stroma", "rest"], ["tumour", "stroma", "in_situ", "normal", "necrosis", "lymphocytes", "other"]),
    ],
)  # fmt: skip
def test_names_of_known_data_sets(names: list[str], roles: list[str]) -> None:
    found = table(*names)
    assert [role for _, role, _ in found.rows()] == roles
    assert {how for _, _, how in found.rows()} == {"by name"}


def test_no_name_has_two_roles() -> None:
    names = [name for phrases in SYNONYMS.values() for name in phrases]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ["Tumour margin", "peritumoral lymphocytes x", "Normal stroma", "grade 3 carcinoma"])
def test_doubt_is_refused_and_can_be_settled(name: str) -> None:
    with pytest.raises(OptionError, match=r"does not settle; state it: --role .*or --role none="):
        table("Tumour", name)
    assert table("Tumour", name, **{name: "stroma"}).rows()[1] == (name, "stroma", "stated")
    assert table("Tumour", name, **{name: "none"}).rows()[1] == (name, "", "stated")


def test_what_has_to_do_with_no_role_has_none() -> None:
    assert table("Tumour", "Class 7").rows()[1] == ("Class 7", "", "no role")


def test_a_stated_role_goes_before_the_name() -> None:
    assert table("Stroma", Stroma="tumour").indices("tumour") == (1,)


def test_the_option() -> None:
    assert parse_roles(["Tumor=A=B", "in-situ=DCIS x", "none= C"]) == {
        "A=B": "tumour",
        "DCIS x": "in_situ",
        " C": "none",
    }
    for bad in (["stroma"], ["stroma="], ["lung=A"], ["stroma=A", "tumour=A"]):
        with pytest.raises(OptionError, match="--role"):
            parse_roles(bad)


def test_what_classes_cannot_give_is_listed() -> None:
    shipped = table("Tumour", "Stroma", "Lymphocytes")
    missing = dict(cannot_give(shipped))
    assert missing["Necrosis, % of tumour + necrosis"] == "no class is necrosis"
    assert "Stroma, % of tumour + stroma" not in missing
    assert "Stromal TILs (sTIL)" in missing
    assert any("normal" in sentence for sentence in overlooked(shipped))
    whole = table("Tumour", "Stroma", "Lymphocytes", "Necrosis", "Normal", "DCIS", "Fat", "Muscle")
    assert [title for title, _ in cannot_give(whole)] == ["Stromal TILs (sTIL)"]
    assert overlooked(whole) == []
    assert dict(cannot_give(table("Fat", "Mucin")))["Stroma, % of tumour + stroma"] == "no class is tumour or stroma"
