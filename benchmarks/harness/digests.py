"""Digests by which runs are recognised: of the problem, and of the code that runs."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

from benchmarks.harness.environment import installed
from qubo_rounding.problem import RoundingProblem, file
from solvers import InputError, QuboBatch, Solver
from solvers.composed.window import Window

# The packages of this project, whose modules are looked into.
OWN = ("solvers", "qubo_rounding", "benchmarks")
# Imported packages that compute nothing, so that their versions decide no answer.
BESIDE = ("tqdm", "psutil", "threadpoolctl")


def problem_digest(problem: RoundingProblem | QuboBatch) -> str:
    """SHA-256 over all arrays that define a problem."""
    if isinstance(problem, RoundingProblem):
        return problem.digest
    named = {field.name: getattr(problem, field.name) for field in fields(problem)}
    return file.digest({k: v for k, v in named.items() if v is not None}, "")


@cache
def code_digest_of(solver: Solver, *modules: str) -> str:
    """A hash of the code that makes a solver's runs.

    Parameters
    ----------
    solver
        The solver, whose module counts; of one that wraps another, the latter's too,
        and of another package's sampler that package's version.
    modules
        Names of modules that have a part in the runs beside the solver.

    Raises
    ------
    InputError
        The solver's class is defined in no file.
    """
    package = getattr(solver, "package", None)
    version = None if package is None else installed(package)
    code = modules_digest(*_modules_of(solver), *modules)
    told = repr((code, package, version))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def modules_digest(*modules: str) -> str:
    """A hash of modules, and of what they import.

    All modules of this project count that they reach by imports, and the versions of
    other packages that any of these import. Comments, docstrings and layout do not
    count, and neither do other modules.
    """
    reached: dict[str, str] = {}
    packages: set[str] = set()
    todo = [*modules]
    while todo:
        module = todo.pop()
        if module in reached:
            continue
        reached[module], imported = _looked_into(_path(module))
        for name in imported:
            if name.partition(".")[0] in OWN:
                todo.append(_defined_in(name))
            else:
                packages.add(name.partition(".")[0])
    told = sorted((_stable(name), digest) for name, digest in reached.items())
    told += _versions(packages)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _modules_of(solver: Solver) -> Iterator[str]:
    """The modules of a solver's class and of the solver that it wraps."""
    yield type(solver).__module__
    if isinstance(solver, Window):
        yield from _modules_of(solver.inner)


def _stable(module: str) -> str:
    """A module's name; of one from a file, whose name changes with its text, none."""
    return module if module.partition(".")[0] in OWN else ""


def _path(module: str) -> Path:
    """The file of a module, which need not be there if the module is this project's."""
    top, *rest = module.split(".")
    if top not in OWN:
        file = getattr(sys.modules[module], "__file__", None)
        if file is None:
            raise InputError(f"module {module} has no file: its code cannot be told")
        return Path(file)
    spec = find_spec(top)
    assert spec is not None
    assert spec.origin is not None
    place = Path(spec.origin).parent.joinpath(*rest)
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _defined_in(name: str) -> str:
    """The module that defines what is imported as `name`, a dotted name.

    What a package shows under a name of its own is looked up where it comes from, so
    that the package's other names are not reached.
    """
    if _path(name).is_file():
        return name
    package, _, attribute = name.rpartition(".")
    return _shown_by(_path(package)).get(attribute, package)


@cache
def _shown_by(path: Path) -> dict[str, str]:
    """Where the names come from that the module of a package imports."""
    if path.name != "__init__.py":
        return {}
    tree = ast.parse(path.read_bytes())
    return {
        alias.asname or alias.name: _defined_in(f"{node.module}.{alias.name}")
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").partition(".")[0] in OWN
        for alias in node.names
    }


def _looked_into(path: Path) -> tuple[str, tuple[str, ...]]:
    """A hash of a module's statements, and the dotted names that it imports."""
    # The file of a solver may have changed since it was looked into.
    return _parsed(path.read_bytes())


@cache
def _parsed(source: bytes) -> tuple[str, tuple[str, ...]]:
    """What `_looked_into` gives, of a module's text."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and isinstance(ast.get_docstring(node, clean=False), str):
            del node.body[0]
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return digest, tuple(_imported(tree))


def _imported(node: ast.AST) -> Iterator[str]:
    """Dotted names of what is imported below a node, the type checker's apart."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.level == 0:
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from _imported(other)
        else:
            yield from _imported(child)


def _versions(packages: set[str]) -> list[tuple[str, str]]:
    """Names and versions of the distributions that hold the packages."""
    known = _distributions()
    names = {name for package in packages for name in known.get(package, ())}
    return [(name, installed(name) or "") for name in sorted(names - {*BESIDE})]


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())
