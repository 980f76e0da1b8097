"""Solvers for batches of binary quadratic models that share one matrix.

Usable alone: nothing here knows of layers or networks.

Examples
--------
>>> from solvers import QuboBatch, parse_solver
>>> qubo = QuboBatch.from_matrix([[1.0, -4.0], [0.0, 2.0]])
>>> parse_solver("sa").solve(qubo, seed=0).states
array([[1, 1]], dtype=uint8)
"""

from solvers.base import Solution, Solver, Task
from solvers.budget import Budget, Monitor
from solvers.errors import InputError, UnknownNameError
from solvers.io.dimod import as_sampler
from solvers.io.files import read_qubo, write_qubo
from solvers.io.solve import solve
from solvers.polish import descend
from solvers.qubo import QuboBatch
from solvers.registry import available, label, parse_solver, parse_solvers

__all__ = [
    "Budget",
    "InputError",
    "Monitor",
    "QuboBatch",
    "Solution",
    "Solver",
    "Task",
    "UnknownNameError",
    "as_sampler",
    "available",
    "descend",
    "label",
    "parse_solver",
    "parse_solvers",
    "read_qubo",
    "solve",
    "write_qubo",
]
