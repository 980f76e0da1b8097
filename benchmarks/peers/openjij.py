"""OpenJij behind this project's protocol, to be compared with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from benchmarks.peers.base import Call
from benchmarks.peers.dense import DenseModel, DensePeer, best_state
from solvers.qubo import Float, States


@dataclass(frozen=True, kw_only=True)
class _OpenJij(DensePeer):
    """The base of OpenJij's samplers: dense models, as many sweeps as time allows.

    Parameters
    ----------
    num_reads
        Number of anneals in one call.
    num_sweeps
        Sweeps of one anneal if the budget has no ``seconds``.
    """

    package: ClassVar[str] = "openjij"
    sampler: ClassVar[str]

    num_reads: int = 1
    num_sweeps: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("num_reads", "num_sweeps")

    @property
    def effort(self) -> int:
        """Sweeps of one anneal."""
        return self.num_sweeps

    def native(self, Q: Float, c: Float) -> Any:
        """A dense model, made without the dicts that the package uses by default."""
        make = import_module(self.package).BinaryQuadraticModel.from_numpy_matrix
        return make(super().native(Q, c), list(range(len(c))), 0.0, "BINARY")

    def reads(self, model: DenseModel, call: Call, **options: float) -> States:
        """The best of the reads, each with a seed of its own.

        If OpenJij is given a seed, all reads of a call are the same.
        """
        sampler = getattr(import_module(self.package), self.sampler)()
        states, energies = [], []
        seeds = np.random.default_rng(call.seed).integers(2**31, size=self.num_reads)
        for seed in seeds:
            with _own_numpy_state():
                read = sampler.sample(
                    model.native,
                    num_sweeps=call.effort,
                    sparse=False,
                    seed=int(seed),
                    **options,
                )
            order = np.argsort(read.variables)
            states.append(read.record.sample[:, order])
            energies.append(read.record.energy)
        return best_state(np.concatenate(states), np.concatenate(energies))


@dataclass(frozen=True, kw_only=True)
class OpenJijSa(_OpenJij):
    """OpenJij's `SASampler`.

    Parameters
    ----------
    beta_min, beta_max
        Inverse temperatures, in units of 1/energy; 0 for the sampler's own range.
    """

    name: ClassVar[str] = "openjij-sa"
    references: ClassVar[tuple[str, ...]] = ("OpenJij, SASampler",)
    sampler: ClassVar[str] = "SASampler"
    thermal: ClassVar[bool] = True

    beta_min: float = 0.0
    beta_max: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_range(self.beta_min, self.beta_max)

    def sample(self, model: DenseModel, call: Call) -> States:
        """Anneal from random states, at the given temperatures."""
        betas = {}
        if self.beta_min:
            betas["beta_min"] = self.beta_min * model.unit
            betas["beta_max"] = self.beta_max * model.unit
        return self.reads(model, call, **betas)


@dataclass(frozen=True, kw_only=True)
class OpenJijSqa(_OpenJij):
    """OpenJij's `SQASampler`.

    Parameters
    ----------
    beta, gamma
        Inverse temperature and transverse field, in units in which the model's largest
        coefficient is 1.
    trotter
        Number of copies of the state (Trotter slices).
    """

    name: ClassVar[str] = "openjij-sqa"
    references: ClassVar[tuple[str, ...]] = ("OpenJij, SQASampler",)
    sampler: ClassVar[str] = "SQASampler"

    beta: float = 5.0
    gamma: float = 1.0
    trotter: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 < self.beta < math.inf, "beta must be positive")
        self.require(0 < self.gamma < math.inf, "gamma must be positive")
        self.require_positive("trotter")

    def sample(self, model: DenseModel, call: Call) -> States:
        """Anneal from random states, at one temperature with a falling field."""
        field = {"beta": self.beta, "gamma": self.gamma, "trotter": self.trotter}
        return self.reads(model, call, **field)


@contextmanager
def _own_numpy_state() -> Iterator[None]:
    """Undo what a package does to numpy's global random state."""
    state = np.random.get_state(legacy=True)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
