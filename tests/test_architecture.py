"""The house rules that a machine can check: who imports whom, where heavy libraries live, how large things grow."""

import ast
import importlib.util
import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGE = os.path.join(REPOSITORY, "mvpose")
TOP_FOLDERS = {"jobs", "mvpose", "cluster", "tests", "mlflow"}
TOP_FILES = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", "constraints.txt"}

# From the ground up. A module imports from its own layer's package and from the layers below, never from above, and
# never from a sibling on its own layer.
LAYERS = [
    {"errors"},
    {"geometry", "config", "accelerator", "confidence"},
    {"skeleton"},
    {"records"},
    {"capture"},
    {"heatmaps", "images", "losses", "metrics"},
    {"device_images"},
    {"storage"},
    {"ray_session"},
    {"models"},
    {"reconstruction"},
    {"temporal"},
    {"rigs"},
    {"quality"},
    {"scenes"},
    {"footage"},
    {"run"},
    {"exchange"},
    {"datasets"},
    {"rendering"},
    {"tracking"},
    {"report", "training"},
    {"pipeline", "evaluation"},
    {"serving"},
    {"benchmarks"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
# `mvpose.config` is knowledge of settings alone and may be read from anywhere.
ANYWHERE = {"config"}

HOMES = {
    "av": ["footage.video"],
    "pyarrow": ["footage", "run", "pipeline", "datasets"],
    "fsspec": ["storage"],
    "s3fs": ["storage"],
    "onnxruntime": ["models.detection.runtime"],
    "openvino": ["models.detection.runtime"],
    "mlflow": ["tracking", "serving"],
    "ray": ["ray_session", "pipeline", "training"],
    "ray.data": ["ray_session", "pipeline", "training"],
    "ray.train": ["training"],
    "ray.tune": ["training"],
    "matplotlib": ["report"],
    "numba": ["geometry.kernels"],
    "triton": ["geometry.kernels"],
    "moderngl": ["rendering"],
    "tyro": ["commands", "cli"],
}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "core", "base", "manager"}


@cache
def _modules() -> list[tuple[str, ast.Module, str]]:
    """(dotted name below mvpose, tree, path) of every module."""
    return list(_parsed())


def _parsed() -> Iterator[tuple[str, ast.Module, str]]:
    for folder, _, files in sorted(os.walk(PACKAGE)):
        for file in sorted(files):
            if file.endswith(".py"):
                path = os.path.join(folder, file)
                name = os.path.relpath(path, PACKAGE)[:-3].replace(os.sep, ".").removesuffix("__init__").rstrip(".")
                with open(path) as source:
                    yield name, ast.parse(source.read()), path


@cache
def _nodes(tree: ast.Module) -> list[ast.AST]:
    return list(ast.walk(tree))


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in _nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _layer(part: str) -> int:
    found = [i for i, names in enumerate(LAYERS) if part in names]
    assert found, f"mvpose/{part} has no layer: give it one here, and in the docstring of what it is for"
    return found[0]


def test_imports_run_downwards_only():
    wrong = []
    for name, tree, path in _modules():
        own = name.split(".")[0]
        for target in _imports(tree):
            if not own or not target.startswith("mvpose."):
                continue
            part = target.split(".")[1]
            if part != own and part not in ANYWHERE and _layer(part) >= _layer(own):
                wrong.append(f"{os.path.relpath(path, REPOSITORY)} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_heavy_libraries_stay_at_home():
    wrong = []
    for name, tree, path in _modules():
        for target in _imports(tree):
            for library, homes in HOMES.items():
                if (target == library or target.startswith(f"{library}.")) and not any(
                    name == home or name.startswith(f"{home}.") for home in homes
                ):
                    wrong.append(f"{os.path.relpath(path, REPOSITORY)} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_geometry_and_models_touch_no_cluster_and_no_files_but_weights():
    for name, tree, path in _modules():
        if name.split(".")[0] in {"geometry", "models"}:
            outside = {t.split(".")[0] for t in _imports(tree)} & {"ray", "mlflow", "fsspec", "pyarrow", "av"}
            assert not outside, f"{path} imports {outside}"


def test_files_stay_under_400_lines_and_functions_under_60():
    large = []
    for _, tree, path in _modules():
        with open(path) as source:
            lines = len(source.readlines())
        if lines > 400:
            large.append(f"{os.path.relpath(path, REPOSITORY)}: {lines} lines")
        functions = [node for node in _nodes(tree) if isinstance(node, ast.FunctionDef)]
        large += [
            f"{os.path.relpath(path, REPOSITORY)}:{f.lineno} {f.name}: {size} lines"
            for f in functions
            if (size := (f.end_lineno or f.lineno) - f.lineno + 1) > 60
        ]
    assert not large, "\n".join(large)


def test_a_file_is_as_large_as_its_idea():
    sizes = {}
    for _, _, path in _modules():
        if os.path.basename(path) != "__init__.py":
            with open(path) as source:
                sizes[path] = len(source.readlines())
    small = sorted(path for path, lines in sizes.items() if lines < 40)
    assert len(small) <= 5, f"merge some of these into the file that they serve: {small}"
    assert 90 <= statistics.median(sizes.values()) <= 160


def test_functions_are_short():
    functions = [n for _, tree, _ in _modules() for n in _nodes(tree) if isinstance(n, ast.FunctionDef)]
    assert statistics.median((f.end_lineno or f.lineno) - f.lineno + 1 for f in functions) <= 12


def test_no_two_files_and_no_two_classes_share_a_name():
    files = Counter(os.path.basename(path) for _, _, path in _modules())
    del files["__init__.py"]
    classes = Counter(n.name for _, tree, _ in _modules() for n in _nodes(tree) if isinstance(n, ast.ClassDef))
    assert [name for name, count in (files + classes).items() if count > 1] == []


def test_no_module_is_named_after_nothing():
    for name, _, path in _modules():
        assert not FORBIDDEN_NAMES & set(name.split(".")), path


# Where code of others is called: a detector of the user's own may raise anything, and it has to cost one clip alone.
BORDERS = [("pipeline.worker", "_outcome")]


def test_errors_are_never_caught_blindly_but_at_the_border_to_code_of_others():
    borders = []
    for name, tree, path in _modules():
        inside = {
            id(handler): function.name
            for function in _nodes(tree)
            if isinstance(function, ast.FunctionDef)
            for handler in ast.walk(function)
        }
        for node in _nodes(tree):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                if caught == "Exception":
                    borders.append((name, inside.get(id(node), "")))
                assert caught not in {"everything", "BaseException"}, f"{path}:{node.lineno}"
    assert borders == BORDERS


def test_the_top_folder_holds_what_the_design_names():
    shown = {entry for entry in os.listdir(REPOSITORY) if not entry.startswith(".")}
    made_here = {"demo", "mlflow.db", "mlartifacts", "tracking", "dist", "mvpose.egg-info"}
    assert shown - made_here <= TOP_FOLDERS | TOP_FILES
    assert shown >= TOP_FOLDERS | TOP_FILES


@pytest.mark.parametrize("folder", ["mlflow", "cluster"])
def test_folders_of_services_hold_no_python(folder):
    files = [f for _, _, files in os.walk(os.path.join(REPOSITORY, folder)) for f in files]
    assert files and not [f for f in files if f.endswith(".py")]


def test_the_mlflow_folder_does_not_shadow_the_library():
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None and spec.origin is not None
    assert not os.path.abspath(spec.origin).startswith(os.path.join(REPOSITORY, "mlflow"))


def test_heavy_libraries_are_imported_by_what_needs_them_alone():
    """Fails if a worker of a job imports torch before its stages do, or geometry and networks their compilers."""
    code = (
        "import sys, mvpose.pipeline.worker, mvpose.pipeline.open_work; print('torch' in sys.modules)\n"
        "import mvpose.geometry.robust, mvpose.models.volumes.volumetric; print({'numba', 'triton'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.splitlines() == ["False", "set()"]
