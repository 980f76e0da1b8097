"""`Budget`: when a solver must stop. `Monitor`: how far a solver has come."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from solvers.checks import is_number, real, require_count
from solvers.errors import InputError, shown
from solvers.qubo import Float

# Numbers that a trace may hold, and entries, each of which takes memory of its own:
# together some 10 MB, and twice that while a solution is made of them. The least number
# of entries stays even if there are more rows than that has room for.
TRACE_NUMBERS, TRACE_ENTRIES, LEAST_ENTRIES = 2**20, 2**14, 64
# Returns the seconds since a fixed moment.
Clock = Callable[[], float]
# States [R, n] that go with a report, or what gives them, called only where they are
# wanted.
Reported: TypeAlias = (
    NDArray[np.integer[Any]] | Callable[[], NDArray[np.integer[Any]]] | None
)


@dataclass(frozen=True)
class Budget:
    """When a solver must stop, at the latest.

    Parameters
    ----------
    seconds
        Wall-clock limit. It is soft: the clock is read between chunks of work.
    sweeps
        Limit in the solver's own unit of work (each solver says which); the limit to
        use where answers must be reproducible.
    target
        Stop when every row's energy is at or below this number, or these numbers [R].
    threads
        Number of threads that the rows are divided among. It never changes the answer.
    """

    seconds: float | None = None
    sweeps: int | None = None
    target: float | Float | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        if self.seconds is not None and not (
            is_number(self.seconds) and 0 < float(self.seconds) < math.inf
        ):
            raise InputError(f"seconds must be positive, not {shown(self.seconds)}")
        for name in ("sweeps", "threads"):
            count = getattr(self, name)
            if name == "threads" or count is not None:
                require_count(name, count)
                # numpy's integers overflow where Python's do not.
                object.__setattr__(self, name, int(count))
        if self.target is not None and np.isnan(real("target", self.target)).any():
            raise InputError("target must be a number, not NaN")

    def cap(self, sweeps: int) -> int:
        """The smaller of `sweeps` and the budget's limit of sweeps."""
        return sweeps if self.sweeps is None else min(sweeps, self.sweeps)


class Monitor:
    """Records the best energies so far against time, and says whether to go on.

    Time counts from the start of the search and stands still while a report is handled.
    A trace that has grown long is thinned to half: see `thinned`.

    Parameters
    ----------
    on_report
        Called at every report with the seconds and the best energies [R] so far, which
        it may keep and change.
    clock
        The only clock that solvers measure and decide by.
    """

    def __init__(
        self,
        on_report: Callable[[float, Float], None] | None = None,
        *,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._on_report = on_report
        self.clock = clock
        self._budget = Budget()
        self._started = 0.0
        self._paused = 0.0
        self.best: Float = np.empty(0)
        self._most = TRACE_ENTRIES
        self.seconds: list[float] = []
        self.energies: list[Float] = []
        self.status = "done"

    def start(self, budget: Budget, energies: Float) -> None:
        """Start the clock; `energies` [R] are those of the states to start from."""
        self._budget = budget
        self.best = energies.copy()
        self.seconds, self.energies = [0.0], [self.best.copy()]
        most = min(TRACE_NUMBERS // max(len(self.best), 1), TRACE_ENTRIES)
        self._most = max(most, LEAST_ENTRIES)
        self.status = "done"
        self._paused = 0.0
        self._started = self.clock()

    def elapsed(self) -> float:
        """Seconds of solving so far."""
        return self.clock() - self._started - self._paused

    def remaining(self) -> float:
        """Seconds of the budget that are left; infinite without a limit in seconds."""
        if self._budget.seconds is None:
            return math.inf
        return max(self._budget.seconds - self.elapsed(), 0.0)

    def record(self, energies: Float, states: Reported = None) -> None:
        """Add the energies [R] of the present states to the trace.

        Parameters
        ----------
        energies : float64 [R]
            Of the present states, or of the best so far.
        states : uint8 or int16 [R, n], optional
            The states that have these energies, or a function that gives them. They are
            what is left of a search that is killed, and copied where they are kept.
        """
        now = self.elapsed()
        # NaN is no energy that has been reached.
        np.fmin(self.best, energies, out=self.best)
        self.seconds.append(now)
        self.energies.append(self.best.copy())
        self.handle(now, energies, states)
        if len(self.seconds) > self._most:
            kept = thinned(np.array(self.energies))
            self.seconds = [self.seconds[i] for i in kept]
            self.energies = [self.energies[i] for i in kept]
        self._paused += self.elapsed() - now

    def handle(self, seconds: float, energies: Float, states: Reported) -> None:
        """What is done with a report beside recording it; the clock stands still."""
        if self._on_report is not None:
            self._on_report(seconds, self.best.copy())

    def report(self, energies: Float, states: Reported = None) -> bool:
        """Record energies [R], and the states; true if the solver may go on."""
        self.record(energies, states)
        budget = self._budget
        if budget.target is not None and (self.best <= budget.target).all():
            self.status = "target"
        elif budget.seconds is not None and self.seconds[-1] >= budget.seconds:
            self.status = "time"
        return self.status == "done"


def thinned(energies: Float) -> list[int]:
    """The entries of a trace to keep, at most half: first, last, and improvements.

    Of the improvements, those go that close the least share of the gap between the
    energy, summed over the rows, and the last one.

    Parameters
    ----------
    energies : [T, R]
        Not rising.
    """
    improves = np.asarray((energies[1:] < energies[:-1]).any(axis=1))
    inner = 1 + np.flatnonzero(improves[:-1])
    kept = np.concatenate([[0], inner, [len(energies) - 1]])
    while len(kept) > max(len(energies) // 2, 2):
        sums = energies[kept].sum(axis=1)
        # No gap is left at the end, and there is none to say before the first answer.
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = np.log(sums - sums[-1])
            share = np.nan_to_num(gap[:-2] - gap[1:-1])
        # Without one entry, its successor closes more: every second one is looked at.
        order = np.argsort(share[::2], kind="stable")
        kept = np.delete(kept, 1 + 2 * order[: (len(order) + 1) // 2])
    return [int(i) for i in kept]
