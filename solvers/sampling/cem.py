"""The cross-entropy method on Bernoulli distributions, on all rows of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.base import Solver, Task
from solvers.kernels import streams
from solvers.qubo import Float, States
from solvers.threads import over_rows


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Solver):
    """Sample from independent Bernoulli variables and move them towards the elite.

    Probabilities start at the prior, that is at stochastic rounding, as in the AdaRound
    paper (which says no more about its settings); states given to start from count as
    much as the prior.

    Parameters
    ----------
    samples
        States drawn per row and iteration.
    elite
        Share of the samples that are the elite, whose mean the probabilities move
        towards.
    smoothing
        Weight of the elite's mean against the old probabilities, in (0, 1].
    iterations
        Largest number of iterations; a budget's ``sweeps`` caps it.
    tolerance
        Stop when every probability is within this distance of 0 or 1.
    """

    name: ClassVar[str] = "cem"
    references: ClassVar[tuple[str, ...]] = (
        "Rubinstein, The Cross-Entropy Method for Combinatorial and Continuous "
        "Optimization, 1999",
        "Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, "
        "2020, section 4",
    )

    samples: int = 200
    elite: float = 0.1
    smoothing: float = 0.3
    iterations: int = 100
    tolerance: float = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.samples >= 2, "samples must be at least 2")
        self.require(0 < self.elite < 1, "elite must lie between 0 and 1")
        self.require(0 < self.smoothing <= 1, "smoothing must lie in (0, 1]")
        self.require(self.iterations >= 1, "iterations must be at least 1")
        self.require(0 <= self.tolerance < 0.5, "tolerance must lie in [0, 0.5)")

    def search(self, task: Task) -> States:
        """Iterate until the probabilities settle; return the best samples."""
        qubo, threads = task.qubo, task.budget.threads
        rng = task.streams()
        p = (qubo.prior + task.start) / 2 if task.warm else qubo.prior.copy()
        rows = np.arange(qubo.rows)
        best, best_energy = task.start.copy(), qubo.energies(task.start, threads)
        going = np.ones(qubo.rows, bool)
        iterations_done = 0
        for _ in range(task.budget.cap(self.iterations)):
            elite, energies = self._elite(task, p, rng)
            # A settled row waits for the others unchanged: rows are independent.
            p[going] += self.smoothing * (elite.mean(axis=1) - p)[going]
            leader = energies.argmin(axis=1)
            better = going & (energies[rows, leader] < best_energy)
            best[better] = elite[rows, leader][better]
            best_energy[better] = energies[rows, leader][better]
            iterations_done += 1
            going &= ~self._settled(p)
            if not task.monitor.report(best_energy, best) or not going.any():
                break
        task.info["iterations"] = iterations_done
        return best

    def _elite(
        self, task: Task, p: Float, rng: NDArray[np.uint64]
    ) -> tuple[States, Float]:
        """The elite of new samples, [R, elite, n], and its energies [R, elite].

        Samples are drawn in chunks, which bounds the memory; if time runs out between
        two chunks, the elite is that of the samples drawn by then.
        """
        qubo, threads = task.qubo, task.budget.threads
        elite_size = max(1, round(self.elite * self.samples))
        rows = np.arange(qubo.rows)[:, None]
        elite = np.empty((qubo.rows, 0, qubo.n), np.uint8)
        energies = np.empty((qubo.rows, 0))
        samples_left = self.samples
        while samples_left and (
            samples_left == self.samples or task.monitor.remaining() > 0
        ):
            draws = np.empty(
                (qubo.rows, min(task.chunk(), samples_left), qubo.n), np.uint8
            )
            samples_left -= draws.shape[1]
            over_rows(streams.bernoulli, (), (p, rng, draws), threads)
            elite = np.concatenate([elite, draws], axis=1)
            energies = np.concatenate([energies, qubo.energies(draws, threads)], axis=1)
            if energies.shape[1] > elite_size:
                order = np.argpartition(energies, elite_size - 1, axis=1)
                order = order[:, :elite_size]
                elite, energies = elite[rows, order], energies[rows, order]
        return elite, energies

    def _settled(self, p: Float) -> NDArray[np.bool_]:
        farthest = np.minimum(p, 1 - p).max(axis=1, initial=0.0)
        return np.asarray(farthest <= self.tolerance)
