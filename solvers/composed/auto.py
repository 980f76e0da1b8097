"""`auto`: the solvers that suit a batch, chosen by its size and spectrum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from solvers.base import Solver, Task
from solvers.budget import Budget, Monitor
from solvers.flips.annealing import SimulatedAnnealing
from solvers.flips.tabu import Tabu
from solvers.lattice.moves import build_seconds, flatness
from solvers.lattice.solver import Lattice
from solvers.proofs.exact import Exact
from solvers.qubo import QuboBatch, States
from solvers.warming import freest_row

# Rows of at most this many free variables are solved exactly in milliseconds.
EXACT = 28
# Above a flatness of FLAT, single flips may find more than moves along short vectors;
# above FLATTER there are no short vectors.
FLAT, FLATTER = 0.45, 0.65
# Largest rows * n**2 for which keeping a pool of states takes only seconds.
SMALL = 5 * 10**7
# If building a library of moves takes more than this share of the time limit, there is
# only time for single flips.
SHORT = 0.3
# Share of the limits for which each of several solvers is tried.
TRIAL = 0.1
# Share of the time left that a long anneal gets; tabu search goes on from its states.
LONG = 0.75
# Number of sweeps that no limit in seconds has room for.
ENDLESS = 10**9


@dataclass(frozen=True, kw_only=True)
class Auto(Solver):
    """Exact search for small rows, single flips for flat spectra, else `lattice`.

    Rows of up to 28 free variables are solved exactly. In most layers short vectors
    decide, and `lattice` finds them. Where H is indefinite or its spectrum is flat
    (`solvers.lattice.moves.flatness`), single flips are the best moves there are, and
    it depends on the problem whether annealing or tabu search makes the most of them:
    with a limit in seconds each is tried for a tenth of the time, and the one with the
    lower sum of energies goes on (a long anneal leaves the last fifth of the time to
    tabu search); without, they run in turn, each from the best states so far. In
    between, `lattice` is tried, too. A search that ends before the time does runs again
    with other random numbers; the best states are kept. With hardly any time, single
    flips are annealed.
    """

    name: ClassVar[str] = "auto"

    polish: str = "pair-flip"

    def compile_for(self, qubo: QuboBatch) -> None:
        """What may be chosen with any seconds, and the polish."""
        row = freest_row(qubo)
        chosen = {
            solver
            for seconds in (None, math.inf, 0.0)
            for solver in choose(qubo, seconds)
        }
        for solver in chosen:
            solver.compile_for(row)
        self.solve(row, budget=Budget(sweeps=1))

    def search(self, task: Task) -> States:
        """Choose the solvers, try them if there are several, and run the best."""
        solvers = choose(task.qubo, task.budget.seconds)
        task.info["method"] = " ".join(solver.name for solver in solvers)
        if solvers == (Exact(),):
            return solvers[0].search(task)
        relay = Relay(task)
        if task.budget.seconds is None:
            for left, solver in zip(range(len(solvers), 0, -1), solvers, strict=True):
                relay.run(solver, 1 / left)
        else:
            leader = self.race(relay, solvers) if len(solvers) > 1 else solvers[0]
            task.info["leader"] = leader.name
            if leader != solvers[-1] and isinstance(leader, SimulatedAnnealing):
                relay.run(leader, LONG)
                leader = solvers[-1]
            while relay.going:
                relay.run(leader, 1.0)
        task.info["runs"] = relay.runs
        return relay.best

    def race(self, relay: Relay, solvers: Sequence[Solver]) -> Solver:
        """The solver that finds the lowest energies in a trial; the last of equals."""
        leader, lowest = solvers[0], math.inf
        for solver in solvers:
            if (energy := relay.run(solver, TRIAL, tried=True)) <= lowest:
                leader, lowest = solver, energy
        return leader


class Relay:
    """Searches one after the other on one task, and the best states of all.

    Attributes
    ----------
    best : uint8 [R, n]
        The best states so far.
    lowest : float64 [R]
        Their energies.
    runs
        Number of searches so far.
    going
        Whether time and sweeps are left and the target has not been reached.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self.best = task.start
        self.lowest = task.qubo.energies(task.start, task.budget.threads)
        self.runs = 0
        self.going = True
        self._sweeps = task.budget.sweeps

    def run(self, solver: Solver, share: float, tried: bool = False) -> float:
        """Search with a share of the seconds and sweeps; return the sum of energies.

        A search that is only `tried` begins where the task does and gets its share of
        the whole; others begin at the best states and get their share of what is left.
        """
        if not self.going:
            return math.inf
        task, threads = self._task, self._task.budget.threads
        own = self._own_task(share, tried)
        states = task.qubo.pin(solver.search(own))
        energies = task.qubo.energies(states, threads)
        self.best = np.where((energies < self.lowest)[:, None], states, self.best)
        self.lowest = np.minimum(energies, self.lowest)
        self.runs += 1
        self.going = task.monitor.report(self.lowest)
        if self._sweeps is not None:
            self._sweeps -= own.info.get("sweeps", 0)
            self.going &= self._sweeps > 0
        return float(energies.sum())

    def _own_task(self, share: float, tried: bool) -> Task:
        """The next search's part of the task, with random numbers of its own."""
        task, budget = self._task, self._task.budget
        seconds, sweeps = budget.seconds, self._sweeps
        if seconds is not None:
            left = seconds if tried else task.monitor.remaining()
            seconds = max(min(share * left, task.monitor.remaining()), 1e-3)
        if sweeps is not None:
            sweeps = max(int(share * sweeps), 1)
        budget = replace(budget, seconds=seconds, sweeps=sweeps)
        monitor = Monitor(
            lambda _, best: task.monitor.record(best), clock=task.monitor.clock
        )
        monitor.start(budget, task.monitor.best)
        return replace(
            task,
            start=task.start if tried else self.best,
            warm=task.warm or not (tried or self.best is task.start),
            seed=task.seed + (self.runs << 40),
            budget=budget,
            monitor=monitor,
            info=task.info if self.runs == 0 else {},
        )


def choose(qubo: QuboBatch, seconds: float | None) -> tuple[Solver, ...]:
    """The solvers for a batch, with the effort that its size allows.

    Parameters
    ----------
    seconds
        Time limit of the search; None if it ends by its own limits.
    """
    if qubo.free().sum(axis=1).max(initial=0) <= EXACT:
        return (Exact(),)
    tabu, annealing = Tabu(), SimulatedAnnealing()
    if seconds is not None:
        tabu = replace(tabu, num_sweeps=ENDLESS)
        annealing = replace(annealing, num_sweeps=ENDLESS)
    flat = flatness(qubo.H)
    if flat is None or flat > FLATTER:
        return annealing, tabu
    if seconds is None and qubo.rows * qubo.n**2 > SMALL:
        return (Lattice(elites=1, num_sweeps=100),)
    if seconds is not None and build_seconds("pairs", qubo.n) > SHORT * seconds:
        return (annealing,)
    return (Lattice(), annealing, tabu) if flat > FLAT else (Lattice(),)
