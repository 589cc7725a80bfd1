"""What an installation takes on the disk, by package, PyTorch and its CUDA libraries apart.

    uv run python benchmarks/installed_size.py

The environment may hold more, as a developer's does: counted is what `pip install wsiseg` and each extra would bring,
by the requirements of the packages that are there. Byte code that Python makes later is left out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CUDA = ("nvidia", "cuda", "triton")
"""How the names of packages begin that only PyTorch with CUDA needs."""


def installed() -> tuple[dict[str, int], dict[str, list[Requirement]]]:
    """Bytes, and requirements, of every package of this environment."""
    sizes: dict[str, int] = {}
    needs: dict[str, list[Requirement]] = {}
    for package in distributions():
        name = canonicalize_name(package.metadata["Name"])
        paths = [Path(str(package.locate_file(file))) for file in package.files or []]
        sizes[name] = sum(path.lstat().st_size for path in paths if path.exists() and path.suffix != ".pyc")
        needs[name] = [Requirement(text) for text in package.requires or []]
    return sizes, needs


def closure(wanted: Iterable[Requirement], needs: dict[str, list[Requirement]]) -> set[str]:
    """Names of all packages that requirements bring, directly or not."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(requirement, frozenset[str]()) for requirement in wanted]
    while waiting:
        requirement, extras = waiting.pop()
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
            continue
        found = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if found not in seen:
            seen.add(found)
            waiting += [(need, found[1]) for need in needs.get(found[0], [])]
    return {name for name, _ in seen}


def main() -> None:
    """Print a line for predicting, and one for each extra with it."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    sizes, needs = installed()
    print("MB           all  torch   CUDA   rest  (packages)  largest of the rest")
    for extra, added in {"(predict)": [], **project["optional-dependencies"]}.items():
        names = closure(map(Requirement, [*project["dependencies"], *added]), needs)
        if missing := sorted(names - set(sizes)):
            print(f"{extra:<12} not installed here: {', '.join(missing)}")
            continue
        cuda = {name for name in names if name.startswith(CUDA)}
        rest = sorted(names - cuda - {"torch"}, key=lambda name: -sizes[name])
        parts = [sum(sizes[name] for name in part) / 1e6 for part in (names, ["torch"], cuda, rest)]
        largest = ", ".join(f"{name} {sizes[name] / 1e6:.0f}" for name in rest[:8])
        print(f"{extra:<9}" + "".join(f"{part:7.0f}" for part in parts) + f"  ({len(rest)})  {largest}")


if __name__ == "__main__":
    main()
