"""`auto`: the solvers that suit a batch, chosen by its size and spectrum."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.base import Solver, Task
from solvers.budget import Budget, Monitor, Reported
from solvers.decoders.kbest import KBest
from solvers.flips.annealing import SimulatedAnnealing
from solvers.flips.tabu import Tabu
from solvers.lattice.moves import build_seconds, flatness
from solvers.lattice.solver import Lattice
from solvers.proofs.exact import Exact
from solvers.qubo import Float, QuboBatch, States
from solvers.warming import freest_row

# Rows of at most this many free variables are solved exactly in milliseconds.
EXACT = 28
# Above this flatness there are no vectors short enough, and single flips do better.
FLAT = 0.45
# Largest rows * n**2 for which keeping a pool of states takes only seconds …
SMALL = 5 * 10**7
# … and for which a short anneal over short vectors does.
MIDDLE = 10**9
# How much a search without a limit in seconds may do.
EFFORTS = ("full", "light")
# If building a library of moves takes more than this share of the time limit, there is
# only time for single flips.
SHORT = 0.3
# Where less than this share of the entries of H is not 0, a long anneal does best.
SPARSE = 0.015
# Seconds of a thread per row and squared number of variables below which tabu search
# falls behind annealing on flat spectra.
SOON = 5e-8
# Share of the limits for which annealing and tabu search are tried.
TRIAL = 0.06
# Share of the time left that a long anneal gets; tabu search goes on from its states.
LONG = 0.9
# Remarks of the searches that are added up; of others the last one stays.
ADDED = ("sweeps", "flips", "accepted", "library_seconds")
# Number of sweeps that no limit in seconds has room for.
ENDLESS = 10**9


@dataclass(frozen=True, kw_only=True)
class Auto(Solver):
    """Exact search for small rows, single flips for flat spectra, else `lattice`.

    Rows of up to 28 free variables are solved exactly. In most layers short vectors
    decide, and `lattice` finds them. Where H is indefinite or its spectrum is flat
    (`solvers.lattice.moves.flatness`), single flips are the best moves there are: tabu
    search makes the most of them on flat spectra, given time, and a long anneal on
    sparse indefinite H. Which of them does on other indefinite H depends on the
    problem. With a limit in seconds a short anneal comes first. Tabu search gets the
    rest of the time if it is as good after the same time; if not, a long anneal takes
    its place. A long anneal leaves a tenth of the time to tabu search, from its states.
    Without a limit in seconds both run in turn.

    A search that ends before the time does runs again with other random numbers; the
    best states are kept. With hardly any time, single flips are annealed.

    Parameters
    ----------
    effort
        ``"light"``: without a limit in seconds, one short anneal over short vectors or,
        for the largest layers, a K-best decoding; where the spectrum is flat, an anneal
        of single flips. That is for whole networks, which are hardly more accurate with
        more.
    """

    name: ClassVar[str] = "auto"

    effort: str = "full"
    polish: str = "pair-flip"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(
            self.effort in EFFORTS, f"effort must be one of {', '.join(EFFORTS)}"
        )

    def compile_for(self, qubo: QuboBatch) -> None:
        """What may be chosen with any seconds, and the polish."""
        row = freest_row(qubo)
        chosen = {
            type(solver): solver
            for seconds in (None, math.inf, 0.0)
            for solver in choose(qubo, seconds, effort=self.effort)
        }
        for solver in chosen.values():
            solver.compile_for(row)
        self.solve(row, budget=Budget(sweeps=1))

    def search(self, task: Task) -> States:
        """Choose the solvers and run them, in turn or against each other."""
        budget = task.budget
        solvers = choose(task.qubo, budget.seconds, budget.threads, self.effort)
        task.info["method"] = " ".join(solver.name for solver in solvers)
        if solvers == (Exact(),):
            return solvers[0].search(task)
        relay = Relay(task)
        if budget.seconds is None:
            for left, solver in zip(range(len(solvers), 0, -1), solvers, strict=True):
                relay.run(solver, 1 / left)
        else:
            if len(solvers) > 1:
                annealing, tabu = solvers
                if is_open(task.qubo):
                    relay.run(tabu, 1.0, rival=relay.run(annealing, TRIAL))
                relay.run(annealing, LONG)
            while relay.going:
                relay.run(solvers[-1], 1.0)
        task.info["runs"] = relay.runs
        return relay.best


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

    def run(self, solver: Solver, share: float, rival: float = math.inf) -> float:
        """Search with a share of what is left; return the sum of the energies.

        Parameters
        ----------
        share
            Share of the seconds and sweeps that are left.
        rival
            Sum of energies that a trial of another solver has reached. If the search
            is above it after the time of a trial, it ends.
        """
        if not self.going:
            return math.inf
        task, threads = self._task, self._task.budget.threads
        own = self._own_task(share, rival)
        states = task.qubo.pin(solver.search(own))
        energies = task.qubo.energies(states, threads)
        self.best = np.where((energies < self.lowest)[:, None], states, self.best)
        self.lowest = np.minimum(energies, self.lowest)
        self.runs += 1
        self.going = task.monitor.report(self.lowest, self.best)
        for remark, value in own.info.items():
            before = task.info.get(remark)
            added = before is not None and remark in ADDED
            task.info[remark] = before + value if added else value
        if self._sweeps is not None:
            self._sweeps -= own.info.get("sweeps", 0)
            self.going &= self._sweeps > 0
        return float(energies.sum())

    def _own_task(self, share: float, rival: float) -> Task:
        """The next search's part of the task, with random numbers of its own.

        A search that has a rival begins where the rival did, at the task's start.
        """
        task, budget, sweeps = self._task, self._task.budget, self._sweeps
        seconds = budget.seconds
        if seconds is not None:
            seconds = max(share * task.monitor.remaining(), 1e-3)
        if sweeps is not None:
            sweeps = max(int(share * sweeps), 1)
        fresh = math.isfinite(rival) or self.best is task.start
        monitor = Contest(task.monitor, rival, TRIAL * (budget.seconds or math.inf))
        own = replace(budget, seconds=seconds, sweeps=sweeps)
        monitor.start(own, task.monitor.best)
        return replace(
            task,
            start=task.start if fresh else self.best,
            warm=task.warm or not fresh,
            seed=task.seed + (self.runs << 40),
            budget=own,
            monitor=monitor,
            info={},
        )


class Contest(Monitor):
    """Reports to another monitor, and ends a search that a rival has beaten.

    Parameters
    ----------
    outer
        The monitor to report to.
    rival
        The sum of energies that the search is to reach …
    seconds
        … by this time.
    """

    def __init__(self, outer: Monitor, rival: float, seconds: float) -> None:
        super().__init__(clock=outer.clock)
        self._outer, self._rival, self._by = outer, rival, seconds

    def handle(self, seconds: float, energies: Float, states: Reported) -> None:
        """Pass the report on."""
        self._outer.record(energies, states)

    def report(self, energies: Float, states: Reported = None) -> bool:
        """Record the report; true if the search may go on."""
        going = super().report(energies, states)
        return going and not (
            self.elapsed() >= self._by and float(energies.sum()) > self._rival
        )


def density(H: NDArray[np.floating[Any]]) -> float:
    """Share of the entries of H [n, n] that are not 0."""
    return float(np.count_nonzero(H)) / max(H.size, 1)


def is_open(qubo: QuboBatch) -> bool:
    """Whether only a trial can tell if annealing or tabu search does better."""
    return density(qubo.H) > SPARSE and flatness(qubo.H) is None


def choose(
    qubo: QuboBatch, seconds: float | None, threads: int = 1, effort: str = "full"
) -> tuple[Solver, ...]:
    """The solvers for a batch, with the effort that its size allows.

    Parameters
    ----------
    seconds
        Time limit of the search; None if it ends by its own limits.
    threads
        Number of threads of the search.
    effort
        One of `EFFORTS`.
    """
    if qubo.free().sum(axis=1).max(initial=0) <= EXACT:
        return (Exact(),)
    tabu, annealing = Tabu(), SimulatedAnnealing()
    if seconds is not None:
        tabu = replace(tabu, num_sweeps=ENDLESS)
        annealing = replace(annealing, num_sweeps=ENDLESS)
    flat = flatness(qubo.H)
    light = seconds is None and effort == "light"
    if light and (flat is None or flat > FLAT):
        return (annealing,)
    if flat is None:
        return annealing, tabu
    if flat > FLAT:
        soon = SOON * qubo.rows * qubo.n**2
        late = seconds is None or seconds * threads > soon
        return (tabu,) if late else (annealing, tabu)
    size = qubo.rows * qubo.n**2
    if light:
        return (Lattice(elites=1) if size <= MIDDLE else KBest(paths=16),)
    if seconds is None and size > SMALL:
        return (Lattice(elites=1, num_sweeps=100),)
    if seconds is not None and build_seconds("pairs", qubo.n) > SHORT * seconds:
        return (annealing,)
    return (Lattice(),)
