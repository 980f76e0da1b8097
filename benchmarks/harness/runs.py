"""What a run is: all that decides its answer, and the answer with its judgement."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.qubo import Float

States = NDArray[np.integer[Any]]
"""uint8; int16 of a solver out of the set."""

STATUSES = ("ok", "timeout", "error", "crash", "oom", "invalid", "skipped")
"""How runs end.

``ok``: with an answer that bears out its claim; ``timeout``: killed at the hard limit
of time; ``error``: the solver raised; ``crash``: its process died; ``oom``: it took
more memory than it was given; ``invalid``: the answer does not bear out its claim, or
is none; ``skipped``: the solver says that it cannot take the problem.
"""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What solvers are run on, as results name it.

    Attributes
    ----------
    digest
        Hash of all arrays of the problem.
    name
        What tables say, such as ``resnet18.conv1``; a single row is
        ``resnet18.conv1[3]``.
    kind
        ``"rounding"``: a layer's problem, whose energies are errors; ``"qubo"``: a
        batch from elsewhere; ``"network"``: a whole network, whose runs have scores and
        no states.
    rows, n
        Size; 0 of a network.
    nearest
        Energy of rounding to nearest, summed over the rows; None where there is none.
    meta
        Bits, grid, model, layer, hashes of weights and images, …: what JSON can hold.
    """

    digest: str
    name: str
    kind: str = "rounding"
    rows: int = 0
    n: int = 0
    nearest: float | None = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """All that decides a run's answer.

    Attributes
    ----------
    problem
        Digest of the problem.
    solver
        The solver's label: `solvers.parse_solver` makes the solver of it.
    code
        Digest of the code that makes the run.
    seed
        Seed of the solver.
    seconds, sweeps
        Soft limits; None where there is none.
    threads
        Number of threads. It decides how far a run comes in its seconds.
    settings
        What else decides the answer, by name, such as the parts of a whole network's
        objective.
    """

    problem: str
    solver: str
    code: str
    seed: int = 0
    seconds: float | None = None
    sweeps: int | None = None
    threads: int = 1
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # 1 and 1.0 are the same limit, and must have the same text in the hash.
        if self.seconds is not None:
            object.__setattr__(self, "seconds", float(self.seconds))

    @property
    def run_id(self) -> str:
        """A hash of the whole."""
        text = json.dumps(asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A finished run.

    Attributes
    ----------
    spec
        What was asked for.
    status
        One of `STATUSES`.
    message
        Why there is no answer, in one line.
    objective
        Energy or error summed over the rows, recomputed from the states; NaN without
        an answer.
    energies, claimed : float64 [R], optional
        The recomputed energies, and those that the solver has claimed.
    states : uint8 or int16 [R, n], optional
        The answer; of a run that was killed, the best states it had reported.
    falls : float64 [T, 2], optional
        Seconds, and the energy summed over the rows, whenever that fell; bounded.
    seconds
        Seconds of solving, preparations included, compilation not; NaN of a run that
        was not begun.
    timing
        Parts of the seconds, and ``compile``, which is not among them.
    info
        The solver's remarks, for each of the problem's batches.
    scores
        What was computed from the states, such as the accuracy of a network.
    began
        Date and time (UTC, ISO 8601).
    environment
        Machine, versions of packages, commit.
    """

    spec: Spec
    status: str
    message: str = ""
    objective: float = math.nan
    energies: Float | None = None
    claimed: Float | None = None
    states: States | None = None
    falls: Float | None = None
    seconds: float = math.nan
    timing: dict[str, float] = field(default_factory=dict)
    info: tuple[dict[str, Any], ...] = ()
    scores: dict[str, Any] = field(default_factory=dict)
    began: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
