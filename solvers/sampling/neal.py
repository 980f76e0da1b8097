"""D-Wave's simulated annealing, through dimod: the field's usual baseline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from solvers.base import Solver, Task
from solvers.budget import Monitor
from solvers.qubo import States

# The sampler holds an inverse temperature for every sweep.
MAX_SWEEPS = 10**8


@dataclass(frozen=True, kw_only=True)
class Neal(Solver):
    """dwave-samplers' `SimulatedAnnealingSampler`, one model per row.

    Parameters
    ----------
    num_reads
        Anneals per row; the best is kept.
    num_sweeps
        Sweeps per anneal; a budget's ``sweeps`` caps it.
    beta_min, beta_max
        First and last inverse temperature, in units of 1/energy; 0: the sampler's own
        default range (which its authors derive from the smallest and largest
        coefficients, and which ends far too cold on dense real-valued models).
    warm
        Start every read at the given states instead of at random; the sampler returns
        the last state of a read, not the best.
    """

    name: ClassVar[str] = "neal"
    references: ClassVar[tuple[str, ...]] = (
        "dwave-samplers, SimulatedAnnealingSampler",
    )

    num_reads: int = 1
    num_sweeps: int = 1000
    beta_min: float = 0.0
    beta_max: float = 0.0
    warm: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.num_reads >= 1, "num_reads must be at least 1")
        self.require(
            1 <= self.num_sweeps <= MAX_SWEEPS, f"num_sweeps must be 1 to {MAX_SWEEPS}"
        )
        self.require(
            self.beta_min == self.beta_max == 0
            or 0 < self.beta_min <= self.beta_max < math.inf,
            "give both beta_min and beta_max, 0 < beta_min <= beta_max, or neither",
        )

    def search(self, task: Task) -> States:
        """Sample row after row; rows not reached in time keep their start."""
        sampler = dwave_sampler()
        qubo = task.qubo
        states = task.start.copy()
        energies = qubo.energies(states, task.budget.threads)
        # The sampler takes 31-bit seeds.
        seeds = task.streams() >> np.uint64(33)
        options: dict[str, Any] = {
            "num_reads": self.num_reads,
            "num_sweeps": task.budget.cap(self.num_sweeps),
        }
        if self.beta_min:
            options["beta_range"] = (self.beta_min, self.beta_max)
        stop = _Stop(task.monitor)
        for r in range(qubo.rows):
            free = np.flatnonzero(qubo.free(r))
            if not len(free):
                continue
            if self.warm:
                start = zip(free.tolist(), states[r, free].tolist(), strict=True)
                options["initial_states"] = dict(start)
                options["initial_states_generator"] = "tile"
            samples = sampler.sample(
                qubo.to_bqm(r),
                seed=int(seeds[r]),
                interrupt_function=stop,
                **options,
            )
            if stop.interrupted:
                raise KeyboardInterrupt
            if len(samples):
                best = samples.record.energy.argmin()
                state = states[[r]]
                state[0, np.array(samples.variables)] = samples.record.sample[best]
                # Computed as all other energies are, to compare to the last bit.
                energy = qubo.take([r]).energies(state)[0]
                if energy <= energies[r]:
                    states[r], energies[r] = state[0], energy
            if not task.monitor.report(energies, states):
                break
        return states


class _Stop:
    """Callback that stops the sampler between reads: when time is up or after Ctrl-C.

    The sampler swallows exceptions of its callback, Ctrl-C among them: `interrupted`
    notes it, so that it can be raised again once the sampler has returned.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.interrupted = False

    def __call__(self) -> bool:
        try:
            return self._monitor.remaining() <= 0
        except KeyboardInterrupt:
            self.interrupted = True
            return True


def dwave_sampler() -> Any:
    """A new instance of D-Wave's annealing sampler."""
    # dwave-neal 0.6 is a deprecated name for dwave-samplers.
    try:
        samplers = import_module("dwave.samplers")
    except ImportError:
        samplers = import_module("neal")
    return samplers.SimulatedAnnealingSampler()
