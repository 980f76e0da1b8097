"""What every solver shares: `Solver`, `Budget`, `Monitor`, `Task`, `Solution`."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.checks import binary
from solvers.errors import InputError
from solvers.qubo import Float, QuboBatch, States

POLISHES = ("none", "one-flip")


@dataclass(frozen=True)
class Budget:
    """When a solver must stop, at the latest.

    Parameters
    ----------
    seconds
        Wall-clock limit. Soft: looked at between chunks of work.
    sweeps
        Cap on a solver's own unit of work (each solver says which); the limit to use
        where answers must be reproducible.
    target
        Stop when every row's energy is at or below this; one number or [R].
    threads
        Rows are shared out among so many threads. Never changes the answer.
    """

    seconds: float | None = None
    sweeps: int | None = None
    target: float | Float | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise InputError(f"seconds must be positive, not {self.seconds}")
        for name in ("sweeps", "threads"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise InputError(f"{name} must be at least 1, not {count}")
            if count is not None and count != int(count):
                raise InputError(f"{name} must be a whole number, not {count}")
        if self.target is not None and np.isnan(self.target).any():
            raise InputError("target must be a number, not NaN")

    def cap(self, sweeps: int) -> int:
        """The smaller of `sweeps` and the budget's."""
        return sweeps if self.sweeps is None else min(sweeps, self.sweeps)


class Monitor:
    """Records the best energies so far against time, and says whether to go on.

    The clock starts with the search and stops while a report is handled.

    Parameters
    ----------
    on_report
        Called with the seconds and the best energies [R] at every report.
    """

    def __init__(self, on_report: Callable[[float, Float], None] | None = None) -> None:
        self._on_report = on_report
        self._budget = Budget()
        self._started = 0.0
        self._paused = 0.0
        self.best: Float = np.empty(0)
        self.seconds: list[float] = []
        self.energies: list[Float] = []
        self.status = "done"

    def start(self, budget: Budget, energies: Float) -> None:
        """Start the clock, with the energies [R] of the start."""
        self._budget = budget
        self.best = energies.copy()
        self.seconds, self.energies = [0.0], [self.best.copy()]
        self.status = "done"
        self._paused = 0.0
        self._started = time.perf_counter()

    def elapsed(self) -> float:
        """Seconds of solving so far."""
        return time.perf_counter() - self._started - self._paused

    def remaining(self) -> float:
        """Seconds left of the budget; infinite where it has no limit."""
        if self._budget.seconds is None:
            return math.inf
        return max(self._budget.seconds - self.elapsed(), 0.0)

    def record(self, energies: Float) -> None:
        """Add energies [R] of states at hand to the trace."""
        now = self.elapsed()
        np.minimum(self.best, energies, out=self.best)
        self.seconds.append(now)
        self.energies.append(self.best.copy())
        if self._on_report is not None:
            self._on_report(now, self.energies[-1])
        self._paused += self.elapsed() - now

    def report(self, energies: Float) -> bool:
        """Record energies [R] of states at hand; true while the solver may go on."""
        self.record(energies)
        budget = self._budget
        if budget.target is not None and (self.best <= budget.target).all():
            self.status = "target"
        elif budget.seconds is not None and self.seconds[-1] >= budget.seconds:
            self.status = "time"
        return self.status == "done"


@dataclass(frozen=True, eq=False)
class Task:
    """What `Solver.search` is given.

    Attributes
    ----------
    qubo
        The batch.
    start : uint8 [R, n]
        The states to start from and never to be worse than.
    warm
        Whether the caller gave `start`; otherwise it is the nearest rounding.
    seed
        Seeds every random stream.
    budget, monitor
        The limits, and whom to report to.
    info
        A solver may leave here what is worth knowing about its run.
    """

    qubo: QuboBatch
    start: States
    warm: bool
    seed: int
    budget: Budget
    monitor: Monitor
    info: dict[str, Any]

    def chunk(self) -> int:
        """States per row to evaluate between two looks at the clock, at least 1.

        So many that they take a fraction of a second and some ten MB.
        """
        work = self.qubo.rows * self.qubo.n * max(self.qubo.n, 100)
        return max(1, min(25, 10**9 // max(work, 1)))

    def streams(self) -> NDArray[np.uint64]:
        """One random stream per row, [R], for the kernels.

        Row r's stream depends on the seed and on r alone: adding rows changes nothing
        for the earlier ones.
        """
        children = np.random.SeedSequence(self.seed).spawn(self.qubo.rows)
        return np.array(
            [child.generate_state(1, np.uint64)[0] for child in children], np.uint64
        )


@dataclass(frozen=True, eq=False)
class Solution:
    """A solver's answer.

    Attributes
    ----------
    states : uint8 [R, n]
    energies : float64 [R]
        As the solver claims; a harness recomputes them.
    status
        ``"done"``, ``"time"`` (the budget's seconds ended) or ``"target"`` (reached).
    timing
        Seconds: ``prepare`` (checks, start), ``solve``, ``finish`` (polish, energies).
    trace
        Seconds [T] of solving and the best energies [T, R] by then.
    info
        What else the solver says of its run.
    """

    states: States
    energies: Float
    status: str
    timing: dict[str, float]
    trace: tuple[Float, Float]
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Seconds from the call to the answer."""
        return sum(self.timing.values())


@dataclass(frozen=True, kw_only=True)
class Solver(ABC):
    """A solver: a frozen dataclass whose fields are its options.

    A subclass sets `name`, adds its options as fields, checks them in
    ``__post_init__`` (calling ``super().__post_init__()``) and writes `search`.

    Parameters
    ----------
    polish
        What to finish with: ``"none"`` or ``"one-flip"`` (steepest descent).
    """

    name: ClassVar[str]
    references: ClassVar[tuple[str, ...]] = ()
    # Fixed rules answer the same from any start, even where that is worse than it.
    rule: ClassVar[bool] = False

    polish: str = "none"

    def __post_init__(self) -> None:
        self.require(
            self.polish in POLISHES, f"polish must be one of {', '.join(POLISHES)}"
        )

    def require(self, condition: bool, message: str) -> None:
        """Raise `InputError` naming the solver unless `condition` holds."""
        if not condition:
            raise InputError(f"solver {self.name}: {message}")

    def supports(self, qubo: QuboBatch) -> str | None:
        """Why this solver cannot take `qubo`; None where it can."""
        return None

    @abstractmethod
    def search(self, task: Task) -> States:
        """States [R, n] for the task; pinned variables may hold anything."""

    def solve(
        self,
        qubo: QuboBatch,
        *,
        seed: int = 0,
        budget: Budget | None = None,
        initial: ArrayLike | None = None,
        monitor: Monitor | None = None,
    ) -> Solution:
        """Minimise every row of `qubo`.

        Parameters
        ----------
        qubo
            R rows of n variables.
        seed
            Same seed, same answer, for any number of threads (unless the budget's
            seconds end first).
        budget
            Default: no limit but the solver's own.
        initial : uint8 [R, n], optional
            States to start from. No solver but the fixed rules answers with a row worse
            than it, nor than the nearest rounding where it is not given.
        monitor
            Default: a fresh one.

        Raises
        ------
        InputError
            States of another shape or with other values, or a batch that the solver
            does not support.
        """
        begun = time.perf_counter()
        reason = self.supports(qubo)
        self.require(reason is None, str(reason))
        self.require(
            isinstance(seed, int | np.integer) and seed >= 0,
            f"seed must be a whole number from 0, not {seed}",
        )
        budget, monitor = budget or Budget(), monitor or Monitor()
        self.require(
            budget.target is None or np.shape(budget.target) in ((), (qubo.rows,)),
            f"target must be one number or have shape {(qubo.rows,)}",
        )
        start = qubo.nearest() if initial is None else _check_states(initial, qubo)
        start_energies = qubo.energies(start, budget.threads)
        info: dict[str, Any] = {}
        task = Task(qubo, start, initial is not None, seed, budget, monitor, info)
        monitor.start(
            budget, np.full(qubo.rows, np.inf) if self.rule else start_energies
        )
        prepared = time.perf_counter()
        states = qubo.pin(self.search(task))
        solved = time.perf_counter()
        if self.polish == "one-flip":
            from solvers.descent import one_flip

            states = one_flip(qubo, states, budget.threads)
        energies = qubo.energies(states, budget.threads)
        if not self.rule:
            worse = energies > start_energies
            states = np.where(worse[:, None], start, states)
            energies = np.where(worse, start_energies, energies)
        monitor.record(energies)
        return Solution(
            states=states,
            energies=energies,
            status=monitor.status,
            timing={
                "prepare": prepared - begun,
                "solve": solved - prepared,
                "finish": time.perf_counter() - solved,
            },
            trace=(np.array(monitor.seconds), np.array(monitor.energies)),
            info=info,
        )


def _check_states(states: ArrayLike, qubo: QuboBatch) -> States:
    x = binary("initial", states)
    if x.shape != (qubo.rows, qubo.n):
        raise InputError(
            f"initial must have shape {(qubo.rows, qubo.n)}, not {x.shape}"
        )
    return qubo.pin(x)
