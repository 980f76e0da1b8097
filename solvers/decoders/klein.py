"""Klein's randomised decoding: many samples about Babai's point."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.base import Task
from solvers.decoders.decoder import Decoder
from solvers.qubo import States

# The default temperature in units of det(S H' S)^(1/n), the typical cost of a step
# between two planes; on layers of ResNet18, 0.02 to 0.04 is best for 50 samples.
UNIT = 0.03


@dataclass(frozen=True, kw_only=True)
class Klein(Decoder):
    """Babai's point, and samples that round at random with the nearer value likelier.

    Parameters
    ----------
    samples
        States per row, the first of them Babai's; a budget's ``sweeps`` caps it.
    temperature
        In units of energy. The probability of a value is proportional to
        ``exp(-cost / temperature)``, where cost is what the value adds to the energy.
        0: found from the factor, per row.
    """

    name: ClassVar[str] = "klein"
    references: ClassVar[tuple[str, ...]] = (
        "Klein, Finding the Closest Lattice Vector When It's Unusually Close, 2000",
        "Liu, Ling, Stehlé, Decoding by Sampling: A Randomized Lattice Algorithm for "
        "Bounded Distance Decoding, 2011",
    )

    samples: int = 50
    temperature: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.samples >= 1, "samples must be at least 1")
        self.require(0 <= self.temperature < math.inf, "temperature must be at least 0")

    def search(self, task: Task) -> States:
        """Draw samples and return the best of each row."""
        qubo = task.qubo
        if qubo.n == 0 or (targets := self.prepare(task)) is None:
            return task.start
        threads = task.budget.threads
        beta = np.full(qubo.rows, np.inf)
        if self.temperature:
            temperature = np.full(qubo.rows, self.temperature)
        else:
            steps = targets.scale * targets.factor.upper.diagonal()
            temperature = UNIT * np.exp(2.0 * np.log(steps).mean(axis=1))
        task.info["temperature"] = float(np.median(temperature))
        rng = task.streams()
        best, energies = task.start, qubo.energies(task.start, threads)
        for _ in range(task.budget.cap(self.samples)):
            states = targets.nearest_planes(beta, rng, threads).astype(np.uint8)
            sample_energies = qubo.energies(states, threads)
            best = np.where((sample_energies < energies)[:, None], states, best)
            energies = np.minimum(sample_energies, energies)
            if not task.monitor.report(energies, best):
                break
            beta = 1.0 / temperature
        return best
