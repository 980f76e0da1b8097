"""`Peer`: the base of solvers of other packages behind this project's protocol."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from solvers.base import Solver, Task
from solvers.qubo import QuboBatch, States

# While the cost of a unit of effort is unknown, the effort of a call is the default one
# divided by this …
FIRST_SHARE = 64
# … and later it is at most this many times the greatest effort of the calls before.
GROWTH = 4
# A row with less than this share of its seconds left leaves them to the rows after it.
REST = 0.25


@dataclass(frozen=True, eq=False)
class Call:
    """What one call of another package's sampler is given.

    Attributes
    ----------
    seed
        A seed below 2³¹.
    start : uint8 [m]
        The best state so far of the model's m variables.
    effort
        Effort of the call, in the unit of `Peer.effort`.
    seconds
        Seconds left of the row's share; infinite without a limit.
    target
        The energy at which the sampler may stop; minus infinity if there is none.
    """

    seed: int
    start: States
    effort: int
    seconds: float
    target: float


class Peer(Solver):
    """Another package's solver: a model per row over its free variables, row by row.

    With a budget of seconds, each row that is not yet begun has an equal share of the
    time that is left once the remaining models are built, and at least as long as its
    model took. A sampler without a clock of its own is called with as much effort as
    fits into the share. Rows that are not reached keep the start. Without a limit in
    seconds, a row is one call with the default effort, which a budget's ``sweeps``
    caps. Building the models counts; ``info["build_seconds"]`` says how long it took.
    """

    # The package that must be importable.
    package: ClassVar[str]
    # Whether the sampler keeps to a time limit by itself.
    timed: ClassVar[bool] = False
    # Whether the options beta_min and beta_max are inverse temperatures of single flips
    # in units of 1/energy, so that values that suit a problem can be worked out.
    thermal: ClassVar[bool] = False

    @property
    @abstractmethod
    def effort(self) -> int:
        """Sweeps, steps or reads of one call without a limit in seconds."""

    @abstractmethod
    def sample(self, model: Any, call: Call) -> States:
        """The best state [m] that one call of the sampler finds."""

    def model(self, qubo: QuboBatch, row: int) -> Any:
        """The package's model of a row; None if no variable matters."""
        model = qubo.to_bqm(row)
        flat = not (model.num_interactions or any(model.linear.values()))
        return None if flat else model

    def supports(self, qubo: QuboBatch) -> str | None:
        """The reason why the solver cannot be used, if its package is not installed."""
        parts = self.package.split(".")
        parents = (".".join(parts[: i + 1]) for i in range(len(parts)))
        if all(find_spec(name) for name in parents):
            return None
        return (
            f"{self.package} is not installed; "
            'pip install "qubo-rounding[peers]" installs it'
        )

    def require_positive(self, *names: str) -> None:
        """Require options of at least 1."""
        for name in names:
            self.require(getattr(self, name) >= 1, f"{name} must be at least 1")

    def require_range(self, beta_min: float, beta_max: float) -> None:
        """Require inverse temperatures in order; both 0: the package's own range."""
        self.require(
            beta_min == beta_max == 0 or 0 < beta_min <= beta_max < math.inf,
            "give both beta_min and beta_max, 0 < beta_min <= beta_max, or neither",
        )

    def search(self, task: Task) -> States:
        """Sample row after row."""
        run = _Run(self, task)
        with threadpool_limits(task.budget.threads):
            for row in range(task.qubo.rows):
                if not run.row(row):
                    break
        task.info["build_seconds"] = run.building
        return run.states


class _Run:
    """The search of one task's rows, and what calls and models have cost so far."""

    def __init__(self, peer: Peer, task: Task) -> None:
        self._peer, self._task = peer, task
        self.states = task.start.copy()
        self._energies = task.qubo.energies(self.states, task.budget.threads)
        target = -math.inf if task.budget.target is None else task.budget.target
        self._targets = np.broadcast_to(target, task.qubo.rows)
        self._streams = task.streams()
        self.building = 0.0
        self._models = 0
        # Seconds per unit of effort in the last call, and the greatest effort so far.
        self._cost = 0.0
        self._longest = 0

    def row(self, r: int) -> bool:
        """Search row r; false when time is up or all rows have reached the target."""
        qubo, monitor = self._task.qubo, self._task.monitor
        free = np.flatnonzero(qubo.free(r))
        enough = self._energies[r] <= self._targets[r]
        if monitor.remaining() <= 0 or enough or not len(free):
            return monitor.report(self._energies, self.states)
        begun = monitor.clock()
        model = self._peer.model(qubo, r)
        self.building += monitor.clock() - begun
        self._models += 1
        if model is None:
            return monitor.report(self._energies, self.states)
        generator = np.random.default_rng(self._streams[r])
        share = left = self._share(qubo.rows - r)
        ends = monitor.elapsed() + share
        spent = 0
        while effort := self._effort(left, spent):
            call = Call(
                seed=int(generator.integers(2**31)),
                start=self.states[r, free],
                effort=effort,
                seconds=left,
                target=float(self._targets[r]),
            )
            begun = monitor.clock()
            state = self._peer.sample(model, call)
            self._cost = (monitor.clock() - begun) / effort
            self._longest = max(self._longest, effort)
            spent += effort
            self._keep(r, free, state)
            if not monitor.report(self._energies, self.states):
                return False
            left = ends - monitor.elapsed()
            enough = self._energies[r] <= self._targets[r]
            if math.isinf(share) or enough or left < REST * share:
                break
        return True

    def _keep(self, r: int, free: NDArray[np.intp], state: States) -> None:
        """Keep row r's state if it is better than the one before."""
        # One routine judges all: the packages' sums of a state differ in their
        # rounding.
        states = self.states[[r]]
        states[0, free] = state
        energy = self._task.qubo.take([r]).energies(states)[0]
        if energy < self._energies[r]:
            self.states[r], self._energies[r] = states[0], energy

    def _share(self, rows: int) -> float:
        """Seconds for the first, whose model is built, of `rows` remaining rows."""
        each = self.building / self._models
        left = self._task.monitor.remaining() - each * (rows - 1)
        return max(left / rows, each)

    def _effort(self, left: float, spent: int) -> int:
        """Effort of the row's next call in `left` seconds after `spent`; 0: no call."""
        budget, default = self._task.budget, self._peer.effort
        if math.isinf(left):
            return budget.cap(default)
        if self._peer.timed:
            effort = default
        elif not self._cost:
            effort = max(1, default // FIRST_SHARE)
        else:
            # The first call of a row is made even if it takes longer than is left.
            fits = max(int(left / self._cost), int(not spent))
            effort = min(fits, GROWTH * self._longest)
        return max(budget.cap(spent + effort) - spent, 0)
