"""GPTQ on the whole grid: the reference not held to the two nearest points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from solvers.base import Task
from solvers.decoders.decoder import OnePass
from solvers.decoders.factor import Factor, Targets, level_targets
from solvers.qubo import QuboBatch


@dataclass(frozen=True, kw_only=True)
class Gptq(OnePass):
    """Round each weight to the grid and correct the undecided ones for its error.

    Its states are any whole grid steps within the batch's `levels`, so it is out of the
    set that the other solvers search. Saturated weights are rounded like the others,
    with their real targets.
    """

    name: ClassVar[str] = "gptq"
    references: ClassVar[tuple[str, ...]] = (
        "Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative "
        "Pre-trained Transformers, 2022",
        "Chen et al., The Geometry of LLM Quantization: GPTQ as Babai's Nearest Plane "
        "Algorithm, 2025, arXiv 2507.18553",
    )
    rule: ClassVar[bool] = True
    out_of_set: ClassVar[bool] = True

    order: str = "activation"
    damping: float = 0.01

    def supports(self, qubo: QuboBatch) -> str | None:
        """Only rounding problems, since others have no levels."""
        return qubo.lacks_steps()

    def targets(self, task: Task, factor: Factor) -> Targets:
        """The batch's rows in the coordinates of `factor`, over the whole grid."""
        return level_targets(task.qubo, factor, task.budget.threads)

    def decode(self, task: Task, targets: Targets) -> NDArray[Any]:
        """States by one pass over the variables."""
        return targets.nearest_planes(threads=task.budget.threads)
