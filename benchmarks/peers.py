"""Solvers of other packages behind this project's protocol, to be compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from solvers.base import Solver, Task
from solvers.qubo import States


@dataclass(frozen=True, kw_only=True)
class DwaveTabu(Solver):
    """dwave-samplers' `TabuSampler` from the start, one model and one read per row.

    A budget's ``seconds`` are shared equally among the rows. (Its authors' sampler
    looks at the clock itself, so equal seeds need not give equal answers.)

    Parameters
    ----------
    milliseconds
        Of one row, where the budget has no ``seconds``.
    """

    name: ClassVar[str] = "dwave-tabu"
    references: ClassVar[tuple[str, ...]] = ("dwave-samplers, TabuSampler",)

    milliseconds: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.milliseconds >= 1, "milliseconds must be at least 1")

    def search(self, task: Task) -> States:
        """Sample row after row; building the models counts."""
        sampler = import_module("dwave.samplers").TabuSampler()
        qubo, budget = task.qubo, task.budget
        states = task.start.copy()
        energies = qubo.energies(states)
        # The sampler takes 32-bit seeds.
        seeds = task.streams() >> np.uint64(33)
        targets = None
        if budget.target is not None:
            targets = np.broadcast_to(budget.target, qubo.rows)
        for r in range(qubo.rows):
            free = np.flatnonzero(qubo.free(r))
            if not len(free):
                continue
            model = qubo.to_bqm(r)
            share = 1000 * task.monitor.remaining() / (qubo.rows - r)
            timeout = self.milliseconds if math.isinf(share) else int(share)
            if timeout < 1:
                task.monitor.report(energies)
                break
            start = zip(free.tolist(), states[r, free].tolist(), strict=True)
            options: dict[str, Any] = {"timeout": timeout, "seed": int(seeds[r])}
            if targets is not None and math.isfinite(targets[r]):
                # The sampler compares energies without the model's offset.
                options["energy_threshold"] = float(targets[r]) - float(model.offset)
            found = sampler.sample(model, initial_states=dict(start), **options)
            best = found.record.energy.argmin()
            if found.record.energy[best] < energies[r]:
                states[r, np.array(found.variables)] = found.record.sample[best]
                energies[r] = float(found.record.energy[best])
            if not task.monitor.report(energies):
                break
        return states
