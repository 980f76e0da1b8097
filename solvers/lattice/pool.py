"""The best states of each row, and children of two of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.kernels import recombine as kernels
from solvers.qubo import Float, QuboBatch, States
from solvers.threads import over_rows

# Variables that a recombination decides anew, at most.
MOST_MIXED = 256
# Added to their matrix's diagonal, as a share of its mean (see
# `solvers.decoders.factor`).
DAMPING = 0.02
# Energies that differ by less than this share belong to one state.
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
        """One more state [R, n] of each row."""
        energies = self.qubo.energies(states, self.threads)
        self.states = np.concatenate([self.states, states[None]])
        self.energies = np.concatenate([self.energies, energies[None]])

    def parents(
        self, choosers: list[np.random.Generator], count: int
    ) -> tuple[Places, Places]:
        """So many couples of each row [count, R]: the better ones, and the worse."""
        size, rows = len(self), np.arange(self.qubo.rows)
        draws = [rng.integers(0, size * (size - 1), count) for rng in choosers]
        one, two = np.divmod(np.array(draws).T, size - 1)
        two += two >= one
        swap = self.energies[one, rows] > self.energies[two, rows]
        return np.where(swap, two, one), np.where(swap, one, two)

    def children(
        self, better: Places, worse: Places, paths: int, mixers: NDArray[np.uint64]
    ) -> States:
        """What each couple [R] agrees about, and the rest decoded anew, [R, n].

        Parameters
        ----------
        paths
            Of the K-best search.
        mixers : uint64 [R]
            Random streams, which move on.
        """
        rows = np.arange(self.qubo.rows)
        children = np.empty(self.states.shape[1:], np.uint8)
        over_rows(
            kernels.recombine,
            (self.qubo.H, paths, MOST_MIXED, DAMPING),
            (
                *(self.states[better, rows], self.states[worse, rows]),
                *(self.qubo.full_scale(), self.qubo.linear, mixers, children),
            ),
            self.threads,
        )
        return children

    def replace(
        self, states: States, worse: Places, active: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Let states [R, n] take the place of the worse parent, or of the worst state.

        Where they are better than that and not in the pool yet, and only in `active`
        rows; in which rows [R] they are taken.
        """
        energies = self.qubo.energies(states, self.threads)
        rows = np.arange(self.qubo.rows)
        known = np.abs(self.energies - energies) <= SAME * np.abs(energies)
        fits = energies < self.energies[worse, rows]
        place = np.where(fits, worse, self.energies.argmax(axis=0))
        taken = active & (energies < self.energies[place, rows]) & ~known.any(axis=0)
        self.states[place[taken], rows[taken]] = states[taken]
        self.energies[place[taken], rows[taken]] = energies[taken]
        return np.asarray(taken)
