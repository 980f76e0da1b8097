"""Multi-start descent, as a file or a package of your own would add it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers import Solver, Task, descend


@dataclass(frozen=True, kw_only=True)
class MultiStart(Solver):
    """The best of several descents from stochastic roundings."""

    name: ClassVar[str] = "multi-start"
    starts: int = 20

    def search(self, task: Task):
        """Draw states from the prior, descend, and keep each row's best."""
        qubo, best, lowest = task.qubo, task.start, task.qubo.energies(task.start)
        rngs = [np.random.default_rng(stream) for stream in task.streams()]
        for _ in range(task.budget.cap(self.starts)):
            draws = np.array([rng.random(qubo.n) for rng in rngs]) < qubo.prior
            states = descend(qubo, qubo.pin(draws.astype(np.uint8)))
            energies = qubo.energies(states)
            best = np.where((energies < lowest)[:, None], states, best)
            lowest = np.minimum(lowest, energies)
            if not task.monitor.report(lowest, best):
                break
        return best
