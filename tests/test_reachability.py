"""Nothing in the package is for tests alone: what no verb, job or recipe reaches is no feature."""

import ast
import os
from collections.abc import Iterator
from functools import cache

import mvpose

PACKAGE = os.path.dirname(os.path.abspath(mvpose.__file__))
REPOSITORY = os.path.dirname(PACKAGE)
STARTS = ("mvpose.cli", "mvpose.__main__")
SHARED = {"mvpose/scenes.py"}
"""Synthetic people for benchmarks and tests."""


def sources(*folders: str) -> Iterator[str]:
    for folder in folders:
        for place, _, names in os.walk(os.path.join(REPOSITORY, folder)):
            yield from (os.path.join(place, name) for name in names if name.endswith(".py"))


def parsed(path: str) -> ast.Module:
    with open(path, encoding="utf-8") as file:
        return ast.parse(file.read())


@cache
def modules() -> dict[str, str]:
    """File of each module of the package."""
    found = {}
    for path in sources("mvpose"):
        name = os.path.relpath(path, REPOSITORY).removesuffix(".py").replace(os.sep, ".")
        found[name.removesuffix(".__init__")] = path
    return found


def mentioned(tree: ast.Module) -> Iterator[str]:
    """Modules that a file imports, anywhere in it, or names as `package.module:name` or by the name of their file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("mvpose."):
            yield node.value.partition(":")[0]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(".py"):
            yield from (name for name, path in modules().items() if os.path.basename(path) == node.value)


def test_every_module_is_reached_by_a_verb_or_a_job():
    files = modules()
    # A verb's module is imported by the name of the verb.
    reached, waiting = set(), [*STARTS, *(name for name in files if name.startswith("mvpose.commands."))]
    for path in sources("jobs", "cluster", "mlflow"):
        waiting += mentioned(parsed(path))
    while waiting:
        name = waiting.pop()
        if name in files and name not in reached:
            reached.add(name)
            waiting += mentioned(parsed(files[name]))
    packages = {name for name, path in files.items() if path.endswith("__init__.py")}
    alone = {os.path.relpath(files[name], REPOSITORY) for name in set(files) - reached - packages}
    assert not alone
    assert "mvpose.geometry.kernels.cuda" in reached, "imports within functions count"


def test_every_public_name_is_used_outside_of_tests():
    """By name: a function, class or constant that the package defines and mentions nowhere else is for tests alone."""
    defined: dict[str, str] = {}
    used: set[str] = set()
    for path in sources("mvpose", "jobs", "cluster", "mlflow"):
        tree = parsed(path)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                defined[node.name] = os.path.relpath(path, REPOSITORY)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                used.add(node.id)
            elif isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                used |= set(node.value.replace(":", ".").split("."))
    alone = sorted(f"{path}: {name}" for name, path in defined.items() if name not in used and path not in SHARED)
    assert not alone, "\n".join(alone)
