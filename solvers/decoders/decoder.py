"""Base classes of the decoders: a factor of H, and rows decoded in blocks."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.base import Solver, Task
from solvers.decoders.factor import ORDERS, Factor, Targets, binary_targets, factorise
from solvers.kernels import energy
from solvers.qubo import States
from solvers.threads import one_blas_thread, over_rows

# Nanoseconds of decoding between two looks at the clock, per thread.
CHUNK = 2 * 10**8


@dataclass(frozen=True, kw_only=True)
class Decoder(Solver):
    """A solver that decides variable after variable along a factor of H.

    Parameters
    ----------
    order
        Order of the decisions: ``"natural"``, ``"activation"``, ``"min-pivot"`` or
        ``"v-blast"``; see `solvers.decoders.factor.factorise`.
    damping
        Added to the diagonal of H before it is factorised, as a share of the diagonal's
        mean; more is added where H is not positive definite.
    """

    order: str = "min-pivot"
    damping: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.order in ORDERS, f"order must be one of {', '.join(ORDERS)}")
        self.require(0 <= self.damping < math.inf, "damping must be at least 0")

    def targets(self, task: Task, factor: Factor) -> Targets:
        """The batch's rows in the coordinates of `factor`."""
        return binary_targets(task.qubo, factor, task.budget.threads)

    def prepare(self, task: Task) -> Targets | None:
        """Factorise H and return the targets; None if time is up by then."""
        with one_blas_thread():
            factor = factorise(task.qubo.H, self.order, self.damping)
            targets = self.targets(task, factor)
        mean = float(np.abs(task.qubo.H.diagonal()).mean())
        task.info["damping"] = factor.damping / mean if mean else factor.damping
        if task.monitor.remaining() > 0:
            return targets
        task.monitor.report(task.monitor.best)
        return None


class OnePass(Decoder):
    """A decoder that decodes each row once."""

    @abstractmethod
    def decode(self, task: Task, targets: Targets) -> NDArray[Any]:
        """States [rows, n] for the rows of `targets`."""

    def work(self, task: Task) -> float:
        """Approximate time to decode one row, in nanoseconds."""
        return 0.5 * task.qubo.n**2

    def search(self, task: Task) -> States:
        """Decode blocks of rows while time lasts; rows not reached keep their start."""
        qubo, threads = task.qubo, task.budget.threads
        dtype = np.int16 if self.out_of_set else np.uint8
        states: NDArray[Any] = task.start.astype(dtype)
        if qubo.n == 0 or (targets := self.prepare(task)) is None:
            return states
        energies, scale = task.monitor.best.copy(), qubo.full_scale()
        block = threads * max(1, int(CHUNK / self.work(task)))
        for first in range(0, qubo.rows, block):
            rows = slice(first, first + block)
            states[rows] = self.decode(task, targets.take(rows))
            over_rows(
                energy.energies,
                (qubo.H,),
                (
                    scale[rows],
                    qubo.linear[rows],
                    qubo.offset[rows],
                    states[rows, None],
                    energies[rows, None],
                ),
                threads,
            )
            if not task.monitor.report(energies, states):
                break
        return states
