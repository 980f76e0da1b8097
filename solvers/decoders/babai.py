"""Babai's nearest plane on two values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from solvers.base import Task
from solvers.decoders.decoder import OnePass
from solvers.decoders.factor import Targets


@dataclass(frozen=True, kw_only=True)
class Babai(OnePass):
    """Every variable at the value nearer to its centre, given those decided before.

    The centre is its value at the real minimiser over all undecided variables. This is
    GPTQ (and LDLQ) with two grid points per weight, and `kbest` with one path.
    """

    name: ClassVar[str] = "babai"
    references: ClassVar[tuple[str, ...]] = (
        "Babai, On Lovász' Lattice Reduction and the Nearest Lattice Point Problem, "
        "1986",
        "Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative "
        "Pre-trained Transformers, 2022",
        "Chen et al., The Geometry of LLM Quantization: GPTQ as Babai's Nearest Plane "
        "Algorithm, 2025, arXiv 2507.18553",
    )

    def decode(self, task: Task, targets: Targets) -> NDArray[Any]:
        """States by one pass over the variables."""
        return targets.nearest_planes(threads=task.budget.threads)
