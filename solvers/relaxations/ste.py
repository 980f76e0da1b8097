"""The straight-through estimator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.base import Solver, Task
from solvers.qubo import QuboBatch, States
from solvers.relaxations.on_layer import LayerLoss
from solvers.relaxations.rounded import RoundedDescent


@dataclass(frozen=True, kw_only=True)
class Ste(Solver):
    """Descend on the error of the rounded weights, as if rounding were the identity.

    ``z`` starts at the prior; each step rounds it to any point of the grid, takes the
    gradient there, and moves z against it by Adam at a rate that falls linearly to 0.
    This is the baseline of the AdaRound paper's Table 5. The best rounding seen is the
    answer. Saturated weights may leave the end of the grid, whatever the problem's
    reading of them: they are pinned because the two nearest points coincide, and this
    method is not bound to those.

    Given the layer's data, the error is eq. (25) on minibatches, without f_reg, as in
    `solvers.relaxations.adaround`, and roundings are compared on some of the images,
    always the same; without data it is the quadratic form. A sweep of the budget is a
    step; with fewer steps the rate falls faster.

    Parameters
    ----------
    steps
        Number of steps of Adam.
    rate
        Rate of the first step, in grid steps.
    batch
        Images per step.
    activation
        Whether the activation after the layer is in the loss.
    """

    name: ClassVar[str] = "ste"
    out_of_set: ClassVar[bool] = True
    uses_data: ClassVar[bool] = True
    references: ClassVar[tuple[str, ...]] = (
        "Bengio, Leonard, Courville, Estimating or Propagating Gradients Through "
        "Stochastic Neurons for Conditional Computation, 2013",
        "Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, "
        "2020, Table 5",
    )

    steps: int = 10_000
    rate: float = 0.03
    batch: int = 32
    activation: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.steps >= 1, "steps must be at least 1")
        self.require(0 < self.rate < math.inf, "rate must be positive")
        self.require(self.batch >= 1, "batch must be at least 1")

    def supports(self, qubo: QuboBatch) -> str | None:
        """Only batches whose variables stand on a grid."""
        return qubo.lacks_steps()

    def search(self, task: Task) -> States:
        """Descend from the prior within the grid."""
        levels = task.qubo.levels
        assert levels is not None
        lowest, highest = levels.astype(np.float64)
        descent = RoundedDescent(task, self.steps, self.rate, lowest, highest)
        if task.data is None:
            return descent.on_quadratic_form()
        loss = LayerLoss(task.data, task.qubo, task.seed, self.batch, self.activation)
        return descent.on_layer(loss)
