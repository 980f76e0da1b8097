"""From weights and second moments to binary quadratic problems, without torch."""

from qubo_rounding.problem.grid import Encoding, Grid
from qubo_rounding.problem.moments import Moments
from qubo_rounding.problem.problem import RoundingProblem

__all__ = ["Encoding", "Grid", "Moments", "RoundingProblem"]
