"""K-best decoding: breadth-first search for the closest vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from solvers.base import Task
from solvers.decoders.decoder import OnePass
from solvers.decoders.factor import Targets

# Most paths that may be asked for: more than memory holds.
MOST = 2**20


@dataclass(frozen=True, kw_only=True)
class KBest(OnePass):
    """Decide variable after variable, keeping the best partial states of each row.

    The cost of a partial state, or path, is its energy with all undecided variables at
    their real minimiser. Every path goes on with 0 and with 1, and the cheapest
    survive. With 2^n paths the answer is exact, with one it is Babai's.

    Parameters
    ----------
    paths
        Paths kept per row; a budget's ``sweeps`` caps it.
    """

    name: ClassVar[str] = "kbest"
    references: ClassVar[tuple[str, ...]] = (
        "Guo, Nilsson, Algorithm and Implementation of the K-Best Sphere Decoding for "
        "MIMO Detection, 2006",
        "Wübben et al., Efficient Algorithm for Decoding Layered Space-Time Codes, "
        "2001 (order)",
    )

    paths: int = 64
    polish: str = "pair-flip"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1 <= self.paths <= MOST, f"paths must be 1 to {MOST}")

    def work(self, task: Task) -> float:
        """Approximate time to decode one row, in nanoseconds."""
        n = task.qubo.n
        return 0.5 * n**2 + 40.0 * n * task.budget.cap(self.paths)

    def decode(self, task: Task, targets: Targets) -> NDArray[Any]:
        """States by one pass over the variables, with all paths at once."""
        return targets.k_best(task.budget.cap(self.paths), task.budget.threads)
