"""A Hopfield network: sigmoids in place of bits, sharpened while they settle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.base import Solver, Task
from solvers.qubo import States
from solvers.relaxations.adam import Relaxation, relax, typical_curvature

FORMS = ("sigmoid", "sigmoid+reg", "rectified+reg")


@dataclass(frozen=True, kw_only=True)
class Hopfield(Solver):
    """Descend on the quadratic form of relaxed states h(V), and round h at 0.5.

    The three forms are those of Table 3 of the AdaRound paper, minimised by Adam with
    gradients in closed form, for all rows at once. Nothing is random: the seed changes
    nothing. A sweep of the budget is a step; a budget too small for all steps shortens
    the schedule, so that states are hard in the end.

    ``info`` holds ``soft_fraction``, the share of the free variables that end with h in
    (0.01, 0.99), ``steps``, and ``loss``: (step, error, regularisation) at ten points.

    Parameters
    ----------
    form
        ``"sigmoid"``, the classical method: h = sigmoid(V/T) while T falls.
        ``"sigmoid+reg"``: T = 1, and f_reg = sum(1 - |2h - 1|^beta) drives h to 0 and 1
        while beta falls. ``"rectified+reg"``: the same with AdaRound's rectified
        sigmoid, which reaches them.
    steps, rate
        Number of steps and rate of Adam.
    regularisation
        Weight of f_reg per row, in units of the median of ``s^2 H_jj`` over the free
        variables: what moving one weight by a step costs.
    beta_start, beta_end
        First and last exponent of f_reg; it falls along a half cosine.
    warm_up
        Share of the steps before f_reg sets in.
    hot, cold
        T at the start and at the end of ``"sigmoid"``; it falls geometrically.
    device
        ``"cpu"``, or a device of torch such as ``"cuda"``.
    """

    name: ClassVar[str] = "hopfield"
    references: ClassVar[tuple[str, ...]] = (
        "Hopfield, Tank, Neural Computation of Decisions in Optimization Problems, "
        "1985",
        "Smith, Palaniswami, Krishnamoorthy, Neural Techniques for Combinatorial "
        "Optimization with Applications, 1998",
        "Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, "
        "2020, Table 3",
    )

    form: str = "sigmoid"
    steps: int = 10_000
    rate: float = 0.1
    regularisation: float = 0.3
    beta_start: float = 20.0
    beta_end: float = 2.0
    warm_up: float = 0.2
    hot: float = 1.0
    cold: float = 0.003
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.form in FORMS, f"form must be one of {', '.join(FORMS)}")
        self.require(self.steps >= 1, "steps must be at least 1")
        self.require(0 < self.rate < math.inf, "rate must be positive")
        self.require(
            0 <= self.regularisation < math.inf, "regularisation must be 0 or more"
        )
        self.require(
            1 < self.beta_end <= self.beta_start < math.inf,
            "beta must fall and stay above 1: 1 < beta_end <= beta_start",
        )
        self.require(0 <= self.warm_up < 1, "warm_up must lie in [0, 1)")
        self.require(
            0 < self.cold <= self.hot < math.inf,
            "the temperature must fall: 0 < cold <= hot",
        )
        self.require(self.device != "", "device must be cpu or a device of torch")

    def search(self, task: Task) -> States:
        """Relax from the prior, and round."""
        classical = self.form == "sigmoid"
        unit = typical_curvature(task.qubo)
        relaxation = Relaxation(
            steps=self.steps,
            rate=self.rate,
            rectified=self.form == "rectified+reg",
            weight=np.full(task.qubo.rows, 0.0 if classical else self.regularisation),
            beta_start=self.beta_start,
            beta_end=self.beta_end,
            warm_up=self.warm_up,
            hot=self.hot if classical else 1.0,
            cold=self.cold if classical else 1.0,
        )
        if self.device == "cpu":
            return relax(task, relaxation, unit)
        from solvers.relaxations.on_layer import relax_on_device

        return relax_on_device(task, relaxation, unit, self.device)
