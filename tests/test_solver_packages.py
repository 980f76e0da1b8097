"""Packages whose modules' solvers are found by their names."""

from __future__ import annotations

import importlib
import pickle
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest

from solvers import registry
from solvers.base import Solver, Task
from solvers.errors import UnknownNameError
from solvers.qubo import States
from solvers.registry import (
    BUILT_IN,
    available,
    broken,
    label,
    parse_solver,
    solver_class,
)


@dataclass(frozen=True, kw_only=True)
class Plugin(Solver):
    name: ClassVar[str] = "plugin"

    def search(self, task: Task) -> States:
        return task.start


SOLVER = """
from dataclasses import dataclass
from typing import ClassVar
from solvers.base import Solver

@dataclass(frozen=True, kw_only=True)
class {cls}(Solver):
    name: ClassVar[str] = "{name}"
    depth: int = 3

    def search(self, task):
        return task.start
"""


@pytest.fixture
def package(tmp_path, monkeypatch, install):
    """Write a module of a package of solvers; the package is called by the test."""
    name = f"solvers_of_{tmp_path.name}".replace("-", "_")
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    install(package=name)

    def write(module: str, source: str) -> str:
        (folder / f"{module}.py").write_text(source)
        importlib.invalidate_caches()
        return f"{name}.{module}"

    return write


class TestPackages:
    def test_a_solver_is_one_file(self, package):
        assert available() == list(BUILT_IN)
        module = package("mine", SOLVER.format(cls="Mine", name="mine"))
        assert available() == [*BUILT_IN, "mine"]
        assert broken() == {}
        mine = parse_solver("mine[depth=5]")
        assert (type(mine).__module__, mine.depth) == (module, 5)
        assert label(mine) == "mine[depth=5]"
        assert pickle.loads(pickle.dumps(mine)) == mine
        with pytest.raises(UnknownNameError, match=r"'mien'; .* mine"):
            parse_solver("mien")

    def test_what_is_no_solver_of_the_module_is_skipped(self, package):
        base = SOLVER.format(cls="Base", name="base").replace("search", "seek")
        other = "from solvers.sampling.nearest import Floor\n"
        private = SOLVER.format(cls="_Private", name="private")
        package("base", base + other + private + "Again = Base\n")
        package("_hidden", SOLVER.format(cls="Hidden", name="hidden"))
        first, second = (SOLVER.format(cls=name.upper(), name=name) for name in "ba")
        package("two", first + second)
        assert available() == [*BUILT_IN, "a", "b"]
        assert broken() == {}

    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            ("import no_such_package\n", "module .*bad: ModuleNotFoundError: No"),
            ("import sys\nsys.exit('tired')\n", "module .*bad: SystemExit: tired"),
            ("def f(:\n", "module .*bad: SyntaxError"),
            (SOLVER.format(cls="Sa", name="sa"), "'sa' of .*bad:Sa left out: the name"),
            (SOLVER.format(cls="Two", name="good"), "'good' of .*:Good left out: the"),
            (
                SOLVER.format(cls="N", name="n").replace("name:", "no:"),
                ".*bad:N has no name",
            ),
        ],
    )
    def test_a_broken_module_costs_only_itself(self, package, source, reason):
        package("bad", source)
        package("good", SOLVER.format(cls="Good", name="good"))
        with pytest.warns(UserWarning, match=f"solver {reason}") as caught:
            names = available()
        assert names == [*BUILT_IN, "good"]
        (warning,) = caught
        assert "\n" not in str(warning.message)
        assert len(broken()) == 1
        assert parse_solver("good").name == "good"

    def test_who_misses_a_solver_is_told_what_is_broken(self, package):
        package("bad", "import no_such_package\n")
        with (
            pytest.warns(UserWarning, match=r"solver module .*bad: ModuleNotFoundErr"),
            pytest.raises(UnknownNameError),
        ):
            parse_solver("bad")

    def test_a_package_that_is_not_there(self, install):
        install(package="no_such_package", plugin=f"{__name__}:Plugin")
        with pytest.warns(UserWarning, match="solver package no_such_package: Module"):
            assert available() == [*BUILT_IN, "plugin"]
        assert list(broken()) == ["no_such_package"]

    def test_names_built_in_import_no_module(self, package):
        module = package("loud", "raise AssertionError\n")
        for name in BUILT_IN:
            solver_class(name)
        assert module not in sys.modules
        assert module.partition(".")[0] not in sys.modules

    def test_a_single_class_comes_first(self, install, package):
        package("mine", SOLVER.format(cls="Mine", name="plugin"))
        point = EntryPoint("plugin", f"{__name__}:Plugin", registry.GROUP)
        points = registry.entry_points
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(
                registry,
                "entry_points",
                lambda *, group: (
                    [point] if group == registry.GROUP else points(group=group)
                ),
            )
            assert solver_class("plugin") is Plugin
            assert "left out: the name is taken" in " ".join(broken().values())

    def test_the_peers_are_found(self):
        peers = [name for name in available() if name not in BUILT_IN]
        assert {"dwave-tabu", "openjij-sa", "qubolite-descent"} <= set(peers)
        assert peers == sorted(peers)
