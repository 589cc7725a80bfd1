"""The documentation is complete: every page is listed, every public name is in the API, every link leads to a file."""

import re
from pathlib import Path

import pytest

import wsiseg

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("docs/**/*.md"))
LINK = re.compile(r"\]\(([^)#\s]+?)(?:#[^)\s]*)?\)")


def links(page: Path) -> list[str]:
    """Where a page's links lead, without addresses and anchors."""
    return [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    assert [link for link in links(page) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "index.md"], ids=lambda page: page.name)
def test_every_page_is_listed(page: Path) -> None:
    """In the index (of the API its first page), and in the site's navigation."""
    name = page.relative_to(ROOT / "docs").as_posix()
    index = links(ROOT / "docs/index.md")
    assert name in index or name.startswith("api/")
    assert f": {name}\n" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_every_public_name_is_in_the_api() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES if page.parent.name == "api")
    assert [name for name in wsiseg.__all__ if name != "__version__" and f"::: wsiseg.{name}\n" not in text] == []


def test_every_folder_is_in_the_architecture() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    folders = [path.parent.name for path in ROOT.glob("wsiseg/*/__init__.py")]
    assert len(folders) > 10
    assert [name for name in folders if f"**`{name}/`**" not in text] == []
