"""qubolite behind this project's protocol, to be compared with."""

from __future__ import annotations

from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from typing import Any, ClassVar

import numpy as np

from benchmarks.peers.base import Call
from benchmarks.peers.dense import DenseModel, DensePeer, best_state
from solvers.qubo import Float, States


class _Qubolite(DensePeer):
    """The base of qubolite's solvers."""

    package: ClassVar[str] = "qubolite"

    def native(self, Q: Float, c: Float) -> Any:
        """The package's model of ``x^T Q x + c.x``."""
        return import_module(self.package).qubo(super().native(Q, c))


@dataclass(frozen=True, kw_only=True)
class QuboliteSa(_Qubolite):
    """qubolite's `simulated_annealing`, in numpy: as many steps as fit into the time.

    Parameters
    ----------
    steps
        Steps of one anneal if the budget has no ``seconds``.
    n_parallel
        Number of anneals side by side.
    """

    name: ClassVar[str] = "qubolite-sa"
    references: ClassVar[tuple[str, ...]] = ("qubolite, simulated_annealing",)

    steps: int = 100_000
    n_parallel: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("steps", "n_parallel")

    @property
    def effort(self) -> int:
        """Steps of one anneal."""
        return self.steps

    def sample(self, model: DenseModel, call: Call) -> States:
        """Anneal from random states, at temperatures of the package's choice."""
        solving = import_module(f"{self.package}.solving")
        # The package prints the temperature.
        with redirect_stdout(StringIO()), np.errstate(all="ignore"):
            states, energies = solving.simulated_annealing(
                model.native,
                steps=call.effort,
                n_parallel=self.n_parallel,
                random_state=call.seed,
            )
        return best_state(states, energies)


@dataclass(frozen=True, kw_only=True)
class QuboliteDescent(_Qubolite):
    """qubolite's `local2_descent`, by flips and pairs of flips.

    Parameters
    ----------
    num_reads
        Number of descents of a row; the first starts from the best state so far, the
        others from random states.
    """

    name: ClassVar[str] = "qubolite-descent"
    references: ClassVar[tuple[str, ...]] = ("qubolite, local2_descent",)

    num_reads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("num_reads")

    @property
    def effort(self) -> int:
        """Number of descents."""
        return self.num_reads

    def sample(self, model: DenseModel, call: Call) -> States:
        """Make all descents, one after the other."""
        solving = import_module(f"{self.package}.solving")
        generator = np.random.default_rng(call.seed)
        answers = [solving.local2_descent(model.native, call.start.astype(np.float64))]
        for _ in range(call.effort - 1):
            answers.append(solving.local2_descent(model.native, random_state=generator))
        states, energies = zip(*answers, strict=True)
        return best_state(states, energies)
