"""After `compile_for` a search compiles nothing, in processes that begin with none."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from solvers import Budget, QuboBatch, parse_solver
from solvers.registry import BUILT_IN
from solvers.testing import example_batch
from solvers.warming import CORNER, corner, freest_row
from tests.test_architecture import ROOT

OTHERS = (
    *("tabu[subsize=0]", "descent[moves=cyclic]", "klein[polish=cyclic]"),
    *("qbsolv[initial=random]", "sa[float32=false]", "babai[polish=pair-flip]"),
    *("lattice[moves=longer]", "lattice[start=nearest,elites=1]", "large"),
)


def batch(dtype: type, per_weight: bool, pins: bool, n: int = 60) -> QuboBatch:
    """Six rows of correlated inputs."""
    rng = np.random.default_rng(0)
    X = np.cumsum(rng.normal(size=(2 * n, n)), axis=1)
    H = (X.T @ X / (2 * n) + 0.1 * np.eye(n)).astype(dtype)
    scale = rng.uniform(0.5, 1.5, (6, n if per_weight else 1))
    t = rng.random((6, n))
    y = scale * t
    fixed = np.where(rng.random((6, n)) < 0.1, 1, -1).astype(np.int8)
    # The first row has nothing to decide.
    fixed[0] = 0
    return QuboBatch(
        H=H,
        linear=-2 * scale * (y @ H),
        offset=((y @ H) * y).sum(axis=1),
        scale=scale,
        prior=t,
        fixed=fixed if pins else None,
        levels=np.array([np.full((6, n), -4), np.full((6, n), 4)], np.int32),
    )


def overloads() -> set[str]:
    """Kernels of this process with the types that they are compiled for."""
    found = set()
    for name, module in list(sys.modules.items()):
        if name.startswith("solvers.kernels."):
            for kernel in vars(module).values():
                for types in getattr(kernel, "signatures", ()):
                    found.add(f"{name}.{kernel.__name__} {types}")
    return found


def check(text: str) -> None:
    """Print what a search compiles after `compile_for`."""
    large = text == "large"
    solver = parse_solver("lattice" if large else text)
    kinds = [(np.float32, False, True)] if large else [
        (dtype, per_weight, pins)
        for dtype in (np.float32, np.float64)
        for per_weight in (False, True)
        for pins in (False, True)
    ]  # fmt: skip
    for kind in kinds:
        qubo = batch(*kind, 700 if large else 60)
        if solver.name == "exact":
            qubo = qubo.take(slice(0, 3))
        solver.compile_for(qubo)
        before = overloads()
        for budget in (Budget(sweeps=300, threads=2), Budget(seconds=0.1)):
            solver.solve(qubo, budget=budget)
        for kernel in sorted(overloads() - before):
            print(kind, kernel)


@pytest.mark.parametrize("text", [*BUILT_IN, *OTHERS])
def test_everything_is_compiled_before(text):
    command = f"from tests.test_warming import check; check({text!r})"
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_parts():
    qubo = batch(np.float64, True, True)
    row = freest_row(qubo)
    free = qubo.free().sum(axis=1)
    assert row.rows == 1
    assert row.free().sum() == free.max()
    part = corner(qubo)
    assert part.n == CORNER
    assert part.free().all()
    np.testing.assert_array_equal(part.H, qubo.H[:CORNER, :CORNER])
    small = replace(example_batch(2, 5), fixed=None)
    assert corner(small).n == 5
