"""The house rules that a machine can hold: directions, import cost, sizes, markers."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import qubo_rounding
from solvers.errors import InputError
from solvers.qubo import QuboBatch

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("benchmarks", "qubo_rounding", "solvers")
SOURCES = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))

# The rooms of the house from the ground up: what lies in a room may import from that
# room and from those of earlier floors, never from another room of its own floor.
# A package's name stands for the modules at its top. The doors on the roof are left
# out: they show what is below under public names.
FLOORS = (
    ("solvers.kernels",),
    ("solvers",),
    (
        "solvers.sampling",
        "solvers.flips",
        "solvers.decoders",
        "solvers.relaxations",
        "solvers.io",
    ),
    ("solvers.lattice", "solvers.proofs"),
    ("solvers.composed",),
    ("qubo_rounding.problem",),
    ("qubo_rounding.network",),
    ("qubo_rounding.network.whole",),
    ("qubo_rounding.network.export", "benchmarks.stats"),
    ("benchmarks.harness", "benchmarks.peers"),
    ("benchmarks.library", "benchmarks.report"),
    ("benchmarks",),
    ("benchmarks.commands", "benchmarks.studies"),
    ("benchmarks.regression",),
)
DOORS = {
    "solvers/__init__.py",
    "qubo_rounding/__init__.py",
    "qubo_rounding/grid.py",
    "benchmarks/__main__.py",
    "benchmarks/run.py",
}
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# The room of networks; everything else must stay importable without torch.
TORCH_ROOM = "qubo_rounding.network"
# All that `solvers` may need when it is imported.
SOLVERS_AT_IMPORT = {"numpy", "scipy", "solvers"} | sys.stdlib_module_names
# llvmlite is numba's own.
SOLVERS_AT_IMPORT |= {"numba", "llvmlite"}

MAX_LINES = 450


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def _imports(node: ast.AST, *, at_import: bool) -> Iterator[str]:
    """Dotted names of what is imported below `node`.

    ``from a import b`` gives a.b, which may be a module or not. Nothing that is there
    for the type checker alone; with `at_import` only what runs when the module is
    imported, no function bodies.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.level == 0:
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif _is_type_checking(child):
            assert isinstance(child, ast.If)
            for other in child.orelse:
                yield from _imports(ast.Module([other], []), at_import=at_import)
        elif not (
            at_import
            and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        ):
            yield from _imports(child, at_import=at_import)


def _imported(path: Path, *, at_import: bool) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"), path)
    return set(_imports(tree, at_import=at_import))


def _packages(path: Path) -> set[str]:
    """Top-level packages that are imported when the module is."""
    return {name.split(".")[0] for name in _imported(path, at_import=True)}


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(path): path for path in SOURCES}


def _ours(path: Path) -> set[str]:
    """This project's modules that a module imports anywhere, the type checker apart."""
    names = _imported(path, at_import=False)
    found = {n if n in MODULES else n.rpartition(".")[0] for n in names}
    return found & (MODULES.keys() | {"tests", "data"})


def _room(module: str) -> str:
    is_package = MODULES[module].name == "__init__.py"
    return module if is_package else module.rpartition(".")[0]


def _tracked_texts() -> dict[str, str]:
    """Every text file that is, or could be, committed."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: what is tracked is unknown")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    texts = {}
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            content = path.read_bytes()
            if b"\0" not in content:
                texts[name] = content.decode("utf-8")
    return texts


def _lines_with(pattern: str, texts: dict[str, str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:80]}"
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line)
    ]


def test_the_reader_of_imports_sees_what_it_should() -> None:
    source = """
import a.b
from c.d import e
from . import own
if TYPE_CHECKING:
    import f
else:
    import g
try:
    import h
except ImportError:
    pass
class K:
    import i
    def method(self):
        import j
"""
    tree = ast.parse(source)
    assert set(_imports(tree, at_import=True)) == {"a.b", "c.d.e", "g", "h", "i"}
    assert set(_imports(tree, at_import=False)) == {"a.b", "c.d.e", *"ghij"}


def test_every_module_is_in_a_room() -> None:
    assert {_room(m) for m, p in MODULES.items() if _name(p) not in DOORS} == {*FLOOR}


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if _name(p) not in DOORS], ids=_name
)
def test_imports_run_one_way(path: Path) -> None:
    room = _room(_module(path))
    others = {_room(module) for module in _ours(path)} - {room}
    assert [other for other in others if FLOOR[other] >= FLOOR[room]] == []


def test_there_is_no_circle() -> None:
    # Imports inside functions count, too.
    graph = {m: _ours(p) - {m} for m, p in MODULES.items() if _name(p) not in DOORS}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_torch_is_imported_only_where_networks_are(path: Path) -> None:
    if not _room(_module(path)).startswith(TORCH_ROOM):
        assert not _packages(path) & {"torch", "torchvision"}


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if _name(p).startswith("solvers/")], ids=_name
)
def test_solvers_import_optional_packages_inside_functions(path: Path) -> None:
    assert _packages(path) <= SOLVERS_AT_IMPORT


def _modules_after(statement: str) -> tuple[set[str], float]:
    """Modules a fresh process holds after `statement`, and its processor seconds."""
    code = f"{statement}\nimport sys, time\nprint(time.process_time(), *sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seconds, *modules = done.stdout.split()
    return set(modules), float(seconds)


def test_importing_solvers_is_light_and_fast() -> None:
    """Light: the standard library, numpy, and modules of its own without kernels."""
    numpys, _ = _modules_after("import numpy")
    modules, _ = _modules_after("import solvers")
    others = {name.split(".")[0] for name in modules - numpys}
    assert others <= {"solvers", "numpy"} | sys.stdlib_module_names
    assert not any(name.startswith("solvers.kernels") for name in modules)
    # Other load on the machine can only slow it down, so the fastest of a few is fair.
    alone, ours = (
        min(_modules_after(f"import {name}")[1] for _ in range(3))
        for name in ("numpy", "solvers")
    )
    assert ours < 4 * alone


@pytest.mark.parametrize(
    "statement",
    [
        "import qubo_rounding.grid",
        "import qubo_rounding.problem",
        "from qubo_rounding import Grid, RoundingProblem",
    ],
)
def test_problems_are_built_without_torch(statement: str) -> None:
    modules, _ = _modules_after(statement)
    assert "torch" not in modules


def test_public_names_are_imported_when_they_are_asked_for() -> None:
    assert set(qubo_rounding.__all__) <= set(dir(qubo_rounding))
    for name in qubo_rounding.__all__:
        assert getattr(qubo_rounding, name).__name__ == name
    with pytest.raises(AttributeError, match="'qubo_rounding' has no attribute 'Grdi'"):
        qubo_rounding.Grdi  # noqa: B018


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("solvers.base", ("Solution", "Solver", "Task")),
        ("solvers.budget", ("Budget", "Monitor")),
        ("solvers.descent", ("descend",)),
        ("solvers.errors", ("InputError", "UnknownNameError")),
        ("solvers.qubo", ("QuboBatch",)),
        ("solvers.registry", ("available", "label", "parse_solver")),
        ("solvers.testing", ("check_solver",)),
        ("qubo_rounding.grid", ("Encoding", "Grid")),
        ("qubo_rounding.problem", ("Moments", "RoundingProblem")),
        ("qubo_rounding", ("Parts", "quantize_network", "export_onnx")),
    ],
)
def test_public_names_stay_where_they_were(module: str, names: tuple[str, ...]) -> None:
    assert all(hasattr(import_module(module), name) for name in names)


def test_modules_are_small() -> None:
    sizes = {
        name: text.count("\n")
        for name, text in _tracked_texts().items()
        if name.endswith(".py")
    }
    assert "solvers/qubo.py" in sizes
    assert {n: size for n, size in sizes.items() if size > MAX_LINES} == {}


def test_the_design_page_names_every_room() -> None:
    page = (ROOT / "docs" / "design.md").read_text("utf-8")
    assert [room for room in FLOOR if f"`{room.replace('.', '/')}/`" not in page] == []


def test_nothing_unfinished_and_no_path_of_one_machine() -> None:
    texts = _tracked_texts()
    # The patterns do not match themselves.
    assert _lines_with(r"\b(?:TO[D]O|FIX[M]E|X[X]X)\b", texts) == []
    assert _lines_with(r"(?<![\w.])/(?:work|tmp|root|home)/\w", texts) == []


def test_one_line_knows_where_real_data_may_lie() -> None:
    found = _lines_with(r"\.\./shared", _tracked_texts())
    assert [line.split(":")[0] for line in found] == [".ci/run"]


def test_the_solver_that_contributing_shows_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    module = ModuleType("foo_of_contributing")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(source, module.__dict__)
    qubo = QuboBatch.from_matrix(np.diag([1.0, -2.0, 3.0, -4.0]))
    solution = module.Foo(samples=200).solve(qubo, seed=1)
    assert solution.states.tolist() == [[0, 1, 0, 1]]
    with pytest.raises(InputError, match="samples must be at least 1"):
        module.Foo(samples=0)
