"""The proof of one row's optimum, in short steps."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.budget import Clock
from solvers.kernels import enumeration, sphere
from solvers.proofs.semidefinite import Model, Split, central_path, ellipsoid
from solvers.qubo import Float, States

# Nodes, or blocks of states, between two looks at the clock; they take some ten ms.
CHUNK, BLOCKS = 100_000, 4096
# Where on the central path the search's ellipsoid lies, as a share of the gap.
SHARE = 0.1
# Block size and largest number of tours of BKZ.
BLOCK, TOURS = 20, 4
# Work between two looks at the clock while a basis is reduced: vectors times variables.
REDUCED = 2000
# Least number of seconds of a turn: changing turns has a cost of its own.
TURN = 0.005
# Largest number of variables for which a row gets a bound at all.
BOUNDED = 1024
# The central path is followed until the bound is this share of the gap from its end.
END = 0.02
# Nodes of a first attempt, up to the best energy.
FIRST = 100_000
# After it, thresholds rise above the semidefinite bound. The first lies START of the
# way to the best energy; its distance from the bound then grows by the factor LEAP
# after a search of fewer than FEW nodes, and by RISE after others.
START, FEW, LEAP, RISE = 0.2, 100_000, 1.25, 1.06
# A tree is set up again when better states reduce its ellipsoid's radius to this share.
SHRUNK = 0.97

Steps = Generator[None, None, bool]


@dataclass(frozen=True, eq=False)
class Tree:
    """A search tree of lattice points in a reduced basis, and the search's progress.

    The arrays are those of `solvers.kernels.sphere.search`.
    """

    norms: Float
    unit: float
    shifts: Float
    steps: NDArray[np.float32]
    reach: NDArray[np.float32]
    state: Float
    centres: Float
    near: NDArray[np.float32]
    place: NDArray[np.int64]

    @classmethod
    def of(cls, here: Split) -> Generator[None, None, Tree]:
        """A search of the ellipsoid of a split, not yet begun, in steps."""
        m = len(here.y)
        order = np.argsort(here.matrix.diagonal(), kind="stable")
        basis = np.eye(m)[order]
        vectors = np.asarray(np.linalg.cholesky(here.matrix)[order], np.float64)
        yield from _reduce(basis, vectors)
        upper = np.linalg.cholesky(basis @ here.matrix @ basis.T).T
        lengths = np.array(upper.diagonal(), np.float64)
        mu = upper / lengths[:, None]
        shifts = scipy.linalg.solve_triangular(mu.T, np.eye(m), lower=True)
        steps = np.pad(shifts @ basis, ((0, 0), (0, -m % sphere.LANES)))
        reach = np.zeros_like(steps)
        # In units that keep float32 in range.
        longest = lengths.max()
        np.cumsum(
            (steps * (longest / lengths[:, None]))[:-1] ** 2, axis=0, out=reach[1:]
        )
        tree = cls(
            norms=np.square(lengths),
            unit=float(longest**2),
            shifts=np.ascontiguousarray(shifts),
            steps=steps.astype(np.float32),
            reach=reach.astype(np.float32),
            state=np.zeros((3, m + 1)),
            centres=np.empty((m + 1, m)),
            near=np.zeros((m + 1, steps.shape[1]), np.float32),
            place=np.array([m, 0, 1]),
        )
        tree.state[sphere.COST, m] = here.bound
        tree.centres[m] = np.linalg.solve(basis.T, here.y)
        tree.near[m, :m] = here.y
        return tree

    @property
    def done(self) -> bool:
        """Whether the search has ended."""
        level, _, down = self.place
        return bool(level == len(self.norms) and not down)


def _reduce(basis: Float, vectors: Float) -> Generator[None, None, None]:
    """Reduce a basis [m, m] in place: deep LLL, then tours of BKZ until none helps."""
    m = len(basis)
    gram_schmidt = np.zeros((m, m)), np.zeros(m), np.empty_like(vectors)
    chunk = max(REDUCED // m, 1)
    for first in range(0, m, chunk):
        sphere.reduce_deep(basis, vectors, *gram_schmidt, first, min(first + chunk, m))
        yield
    for _ in range(TOURS):
        changed = False
        for first in range(0, m - 1, chunk):
            last = min(first + chunk, m - 1)
            changed |= sphere.reduce_blocks(
                basis, vectors, *gram_schmidt, BLOCK, first, last
            )
            yield
        if not changed:
            break


class Proof:
    """The proof of one row's optimum.

    Parameters
    ----------
    model
        The row's model of its free variables.
    x : uint8 [m]
        The best state known.
    enumerated, largest
        Largest number of variables for which all states are enumerated, and for which a
        proof is tried.
    limit
        Largest number of nodes.
    clock
        The clock that ends turns.

    Attributes
    ----------
    x
        The best state found.
    energy : float64 [2]
        The best state's energy, and the energy up to which is searched.
    done
        Whether the proof has ended, successfully or not.
    lower, proved, nodes, tolerance
        See `solvers.proofs.exact.Exact`.
    """

    def __init__(
        self,
        model: Model,
        x: States,
        enumerated: int,
        largest: int,
        limit: int,
        clock: Clock,
    ) -> None:
        self.x, self.energy = x.copy(), np.full(2, model.energies(x))
        self.lower, self.proved, self.nodes = -math.inf, False, 0
        self.tolerance = 2 * model.noise
        self.done = False
        self._enumerated, self._largest, self._limit = enumerated, largest, limit
        self._model, self._clock = model, clock
        self._split: Split | None = None
        self._work = self._prove()

    def advance(self) -> None:
        """Work on the proof for some ms.

        A turn ends after a whole step. Steps grow with the cube of the number of
        variables: at 300 they take some 10 ms, and up to 0.1 s in the reduction of a
        basis; at 1000, where there is only the bound, up to 0.2 s.
        """
        until = self._clock() + TURN
        try:
            next(self._work)
            while self._clock() < until:
                next(self._work)
        except StopIteration as end:
            self.done, self.proved = True, end.value
            if self.proved:
                self.lower = max(self.lower, float(self.energy[0]) - self.tolerance)

    @property
    def gap(self) -> float:
        """Energy less lower bound, over the energy's size; 0 if proved.

        Infinite if there is no lower bound yet (`lower` is ``-inf``), or if the energy
        is 0.
        """
        if self.proved:
            return 0.0
        energy = float(self.energy[0])
        return (energy - self.lower) / abs(energy) if energy else math.inf

    def _prove(self) -> Steps:
        """All steps of the proof; returns whether it has succeeded."""
        values = settle(self._model)
        self._model, self._free = self._model.fix(values), values < 0
        # Settled variables that hardly matter may have other values in x; a better
        # state found by the search gets these values.
        self._settled = np.where(self._free, 0, values).astype(np.uint8)
        m = len(self._model.c)
        yield
        if m <= self._enumerated:
            return (yield from self._enumerate())
        if m > BOUNDED:
            return False
        near = False
        for point in central_path(self._model):
            yield
            if point is None:
                continue
            here, mu = point
            self.lower = max(self.lower, here.bound - self.tolerance)
            gap = float(self.energy[0]) - here.bound
            if gap <= self.tolerance:
                return True
            if not near:
                self._split, near = here, mu * m <= SHARE * gap
            if mu * m < END * gap:
                break
        if m > self._largest:
            return False
        if (yield from self._search(math.inf, self.nodes + FIRST)):
            return True
        floor = self.lower
        radius = START * (float(self.energy[0]) - floor)
        while True:
            threshold, before = min(floor + radius, float(self.energy[0])), self.nodes
            if not (yield from self._search(threshold, self._limit)):
                return False
            if self.energy[0] <= threshold:
                return True
            self.lower = max(self.lower, threshold - self.tolerance)
            radius *= LEAP if self.nodes - before < FEW else RISE

    def _enumerate(self) -> Steps:
        """Enumerate all states; returns whether the limit of nodes allowed it."""
        model = self._model
        least, best = np.array([math.inf]), np.zeros(len(model.c), np.uint8)
        blocks = enumeration.blocks(len(model.c))
        for first in range(0, blocks, BLOCKS):
            if first:
                yield
                if self.nodes >= self._limit:
                    return False
            last = min(first + BLOCKS, blocks)
            enumeration.enumerate_states(model.Q, model.c, first, last, least, best)
            self.nodes += (last - first) << (enumeration.LOW + enumeration.MIDDLE)
            if least[0] + model.k < self.energy[0]:
                self._keep(best, least[0] + model.k)
        return True

    def _search(self, threshold: float, limit: int) -> Steps:
        """Search for states with an energy up to `threshold`.

        Returns whether the search has ended; it is given up when the row has had
        `limit` nodes.
        """
        energy, here = self.energy, self._split
        if here is None:
            return False
        energy[1] = min(threshold, energy[0])
        while True:
            here = yield from ellipsoid(self._model, float(energy[1]), SHARE, here)
            yield
            self._split = here
            radius = energy[1] - here.bound
            if radius <= 0:
                return True
            tree = yield from Tree.of(here)
            yield
            while energy[1] - here.bound >= SHRUNK * radius:
                if tree.done:
                    return True
                if self.nodes >= limit:
                    return False
                self._run(tree)
                yield

    def _run(self, tree: Tree) -> None:
        """Search the tree for a chunk of nodes; keep a better state."""
        model, best_energy = self._model, self.energy[0]
        before, best = int(tree.place[1]), np.zeros(len(model.c), np.uint8)
        sphere.search(
            tree.norms,
            tree.shifts,
            tree.steps,
            tree.reach,
            model.Q,
            model.c,
            model.k,
            self.tolerance,
            tree.unit,
            CHUNK,
            tree.state,
            tree.centres,
            tree.near,
            tree.place,
            self.energy,
            best,
        )
        self.nodes += int(tree.place[1]) - before
        if self.energy[0] < best_energy:
            self._keep(best, self.energy[0])

    def _keep(self, x: States, energy: float) -> None:
        """Keep x, the best state of the variables that are not settled."""
        self.energy[0] = energy
        self.x = self._settled.copy()
        self.x[self._free] = x


def settle(model: Model) -> NDArray[np.int8]:
    """Values [m] of variables that are best whatever the other variables are, else -1.

    A variable is settled if its linear term outweighs all its couplings, or if it makes
    no difference beyond rounding. Takes some ``m**2`` operations.
    """
    m = len(model.c)
    values = np.full(m, -1, np.int8)
    couplings = model.Q.copy()
    np.fill_diagonal(couplings, 0)
    own = model.c + model.Q.diagonal()
    # Least and greatest cost of setting a variable to 1.
    least = own + 2 * np.minimum(couplings, 0).sum(axis=1)
    most = own + 2 * np.maximum(couplings, 0).sum(axis=1)
    idle = model.noise / max(m, 1)
    while True:
        free = values < 0
        candidates = np.flatnonzero(
            free & ((least >= 0) | (most <= 0) | (np.maximum(-least, most) <= idle))
        )
        if not candidates.size:
            return values
        # Sums that have been updated carry rounding: sum the couplings anew.
        rows = couplings[candidates]
        down, up = np.minimum(rows, 0), np.maximum(rows, 0)
        now = own[candidates] + 2 * (rows @ (values == 1))
        least[candidates] = now + 2 * (down @ free)
        most[candidates] = now + 2 * (up @ free)
        low, high = least[candidates], most[candidates]
        weak = np.maximum(-low, high) <= idle
        values[candidates] = np.where(low >= 0, 0, np.where(high <= 0, 1, -1 + weak))
        one, zero = values[candidates] == 1, values[candidates] == 0
        least += 2 * (one @ up - zero @ down)
        most += 2 * (one @ down - zero @ up)
