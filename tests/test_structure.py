"""Imports go one way, only some modules know torch, and help answers without loading anything."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from wsiseg.choices import GATE_MODES, GATE_RULES, PRECISIONS, RUNTIMES
from wsiseg.cli.main import COMMANDS

PACKAGE = Path(__file__).parents[1] / "wsiseg"

LAYERS = [
    {"errors"},
    {"system"},
    {"arrays", "geometry", "classes", "metrics"},
    {"choices"},
    {"slides", "tissue_map"},
    {"polygons"},
    {"geojson", "tiling"},
    {"tissue", "models", "export"},
    {"datasets", "prediction"},
    {"cohort"},
    {"cluster"},
    {"training", "evaluation", "labelling", "corrections", "report"},
    {"server"},
    {"cli"},
]
"""From the ground up: a folder imports from the lines above its own, and from itself."""

FACES = {"__init__.py", "__main__.py"}
"""What stands before the house: the package's names, and `python -m wsiseg`."""

USERS = {
    "torch": {"models", "training", "evaluation", "labelling/opinions.py", "cli/doctor_facts.py", "cli/verbose.py", *(
        f"prediction/{name}.py" for name in ("run", "job", "machine", "many", "stream", "gated", "sums")
    ), "cluster/worker.py"},
    "torchvision": {"models", "training"},
    "timm": {"models"},
    "huggingface_hub": {"models"},
    "peft": {"training"},
    "segmentation_models_pytorch": {"models"},
    "lightning": {"training"},
    "kornia": {"training"},
    "openslide": {"slides", "system/versions.py"},
    "tiffslide": {"slides"},
    "pydicom": {"slides", "export/dicom_seg.py"},
    "zarr": {"tissue_map", "export"},
    "dask": {"tissue_map", "cluster/start.py"},
    "distributed": {"cluster"},
    "dask_jobqueue": {"cluster"},
    "shapely": {"polygons", "geojson", "export", "corrections", "report"},
    "highdicom": {"export"},
    "starlette": {"server", "cli/view.py"},
    "uvicorn": {"server"},
    "jinja2": {"report"},
    "matplotlib": {"report"},
    "pyarrow": {"report"},
}  # fmt: skip
"""Who may import which library: folders, or files."""


CHOSEN_IN = {
    "choices.py",
    "models/runtime/choose.py",
    "models/runtime/openvino.py",  # the module of that name
}
"""Files where a name of a gate's mode or rule, of a runtime or of a precision is compared; all others ask what is
chosen there, or in tables by name (`wsiseg.models.gate_kinds`, `wsiseg.prediction.gated`), for a property."""


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in it and also only for types."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "wsiseg":
                found |= {f"wsiseg.{alias.name}" for alias in node.names}
    return found


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if str(path.relative_to(PACKAGE)) not in FACES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    layer = {name: index for index, names in enumerate(LAYERS) for name in names}
    own = part_of(path)
    for module in imports(path):
        package, _, rest = module.partition(".")
        other = rest.split(".")[0]
        if package == "wsiseg" and other in layer and other != own:
            assert layer[other] < layer[own], f"{path.name} imports {module} from a line that is not below its own"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    names = {module.split(".")[0] for module in imports(path)}
    own = {part_of(path), path.relative_to(PACKAGE).as_posix()}
    for library, users in USERS.items():
        assert library not in names or own & users, f"{path.name} imports {library}"


@pytest.mark.parametrize(
    "path",
    [*FILES, *sorted(PACKAGE.parent.glob("benchmarks/*.py"))],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_no_mode_is_compared_but_where_it_is_chosen(path: Path) -> None:
    names = {*GATE_MODES, *GATE_RULES, *RUNTIMES, *PRECISIONS}
    if path.is_relative_to(PACKAGE) and path.relative_to(PACKAGE).as_posix() in CHOSEN_IN:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare | ast.MatchValue):
            found = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)} & names
            assert not found, f"{path.name}:{node.lineno} compares {min(found)}"


OF_LIBRARIES = {
    *("export/conversions.py", "slides/sources/http.py", "slides/sources/store.py", "system/object_stores.py"),
    *("models/runtime/openvino.py", "models/networks/architectures.py", "models/networks/unfilled.py"),
    *("training/history.py", "training/stage.py", "training/trainer.py"),
}
"""Files that hand other libraries keyword arguments or states of theirs as dict[str, Any]."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_values_between_functions_have_types(path: Path) -> None:
    """What is JSON, or was, is a JsonObject; everything else has a class of its own."""
    own = path.relative_to(PACKAGE).as_posix()
    if own == "system/json_values.py" or own in OF_LIBRARIES:
        return
    assert "dict[str, Any]" not in path.read_text(encoding="utf-8")


def test_every_folder_says_what_it_is_for() -> None:
    for folder in {path.parent for path in FILES} - {PACKAGE}:
        tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), f"{folder.name}/__init__.py has no docstring"


def test_no_test_imports_from_another() -> None:
    """What several tests need is in tests/helpers."""
    for path in sorted(PACKAGE.parent.glob("tests/**/test_*.py")):
        taken = {module for module in imports(path) if module.startswith("tests.")}
        assert not {module for module in taken if module.rpartition(".")[2].startswith("test_")}, path


@pytest.mark.parametrize("link", ["models", "cli"])
def test_links_at_the_top_are_for_people(link: str) -> None:
    """`models` and `cli` lead into the package; nothing imports them by these names."""
    for path in [*FILES, *PACKAGE.parent.glob("tests/**/*.py"), *PACKAGE.parent.glob("benchmarks/*.py")]:
        assert not {module for module in imports(path) if module.split(".")[0] == link}, path


def test_help_loads_nothing_heavy() -> None:
    wanted = [
        *(["--help"], *([name, "--help"] for name in COMMANDS)),
        *(["models", "import", "--help"], ["dataset", "check", "--help"]),
    ]
    code = (
        "import sys\n"
        "from wsiseg.cli.main import main\n"
        f"for arguments in {wanted!r}:\n"
        "    try: main(arguments)\n"
        "    except SystemExit as stop: assert not stop.code, stop.code\n"
        "    heavy = {'torch', 'zarr', 'numpy', 'dask', 'openslide', 'lightning'} & set(sys.modules)\n"
        "    assert not heavy, (arguments, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: ") == len(wanted)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, wsiseg; print(sorted({'torch', 'zarr', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
