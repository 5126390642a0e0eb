"""The rules of the house that a reader relies on: one op, one name; dependencies point downward."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "neurokern"

# A module may import from its own layer and from those to the right of it.
LAYERS = [
    {"cli", "report", "__main__"},
    {"training", "evaluation", "adapters", "encoding", "alignment", "hub"},
    {"models", "datasets", "extractors", "samples", "metrics", "checkpoint"},
    {"ops"},
    {"_core", "_cuda", "_check", "_config", "_environment", "_hub_methods"},
]
# The one way up: `model.save_pretrained(...)` is a method by custom, and calls the package above when asked.
UPWARD = {"_hub_methods": {"hub"}}


def ops() -> list[str]:
    listed = re.search(r"set\(NEUROKERN_OPS([^)]*)\)", (ROOT / "CMakeLists.txt").read_text())
    assert listed is not None
    return listed[1].split()


def test_the_build_lists_every_folder_of_kernels():
    folders = {path.name for path in (ROOT / "csrc").iterdir() if path.is_dir()} - {"common"}
    assert folders == set(ops())


@pytest.mark.parametrize("op", ops())
@pytest.mark.parametrize(
    "place",
    [
        "csrc/{op}/{op}.h",
        "csrc/{op}/{op}_body.h",
        "csrc/{op}/{op}_cpu.cpp",
        "csrc/{op}/{op}_cuda.cu",
        "csrc/{op}/{op}_bind.cpp",
        "python/neurokern/ops/{op}.py",
        "tests/ops/test_{op}.py",
        "benchmarks/ops/bench_{op}.py",
    ],
)
def test_an_op_has_one_name_in_every_layer(op, place):
    assert (ROOT / place.format(op=op)).is_file()


def imports(path: Path) -> set[str]:
    """First names below ``neurokern`` that a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module == "neurokern":
                found |= {alias.name for alias in node.names}
            elif node.module.startswith("neurokern."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("neurokern.")}
    return found


def layer(name: str) -> int | None:
    return next((depth for depth, names in enumerate(LAYERS) if name in names), None)


MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py"
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_dependencies_point_downward(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    depth = layer(own)
    assert depth is not None, f"{own} has no place in LAYERS"
    upward = {name for name in imports(path) if (layer(name) if layer(name) is not None else depth) < depth}
    upward -= UPWARD.get(own, set())
    assert not upward, f"{own} must not import {sorted(upward)}"
    if own == "ops":
        assert imports(path) <= {"ops", "_check", "_core", "_cuda"}


def test_packages_are_attributes_that_load_on_first_use():
    program = (
        "import neurokern, sys; assert 'torch' not in sys.modules; print(neurokern.ops.bin_spikes.__name__)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.stdout == "bin_spikes\n", run.stderr
