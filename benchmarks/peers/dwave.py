"""dwave-samplers behind this project's protocol, to be compared with.

These solvers of the package index are not among the peers: dwave-qbsolv and MQLib,
whose source distributions do not compile (the first needs a dimod that today's Pythons
cannot build, the second lacks its headers); dwave-hybrid, which brings thirty packages
and the client of a cloud service; pyqbpp, whose binaries come from elsewhere and need a
licence above 100 variables. Of dwave-samplers, the solvers of planar models and of
models of low treewidth are left out, since no model here is of these kinds. Its
annealing is also built in, as ``neal``; ``dwave-sa`` uses all the seconds it is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from benchmarks.peers.base import Call, Peer
from solvers.qubo import States


@dataclass(frozen=True, kw_only=True)
class DwaveTabu(Peer):
    """dwave-samplers' `TabuSampler` from the best state so far, one read per call.

    The sampler ends by the clock, so equal seeds need not give equal answers.

    Parameters
    ----------
    milliseconds
        Time limit of a row if the budget has no ``seconds``.
    """

    name: ClassVar[str] = "dwave-tabu"
    references: ClassVar[tuple[str, ...]] = ("dwave-samplers, TabuSampler",)
    package: ClassVar[str] = "dwave.samplers"
    timed: ClassVar[bool] = True

    milliseconds: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("milliseconds")

    @property
    def effort(self) -> int:
        """One read per call."""
        return 1

    def sample(self, model: Any, call: Call) -> States:
        """Search from the best state until the time limit, in whole milliseconds."""
        options: dict[str, Any] = {"timeout": self.milliseconds}
        if math.isfinite(call.seconds):
            options["timeout"] = max(1, int(1000 * call.seconds))
        if math.isfinite(call.target):
            # The sampler compares energies without the model's offset.
            options["energy_threshold"] = call.target - float(model.offset)
        sampler = import_module(self.package).TabuSampler()
        start = dict(zip(model.variables, call.start.tolist(), strict=True))
        samples = sampler.sample(model, initial_states=start, seed=call.seed, **options)
        return _best(model, samples)


@dataclass(frozen=True, kw_only=True)
class DwaveGreedy(Peer):
    """dwave-samplers' `SteepestDescentSampler`: from the best state, then random ones.

    Parameters
    ----------
    num_reads
        Number of descents of a row; all but the first start from random states.
    """

    name: ClassVar[str] = "dwave-greedy"
    references: ClassVar[tuple[str, ...]] = ("dwave-samplers, SteepestDescentSampler",)
    package: ClassVar[str] = "dwave.samplers"

    num_reads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("num_reads")

    @property
    def effort(self) -> int:
        """Number of descents."""
        return self.num_reads

    def sample(self, model: Any, call: Call) -> States:
        """Make all descents in one call."""
        sampler = import_module(self.package).SteepestDescentSampler()
        start = dict(zip(model.variables, call.start.tolist(), strict=True))
        samples = sampler.sample(
            model, initial_states=start, num_reads=call.effort, seed=call.seed
        )
        return _best(model, samples)


@dataclass(frozen=True, kw_only=True)
class _DwaveAnnealer(Peer):
    """The base of dwave-samplers' annealers: as many sweeps as fit into the time.

    Parameters
    ----------
    num_reads
        Number of anneals in one call.
    num_sweeps
        Sweeps of one anneal if the budget has no ``seconds``.
    beta_min, beta_max
        Inverse temperatures, in units of 1/energy; 0 for the sampler's own range.
    """

    package: ClassVar[str] = "dwave.samplers"
    sampler: ClassVar[str]

    num_reads: int = 1
    num_sweeps: int = 1000
    beta_min: float = 0.0
    beta_max: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("num_reads", "num_sweeps")
        self.require_range(self.beta_min, self.beta_max)

    @property
    def effort(self) -> int:
        """Sweeps of one anneal."""
        return self.num_sweeps

    def sample(self, model: Any, call: Call) -> States:
        """Anneal from random states, at the given temperatures."""
        options: dict[str, Any] = {}
        if self.beta_min:
            options["beta_range"] = (self.beta_min, self.beta_max)
        samples = getattr(import_module(self.package), self.sampler)().sample(
            model,
            num_reads=self.num_reads,
            num_sweeps=call.effort,
            seed=call.seed,
            **options,
        )
        return _best(model, samples)


@dataclass(frozen=True, kw_only=True)
class DwaveSa(_DwaveAnnealer):
    """dwave-samplers' `SimulatedAnnealingSampler`."""

    name: ClassVar[str] = "dwave-sa"
    references: ClassVar[tuple[str, ...]] = (
        "dwave-samplers, SimulatedAnnealingSampler",
    )
    sampler: ClassVar[str] = "SimulatedAnnealingSampler"
    thermal: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class DwavePathIntegral(_DwaveAnnealer):
    """dwave-samplers' `PathIntegralAnnealingSampler`."""

    name: ClassVar[str] = "dwave-path-integral"
    references: ClassVar[tuple[str, ...]] = (
        "dwave-samplers, PathIntegralAnnealingSampler",
    )
    sampler: ClassVar[str] = "PathIntegralAnnealingSampler"


@dataclass(frozen=True, kw_only=True)
class DwaveRotor(_DwaveAnnealer):
    """dwave-samplers' `RotorModelAnnealingSampler`."""

    name: ClassVar[str] = "dwave-rotor"
    references: ClassVar[tuple[str, ...]] = (
        "dwave-samplers, RotorModelAnnealingSampler",
    )
    sampler: ClassVar[str] = "RotorModelAnnealingSampler"


def _best(model: Any, found: Any) -> States:
    """The best sample, in the model's order of variables."""
    best = found.record.sample[found.record.energy.argmin()]
    state = dict(zip(found.variables, best.tolist(), strict=True))
    return np.array([state[v] for v in model.variables], np.uint8)
