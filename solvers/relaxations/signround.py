"""SignRound: rounding offsets learned by the signs of gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.base import Solver, Task
from solvers.qubo import States
from solvers.relaxations.adam import origin
from solvers.relaxations.on_layer import LayerLoss
from solvers.relaxations.rounded import RoundedDescent


@dataclass(frozen=True, kw_only=True)
class SignRound(Solver):
    """Descend on the error of ``round(t + V)`` by the sign of its gradient in V.

    V lies in [-0.5, 0.5], so that each weight keeps to its two nearest grid points, and
    starts at 0; the gradient passes the rounding as if it were the identity, and the
    rate falls linearly to 0. The best rounding seen is the answer. The learned range of
    the grid, which belongs to the published method, is left out: the grid is given.

    Given the layer's data, the error is eq. (25) on minibatches, as in
    `solvers.relaxations.adaround`, and roundings are compared on some of the images,
    always the same; without data it is the quadratic form. A sweep of the budget is a
    step; with fewer steps the rate falls faster.

    Parameters
    ----------
    steps
        200 in the paper.
    rate
        Rate of the first step; 0: the paper's 1/steps, with which V can cross half its
        range.
    batch
        Images per step.
    activation
        Whether the activation after the layer is in the loss.
    """

    name: ClassVar[str] = "signround"
    uses_data: ClassVar[bool] = True
    references: ClassVar[tuple[str, ...]] = (
        "Cheng et al., Optimize Weight Rounding via Signed Gradient Descent for the "
        "Quantization of LLMs, 2023",
    )

    steps: int = 200
    rate: float = 0.0
    batch: int = 8
    activation: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.steps >= 1, "steps must be at least 1")
        self.require(0 <= self.rate < math.inf, "rate must be 0 or more")
        self.require(self.batch >= 1, "batch must be at least 1")

    def search(self, task: Task) -> States:
        """Descend from V = 0."""
        qubo, point, free = task.qubo, origin(task), task.qubo.free()
        # Halves round up: a weight on the upper point must reach below 0.5 to leave it,
        # and none may reach what rounds to -1 or 2.
        lowest = np.where(free, np.maximum(point - 0.501, -0.499), point)
        highest = np.where(free, np.minimum(point + 0.5, 1.499), point)
        rate = self.rate or 1 / self.steps
        descent = RoundedDescent(task, self.steps, rate, lowest, highest, by_sign=True)
        if task.data is None:
            states = descent.on_quadratic_form()
        else:
            loss = LayerLoss(task.data, qubo, task.seed, self.batch, self.activation)
            states = descent.on_layer(loss)
        return states.astype(np.uint8)
