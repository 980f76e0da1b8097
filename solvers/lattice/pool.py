"""`Pool`: the best states of each row, and their recombination by twos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.kernels import recombine as kernels
from solvers.qubo import Float, QuboBatch, States
from solvers.threads import over_rows

# Largest number of variables that a recombination decides anew.
MOST_MIXED = 256
# Damping of the matrix of these variables, added to its diagonal as a share of the
# diagonal's mean (see `solvers.decoders.factor`).
DAMPING = 0.02
# Two energies that differ relatively by less are taken for those of the same state.
SAME = 1e-12

Places = NDArray[np.intp]


@dataclass(eq=False)
class Pool:
    """P states [P, R, n] of every row of a batch, and their energies [P, R]."""

    qubo: QuboBatch
    threads: int
    states: States
    energies: Float

    @classmethod
    def of(cls, qubo: QuboBatch, threads: int) -> Pool:
        """An empty pool."""
        return cls(
            qubo,
            threads,
            np.empty((0, qubo.rows, qubo.n), np.uint8),
            np.empty((0, qubo.rows)),
        )

    def __len__(self) -> int:
        return len(self.states)

    def best(self) -> States:
        """The best state of each row."""
        lowest = self.energies.argmin(axis=0)
        best: States = self.states[lowest, np.arange(self.qubo.rows)]
        return best

    def add(self, states: States) -> None:
        """Add one more state [R, n] of each row."""
        energies = self.qubo.energies(states, self.threads)
        self.states = np.concatenate([self.states, states[None]])
        self.energies = np.concatenate([self.energies, energies[None]])

    def challenge_first(self, states: States) -> None:
        """Put states [R, n] in the first place of the pools of rows where they win."""
        energies = self.qubo.energies(states, self.threads)
        wins = energies < self.energies[0]
        self.states[0, wins], self.energies[0, wins] = states[wins], energies[wins]

    def parents(
        self, choosers: list[np.random.Generator], count: int
    ) -> tuple[Places, Places]:
        """Draw couples of states for each row.

        Returns
        -------
        better, worse : [count, R]
            Places in the pool of each couple's better and worse state.
        """
        size, rows = len(self), np.arange(self.qubo.rows)
        draws = [rng.integers(0, size * (size - 1), count) for rng in choosers]
        first, second = np.divmod(np.array(draws).T, size - 1)
        second += second >= first
        swap = self.energies[first, rows] > self.energies[second, rows]
        return np.where(swap, second, first), np.where(swap, first, second)

    def children(
        self, better: Places, worse: Places, paths: int, mixers: NDArray[np.uint64]
    ) -> States:
        """Children [R, n]: what each row's couple agrees about, the rest decoded anew.

        Parameters
        ----------
        better, worse : [R]
            Places in the pool of each row's couple.
        paths
            Number of paths of the K-best search.
        mixers : uint64 [R]
            Random streams, which move on.
        """
        rows = np.arange(self.qubo.rows)
        children = np.empty(self.states.shape[1:], np.uint8)
        over_rows(
            kernels.recombine,
            (self.qubo.H, paths, MOST_MIXED, DAMPING),
            (
                self.states[better, rows],
                self.states[worse, rows],
                self.qubo.full_scale(),
                self.qubo.linear,
                mixers,
                children,
            ),
            self.threads,
        )
        return children

    def replace(
        self, states: States, worse: Places, active: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Put states [R, n] in the place of their worse parent, or of the worst state.

        Only in `active` rows, and only states that are better than the one they replace
        and not in the pool yet.

        Returns
        -------
        taken : bool [R]
            The rows whose pool has changed.
        """
        energies = self.qubo.energies(states, self.threads)
        rows = np.arange(self.qubo.rows)
        known = np.abs(self.energies - energies) <= SAME * np.abs(energies)
        beats_parent = energies < self.energies[worse, rows]
        place = np.where(beats_parent, worse, self.energies.argmax(axis=0))
        taken = active & (energies < self.energies[place, rows]) & ~known.any(axis=0)
        self.states[place[taken], rows[taken]] = states[taken]
        self.energies[place[taken], rows[taken]] = energies[taken]
        return np.asarray(taken)
