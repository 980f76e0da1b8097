"""Kernels on fixed states, without the solvers around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import process_time
from typing import Any

import numpy as np
import pytest

from benchmarks.regression.problems import problem
from benchmarks.regression.tolerances import EXACT, RELAXED, SEARCH
from solvers import QuboBatch
from solvers.decoders.factor import binary_targets, factorise
from solvers.flips.tabu import Tabu
from solvers.flips.tabu_walk import TabuWalk
from solvers.kernels import flips, relaxation, tabu_rounds
from solvers.kernels.tabu_state import Pool
from solvers.polish import MOVES, descend
from solvers.qubo import States
from solvers.relaxations.adam import (
    Quadratic,
    Relaxation,
    padded,
    typical_curvature,
    zeros_like,
)
from solvers.testing import reference_energies
from solvers.walk import Walk

SEED = 1


@dataclass(frozen=True)
class Kernel:
    """``work(*prepare())``, whose result `judge` turns into energies [R] and counts."""

    prepare: Callable[[], tuple[Any, ...]]
    work: Callable[..., Any]
    judge: Callable[[Any], tuple[Any, dict[str, int]]]
    tolerance: float = EXACT


def energies(qubo: QuboBatch) -> Kernel:
    """Energies of 50 random states per row."""
    states = _random(qubo, 50)
    return Kernel(lambda: (states,), qubo.energies, lambda energies: (energies, {}))


def fields(qubo: QuboBatch) -> Kernel:
    """Local fields of 10 states per row, and the energies that follow from them."""
    walk, states = Walk.at(qubo, qubo.nearest(), 1, np.float64), _random(qubo, 10)

    def work() -> Any:
        energies = []
        for k in range(states.shape[1]):
            walk.move_to(qubo, states[:, k])
            energies.append(walk.energy)
        return energies

    return Kernel(tuple, work, lambda energies: (energies, {}))


def anneal(qubo: QuboBatch) -> Kernel:
    """Metropolis sweeps in float32 at the temperatures of a good anneal."""
    cost = np.median(
        Walk.at(qubo, descend(qubo, qubo.nearest()), 1, np.float64).flip_costs()
    )
    beta = np.tile(np.geomspace(3, 30, 50) / cost, (qubo.rows, 1))

    def prepare() -> tuple[Any, ...]:
        walk = Walk.at(qubo, qubo.nearest(), 1, np.float32)
        return walk, walk.z.copy(), walk.energy.copy(), _streams(qubo)

    def work(walk: Walk, best: Any, best_energy: Any, rng: Any) -> Any:
        flips.anneal(
            walk.H,
            walk.z,
            walk.u,
            walk.q,
            walk.energy,
            best,
            best_energy,
            beta,
            rng,
            walk.flips,
        )
        return (best[:, : qubo.n] < 0).astype(np.uint8), int(walk.flips.sum())

    return _of_states(qubo, prepare, work, ("flips",), SEARCH)


def descents(moves: str) -> Callable[[QuboBatch], Kernel]:
    """A maker of cases: descents with the given moves from random states."""

    def make(qubo: QuboBatch) -> Kernel:
        start = _random(qubo, 1)[:, 0]

        def work() -> Any:
            return (descend(qubo, start, moves),)

        return _of_states(qubo, tuple, work)

    return make


def factor(qubo: QuboBatch) -> Kernel:
    """The order of decision by least pivots, and the factor in it."""

    def judge(factor: Any) -> tuple[Any, dict[str, int]]:
        return [2 * np.log(factor.upper.diagonal()).sum()], {}

    return Kernel(tuple, lambda: factorise(qubo.H, damping=0.02), judge)


def k_best(qubo: QuboBatch) -> Kernel:
    """Decoding with 64 paths; the factor is computed before."""
    targets = binary_targets(qubo, factorise(qubo.H, damping=0.02))
    return _of_states(qubo, tuple, lambda: (targets.k_best(64),))


def tabu(qubo: QuboBatch) -> Kernel:
    """Tabu runs with path relinking and parts: 50 n flips per row."""
    options, (rows, n) = Tabu(), (qubo.rows, qubo.n)
    rules, shared = options.rules(n), TabuWalk.at(qubo, qubo.nearest())

    def prepare() -> tuple[Any, ...]:
        walk = TabuWalk.at(qubo, qubo.nearest())
        tenure, held, stale, spent, runs = np.zeros((5, rows), np.int64)
        states = np.zeros((rows, options.pool, n), np.uint8)
        best = np.full((rows, options.pool), np.inf)
        going = np.zeros(rows, bool)
        pool = Pool(states, best, held, stale, tenure, going, spent, runs)
        return walk.model(qubo), *walk.position(), _streams(qubo), pool

    def work(*state: Any) -> Any:
        tabu_rounds.search(shared.exact, shared.matrix, rules, 50 * n, *state)
        pool = state[-1]
        states = pool.states[np.arange(rows), pool.energies.argmin(axis=1)]
        return states, int(pool.spent.sum()), int(pool.runs.sum())

    return _of_states(qubo, prepare, work, ("flips", "runs"), SEARCH)


def relax(qubo: QuboBatch) -> Kernel:
    """Steps of Adam on the relaxed states, while the sigmoid's temperature falls."""
    how = Relaxation(
        steps=200, rate=0.1, rectified=False, weight=np.zeros(qubo.rows), cold=0.003
    )
    form = Quadratic.at(qubo, qubo.prior, typical_curvature(qubo), qubo.free(), 1)
    plan = how.plan(np.arange(how.steps) / how.steps, 1 / how.steps, 0)

    def prepare() -> tuple[Any, ...]:
        V = padded(how.start(qubo.prior))
        return V, *(zeros_like(V) for _ in range(6))

    def work(V: Any, *buffers: Any) -> Any:
        relaxation.relax(
            form.H,
            np.float32(how.low),
            np.float32(how.span),
            plan,
            V,
            *buffers,
            form.s,
            form.c,
            form.p,
            how.weight.astype(np.float32),
        )
        return ((V[:, : qubo.n] >= 0).astype(np.uint8),)

    return _of_states(qubo, prepare, work, (), RELAXED)


def _of_states(
    qubo: QuboBatch,
    prepare: Callable[[], tuple[Any, ...]],
    work: Callable[..., Any],
    counts: tuple[str, ...] = (),
    tolerance: float = EXACT,
) -> Kernel:
    """A case whose work returns states [R, n] and the counts with the given names."""

    def judge(result: Any) -> tuple[Any, dict[str, int]]:
        states, *numbers = result
        return reference_energies(qubo, states), dict(zip(counts, numbers, strict=True))

    return Kernel(prepare, work, judge, tolerance)


def _random(qubo: QuboBatch, count: int) -> States:
    """Random states [R, count, n]."""
    rng = np.random.default_rng(SEED)
    return rng.integers(0, 2, (qubo.rows, count, qubo.n), np.uint8)


def _streams(qubo: QuboBatch) -> Any:
    """Random streams [R]."""
    return np.random.default_rng(SEED).integers(1, 2**63, qubo.rows, np.uint64)


KERNELS: dict[str, Callable[[QuboBatch], Kernel]] = {
    "energies": energies,
    "fields": fields,
    "anneal": anneal,
    **{moves: descents(moves) for moves in MOVES},
    "factor": factor,
    "k-best": k_best,
    "tabu": tabu,
    "relax": relax,
}


@pytest.mark.benchmark(group="kernels", timer=process_time)
@pytest.mark.parametrize("name", ["conv147", "conv576"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel(kernel: str, name: str, measure: Callable[..., Any]) -> None:
    """Measure a kernel on a problem."""
    case = KERNELS[kernel](problem(name))

    def judge(result: Any) -> tuple[float, dict[str, int]]:
        energies, counts = case.judge(result)
        return float(np.sum(energies)), counts

    measure(case.prepare, case.work, judge, case.tolerance)
