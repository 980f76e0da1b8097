"""The rounding of one layer in a rounded network, from its moments."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qubo_rounding.network.whole.parts import Parts
from qubo_rounding.problem.grid import Encoding, Grid
from qubo_rounding.problem.in_turn import (
    Integers,
    best_encoding,
    in_float32,
    solve_in_turn,
)
from qubo_rounding.problem.problem import RoundingProblem
from qubo_rounding.problem.target_moments import TargetMoments
from solvers import Budget, Solver
from solvers.decoders.babai import Babai
from solvers.decoders.factor import shared_factors
from solvers.layer_data import LayerData

Array = NDArray[np.float64]
# Ridge of the shift that is judged on held-out images, in mean diagonals of H.
DAMPING = 1e-3
# Finds the scale, and which share of the shift to trust: far faster than most solvers,
# and the scales that it finds are as good.
SCOUT = Babai()
# Rows times squared variables from which a layer is scouted once, without a contest and
# without rounds: one on the largest takes as long as all others together.
LARGE = 10**9
# A larger share of the shift that holds on other images is taken for all of it.
SURE = 0.9


@dataclass(frozen=True, eq=False)
class Rounded:
    """A layer's rounding.

    Attributes
    ----------
    problem
        The problem at the final scale; its objective trusts the shift as far as it
        was found to hold.
    states : [R, n]
        The answer.
    change : float64 [R, n]
        Rounded minus original weights.
    bias_shift : float64 [R], optional
        What the bias gains.
    report
        Errors and seconds, see `quantize_network`.
    """

    problem: RoundingProblem
    states: Integers
    change: Array
    bias_shift: Array | None
    report: dict[str, Any]


def trusted_share(fit: TargetMoments, held: TargetMoments) -> float:
    """How much of the shift of the weights holds on other images, from 0 to 1.

    The shift D makes up for the errors on some images; ``α D`` is best on others for
    ``α = tr(P Dᵀ) / tr(D H Dᵀ)``, with their P and H.
    """
    D = fit.shift(DAMPING)
    groups = D.reshape(len(held.second_moment), -1, D.shape[1])
    quadratic = float(np.einsum("gri,gri->", groups @ held.second_moment, groups))
    linear = float(np.einsum("ri,ri->", held.pull, D))
    return min(max(linear / quadratic, 0.0), 1.0) if quadratic > 0 else 1.0


# All solves of a layer have one H.
@shared_factors()
def round_layer(
    weight: Array,
    moments: tuple[TargetMoments, TargetMoments | None],
    grid: Grid,
    solver: Solver,
    parts: Parts,
    *,
    budget: Budget,
    seed: int,
    data: Callable[[RoundingProblem], list[LayerData]] | None = None,
) -> Rounded:
    """Round a layer's weights so that its output errs least.

    Parameters
    ----------
    weight
        ``[R, n]``.
    moments
        Those of the calibration images, and of held-out images if there are any.
    data
        Gives the layer's data for a problem, for solvers that want it.
    """
    fit, held = moments
    raw = fit
    if parts.bias:
        fit = fit.centred()
        held = None if held is None else held.centred()
    encoding = grid.fit(weight, fit.second_moment)
    encoding = replace(encoding, scale=in_float32(encoding.scale))
    shares = [1.0]
    if parts.trust and held is not None and not solver.uses_data and fit.pull.any():
        share = trusted_share(fit, held)
        shares += [share] if share < SURE else []

    def solve(posed: RoundingProblem, by: Solver = solver) -> Integers:
        given = data(posed) if data is not None and by.uses_data else None
        return posed.join(
            [
                by.solve(
                    qubo,
                    seed=seed,
                    budget=budget,
                    data=None if given is None else given[block],
                ).states
                for block, qubo in enumerate(posed.to_qubos())
            ]
        )

    def error(problem: RoundingProblem, states: Integers) -> float:
        return float(judge.error(problem.decode(states) - weight).sum())

    begun = time.perf_counter()
    judge = fit if held is None else held
    large = weight.size * weight.shape[1] > LARGE
    scout, scouted = partial(solve, by=SCOUT), None
    if large or len(shares) == 1:
        share = shares[-1]
        problem = _posed(weight, grid, encoding, fit, share)
    else:
        posed = [_posed(weight, grid, encoding, fit, share) for share in shares]
        found = [scout(each) for each in posed]
        judged = [error(*answer) for answer in zip(posed, found, strict=True)]
        best = int(np.argmin(judged))
        share, problem, scouted = shares[best], posed[best], found[best]
    if grid.turns:
        problem = _in_turn(problem, grid, scout, scouted, large)
    states = solve(problem)
    change = problem.decode(states) - weight
    final = error(problem, states)
    nearest = encoding.nearest(weight) - weight
    report: dict[str, Any] = {
        "seconds": time.perf_counter() - begun,
        "positions": fit.count,
        "trust": share,
        "turns": problem.meta.get("turns", 0),
        "error": float(fit.error(change).sum()),
        "error_nearest": float(fit.error(nearest).sum()),
        "guarded": False,
    }
    if held is not None:
        report["heldout_error"] = final
        report["heldout_error_nearest"] = float(held.error(nearest).sum())
        if parts.guard and final > report["heldout_error_nearest"]:
            problem = _posed(weight, grid, encoding, fit, share)
            states, change = problem.nearest(), nearest
            report["guarded"] = True
    shift = raw.bias_shift(change) if parts.bias else None
    return Rounded(problem, states, change, shift, report)


def _in_turn(
    problem: RoundingProblem,
    grid: Grid,
    scout: Callable[[RoundingProblem], Integers],
    scouted: Integers | None,
    once: bool,
) -> RoundingProblem:
    """The problem at a scale fitted to a scout's integers, once or in turn."""
    if not once:
        return solve_in_turn(problem, grid, scout, first=scouted).problem
    codes = problem.base + scout(problem).astype(np.int64)
    return problem.on_encoding(best_encoding(problem, codes, grid), turns=1)


def _posed(
    weight: Array, grid: Grid, encoding: Encoding, moments: TargetMoments, share: float
) -> RoundingProblem:
    """The layer's problem if so much of the shift is trusted."""
    H = moments.second_moment
    return RoundingProblem(
        weight=weight,
        scale=encoding.scale,
        lo=encoding.lo,
        hi=encoding.hi,
        moment=H[0] if len(H) == 1 else H,
        gradient=-2 * share * moments.pull,
        constant=share**2 * moments.square,
        saturated=grid.saturated,
        meta={"bits": grid.bits, "count": moments.count},
    )
