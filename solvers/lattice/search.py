"""The search of `solvers.lattice.solver.Lattice`: library, decodings, anneals, pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from solvers.base import Task
from solvers.decoders.factor import binary_targets, factorise
from solvers.lattice.lanes import Lanes, Tiles, thresholds
from solvers.lattice.moves import (
    FLAT,
    Vectors,
    build_seconds,
    flatness,
    short_vectors,
)
from solvers.lattice.pool import DAMPING, Pool
from solvers.pace import Schedule
from solvers.polish import descend
from solvers.qubo import Float, States
from solvers.threads import one_blas_thread

if TYPE_CHECKING:
    from solvers.lattice.solver import Lattice

# Largest number of moves, per variable and in all.
MOVES_EACH, MOST_MOVES = 60, 150_000
# Sweeps that only descend: before temperatures are found, and after every anneal.
DESCENTS = 3
# An anneal begins at HOT times the cost that a SHARE of all moves, infeasible ones
# counted, stays below, and ends at COLD times that; about PROBED moves are probed.
SHARE, HOT, COLD = 0.005, 0.2, 0.4
PROBED = 2048
# Standard deviation of the logarithm of the units in which decodings but the first
# choose their order.
JITTER = 0.03
# Rounds without a change of its pool that end the search of a row.
PATIENCE = 5
# Bound on memory: largest number of a row's walks that are annealed together, times n.
TOGETHER = 4096
# Sweeps of a chunk, and between two refreshes of the fields.
CHUNK, REFRESH = 30, 60
# Shares of the remaining seconds that the library and a decoding may take.
BUILDING, DECODING = 0.6, 0.25
# Nanoseconds of a decoding: per n**3, and per path, row and variable.
FACTOR_NS, PATH_NS = 0.05, 20.0
# On a flat spectrum a pool is filled only if there is time for this many times its
# anneals; otherwise one longer anneal does better.
FLAT_FACTOR = 4.0
# Distance of one tile's random seed from the next: the streams are far enough apart.
APART = np.uint64(0xD1342543DE82EF95)


class Search:
    """A search in progress: its library, walks and pool, and the work done so far."""

    def __init__(self, solver: Lattice, task: Task) -> None:
        self.solver, self.task, qubo = solver, task, task.qubo
        self.rows = np.arange(qubo.rows)
        self.swept = self.accepted = self.calls = 0
        self.going = True
        self.pool = Pool.of(qubo, task.budget.threads)
        self.decoded = task.start
        self.heat: Float = np.ones(qubo.rows)
        self.seconds_each = 0.0

    def first(self) -> None:
        """Find the first state of each pool: a decoding, descended over single flips.

        It is an answer before there is a library. Walks begin at the decoding itself:
        from its single-flip optimum anneals end a little higher.
        """
        begun = self.task.monitor.elapsed()
        if self.solver.start != "nearest" and not self.task.warm:
            self.decoded = self.decode(0)
        descended = descend(
            self.task.qubo,
            self.decoded,
            threads=self.task.budget.threads,
            going=lambda _: self.task.monitor.remaining() > 0,
        )
        self.pool.add(descended)
        self.seconds_each = self.task.monitor.elapsed() - begun
        self.report()

    def build(self) -> bool:
        """Build the library; return whether it has any moves."""
        qubo, threads = self.task.qubo, self.task.budget.threads
        begun = self.task.monitor.elapsed()
        most = self.solver.max_moves or min(MOVES_EACH * qubo.n, MOST_MOVES)
        self.library = short_vectors(qubo.H, self.kinds(), most, threads)
        self.lanes = Lanes.over(qubo, self.library)
        self.task.info["library_seconds"] = self.task.monitor.elapsed() - begun
        self.task.info["moves"] = self.lanes.count
        return self.lanes.count > 0

    def kinds(self) -> str:
        """The kinds of moves to build a library of."""
        if self.solver.moves != "auto":
            return self.solver.moves
        flat = flatness(self.task.qubo.H)
        best = "pairs" if flat is None or flat > FLAT else "quads"
        time_left = BUILDING * self.task.monitor.remaining()
        for kinds in (best, "pairs"):
            if build_seconds(kinds, self.task.qubo.n) < time_left:
                return kinds
        return "singles"

    def cool(self) -> None:
        """Descend over the library, find the temperatures, and anneal once."""
        begun = self.task.monitor.elapsed()
        tiles = self.lanes.stand(self.rows, self.decoded, self.task.budget.threads)
        for _ in range(DESCENTS):
            if self.more():
                self.sweep(tiles, self.heat, np.zeros(1))
        states = self.task.qubo.pin(tiles.states())
        if self.more():
            tiles = self.lanes.stand(self.rows, states, self.task.budget.threads)
            self.heat = starting_heat(tiles, Vectors.join(*self.library))
            states = self.anneal(self.rows, states, self.solver.num_sweeps)
            self.seconds_each += self.task.monitor.elapsed() - begun
        self.pool.challenge_first(states)
        self.report()

    def elites(self) -> int:
        """Number of states per pool that time allows for; all if it is not limited."""
        elites = self.solver.elites
        if elites == 1 or not self.seconds_each:
            return 1
        affordable = self.task.monitor.remaining() / self.seconds_each
        if not len(self.library[2]):
            return elites if affordable > FLAT_FACTOR * elites else 1
        return int(min(elites, 1 + affordable))

    def go_on(self) -> None:
        """Anneal once for all the time left; do nothing if time is not limited."""
        if self.more() and np.isfinite(self.task.monitor.remaining()):
            self.pool.add(self.anneal(self.rows, self.pool.best(), 10**9))
            self.report()

    def fill(self, count: int) -> None:
        """Add `count` more states to each pool, each from a decoding of its own."""
        decoded: list[States] = []
        while len(decoded) < count and self.more():
            decoded.append(self.decode(len(decoded) + 1))
        for states in self.anneal_all(decoded):
            self.pool.add(states)
        self.report()

    def improve(self) -> None:
        """Improve the pools by rounds of recombination."""
        streams = self.task.streams()
        choosers = [np.random.default_rng(stream) for stream in streams]
        idle = np.zeros(len(self.rows), int)
        for _ in range(self.solver.rounds):
            if not self.more() or len(self.pool) < 2 or (idle >= PATIENCE).all():
                return
            better, worse = self.pool.parents(choosers, max(len(self.pool) // 2, 1))
            children = [
                self.pool.children(*couple, self.solver.paths, streams)
                for couple in zip(better, worse, strict=True)
            ]
            # The pool of a row that has come to rest stays, whatever other rows do.
            active, idle = idle < PATIENCE, idle + 1
            for states, worse_parent in zip(
                self.anneal_all(children), worse, strict=True
            ):
                idle[self.pool.replace(states, worse_parent, active)] = 0
            self.report()

    def more(self) -> bool:
        """Whether time and sweeps are left."""
        return (
            self.going and self.sweeps_left() > 0 and self.task.monitor.remaining() > 0
        )

    def sweeps_left(self) -> int:
        """Sweeps of the budget that are left; 10**9 if it does not limit them."""
        most = self.task.budget.sweeps
        return 10**9 if most is None else max(most - self.swept, 0)

    def decode(self, k: int) -> States:
        """The k-th K-best decoding; the start in rows where that is better.

        The first decoding, k = 0, decides variables in the order of least pivots; the
        others decide them in orders nearby.
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
        """Anneal from each of `groups`, states [R, n], with many walks in a tile."""
        n = self.task.qubo.n
        annealed: list[States] = []
        size = max(TOGETHER // n, 1)
        for first in range(0, len(groups), size):
            part = groups[first : first + size]
            rows = np.repeat(self.rows, len(part))
            states = np.stack(part, axis=1).reshape(len(rows), n)
            if self.more():
                states = self.anneal(rows, states, self.solver.num_sweeps)
            apart = states.reshape(-1, len(part), n).transpose(1, 0, 2)
            # Kernels would be compiled once more for arrays that are not C-contiguous.
            annealed += list(np.ascontiguousarray(apart))
        return annealed

    def anneal(self, rows: NDArray[np.intp], states: States, sweeps: int) -> States:
        """Anneal from states [W, n] of the rows [W]; return the best states [W, n]."""
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
            walked = qubo.pin(tiles.states())
            energies = qubo.energies(walked, threads)
            best = np.where((energies < lowest)[:, None], walked, best)
            lowest = np.minimum(energies, lowest)
            if step is None:
                break
            taken = schedule.taken
            tiles = self.lanes.stand(rows, qubo.pin(tiles.last_states()), threads)
            if len(rows) == len(self.rows):
                self.report(lowest, best)
        return best

    def sweep(self, tiles: Tiles, heat: Float, factors: Float) -> None:
        """Sweep over the library once per factor of the temperatures `heat` [W]."""
        self.calls += 1
        base = np.random.SeedSequence([self.task.seed, self.calls])
        first, second = base.generate_state(2, np.uint64)
        rng = first + APART * np.arange(len(tiles.F), dtype=np.uint64)
        before = int(tiles.counts[:, 0].sum())
        tiles.anneal(heat, factors, thresholds(second), rng, self.task.budget.threads)
        self.accepted += int(tiles.counts[:, 0].sum()) - before
        self.swept += len(factors)

    def report(
        self, energies: Float | None = None, states: States | None = None
    ) -> None:
        """Report the lowest energies [R] and their states (default: the pool's)."""
        if energies is None:
            lowest = self.pool.energies.min(axis=0)
            going = self.task.monitor.report(lowest, self.pool.best)
        else:
            going = self.task.monitor.report(energies, states)
        self.going &= going


def starting_heat(tiles: Tiles, library: Vectors) -> Float:
    """Temperatures [W] that anneals begin at, from costs of moves at local optima."""
    sample = library.take(slice(None, None, max(1, len(library) // PROBED)))
    costs = tiles.costs(sample)
    costs[costs <= 0] = np.inf
    at = min(int(SHARE * costs.shape[1]), costs.shape[1] - 1)
    low, least = np.partition(costs, at, axis=1)[:, at], costs.min(axis=1)
    low = np.where(np.isfinite(low), low, np.where(np.isfinite(least), least, 1.0))
    return HOT * low
