"""A search of `solvers.lattice.solver.Lattice`: from the library to the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from solvers.base import Task
from solvers.decoders.factor import binary_targets, factorise
from solvers.lattice.lanes import Lanes, Tiles, thresholds
from solvers.lattice.moves import (
    BUILD_SECONDS,
    FLAT,
    Vectors,
    flatness,
    short_vectors,
)
from solvers.lattice.pool import DAMPING, Pool
from solvers.pace import Schedule
from solvers.qubo import Float, States
from solvers.threads import one_blas_thread

if TYPE_CHECKING:
    from solvers.lattice.solver import Lattice

# Moves per variable, and in all.
MOVES_EACH, MOST_MOVES = 60, 150_000
# Sweeps that only descend: before temperatures are found, and after every anneal.
DESCENTS = 3
# An anneal begins where this share of the moves, if tried, costs less than its
# temperature divided by HOT, and ends COLD times that; PROBED moves say so.
SHARE, HOT, COLD = 0.005, 0.2, 0.4
PROBED = 2048
# Spread of the units in which the other orders of decision are chosen.
JITTER = 0.03
# Rounds without a change of its pool that end the search of a row.
PATIENCE = 5
# Walks of a row that are annealed together, times n, at most: a bound on memory.
TOGETHER = 4096
# Sweeps handed out at a time, and between two refreshes of the fields.
CHUNK, REFRESH = 30, 60
# Shares of the seconds that the library and a decoding may take.
BUILDING, DECODING = 0.6, 0.25
# Nanoseconds of a decoding: per entry of H times n, and per path, row and variable.
FACTOR_NS, PATH_NS = 0.05, 20.0
# A flat spectrum wants so many times longer anneals before it wants more of them.
FLAT_FACTOR = 4.0
# Apart enough for the streams of different tiles.
APART = np.uint64(0xD1342543DE82EF95)


class Search:
    """One search: its library, its walks, its pool, and how far it has come."""

    def __init__(self, solver: Lattice, task: Task) -> None:
        self.solver, self.task, qubo = solver, task, task.qubo
        self.rows = np.arange(qubo.rows)
        self.swept = self.accepted = self.calls = 0
        self.going = True
        begun = task.monitor.elapsed()
        most = solver.max_moves or min(MOVES_EACH * qubo.n, MOST_MOVES)
        self.library = short_vectors(qubo.H, self.kinds(), most)
        self.lanes = Lanes.over(qubo, self.library)
        task.info["library_seconds"] = task.monitor.elapsed() - begun
        self.pool = Pool.of(qubo, task.budget.threads)
        self.heat: Float = np.ones(qubo.rows)
        self.seconds_each = 0.0

    def kinds(self) -> str:
        """The library to build."""
        if self.solver.moves != "auto":
            return self.solver.moves
        flat = flatness(self.task.qubo.H)
        best = "pairs" if flat is None or flat > FLAT else "quads"
        time_left = BUILDING * self.task.monitor.remaining()
        for kinds in (best, "pairs"):
            if BUILD_SECONDS[kinds] * self.task.qubo.n < time_left:
                return kinds
        return "singles"

    def first(self) -> None:
        """The first state of each pool; the temperatures."""
        begun, states = self.task.monitor.elapsed(), self.task.start
        if self.solver.start != "nearest" and not self.task.warm:
            states = self.decode(0)
        tiles = self.lanes.stand(self.rows, states, self.task.budget.threads)
        for _ in range(DESCENTS):
            if self.more():
                self.sweep(tiles, self.heat, np.zeros(1))
        states = self.task.qubo.pin(tiles.states())
        self.pool.add(states)
        self.report()
        if self.more():
            tiles = self.lanes.stand(self.rows, states, self.task.budget.threads)
            self.heat = starting_heat(tiles, Vectors.join(*self.library))
            states = self.anneal(self.rows, states, self.solver.num_sweeps)
            self.pool = Pool.of(self.task.qubo, self.task.budget.threads)
            self.pool.add(states)
            self.seconds_each = self.task.monitor.elapsed() - begun
            self.report()

    def elites(self) -> int:
        """States of a pool that time allows for; all where it is not limited."""
        elites = self.solver.elites
        if elites == 1 or not self.seconds_each:
            return 1
        affordable = self.task.monitor.remaining() / self.seconds_each
        if not len(self.library[2]):
            return elites if affordable > FLAT_FACTOR * elites else 1
        return int(min(elites, 1 + affordable))

    def go_on(self) -> None:
        """One anneal for the time that is left; nothing where that is not limited."""
        if self.more() and np.isfinite(self.task.monitor.remaining()):
            self.pool.add(self.anneal(self.rows, self.pool.best(), 10**9))
            self.report()

    def fill(self, count: int) -> None:
        """So many more states for each pool, each from a decoding of its own."""
        others: list[States] = []
        while len(others) < count and self.more():
            others.append(self.decode(len(others) + 1))
        for states in self.anneal_all(others):
            self.pool.add(states)
        self.report()

    def improve(self) -> None:
        """Rounds of recombination."""
        streams = self.task.streams()
        choosers = [np.random.default_rng(stream) for stream in streams]
        idle = np.zeros(len(self.rows), int)
        for _ in range(self.solver.rounds):
            if not self.more() or len(self.pool) < 2 or (idle >= PATIENCE).all():
                return
            better, worse = self.pool.parents(choosers, max(len(self.pool) // 2, 1))
            children = [
                self.pool.children(a, b, self.solver.paths, streams)
                for a, b in zip(better, worse, strict=True)
            ]
            # A row that has come to rest stays as it is, whatever the others do.
            active, idle = idle < PATIENCE, idle + 1
            for states, b in zip(self.anneal_all(children), worse, strict=True):
                idle[self.pool.replace(states, b, active)] = 0
            self.report()

    def more(self) -> bool:
        """Whether time and sweeps are left."""
        return (
            self.going and self.sweeps_left() > 0 and self.task.monitor.remaining() > 0
        )

    def sweeps_left(self) -> int:
        """Of the budget."""
        most = self.task.budget.sweeps
        return 10**9 if most is None else max(most - self.swept, 0)

    def decode(self, k: int) -> States:
        """A K-best decoding, where it is no worse than the start.

        The first one is in the order of least pivots; the others are in orders nearby.
        """
        qubo, threads = self.task.qubo, self.task.budget.threads
        paths = 1 if self.solver.start == "babai" and k == 0 else self.solver.paths
        time_left = 1e9 * DECODING * self.task.monitor.remaining()
        time_left -= FACTOR_NS * qubo.n**3
        if time_left < 0:
            return self.task.start
        if np.isfinite(time_left):
            paths = max(min(paths, int(time_left / (PATH_NS * qubo.linear.size))), 1)
        units = None
        if k:
            rng = np.random.default_rng([self.task.seed, k])
            units = np.exp(JITTER * rng.standard_normal(qubo.n))
        with one_blas_thread():
            factor = factorise(qubo.H, "min-pivot", DAMPING, units)
            targets = binary_targets(qubo, factor, threads)
        states = qubo.pin(targets.k_best(paths, threads))
        start = self.task.start
        worse = qubo.energies(states, threads) > qubo.energies(start, threads)
        return np.where(worse[:, None], start, states)

    def anneal_all(self, groups: list[States]) -> list[States]:
        """Anneal several states of each row, as lanes of the same tiles."""
        n, found = self.task.qubo.n, []
        size = max(TOGETHER // n, 1)
        for first in range(0, len(groups), size):
            part = groups[first : first + size]
            rows = np.repeat(self.rows, len(part))
            states = np.stack(part, axis=1).reshape(len(rows), n)
            if self.more():
                states = self.anneal(rows, states, self.solver.num_sweeps)
            apart = states.reshape(-1, len(part), n).transpose(1, 0, 2)
            # Kernels are compiled once more for what does not lie row by row.
            found += list(np.ascontiguousarray(apart))
        return found

    def anneal(self, rows: NDArray[np.intp], states: States, sweeps: int) -> States:
        """Anneal from states [W, n] of these rows; the best states on the way."""
        qubo, threads = self.task.qubo.take(rows), self.task.budget.threads
        best, lowest = states, qubo.energies(states, threads)
        tiles = self.lanes.stand(rows, states, threads)
        left = min(sweeps, self.sweeps_left())
        schedule = Schedule(self.task.monitor, left, CHUNK)
        taken = 0
        while self.going:
            step = schedule.next()
            if step is not None:
                self.sweep(tiles, self.heat[rows], COLD ** step[0])
            if step is not None and schedule.taken - taken < REFRESH:
                continue
            if step is None:
                last = min(DESCENTS, self.sweeps_left())
                self.sweep(tiles, self.heat[rows], np.zeros(last))
            # Sums in float32 drift: only exact energies are compared.
            found = qubo.pin(tiles.states())
            energies = qubo.energies(found, threads)
            best = np.where((energies < lowest)[:, None], found, best)
            lowest = np.minimum(energies, lowest)
            if step is None:
                break
            taken = schedule.taken
            tiles = self.lanes.stand(rows, qubo.pin(tiles.last_states()), threads)
            if len(rows) == len(self.rows):
                self.report(lowest)
        return best

    def sweep(self, tiles: Tiles, heat: Float, factors: Float) -> None:
        """Sweeps over the library."""
        self.calls += 1
        base = np.random.SeedSequence([self.task.seed, self.calls])
        first, second = base.generate_state(2, np.uint64)
        rng = first + APART * np.arange(len(tiles.F), dtype=np.uint64)
        before = int(tiles.counts[:, 0].sum())
        tiles.anneal(heat, factors, thresholds(second), rng, self.task.budget.threads)
        self.accepted += int(tiles.counts[:, 0].sum()) - before
        self.swept += len(factors)

    def report(self, energies: Float | None = None) -> None:
        """Say how far the rows are."""
        lowest = self.pool.energies.min(axis=0) if energies is None else energies
        self.going &= self.task.monitor.report(lowest)


def starting_heat(tiles: Tiles, library: Vectors) -> Float:
    """Where anneals begin [R], from the costs of moves at local optima."""
    sample = library.take(slice(None, None, max(1, len(library) // PROBED)))
    costs = tiles.costs(sample)
    costs[costs <= 0] = np.inf
    at = min(int(SHARE * costs.shape[1]), costs.shape[1] - 1)
    low, least = np.partition(costs, at, axis=1)[:, at], costs.min(axis=1)
    low = np.where(np.isfinite(low), low, np.where(np.isfinite(least), least, 1.0))
    return HOT * low
