"""Imports go one way, only some modules know torch, and help answers without loading anything."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "wsiseg"

LAYERS = [
    {"errors", "geometry", "classes", "json_values", "addresses"},
    {
        *("slides", "tissue", "tiling", "reading", "blending", "ome", "map_writer", "tissue_map", "annotations"),
        *(
            "bit_mask",
            "class_map",
            "components",
            "sieve",
            "turns",
            "linking",
            "spool",
            "tracing",
            "rings",
            "outlines",
            "polygonize",
            "vectors",
            "geojson",
            "exact_geojson",
            "levels",
            "picture",
            "report",
            "export",
            "stain",
            "planning",
            "map_checks",
            "map_codecs",
            "memory",
            "outputs",
            "background",
            "clock",
            "time_left",
            "journal",
            "unfinished",
            "pieces",
            "piece_writer",
            "shards",
            "halving",
            *("versions", "slide_list", "batch"),
            *("frame", "coverage", "balance", "drawing", "region_measures", "polygon_facts"),
            "dicom_seg",
        ),
        *("printable", "placement", "areas", "map_facts", "map_picture", "map_legend", "map_repr", "conversions"),
        *("white", "edge"),
        "light",
        *("ome_tiff", "ome_zarr_v2"),
    },
    {"models"},
    {"predict_options", "streaming", "map_job", "prediction", "many", "training", "kept_map"},
    {"evaluation"},
    {"cli", "__main__"},
]
"""From the bottom up: a module imports from its own layer and those below it."""

TORCH_USERS = {"models", "map_job", "prediction", "many", "streaming", "training", "evaluation"}


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


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    layer = {name: index for index, names in enumerate(LAYERS) for name in names}
    own = layer[part_of(path)]  # a new module needs a place among the layers
    for module in imports(path):
        package, _, rest = module.partition(".")
        if package == "wsiseg" and rest.split(".")[0] in layer:
            assert layer[rest.split(".")[0]] <= own, f"{path.name} imports {module} from a layer above it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_networks_know_torch(path: Path) -> None:
    if part_of(path) not in TORCH_USERS:
        assert not {module.split(".")[0] for module in imports(path)} & {"torch", "torchvision", "lightning", "timm"}


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["predict", "--help"], ["train", "--help"], ["evaluate", "--help"], ["export", "--help"]),
        *(["models", "import", "--help"], ["dataset", "check", "--help"]),
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from wsiseg.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "print(sorted({'torch', 'zarr', 'numpy', 'dask', 'openslide', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: " in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, wsiseg; print(sorted({'torch', 'zarr', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
