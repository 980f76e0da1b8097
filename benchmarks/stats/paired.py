"""Two solvers on the same problems and seeds: tests, sizes of effect, wins."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from benchmarks.stats.checks import groups, numbers, require_length
from benchmarks.stats.intervals import Estimate, bootstrap_band
from benchmarks.stats.weighted import mean, rank_biserial
from solvers.errors import InputError
from solvers.qubo import Float

# Resamples of a permutation test; of few pairs all permutations are taken.
PERMUTATIONS = 9999
# Most numbers that a permutation test holds at a time.
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Tally:
    """On how many pairs the first is better, level and worse."""

    wins: int
    ties: int
    losses: int

    def share(self) -> Estimate:
        """Share of wins among the decided pairs, with Wilson's 95 % interval.

        NaN, between 0 and 1, where no pair is decided.
        """
        decided = self.wins + self.losses
        if not decided:
            return Estimate(math.nan, 0.0, 1.0)
        test = scipy.stats.binomtest(self.wins, decided)
        interval = test.proportion_ci(0.95, method="wilson")
        return Estimate(self.wins / decided, float(interval.low), float(interval.high))


@dataclass(frozen=True)
class Comparison:
    """What tells two solvers apart; negative figures mean that the first is lower.

    Attributes
    ----------
    wilcoxon, permutation
        Two-sided p-values of the signed-rank test, and of the permutation test of the
        mean difference. Without any difference both are 1.
    difference
        Mean of first minus second.
    effect
        Rank-biserial correlation of the differences, as in `weighted.rank_biserial`.
    tally
        Wins, ties and losses of the first.
    """

    wilcoxon: float
    permutation: float
    difference: Estimate
    effect: Estimate
    tally: Tally


def holm(p_values: ArrayLike) -> Float:
    """P-values adjusted for their number, by Holm's method.

    The i-th smallest of m becomes max over j ≤ i of (m - j + 1) · p_(j), at most 1
    (Holm, *A simple sequentially rejective multiple test procedure*, 1979). It keeps
    the probability of any false finding, whatever depends on what.

    Parameters
    ----------
    p_values : [m]
        From 0 to 1.

    Returns
    -------
    float64 [m]
        In the given order.
    """
    p = numbers("p_values", p_values, least=0)
    if p.max() > 1:
        raise InputError(f"p_values hold {p.max():g}; they must be from 0 to 1")
    order = np.argsort(p)
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return adjusted


def tally(
    a: ArrayLike, b: ArrayLike, *, relative: float = 1e-9, absolute: float = 0.0
) -> Tally:
    """On how many pairs a is lower than b, level with it, and higher.

    Level are a and b where |a - b| ≤ max(relative · max(|a|, |b|), absolute), and where
    both are infinite.

    Parameters
    ----------
    a, b : [N]
        Costs; +inf where a target was missed.
    relative, absolute
        The tolerance.
    """
    first, second = _pair(a, b, infinite=True)
    level = _level(first, second, relative, absolute)
    wins = int((~level & (first < second)).sum())
    ties = int(level.sum())
    return Tally(wins, ties, len(first) - wins - ties)


def compare(
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    relative: float = 1e-9,
    seed: int = 0,
) -> Comparison:
    """Whether two solvers differ, by how much, and how often.

    Both tests take pairs to be independent. Runs of one cluster are not, so with
    clusters each is one pair: the mean of its differences. Take values that can be
    compared between problems, such as gaps or logarithms of times.

    Parameters
    ----------
    a, b : [N]
        Finite costs on the same problems and seeds.
    clusters : [N], optional
        Labels, such as the layers; by default each pair stands for itself.
    relative
        Tolerance of `tally`, and of differences: smaller ones count as 0.
    seed
        Of permutations and bootstrap.
    """
    costs = np.stack(_pair(a, b), axis=1)
    return compare_all(costs, clusters, relative=relative, seed=seed)[0, 1]


def compare_all(
    costs: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    relative: float = 1e-9,
    seed: int = 0,
) -> dict[tuple[int, int], Comparison]:
    """All pairs of solvers, their p-values adjusted by Holm's method, test by test.

    Parameters
    ----------
    costs : [N, S]
        Of S solvers, two at least, on the same problems and seeds; as for `compare`.
    clusters : [N], optional
        As for `compare`.
    relative, seed
        As for `compare`.

    Returns
    -------
    dict
        The comparison of each solver with each later one, by their numbers.
    """
    table = numbers("costs", costs, 2)
    if table.shape[1] < 2:
        raise InputError("costs have one solver; a comparison takes at least two")
    numbered = list(combinations(range(table.shape[1]), 2))
    sides = [(table[:, i], table[:, j]) for i, j in numbered]
    differences = np.stack([_differences(a, b, relative) for a, b in sides], axis=1)
    size = len(table)
    owner = groups(clusters, size)
    sizes = np.bincount(owner)
    wilcoxon, permutation = np.transpose(
        [_p_values(np.bincount(owner, d) / sizes, seed) for d in differences.T]
    )
    # All pairs at once, since draws take longer than figures.
    means, effects = (
        bootstrap_band(statistic, size, owner, seed=seed).estimates()
        for statistic in (
            partial(mean, differences),
            partial(rank_biserial, differences),
        )
    )
    return {
        key: Comparison(
            wilcoxon=float(w),
            permutation=float(p),
            difference=difference,
            effect=effect,
            tally=tally(a, b, relative=relative),
        )
        for key, w, p, difference, effect, (a, b) in zip(
            numbered,
            holm(wilcoxon),
            holm(permutation),
            means,
            effects,
            sides,
            strict=True,
        )
    }


def _p_values(differences: Float, seed: int) -> tuple[float, float]:
    """Wilcoxon's signed-rank test, and the permutation test of the mean."""
    # A single pair may as well have come out the other way round.
    if len(differences) == 1 or not differences.any():
        return 1.0, 1.0
    wilcoxon = scipy.stats.wilcoxon(differences)
    # Pairs that change sides change the signs of their differences.
    permutation = scipy.stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=PERMUTATIONS,
        batch=max(1, _CHUNK // len(differences)),
        rng=np.random.default_rng(seed),
    )
    return float(wilcoxon.pvalue), float(permutation.pvalue)


def _differences(first: Float, second: Float, relative: float) -> Float:
    """First minus second, 0 where they are level."""
    level = _level(first, second, relative, 0.0)
    return np.where(level, 0.0, first - second)


def _level(
    first: Float, second: Float, relative: float, absolute: float
) -> NDArray[np.bool_]:
    """Which pairs are level, as `tally` says."""
    if not (0 <= relative < 1 and 0 <= absolute < math.inf):
        raise InputError(
            "a tolerance must be relative, from 0 to below 1, and absolute, from 0; "
            f"not {relative} and {absolute}"
        )
    both = np.isfinite(first) & np.isfinite(second)
    level: NDArray[np.bool_] = first == second
    a, b = first[both], second[both]
    scale = np.maximum(np.abs(a), np.abs(b))
    level[both] = np.abs(a - b) <= np.maximum(relative * scale, absolute)
    return level


def _pair(a: ArrayLike, b: ArrayLike, *, infinite: bool = False) -> tuple[Float, Float]:
    first = numbers("a", a, infinite=infinite)
    second = numbers("b", b, infinite=infinite)
    require_length("b", second, len(first), "values of a")
    return first, second
