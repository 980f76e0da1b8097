"""`DensePeer`: the base of peers whose packages take dense arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.peers.base import Peer
from solvers.proofs.semidefinite import Model
from solvers.qubo import Float, QuboBatch, States


@dataclass(frozen=True, eq=False)
class DenseModel:
    """A row, and the package's model (`native`) of its energies divided by `unit`."""

    unit: float
    native: Any


def best_state(states: Any, energies: Any) -> States:
    """The best of states [K, m] by the package's energies [K]."""
    best: States = np.asarray(states)[np.argmin(energies)].astype(np.uint8)
    return best


class DensePeer(Peer):
    """A peer whose models are matrices, divided by their largest coefficient.

    Without the division, the coefficients of rounding problems are often below the
    packages' tolerances, which are absolute.
    """

    def model(self, qubo: QuboBatch, row: int) -> DenseModel | None:
        """A row's model as a matrix; None if all coefficients are 0."""
        model = Model.of_row(qubo, row)
        unit = float(max(np.abs(model.Q).max(), np.abs(model.c).max()))
        if not unit:
            return None
        return DenseModel(unit, self.native(model.Q / unit, model.c / unit))

    def native(self, Q: Float, c: Float) -> Any:
        """The package's model of ``x^T Q x + c.x``: by default an upper triangle."""
        return np.triu(2 * Q, 1) + np.diag(Q.diagonal() + c)
