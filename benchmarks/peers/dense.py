"""Solvers of other packages that take dense arrays: bifurcation, qubolite."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from typing import Any, ClassVar

import numpy as np

from benchmarks.peers.base import Call, Peer
from solvers.proofs.semidefinite import Model
from solvers.qubo import Float, QuboBatch, States


@dataclass(frozen=True, eq=False)
class DenseModel:
    """A row, and what the package makes of its energies divided by `unit`."""

    row: Model
    unit: float
    native: Any

    def best(self, states: Any, energies: Any) -> tuple[States, float]:
        """The best of states [K, m] by the package's energies [K]; its own energy."""
        x = np.asarray(states)[np.argmin(energies)].astype(np.uint8)
        return x, float(self.row.energies(x))


class DensePeer(Peer):
    """A peer whose models are matrices, divided by their largest coefficient.

    The packages' tolerances are absolute, and rounding problems often lie below them.
    """

    def model(self, qubo: QuboBatch, row: int) -> DenseModel | None:
        """A row as a matrix, in the package's own class."""
        model = Model.of_row(qubo, row)
        unit = float(max(np.abs(model.Q).max(), np.abs(model.c).max()))
        if not unit:
            return None
        return DenseModel(model, unit, self.native(model.Q / unit, model.c / unit))

    def native(self, Q: Float, c: Float) -> Any:
        """The package's model of ``x^T Q x + c.x``: here one upper triangle [m, m]."""
        return np.triu(2 * Q, 1) + np.diag(Q.diagonal() + c)


@dataclass(frozen=True, kw_only=True)
class SimulatedBifurcation(DensePeer):
    """The package simulated-bifurcation, until it converges or its time is up.

    Parameters
    ----------
    agents
        Trajectories side by side.
    max_steps
        Of one call.
    mode
        ``"ballistic"`` or ``"discrete"``.
    heated
        With thermal fluctuations.
    """

    name: ClassVar[str] = "simulated-bifurcation"
    references: ClassVar[tuple[str, ...]] = (
        "simulated-bifurcation, minimize",
        "Goto, Endo, Suzuki, Sakai, Kanao, Hamakawa, Hidaka, Yamasaki, Tatsumura, "
        "High-performance combinatorial optimization based on classical mechanics, "
        "Science Advances 2021",
    )
    package: ClassVar[str] = "simulated_bifurcation"
    timed: ClassVar[bool] = True

    agents: int = 128
    max_steps: int = 10000
    mode: str = "ballistic"
    heated: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.agents >= 1, "agents must be at least 1")
        self.require(self.max_steps >= 1, "max_steps must be at least 1")
        self.require(
            self.mode in ("ballistic", "discrete"), "mode must be ballistic or discrete"
        )

    @property
    def effort(self) -> int:
        """Steps."""
        return self.max_steps

    def native(self, Q: Float, c: Float) -> Any:
        """A polynomial in float32, the package's own choice."""
        import torch

        parts = (torch.from_numpy(np.array(part, np.float32)) for part in (Q, c))
        return import_module(self.package).build_model(*parts)

    def sample(self, model: DenseModel, call: Call) -> tuple[States, float]:
        """From random positions."""
        import torch

        with torch.random.fork_rng(devices=[]), _interruptible():
            # `torch.manual_seed` would seed accelerators, too.
            torch.default_generator.manual_seed(call.seed)
            x, energy = model.native.minimize(
                domain="binary",
                agents=self.agents,
                max_steps=call.effort,
                mode=self.mode,
                heated=self.heated,
                verbose=False,
                timeout=call.seconds if math.isfinite(call.seconds) else None,
            )
        return model.best(x[None].numpy(), energy[None].numpy())


@dataclass(frozen=True, kw_only=True)
class QuboliteSa(DensePeer):
    """qubolite's `simulated_annealing`, in numpy, as many steps as fit.

    Parameters
    ----------
    steps
        Of one anneal, where the budget has no ``seconds``.
    n_parallel
        Anneals side by side.
    """

    name: ClassVar[str] = "qubolite-sa"
    references: ClassVar[tuple[str, ...]] = ("qubolite, simulated_annealing",)
    package: ClassVar[str] = "qubolite"

    steps: int = 100_000
    n_parallel: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.steps >= 1, "steps must be at least 1")
        self.require(self.n_parallel >= 1, "n_parallel must be at least 1")

    @property
    def effort(self) -> int:
        """Steps."""
        return self.steps

    def native(self, Q: Float, c: Float) -> Any:
        """A model of the package's."""
        return import_module(self.package).qubo(super().native(Q, c))

    def sample(self, model: DenseModel, call: Call) -> tuple[States, float]:
        """From random states, at temperatures of the package's choice."""
        solving = import_module(f"{self.package}.solving")
        # It prints the temperature.
        with redirect_stdout(StringIO()), np.errstate(all="ignore"):
            found = solving.simulated_annealing(
                model.native,
                steps=call.effort,
                n_parallel=self.n_parallel,
                random_state=call.seed,
            )
        return model.best(*found)


@dataclass(frozen=True, kw_only=True)
class QuboliteDescent(DensePeer):
    """qubolite's `local2_descent`, by flips and pairs: first the best state.

    Parameters
    ----------
    num_reads
        Descents of one row, all but the first from random states.
    """

    name: ClassVar[str] = "qubolite-descent"
    references: ClassVar[tuple[str, ...]] = ("qubolite, local2_descent",)
    package: ClassVar[str] = "qubolite"

    num_reads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.num_reads >= 1, "num_reads must be at least 1")

    @property
    def effort(self) -> int:
        """Descents."""
        return self.num_reads

    def native(self, Q: Float, c: Float) -> Any:
        """A model of the package's."""
        return import_module(self.package).qubo(super().native(Q, c))

    def sample(self, model: DenseModel, call: Call) -> tuple[States, float]:
        """One descent after the other."""
        solving = import_module(f"{self.package}.solving")
        generator = np.random.default_rng(call.seed)
        found = [solving.local2_descent(model.native, call.start.astype(np.float64))]
        for _ in range(call.effort - 1):
            found.append(solving.local2_descent(model.native, random_state=generator))
        states, energies = zip(*found, strict=True)
        return model.best(states, energies)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C through where a package turns it into a warning; hide its others."""
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        yield
    if any("interrupted by user" in str(one.message) for one in remarks):
        raise KeyboardInterrupt
