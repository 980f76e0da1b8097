"""`window`: any solver on windows of two grid points that follow its answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.base import Solver, Task
from solvers.budget import Budget, Monitor, Reported
from solvers.qubo import Float, QuboBatch
from solvers.registry import label, parse_solver
from solvers.warming import freest_row

# Least seconds of a round: a budget of none would be no budget.
LEAST_SECONDS = 1e-3


@dataclass(frozen=True, kw_only=True)
class Window(Solver):
    """Choose up or down again and again, each time around the last answer.

    The other solvers choose between the two grid points around a weight; the best point
    of the grid may be another one. Once the inner solver has chosen among those two,
    every weight gets a new window of two points: the point that it has, and the
    neighbour on the side to which the energy falls (at an end of the grid, the one
    neighbour there is). The inner solver starts from the answer and chooses again. What
    is searched in this way is the whole grid, by binary problems that differ in their
    linear terms alone.

    Rows that a round improves get another one; the others keep what they have, since
    their window would be the same again. Saturated weights that the batch pins stay so
    in the first round. Later they move like the others, as with `gptq`: they are pinned
    because their two nearest points coincide, and this search is not bound to those.

    The inner solver sees the quadratic form alone. The rounds share the budget's
    seconds and sweeps equally, and a sweep is what it is to the inner solver. `info`
    holds ``rounds``, the energies summed over the rows after the inner solver's own
    answer and after each round that followed.

    Parameters
    ----------
    solver
        The inner solver's text, such as ``lattice`` or ``kbest[paths=16]``: one that is
        held to the two nearest points, and needs no data of the layer.
    rounds
        Largest number of rounds after the first answer.
    """

    name: ClassVar[str] = "window"
    out_of_set: ClassVar[bool] = True

    solver: str = "auto"
    rounds: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.rounds >= 1, "rounds must be at least 1")
        inner = self.inner
        self.require(
            not inner.out_of_set,
            f"{inner.name} is out of the set itself; its solver must be one that is "
            "held to two grid points",
        )
        self.require(
            not inner.uses_data,
            f"{inner.name} needs a layer's data; its solver must be one of the "
            "quadratic form",
        )
        # One text for one solver, by which runs are told apart.
        object.__setattr__(self, "solver", label(inner))

    @property
    def inner(self) -> Solver:
        """The inner solver."""
        return parse_solver(self.solver)

    def supports(self, qubo: QuboBatch) -> str | None:
        """Only batches on a grid, and those that the inner solver takes."""
        return qubo.lacks_steps() or self.inner.supports(qubo)

    def compile_for(self, qubo: QuboBatch) -> None:
        """What the inner solver may call, and what two rounds do."""
        self.inner.compile_for(qubo)
        self.solve(freest_row(qubo), budget=Budget(sweeps=2))

    def search(self, task: Task) -> NDArray[Any]:
        """Solve by the inner solver, then in new windows while rows improve."""
        qubo, threads, inner = task.qubo, task.budget.threads, self.inner
        steps: NDArray[Any] = task.start.astype(np.int16)
        energies = qubo.energies(steps, threads)
        sums: list[float] = []
        rows, sweeps = np.arange(qubo.rows), task.budget.sweeps
        for left in range(self.rounds + 1, 0, -1):
            first = not sums
            whole, held = qubo.take(rows), steps[rows]
            lowest = np.zeros_like(held) if first else windows(whole, held, threads)
            budget = self._budget(task, rows, sweeps, left)
            found = inner.solve(
                whole if first else whole.seen_from(lowest, threads),
                seed=task.seed + (len(sums) << 48),
                budget=budget,
                initial=None if first and not task.warm else held - lowest,
                monitor=Relayed(task.monitor, energies, steps, rows, lowest),
            )
            answer = (lowest + found.states).astype(np.int16)
            reached = whole.energies(answer, threads)
            better = reached < energies[rows]
            steps[rows[better]] = answer[better]
            energies[rows[better]] = reached[better]
            sums.append(float(energies.sum()))
            if not first:
                rows = rows[better]
            if sweeps is not None and budget.sweeps is not None:
                sweeps -= budget.sweeps
            if not task.monitor.report(energies, steps) or not len(rows) or sweeps == 0:
                break
        task.info["rounds"] = sums
        return steps

    @staticmethod
    def _budget(
        task: Task, rows: NDArray[np.intp], sweeps: int | None, left: int
    ) -> Budget:
        """An equal share of the time and of the sweeps for each round that is left."""
        budget = task.budget
        seconds, target = budget.seconds, budget.target
        if seconds is not None:
            seconds = max(task.monitor.remaining() / left, LEAST_SECONDS)
        if sweeps is not None:
            sweeps = max(sweeps // left, 1)
        if target is not None and np.ndim(target):
            target = np.asarray(target)[rows]
        return replace(budget, seconds=seconds, sweeps=sweeps, target=target)


class Relayed(Monitor):
    """Reports the search of some rows to the monitor of all of them.

    Parameters
    ----------
    outer
        The monitor to report to.
    energies, steps
        The energies [R] and grid steps [R, n] of all rows; rows not searched keep them.
    rows
        The rows that are searched.
    lowest
        The grid steps that states 0 of these rows stand for.
    """

    def __init__(
        self,
        outer: Monitor,
        energies: Float,
        steps: NDArray[Any],
        rows: NDArray[np.intp],
        lowest: NDArray[Any],
    ) -> None:
        super().__init__(clock=outer.clock)
        self._outer, self._rows, self._lowest = outer, rows, lowest
        self._energies, self._steps = energies, steps

    def handle(self, seconds: float, energies: Float, states: Reported) -> None:
        """Pass the report on, as one of all rows."""
        everywhere = self._energies.copy()
        everywhere[self._rows] = energies

        def moved() -> NDArray[Any]:
            found = states() if callable(states) else states
            steps = self._steps.copy()
            steps[self._rows] = self._lowest + found
            return steps

        self._outer.record(everywhere, None if states is None else moved)


def windows(qubo: QuboBatch, steps: NDArray[Any], threads: int = 1) -> NDArray[Any]:
    """The lower of the two grid points [R, n] between which each variable is to choose.

    One of them is the present step, the other its neighbour to the side on which the
    energy falls, or inwards at the ends of the grid.
    """
    assert qubo.levels is not None
    lowest, highest = qubo.levels
    below = np.where(qubo.slopes(steps, threads) < 0, steps, steps - 1)
    return np.clip(below, lowest, highest - 1).astype(steps.dtype)
