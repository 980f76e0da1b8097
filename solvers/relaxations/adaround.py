"""AdaRound: the rounding that best reconstructs a layer's output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from solvers.base import Solver, Task
from solvers.qubo import States
from solvers.relaxations.adam import Relaxation, relax, typical_curvature
from solvers.relaxations.on_layer import (
    EQ_25,
    QUADRATIC,
    LayerLoss,
    relax_layer,
    relax_on_device,
)

# What the paper leaves open (schedule, weight, warm-up) follows AIMET, by the same
# authors. AIMET takes 15 000 steps below 8 bits.
PAPER: dict[str, Any] = {
    "steps": 10_000,
    "rate": 1e-3,
    "batch": 32,
    "regularisation": 0.01,
    "beta_start": 20.0,
    "beta_end": 2.0,
    "schedule": "cosine",
    "warm_up": 0.2,
}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": PAPER,
    "aimet": PAPER | {"steps": 15_000},
    "brecq": PAPER | {"steps": 20_000, "schedule": "linear"},
}


@dataclass(frozen=True, kw_only=True)
class AdaRound(Solver):
    """Nagel et al.'s method: relaxed states h(V) under eq. (25), rounded in the end.

    Given the layer's data, the loss is ``||f_a(W x) - f_a(W_rounded x_hat)||^2`` on
    minibatches of calibration images, summed over channels and averaged over images and
    positions, plus ``regularisation * sum(1 - |2h - 1|^beta)``, minimised by Adam.
    Without data it is the quadratic form, in the same units, which is the same loss
    without activation and with all images in every step. ``info["objective"]`` says
    which. A sweep of the budget is a step; a budget too small for all steps shortens
    the schedule.

    With data, torch computes with as many threads as it is set to, whatever the budget
    says: the split of its sums among threads would change the answer.

    ``info`` holds ``soft_fraction``, the share of the free variables that end with h in
    (0.01, 0.99), ``steps``, and ``loss``: (step, error, regularisation) at ten points.

    Parameters
    ----------
    preset
        ``"paper"``: 10 000 steps, rate 1e-3, 32 images, weight 0.01, beta from 20 to 2
        by a half cosine after a fifth of the steps. ``"aimet"``: 15 000 steps.
        ``"brecq"``: 20 000 steps, beta along a line.
    steps, rate, batch
        Number of steps and rate of Adam, and images per step; 0: the preset's.
    regularisation
        Weight of f_reg, in units of energy; -1: the preset's.
    beta_start, beta_end
        First and last exponent of f_reg; 0: the preset's.
    schedule
        Course of beta, ``"cosine"`` or ``"linear"``; empty: the preset's.
    warm_up
        Share of the steps before f_reg sets in; -1: the preset's.
    activation
        Whether the activation after the layer is in the loss (eq. 25) or not (eq. 21).
    device
        Device that minimises the quadratic form, ``"cpu"`` or a device of torch such as
        ``"cuda"``. A layer's data are used on the device that holds them.
    """

    name: ClassVar[str] = "adaround"
    uses_data: ClassVar[bool] = True
    references: ClassVar[tuple[str, ...]] = (
        "Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, "
        "2020",
    )

    preset: str = "paper"
    steps: int = 0
    rate: float = 0.0
    batch: int = 0
    regularisation: float = -1.0
    beta_start: float = 0.0
    beta_end: float = 0.0
    schedule: str = ""
    warm_up: float = -1.0
    activation: bool = True
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ", ".join(PRESETS)
        self.require(self.preset in PRESETS, f"preset must be one of {known}")
        chosen = self.settings()
        self.require(chosen["steps"] >= 1, "steps must be at least 1")
        self.require(0 < chosen["rate"] < math.inf, "rate must be positive")
        self.require(chosen["batch"] >= 1, "batch must be at least 1")
        self.require(
            0 <= chosen["regularisation"] < math.inf, "regularisation must be 0 or more"
        )
        self.require(
            1 < chosen["beta_end"] <= chosen["beta_start"] < math.inf,
            "beta must fall and stay above 1: 1 < beta_end <= beta_start",
        )
        self.require(
            chosen["schedule"] in ("cosine", "linear"),
            "schedule must be cosine or linear",
        )
        self.require(0 <= chosen["warm_up"] < 1, "warm_up must lie in [0, 1)")
        self.require(self.device != "", "device must be cpu or a device of torch")

    def settings(self) -> dict[str, Any]:
        """The preset's settings, overridden by the options that are given."""
        settings = {name: getattr(self, name) for name in PAPER}
        for name, value in PRESETS[self.preset].items():
            # The field's default stands for "as the preset says".
            if settings[name] == getattr(type(self), name):
                settings[name] = value
        return settings

    def search(self, task: Task) -> States:
        """Relax from the prior, and round."""
        chosen = self.settings()
        batch, schedule = chosen.pop("batch"), chosen.pop("schedule")
        unit = typical_curvature(task.qubo)
        weight = chosen.pop("regularisation") / (unit if task.data is None else unit**0)
        relaxation = Relaxation(**chosen, weight=weight, cosine=schedule == "cosine")
        if task.data is not None:
            task.info["objective"] = EQ_25
            loss = LayerLoss(task.data, task.qubo, task.seed, batch, self.activation)
            return relax_layer(task, relaxation, loss)
        task.info["objective"] = QUADRATIC
        if self.device == "cpu":
            return relax(task, relaxation, unit)
        return relax_on_device(task, relaxation, unit, self.device)
