"""Scale and codes in turn: the grid's step fitted to the rounded weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qubo_rounding.problem.grid import Encoding, Grid
from qubo_rounding.problem.problem import RoundingProblem
from solvers.errors import InputError

Array = NDArray[np.float64]
# Grid indices, or steps from those below the weights.
Integers = NDArray[np.integer[Any]]

# Rounds that have to gain more than this share of the error, taken together.
PATIENCE, HARDLY = 2, 0.005
# Eigenvalues of the scales' equations below this share of the largest are rounding.
SINGULAR = 1e-10


@dataclass(frozen=True, eq=False)
class Turns:
    """Rounded weights, and the grid that was fitted to them.

    Attributes
    ----------
    problem
        The problem at the best scale; ``turns`` in its meta is the number of rounds.
        Where every row has scales of its own, one row's may be those of an earlier
        round than another's.
    states : integers [R, n]
        Its states, as in `RoundingProblem.decode`.
    errors : float64 [rounds + 1]
        The least error so far, summed over the rows: at the scale to begin with, and
        after each round.
    """

    problem: RoundingProblem
    states: Integers
    errors: Array


def solve_in_turn(
    problem: RoundingProblem,
    grid: Grid,
    solve: Callable[[RoundingProblem], Integers],
    rounds: int | None = None,
    first: Integers | None = None,
) -> Turns:
    """Round at the problem's scale, fit the scale to the answer, and round again.

    With the integers of the weights given, the best scale has a closed form
    (`best_encoding`). At that scale the problem is posed anew, between the two grid
    points around each original weight, and solved: this is a round. Every round goes on
    from the answer before it, even from a worse one, which leads further than to stay
    there; the best is the answer. It is chosen for all rows together where they share
    one scale, else row by row. The rounds end early where the scales stay as they are,
    and where `PATIENCE` rounds have gained hardly anything.

    All scales are rounded to float32 numbers, the one to begin with included, since
    files hold them in float32: a grid whose step was rounded afterwards would be
    another grid. Scales that float32 cannot hold are left alone.

    Parameters
    ----------
    problem
        The problem at the scale to begin with, as posed on `grid`.
    grid
        Which weights share a scale, and whether the zero point may move.
    solve
        Gives states [R, n] of a problem.
    rounds
        Largest number of rounds; default: the grid's `turns`.
    first
        States of the problem, if it has been solved already.

    Raises
    ------
    InputError
        The problem has one moment for the whole layer, or its scale is not one of such
        a grid.
    """
    _require_fit(problem, grid)
    begin = Encoding(in_float32(problem.scale), problem.lo, problem.hi)
    current = best = problem.on_encoding(begin)
    found = states = solve(current) if first is None else first
    errors = current.local_mse(found)
    sums = [errors.sum()]
    for _ in range(grid.turns if rounds is None else rounds):
        fitted = best_encoding(current, current.base + found.astype(np.int64), grid)
        if _same(fitted, current):
            break
        current = current.on_encoding(fitted)
        found = solve(current)
        reached = current.local_mse(found)
        if grid.granularity == "tensor":
            better = np.full(current.rows, reached.sum() < errors.sum())
        else:
            better = reached < errors
        best = best.on_encoding(_mixed(better, current, best), turns=len(sums))
        states = np.where(better[:, None], found, states)
        errors = np.where(better, reached, errors)
        sums.append(errors.sum())
        if len(sums) > PATIENCE and sums[-1] > (1 - HARDLY) * sums[-1 - PATIENCE]:
            break
    return Turns(best, states, np.array(sums))


def best_encoding(problem: RoundingProblem, codes: Integers, grid: Grid) -> Encoding:
    """The grid on which the integers `codes` [R, n] have the least error.

    The error is quadratic in the scales: of one per tensor or per channel

        s = sum t.q / sum q M q,    t = w M - g / 2,

    summed over the rows that share it; the scales of a row's groups solve a linear
    system. The zero point of an asymmetric grid is a second unknown for each scale, a
    constant added to the weights. It is rounded to whole steps, by which the integers
    move together with their range, as far as zero stays on the grid; then the scales
    are the best for the integers moved. They do not move where that is no gain.

    Where the error does not depend on a scale (all integers are zero, or their inputs
    are dead), it stays what it was; so does one that would not be positive, and the
    others of its row are the best beside it.

    Raises
    ------
    InputError
        The problem has one moment for the whole layer, or its scale is not one of such
        a grid.
    """
    _require_fit(problem, grid)
    columns = grid.column_groups(problem.n)
    units = len(columns)
    features = [codes.astype(np.float64)]
    if not grid.symmetric:
        features.append(np.ones(codes.shape))
    A, b = _equations(problem, features, columns)
    if grid.granularity == "tensor":
        A, b = A.sum(axis=0, keepdims=True), b.sum(axis=0, keepdims=True)

    def of_units(array: NDArray[Any]) -> NDArray[Any]:
        return np.broadcast_to(array, codes.shape)[: len(b), [c.start for c in columns]]

    def of_weights(array: NDArray[Any]) -> NDArray[Any]:
        widths = [c.stop - c.start for c in columns]
        each = np.repeat(array, widths if grid.granularity == "group" else 1, axis=1)
        return np.repeat(each, problem.rows // len(b), axis=0)

    start, lo, hi = of_units(problem.scale), problem.lo, problem.hi
    A_codes, b_codes = A[:, :units, :units], b[:, :units]
    scale = _least(A_codes, b_codes, start)
    if not grid.symmetric:
        both = _least(A, b, np.concatenate([start, np.zeros(start.shape)], axis=1))
        steps = np.round(both[:, units:] / both[:, :units])
        steps = np.clip(steps, -of_units(hi), -of_units(lo))
        A_moved, b_moved = _moved(A, b, steps)
        moved = _least(A_moved, b_moved, start)
        gains = _value(A_moved, b_moved, moved) < _value(A_codes, b_codes, scale)
        scale = np.where(gains[:, None], moved, scale)
        shift = of_weights(np.where(gains[:, None], steps, 0).astype(np.int32))
        lo, hi = lo + shift, hi + shift
    return Encoding(in_float32(of_weights(scale)), lo, hi)


def _equations(
    problem: RoundingProblem, features: list[Array], columns: list[slice]
) -> tuple[Array, Array]:
    """A [R, F, F] and b [R, F] of each row's error ``p A p - 2 b p`` (and a constant).

    The rounded weights are the sum over features and groups of columns of
    ``p * feature``, restricted to the group; p runs over features, then groups.
    """
    blocks, shape = problem.blocks, problem.weight.shape
    firsts, units = [c.start for c in columns], len(columns)

    def product(array: Array, rows_of_M: slice) -> Array:
        parts = array.reshape(len(blocks), -1, array.shape[1])
        return (parts @ blocks[:, rows_of_M]).reshape(shape)

    def sums(array: Array) -> Array:
        return np.add.reduceat(array, firsts, axis=1)

    target = product(problem.weight, slice(None))
    if problem.gradient is not None:
        target -= problem.gradient / 2
    b = np.concatenate([sums(feature * target) for feature in features], axis=1)
    A = np.empty((*b.shape, b.shape[1]))
    for f, feature in enumerate(features):
        for unit, c in enumerate(columns):
            pull = product(feature[:, c], c)
            column = [sums(other * pull) for other in features]
            A[:, :, f * units + unit] = np.concatenate(column, axis=1)
    return A, b


def _moved(A: Array, b: Array, steps: Array) -> tuple[Array, Array]:
    """The equations of the scales alone once the integers have moved by `steps`.

    Moved integers are the feature of the integers plus `steps` times that of ones.
    """
    units = steps.shape[1]
    d = steps[:, :, None]
    across = A[:, units:, :units]
    A_moved = A[:, :units, :units] + d * across + (d * across).transpose(0, 2, 1)
    A_moved += d * A[:, units:, units:] * d.transpose(0, 2, 1)
    return A_moved, b[:, :units] + steps * b[:, units:]


def _least(A: Array, b: Array, start: Array) -> Array:
    """The p [R, F] of least ``p A p - 2 b p`` nearest to `start`, scales first.

    Scales that would not be positive keep their start, and the others are the best
    beside them. Scales are the unknowns that do not start at zero.
    """
    free = np.ones(start.shape, bool)
    found, rows = start.copy(), np.arange(len(start))
    while len(rows):
        change = _change(A[rows], b[rows], start[rows], free[rows])
        found[rows] = start[rows] + change
        illegal = free & (~np.isfinite(found) | ((found <= 0) & (start > 0)))
        free &= ~illegal
        rows = np.flatnonzero(illegal.any(axis=1))
    return found


def _change(A: Array, b: Array, start: Array, free: NDArray[np.bool_]) -> Array:
    """The least change of the free unknowns that leads from `start` to the minimum."""
    A_free = np.where(free[:, :, None] & free[:, None], A, 0.0)
    residual = np.where(free, b - np.einsum("rij,rj->ri", A, start), 0.0)
    # In units in which the diagonal is 1, so that small scales are not taken for none.
    diagonal = np.einsum("rii->ri", A_free)
    size = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    values, vectors = np.linalg.eigh(A_free / (size[:, :, None] * size[:, None]))
    regular = values > SINGULAR * values.max(axis=1, keepdims=True)
    along = np.einsum("rji,rj->ri", vectors, residual / size)
    along = np.where(regular, along / np.where(regular, values, 1.0), 0.0)
    return np.asarray(np.einsum("rij,rj->ri", vectors, along) / size)


def _value(A: Array, b: Array, p: Array) -> Array:
    """The error ``p A p - 2 b p`` of each row [R], without its constant."""
    value: Array = np.einsum("ri,rij,rj->r", p, A, p)
    value -= 2 * np.einsum("ri,ri->r", b, p)
    return value


def in_float32(scale: Array) -> Array:
    """Scales rounded to float32 numbers, where these are normal numbers."""
    with np.errstate(over="ignore"):
        single = scale.astype(np.float32)
    held = np.isfinite(single) & (single >= np.finfo(np.float32).tiny)
    return np.asarray(np.where(held, single.astype(np.float64), scale))


def _same(encoding: Encoding, problem: RoundingProblem) -> bool:
    """Whether a problem is on such a grid; symmetric ones differ in scale alone."""
    pairs = ((encoding.scale, problem.scale), (encoding.lo, problem.lo))
    return all(bool((one == other).all()) for one, other in pairs)


def _mixed(
    better: NDArray[np.bool_], new: RoundingProblem, old: RoundingProblem
) -> Encoding:
    """The grid of each row from `new` where that is better, else from `old`."""
    scale, lo, hi = (
        np.where(better[:, None], getattr(new, name), getattr(old, name))
        for name in ("scale", "lo", "hi")
    )
    return Encoding(scale, lo, hi)


def _require_fit(problem: RoundingProblem, grid: Grid) -> None:
    """Refuse a problem of the whole layer, and one whose grid is not such a grid."""
    if problem.blocks.shape[-1] != problem.n:
        raise InputError(
            "scale and codes in turn need the moment of a row, [n, n], or several; "
            "this problem's is that of the whole layer, [R n, R n]"
        )
    shape = problem.weight.shape
    names = ("scale",) if grid.symmetric else ("scale", "lo", "hi")
    for name in names:
        array = np.broadcast_to(getattr(problem, name), shape)
        for columns in grid.column_groups(problem.n):
            part = array[:, columns]
            first = part[:1, :1] if grid.granularity == "tensor" else part[:, :1]
            if (part != first).any():
                raise InputError(
                    f"the problem's {name} is not the same for each {grid.granularity}"
                    ", as the grid says"
                )
