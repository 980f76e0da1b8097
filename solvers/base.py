"""What every solver shares: `Solver`, `Task`, `Solution`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.budget import Budget, Monitor
from solvers.checks import binary, is_number, is_whole, read_only, require_kind
from solvers.errors import AnswerError, InputError, shown
from solvers.layer_data import LayerData
from solvers.memory import allocating
from solvers.polish import POLISHES, descend
from solvers.qubo import Float, QuboBatch, States

if TYPE_CHECKING:
    import dimod

# What values an option may have, by its type, and what to call them.
KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "int": (is_whole, "a whole number"),
    "float": (is_number, "a number"),
    "str": (lambda value: isinstance(value, str), "a text"),
}
# Seconds of a search that is run to compile, and how many of them are run at most.
WARMING, WARMINGS = 0.2, 3


@dataclass(frozen=True, eq=False)
class Task:
    """What `Solver.search` is given: a batch, its start, limits and monitor.

    Attributes
    ----------
    qubo
        The batch.
    start : uint8 [R, n]
        The states to start from, read-only; no answer may be worse than they are.
    warm
        Whether the caller gave `start`; otherwise it is the nearest rounding.
    seed
        Seed of all random streams.
    budget, monitor
        The limits, and the monitor to report to.
    info
        Filled by the solver with what is worth knowing about its run.
    data
        The layer that the rows belong to, if the caller has it.
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

        Evaluating a chunk takes a fraction of a second and some ten MB.
        """
        work = self.qubo.rows * self.qubo.n * max(self.qubo.n, 100)
        return max(1, min(25, 10**9 // max(work, 1)))

    def streams(self) -> NDArray[np.uint64]:
        """Random streams [R] for the kernels, one per row.

        Row r's stream depends on the seed and on r alone: adding rows does not change
        the streams of earlier rows.
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
        int16 if the solver is out of the set.
    energies : float64 [R]
        Energies as the solver claims them; a harness recomputes them.
    status
        ``"done"``, ``"time"`` (the budget's seconds were used up) or ``"target"``
        (reached).
    timing
        Seconds: ``prepare`` (checks, start), ``solve``, ``finish`` (polish, energies).
    trace
        Seconds [T] of solving and the best energies [T, R] up to each of these times;
        of a long run the first, the last and some of the improvements between them.
    info
        What else the solver says about its run.
    variables
        The labels of the n variables; None for 0 to n - 1.
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
        """One row as a dimod sample set, with the caller's labels and vartype.

        Raises
        ------
        InputError
            The row's state has values other than 0 and 1.
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
        The descent (`solvers.polish.descend`) that the search's states end with:
        ``"one-flip"``, ``"cyclic"``, ``"pair-flip"`` or ``"none"``.
    """

    name: ClassVar[str]
    references: ClassVar[tuple[str, ...]] = ()
    # Whether the solver is a fixed rule: the answer is the same from any start, and may
    # be worse than the start.
    rule: ClassVar[bool] = False
    # Whether states are any grid steps within `QuboBatch.levels`, as int16.
    out_of_set: ClassVar[bool] = False
    # Whether `LayerData` changes the answer, so that collecting it is worthwhile.
    uses_data: ClassVar[bool] = False

    polish: str = "none"

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            # A type, or its name where annotations are not evaluated.
            kind: Any = getattr(option.type, "__name__", option.type)
            fits, wanted = KINDS.get(kind, (lambda _: True, ""))
            self.require(
                fits(value), f"{option.name} must be {wanted}, not {shown(value)}"
            )
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
        """Whether rows for which nothing better is found keep their start as answer."""
        return not self.rule

    def supports(self, qubo: QuboBatch) -> str | None:
        """The reason why this solver cannot take `qubo`; None if it can."""
        return None

    def compile_for(self, qubo: QuboBatch) -> None:
        """Compile everything that `solve` may call for a batch like `qubo`.

        Searches one row for one sweep, which compiles what large rows need, and a few
        of its variables for a moment, which compiles what is called late in a search. A
        search that outlasts its time has compiled something, and is repeated. A solver
        for which this is not enough, or takes too long, overrides the method.
        """
        from solvers.warming import corner, freest_row

        self.solve(freest_row(qubo), budget=Budget(sweeps=1))
        part = corner(qubo)
        for _ in range(WARMINGS):
            found = self.solve(part, budget=Budget(seconds=WARMING))
            if found.seconds < 2 * WARMING:
                break

    @abstractmethod
    def search(self, task: Task) -> States:
        """Find states [R, n] for the task; pinned variables may have any value."""

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
        """Minimise the energy of every row of `qubo`.

        Parameters
        ----------
        qubo
            R rows of n variables.
        seed
            The same seed gives the same answer with any number of threads (unless the
            budget's seconds end the search).
        budget
            Default: no limits but the solver's own.
        initial : uint8 [R, n], optional
            States to start from; default: the nearest rounding. If the solver
            `keeps_start`, no row of the answer is worse than its start; this does not
            hold for fixed rules, nor for solvers that minimise another objective on the
            layer's data.
        monitor
            Default: a new one.
        data
            The layer that the rows belong to, for solvers that minimise more than the
            quadratic form (`uses_data`).

        Raises
        ------
        InputError
            An argument is of another kind, `initial` or `data` has the wrong shape,
            `initial` or what the solver found has values other than 0 and 1, or the
            solver does not support the batch.
        """
        budget = Budget() if budget is None else budget
        monitor = Monitor() if monitor is None else monitor
        require_kind("qubo", qubo, QuboBatch)
        require_kind("budget", budget, Budget)
        require_kind("monitor", monitor, Monitor)
        if data is not None:
            require_kind("data", data, LayerData)
        size = f"{qubo.rows} rows of {qubo.n} variables"
        with allocating(f"solver {self.name} on {size}"):
            return self._solve(qubo, seed, budget, initial, monitor, data)

    def _solve(
        self,
        qubo: QuboBatch,
        seed: int,
        budget: Budget,
        initial: ArrayLike | None,
        monitor: Monitor,
        data: LayerData | None,
    ) -> Solution:
        begun = monitor.clock()
        task, to_beat = self._prepare(qubo, seed, budget, initial, monitor, data)
        prepared = monitor.clock()
        found = self.search(task)
        what = f"solver {self.name}: the states that search gives"
        require = qubo.require_steps if self.out_of_set else qubo.require_states
        try:
            states: NDArray[Any] = require(what, found)
        except InputError as error:
            raise AnswerError(str(error)) from error
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
            info=dict(task.info),
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
        """Check the arguments and start the monitor's clock.

        Returns
        -------
        task
            What `search` is to work on.
        to_beat : float64 [R]
            Energies above which the start replaces an answer: the start's energies, or
            infinity if the start does not count as an answer.
        """
        reason = self.supports(qubo)
        self.require(reason is None, str(reason))
        self.require(
            is_whole(seed) and seed >= 0,
            f"seed must be a whole number from 0, not {shown(seed)}",
        )
        self.require(
            budget.target is None or np.shape(budget.target) in ((), (qubo.rows,)),
            f"target must be one number or have shape {(qubo.rows,)}",
        )
        if initial is None:
            start = qubo.nearest()
        else:
            start = qubo.require_states("initial", initial).copy()
        start = read_only(start)
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
            seed=int(seed),
            budget=budget,
            monitor=monitor,
            info={},
            data=data,
        )
        monitor.start(budget, to_beat)
        return task, to_beat

    def _finish(
        self, task: Task, states: States, to_beat: Float
    ) -> tuple[States, Float]:
        """Polished states, or the start in rows where it is better; their energies."""
        qubo, budget, monitor = task.qubo, task.budget, task.monitor
        if self.polish != "none":
            limited = budget.seconds is not None
            going = (lambda _: monitor.remaining() > 0) if limited else None
            states = descend(qubo, states, self.polish, budget.threads, going=going)
        energies = qubo.energies(states, budget.threads)
        worse = energies > to_beat
        states = np.where(worse[:, None], task.start, states)
        energies = np.where(worse, to_beat, energies)
        monitor.record(energies, states)
        return states, energies
