"""`Grid` and `Encoding` under their public name; see `qubo_rounding.problem.grid`."""

from qubo_rounding.problem.grid import Encoding, Grid

__all__ = ["Encoding", "Grid"]
