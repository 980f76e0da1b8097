"""simulated-bifurcation behind this project's protocol, to be compared with."""

from __future__ import annotations

import math
import warnings
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
class SimulatedBifurcation(DensePeer):
    """The package simulated-bifurcation, until it converges or its time is up.

    Parameters
    ----------
    agents
        Number of trajectories side by side.
    max_steps
        Largest number of steps of one call.
    mode
        ``"ballistic"`` or ``"discrete"``.
    heated
        Whether there are thermal fluctuations.
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
        self.require_positive("agents", "max_steps")
        self.require(
            self.mode in ("ballistic", "discrete"), "mode must be ballistic or discrete"
        )

    @property
    def effort(self) -> int:
        """Largest number of steps."""
        return self.max_steps

    def native(self, Q: Float, c: Float) -> Any:
        """The package's polynomial, in float32, which is its own default."""
        import torch

        parts = (torch.from_numpy(np.array(part, np.float32)) for part in (Q, c))
        return import_module(self.package).build_model(*parts)

    def sample(self, model: DenseModel, call: Call) -> States:
        """Run all trajectories from random positions."""
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
        return best_state(x[None].numpy(), energy[None].numpy())


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise the Ctrl-C that a package turns into a warning; hide other warnings."""
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        yield
    if any("interrupted by user" in str(remark.message) for remark in remarks):
        raise KeyboardInterrupt
