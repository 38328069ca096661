"""Each package names what is public in `__all__`, and none uses what is private to another."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT

import orch_local

PACKAGES = [found.name for found in pkgutil.walk_packages(orch_local.__path__, "orch_local.") if found.ispkg]
SOURCES = sorted((ROOT / "orch_local").rglob("*.py"))


def package_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).parent.parts)


def foreign(package: str, importer: str) -> bool:
    """Whether a module is of this project and of neither the importer's package nor one around it."""
    return package.startswith("orch_local.") and not f"{importer}.".startswith(f"{package}.")


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private_uses(tree: ast.Module, importer: str) -> Iterator[str]:
    """What a module in package ``importer`` takes of others although it begins with an underscore."""
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("orch_local"):
            *above, last = node.module.split(".")
            inside = node.module if node.module in PACKAGES else ".".join(above)
            for alias in node.names:
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                if foreign(inside, importer) and (private(alias.name) or private(last)):
                    yield f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and private(node.attr):
            module = modules.get(node.value.id, "")
            if foreign(module.rpartition(".")[0], importer) and is_module(module):
                yield f"{module}.{node.attr}"


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_the_packages_were_found() -> None:
    assert {"orch_local.cli", "orch_local.deploy.bundle", "orch_local.stats"} <= set(PACKAGES)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_says_what_it_is_for_and_what_is_public(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__doc__
    public = package.__all__
    assert public == sorted(public), "in order"
    assert len(public) == len(set(public))
    folder = ROOT.joinpath(*name.split("."))
    for one in public:
        assert not one.startswith("_")
        assert is_module(f"{name}.{one}") or hasattr(package, one), one
    found = [module.name for module in pkgutil.iter_modules([str(folder)]) if not module.name.startswith("_")]
    if all(is_module(f"{name}.{one}") for one in public):
        assert set(public) <= set(found)


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT / "orch_local")))
def test_no_module_uses_what_is_private_to_another_package(file: Path) -> None:
    assert not list(private_uses(ast.parse(file.read_text(encoding="utf-8")), package_of(file)))


@pytest.mark.parametrize(
    ("importer", "source", "found"),
    [
        ("orch_local.cli", "from orch_local.store.rows import _read", ["orch_local.store.rows._read"]),
        ("orch_local.store", "from orch_local.store.rows import _read", []),
        ("orch_local.cli", "from orch_local.store._rows import read", ["orch_local.store._rows.read"]),
        ("orch_local.cli", "from orch_local.store import rows\nrows._r()", ["orch_local.store.rows._r"]),
        ("orch_local.cli", "from orch_local.store.store import Store\nStore.__doc__", []),
        ("orch_local.deploy.bundle", "from orch_local.deploy._x import y", []),
    ],
)
def test_the_check_sees_it(importer: str, source: str, found: list[str]) -> None:
    assert list(private_uses(ast.parse(source), importer)) == found


FILE_LINES, FUNCTION_LINES, PARAMETERS, OPTIONS = 350, 60, 6, 8
"""The most lines of a file and of a function, and the most parameters: of a function, and of a command."""


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_and_functions_stay_short(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= FILE_LINES
    most = OPTIONS if file.parent.name == "cli" else PARAMETERS
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES, node.name
            names = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            assert len([name for name in names if name not in ("self", "cls")]) <= most, node.name
