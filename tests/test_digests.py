"""The digest of code changes with what makes a run, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import digests
from benchmarks.harness.digests import code_digest_of, problem_digest
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from solvers import InputError, QuboBatch, Solver, parse_solver
from tests.misbehaving import Honest

SOURCE = '''"""A solver."""

from solvers.sampling.nearest import Nearest


class Mine(Nearest):
    """Rounds to nearest."""

    name = "mine"

    def search(self, task):
        """Search."""
        return super().search(task)  # as it is
'''


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    code_digest_of.cache_clear()
    yield
    code_digest_of.cache_clear()


@pytest.fixture
def mine(tmp_path: Path) -> Callable[[str], Solver]:
    def made(source: str) -> Solver:
        path = tmp_path / "mine.py"
        path.write_text(source)
        return parse_solver(f"{path}:Mine")

    return made


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("# as it is", "# a comment", True),
        ('"""Search."""', '"""Another docstring."""', True),
        ('        """Search."""\n', "", True),
        ('"""A solver."""', '"""What it is."""', True),
        ("name = ", "\n\n    name  =  ", True),
        ("search(task)  ", "search(task) | 0  ", False),
        ("sampling.nearest import", "sampling.nearest import Floor as Other,", False),
        ('"mine"', '"other"', False),
    ],
)
def test_what_counts_in_a_solver_of_a_file(mine, old, new, same):
    assert old in SOURCE
    before = code_digest_of(mine(SOURCE))
    after = code_digest_of(mine(SOURCE.replace(old, new)))
    assert (before == after) == same
    assert code_digest_of(mine(SOURCE)) == before


@pytest.fixture
def changed(monkeypatch) -> Callable[[str], None]:
    """Makes a module of the project look as if it had been changed."""
    looked_into = digests._looked_into

    def change(name: str) -> None:
        def other(path):
            digest, names = looked_into(path)
            return ("other" if path.as_posix().endswith(name) else digest), names

        monkeypatch.setattr(digests, "_looked_into", other)
        code_digest_of.cache_clear()

    return change


@pytest.mark.parametrize(
    ("solver", "module", "counts"),
    [
        ("sa", "solvers/flips/annealing.py", True),
        ("sa", "solvers/base.py", True),
        ("sa", "solvers/qubo.py", True),
        ("sa", "solvers/kernels/compile.py", True),
        ("sa", "solvers/lattice/search.py", False),
        ("sa", "solvers/flips/tabu.py", False),
        ("sa", "benchmarks/harness/race.py", False),
        ("tabu", "solvers/kernels/tabu.py", True),
        ("tabu", "solvers/kernels/lanes.py", False),
        ("auto", "solvers/lattice/search.py", True),
        ("auto", "solvers/kernels/lanes.py", True),
        ("window[solver=tabu]", "solvers/kernels/tabu.py", True),
        ("window[solver=babai]", "solvers/kernels/tabu.py", False),
        ("dwave-tabu", "benchmarks/peers/base.py", True),
        ("dwave-tabu", "benchmarks/peers/dwave.py", True),
        ("dwave-tabu", "benchmarks/peers/openjij.py", False),
    ],
)
def test_modules_that_a_solver_reaches_count(changed, solver, module, counts):
    before = code_digest_of(parse_solver(solver))
    changed(module)
    assert (code_digest_of(parse_solver(solver)) != before) == counts


def test_modules_that_are_named_count(changed):
    before = code_digest_of(parse_solver("sa"), "benchmarks.harness.race")
    assert before != code_digest_of(parse_solver("sa"))
    changed("benchmarks/harness/race.py")
    assert before != code_digest_of(parse_solver("sa"), "benchmarks.harness.race")


@pytest.mark.parametrize(
    ("solver", "package", "counts"),
    [
        ("sa", "numpy", True),
        ("sa", "numba", True),
        ("sa", "torch", False),
        ("sa", "openjij", False),
        ("sa", "psutil", False),
        ("adaround", "torch", True),
        ("dwave-tabu", "dwave.samplers", True),
        ("openjij-sa", "openjij", True),
    ],
)
def test_versions_of_packages_count(monkeypatch, solver, package, counts):
    if package == "openjij" and counts:
        pytest.importorskip(package)
    before = code_digest_of(parse_solver(solver))
    installed = digests.installed
    monkeypatch.setattr(
        digests, "installed", lambda name: "0" if name == package else installed(name)
    )
    code_digest_of.cache_clear()
    assert (code_digest_of(parse_solver(solver)) != before) == counts


def test_options_and_names_of_files_do_not_count(mine, tmp_path):
    sa = parse_solver("sa"), parse_solver("sa[num_sweeps=3]")
    assert code_digest_of(sa[0]) == code_digest_of(sa[1])
    first = code_digest_of(mine(SOURCE))
    path = tmp_path / "elsewhere.py"
    path.write_text(SOURCE)
    assert code_digest_of(parse_solver(f"{path}:Mine")) == first


def test_solvers_of_other_packages_are_known_by_their_files(monkeypatch):
    assert code_digest_of(Honest()) != code_digest_of(parse_solver("nearest"))
    monkeypatch.delattr("tests.misbehaving.__file__")
    code_digest_of.cache_clear()
    with pytest.raises(InputError, match="misbehaving has no file"):
        code_digest_of(Honest())


def test_problems_are_known_by_their_arrays():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 9))
    problem = RoundingProblem.on_grid(rng.normal(size=(2, 4)), Grid(bits=3), x @ x.T)
    assert problem_digest(problem) == problem.digest
    assert problem_digest(replace(problem, saturated="free")) != problem.digest
    qubo = QuboBatch.from_matrix(np.diag([1.0, 2.0]), [[1.0, 2.0]], 3.0)
    others = [
        replace(qubo, offset=np.array([4.0])),
        replace(qubo, linear=qubo.linear + 1),
        replace(qubo, H=qubo.H.astype(np.float32)),
        replace(qubo, fixed=np.array([[-1, 1]], np.int8)),
    ]
    found = [problem_digest(q) for q in (qubo, *others)]
    assert len(set(found)) == 5
    assert problem_digest(replace(qubo)) == found[0]
