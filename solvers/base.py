"""What every solver shares: `Solver`, `Task`, `Solution`."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.budget import Budget, Monitor
from solvers.checks import binary
from solvers.errors import InputError
from solvers.layer_data import LayerData
from solvers.polish import POLISHES, descend
from solvers.qubo import Float, QuboBatch, States

if TYPE_CHECKING:
    import dimod

# Seconds that a search for the sake of compiling has, and how often it is made.
WARMING, WARMINGS = 0.2, 3


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
    data
        The layer that the rows belong to, where the caller has it.
    """

    qubo: QuboBatch
    start: States
    warm: bool
    seed: int
    budget: Budget
    monitor: Monitor
    info: dict[str, Any]
    data: LayerData | None = None

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
        Of a solver out of the set int16.
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
    variables
        The labels of the n variables; None: 0 to n - 1.
    vartype
        ``"BINARY"``, or ``"SPIN"`` where `to_sampleset` gives ``2 x - 1``.
    """

    states: States
    energies: Float
    status: str
    timing: dict[str, float]
    trace: tuple[Float, Float]
    info: dict[str, Any] = field(default_factory=dict)
    variables: tuple[Hashable, ...] | None = None
    vartype: str = "BINARY"

    @property
    def seconds(self) -> float:
        """Seconds from the call to the answer."""
        return sum(self.timing.values())

    def to_sampleset(self, row: int = 0) -> dimod.SampleSet:
        """One row as a dimod sample set, in the labels and the vartype of the caller.

        Raises
        ------
        InputError
            States other than 0 and 1.
        """
        import dimod

        x = binary("states", self.states[row]).astype(np.int8)
        labels = range(len(x)) if self.variables is None else self.variables
        make: Any = dimod.SampleSet.from_samples
        samples: dimod.SampleSet = make(
            ((2 * x - 1 if self.vartype == "SPIN" else x)[None], list(labels)),
            self.vartype,
            energy=self.energies[[row]],
            info={"status": self.status, **self.info},
        )
        return samples


@dataclass(frozen=True, kw_only=True)
class Solver(ABC):
    """A solver: a frozen dataclass whose fields are its options.

    A subclass sets `name`, adds its options as fields, checks them in
    ``__post_init__`` (calling ``super().__post_init__()``) and writes `search`.

    Parameters
    ----------
    polish
        What to finish with: ``"none"`` or a descent (`solvers.polish.descend`):
        ``"one-flip"``, ``"cyclic"`` or ``"pair-flip"``.
    """

    name: ClassVar[str]
    references: ClassVar[tuple[str, ...]] = ()
    # Fixed rules answer the same from any start, even where that is worse than it.
    rule: ClassVar[bool] = False
    # States may be any grid steps within `QuboBatch.levels`; they are int16 then.
    out_of_set: ClassVar[bool] = False
    # Whether `LayerData` changes the answer, and is worth collecting.
    uses_data: ClassVar[bool] = False

    polish: str = "none"

    def __post_init__(self) -> None:
        self.require(
            self.polish in POLISHES, f"polish must be one of {', '.join(POLISHES)}"
        )
        self.require(
            self.polish == "none" or not self.out_of_set,
            "polish must be none: descents know only the two nearest grid points",
        )

    def require(self, condition: bool, message: str) -> None:
        """Raise `InputError` naming the solver unless `condition` holds."""
        if not condition:
            raise InputError(f"solver {self.name}: {message}")

    @property
    def keeps_start(self) -> bool:
        """Whether the start is an answer where nothing better is found."""
        return not self.rule

    def supports(self, qubo: QuboBatch) -> str | None:
        """Why this solver cannot take `qubo`; None where it can."""
        return None

    def compile_for(self, qubo: QuboBatch) -> None:
        """Compile all that a `solve` of such a batch may reach.

        By searches of a row for a sweep, which meets what large rows need, and of a few
        of its variables for a moment, which meets what comes late. A search that
        outlasts its time has compiled something, and is made again. Where that is not
        enough or takes too long, a solver does it in a way of its own.
        """
        from solvers.warming import corner, freest_row

        self.solve(freest_row(qubo), budget=Budget(sweeps=1))
        part = corner(qubo)
        for _ in range(WARMINGS):
            begun = time.perf_counter()
            self.solve(part, budget=Budget(seconds=WARMING))
            if time.perf_counter() - begun < 2 * WARMING:
                break

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
        data: LayerData | None = None,
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
            States to start from; default: the nearest rounding. A solver that
            `keeps_start` answers with no row worse than it; fixed rules do not, nor
            does what minimises another objective on the layer's data.
        monitor
            Default: a fresh one.
        data
            The layer that the rows belong to, for solvers that minimise more than the
            quadratic form (`uses_data`).

        Raises
        ------
        InputError
            States of another shape or with other values, or a batch that the solver
            does not support.
        """
        budget, monitor = budget or Budget(), monitor or Monitor()
        begun = monitor.clock()
        task, to_beat = self._prepare(qubo, seed, budget, initial, monitor, data)
        prepared = monitor.clock()
        states = self._require_states(self.search(task), qubo)
        solved = monitor.clock()
        states, energies = self._finish(task, states, to_beat)
        return Solution(
            states=states,
            energies=energies,
            status=monitor.status,
            timing={
                "prepare": prepared - begun,
                "solve": solved - prepared,
                "finish": monitor.clock() - solved,
            },
            trace=(np.array(monitor.seconds), np.array(monitor.energies)),
            info=task.info,
        )

    def _prepare(
        self,
        qubo: QuboBatch,
        seed: int,
        budget: Budget,
        initial: ArrayLike | None,
        monitor: Monitor,
        data: LayerData | None,
    ) -> tuple[Task, Float]:
        """The task of checked arguments, and the energies [R] that an answer must beat.

        Those of the start, or infinity where the start is no answer. Starts the
        monitor's clock.
        """
        reason = self.supports(qubo)
        self.require(reason is None, str(reason))
        self.require(
            isinstance(seed, int | np.integer) and seed >= 0,
            f"seed must be a whole number from 0, not {seed}",
        )
        self.require(
            budget.target is None or np.shape(budget.target) in ((), (qubo.rows,)),
            f"target must be one number or have shape {(qubo.rows,)}",
        )
        start = qubo.nearest() if initial is None else _check_states(initial, qubo)
        to_beat = qubo.energies(start, budget.threads)
        self.require(
            data is None or data.floor.shape == (qubo.rows, qubo.n),
            f"the layer's data must have rows of shape {(qubo.rows, qubo.n)}",
        )
        # Judged by the quadratic form, an answer to another objective might lose to it.
        if not self.keeps_start or (self.uses_data and data is not None):
            to_beat = np.full(qubo.rows, np.inf)
        task = Task(
            qubo=qubo,
            start=start,
            warm=initial is not None,
            seed=seed,
            budget=budget,
            monitor=monitor,
            info={},
            data=data,
        )
        monitor.start(budget, to_beat)
        return task, to_beat

    def _require_states(self, states: States, qubo: QuboBatch) -> States:
        """What `search` gave, refused where it has another shape; with every pin."""
        self.require(
            np.shape(states) == (qubo.rows, qubo.n),
            f"search must give states of shape {(qubo.rows, qubo.n)}, not "
            + (f"of shape {np.shape(states)}" if states is not None else "None"),
        )
        return states if self.out_of_set else qubo.pin(states)

    def _finish(
        self, task: Task, states: States, to_beat: Float
    ) -> tuple[States, Float]:
        """Polished states, or the start where that is better; their exact energies."""
        qubo, budget, monitor = task.qubo, task.budget, task.monitor
        if self.polish != "none":
            limited = budget.seconds is not None
            going = (lambda _: monitor.remaining() > 0) if limited else None
            states = descend(qubo, states, self.polish, budget.threads, going=going)
        energies = qubo.energies(states, budget.threads)
        worse = energies > to_beat
        states = np.where(worse[:, None], task.start, states)
        energies = np.where(worse, to_beat, energies)
        monitor.record(energies)
        return states, energies


def _check_states(states: ArrayLike, qubo: QuboBatch) -> States:
    x = binary("initial", states)
    if x.shape != (qubo.rows, qubo.n):
        raise InputError(
            f"initial must have shape {(qubo.rows, qubo.n)}, not {x.shape}"
        )
    return qubo.pin(x)
