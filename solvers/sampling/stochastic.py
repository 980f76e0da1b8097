"""Stochastic rounding: independent draws from the prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.base import Solver, Task
from solvers.kernels import streams
from solvers.qubo import States
from solvers.threads import over_rows


@dataclass(frozen=True, kw_only=True)
class Stochastic(Solver):
    """The best of K stochastic roundings, ``P(x_i = 1) = prior_i``.

    Parameters
    ----------
    samples
        K; 100 in the paper's Table 1. A budget's ``sweeps`` caps it.
    pick
        ``"row"``: the best sample of each row. ``"layer"``: the one sample of the whole
        batch with the lowest total energy, as in the paper (which picks by accuracy).
    """

    name: ClassVar[str] = "stochastic"
    rule: ClassVar[bool] = True
    references: ClassVar[tuple[str, ...]] = (
        "Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, "
        "2020, Table 1",
    )
    samples: int = 100
    pick: str = "row"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.samples >= 1, "samples must be at least 1")
        self.require(self.pick in ("row", "layer"), "pick must be row or layer")

    def search(self, task: Task) -> States:
        """Draw in chunks and keep the best."""
        qubo = task.qubo
        rng = task.streams()
        states = np.zeros((qubo.rows, qubo.n), np.uint8)
        best = np.full(qubo.rows, np.inf)
        samples_left = task.budget.cap(self.samples)
        while samples_left > 0:
            draws = np.empty(
                (qubo.rows, min(task.chunk(), samples_left), qubo.n), np.uint8
            )
            samples_left -= draws.shape[1]
            over_rows(
                streams.bernoulli,
                (),
                (qubo.prior, rng, draws),
                task.budget.threads,
            )
            energies = qubo.energies(draws, task.budget.threads)
            if self.pick == "layer":
                choice = np.full(qubo.rows, energies.sum(axis=0).argmin())
                chosen_energies = energies[np.arange(qubo.rows), choice]
                better = np.full(qubo.rows, chosen_energies.sum() < best.sum())
            else:
                choice = energies.argmin(axis=1)
                chosen_energies = energies[np.arange(qubo.rows), choice]
                better = chosen_energies < best
            states[better] = draws[np.arange(qubo.rows), choice][better]
            best = np.where(better, chosen_energies, best)
            if not task.monitor.report(best, states):
                break
        return states
