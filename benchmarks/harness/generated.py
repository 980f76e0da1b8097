"""Random problems of the classes that QUBO solvers are compared on.

Maximum cuts are like the G-set's (Helmberg, Rendl, 2000), which Rinaldi's rudy made:
random graphs, toroidal grids, unions of two planar graphs. Dense QUBOs are like the
OR-Library's bqp and Glover, Kochenberger and Alidaee's gka (1998). Wishart problems
round random weights under the second moment of independent inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.spatial
from numpy.typing import NDArray

from solvers import InputError, QuboBatch
from solvers.errors import UnknownNameError
from solvers.qubo import Float

Pairs = NDArray[np.integer[Any]]
# Neighbours of a vertex in the random graphs, as in G22 to G31.
DEGREE = 20
# Share of the edges that planar graphs keep.
KEPT = 0.99
# Share of the couplings of a dense QUBO that are not 0, and their largest size.
DENSITY, LARGEST = 0.1, 100
# Rows of a Wishart problem.
ROWS = 16
# Largest number of variables: a matrix takes 8 bytes for each pair of them.
MOST = 20_000


def maxcut(n: int, edges: Pairs, weights: Float) -> QuboBatch:
    """The negative weight of a cut of a graph, for edges [m, 2] and weights [m]."""
    Q = np.zeros((n, n))
    np.add.at(Q, (edges[:, 0], edges[:, 1]), weights)
    Q += Q.T
    return QuboBatch.from_matrix(Q, -Q.sum(axis=1))


def random_graph(n: int, rng: np.random.Generator) -> QuboBatch:
    """The maximum cut of a random graph with edges of weight 1."""
    edges = _random_edges(n, rng)
    return maxcut(n, edges, np.ones(len(edges)))


def signed_graph(n: int, rng: np.random.Generator) -> QuboBatch:
    """The maximum cut of a random graph with edges of weight 1 and -1."""
    edges = _random_edges(n, rng)
    return maxcut(n, edges, rng.choice([-1.0, 1.0], len(edges)))


def torus(n: int, rng: np.random.Generator) -> QuboBatch:
    """The maximum cut of a toroidal grid with edges of weight 1 and -1."""
    height = next(h for h in range(int(n**0.5), 0, -1) if n % h == 0)
    grid = np.arange(n).reshape(height, -1)
    ends = [np.roll(grid, 1, axis).ravel() for axis in (0, 1)]
    edges = np.concatenate([np.column_stack([grid.ravel(), end]) for end in ends])
    return maxcut(n, edges, rng.choice([-1.0, 1.0], len(edges)))


def planar(n: int, rng: np.random.Generator) -> QuboBatch:
    """The maximum cut of a union of two planar graphs, nearly maximal ones."""
    graphs = [scipy.spatial.Delaunay(rng.random((n, 2))).simplices for _ in range(2)]
    sides = [graph[:, [i, j]] for graph in graphs for i, j in ((0, 1), (1, 2), (0, 2))]
    edges = np.unique(np.sort(np.concatenate(sides), axis=1), axis=0)
    edges = edges[rng.random(len(edges)) < KEPT]
    return maxcut(n, edges, np.ones(len(edges)))


def dense(n: int, rng: np.random.Generator) -> QuboBatch:
    """A QUBO with uniform whole coefficients, like bqp and gka."""
    Q = np.triu(rng.integers(-LARGEST, LARGEST + 1, (n, n)).astype(np.float64), 1)
    Q *= rng.random((n, n)) < DENSITY
    return QuboBatch.from_matrix(Q, rng.integers(-LARGEST, LARGEST + 1, n))


def wishart(n: int, rng: np.random.Generator) -> QuboBatch:
    """Rounding with the second moment of 1.2 n normal inputs."""
    x = rng.standard_normal((n, int(1.2 * n)))
    H, t = x @ x.T / x.shape[1], rng.random((ROWS, n))
    pull = t @ H
    return QuboBatch(
        H=H,
        linear=-2 * pull,
        offset=(t * pull).sum(axis=1),
        scale=np.ones((ROWS, 1)),
        prior=t,
    )


CLASSES: dict[str, Callable[[int, np.random.Generator], QuboBatch]] = {
    "random": random_graph,
    "signed": signed_graph,
    "torus": torus,
    "planar": planar,
    "dense": dense,
    "wishart": wishart,
}


def generate(text: str, seed: int = 0) -> QuboBatch:
    """The problem that ``CLASS:SIZE`` names, such as ``planar:2000``.

    Raises
    ------
    InputError
        No such class, or a size that is no number above 20 and at most 20 000.
    """
    name, _, size = text.partition(":")
    if name not in CLASSES:
        raise UnknownNameError("class of problems", name, tuple(CLASSES))
    fits = size.isascii() and size.isdigit() and len(size) <= len(str(MOST))
    if not (fits and DEGREE < int(size) <= MOST):
        raise InputError(
            f"{text!r:.60}: give a size from {DEGREE + 1} to {MOST}, as in {name}:2000"
        )
    n = int(size)
    rng = np.random.default_rng([seed, n, list(CLASSES).index(name)])
    return CLASSES[name](n, rng)


def _random_edges(n: int, rng: np.random.Generator) -> Pairs:
    edges = np.column_stack(np.triu_indices(n, 1))
    return edges[rng.choice(len(edges), n * DEGREE // 2, replace=False)]
