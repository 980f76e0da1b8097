"""Times to a target that some runs miss: curves, expected times, times to solution."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from benchmarks.stats.checks import numbers, require_length
from benchmarks.stats.intervals import Estimate, bootstrap
from solvers.errors import InputError
from solvers.qubo import Float

# Products of fractions that are one half but for rounding.
HALF = 0.5 + 1e-12


@dataclass(frozen=True, eq=False)
class Times:
    """Times of runs to a target, censored where the target was missed.

    Attributes
    ----------
    seconds : float64 [N]
        When the target was reached; of a run that missed it, how long it was watched.
    reached : bool [N]
        Which runs reached it.
    """

    seconds: Float
    reached: NDArray[np.bool_]

    def __post_init__(self) -> None:
        seconds = numbers("seconds", self.seconds, least=0)
        reached = np.asarray(self.reached)
        if reached.dtype != np.bool_ or reached.ndim != 1:
            raise InputError("reached must be booleans with 1 axis")
        require_length("reached", reached, len(seconds), "times")
        object.__setattr__(self, "seconds", seconds)
        object.__setattr__(self, "reached", reached)


@dataclass(frozen=True, eq=False)
class ReachedCurve:
    """The probability that a run has reached its target, over time.

    Attributes
    ----------
    seconds : float64 [K]
        Times at which a run reached the target or was seen last, in increasing order.
    reached : float64 [K]
        Probability to have reached the target by then.
    low, high : float64 [K]
        Ends of its 95 % interval, point by point.
    """

    seconds: Float
    reached: Float
    low: Float
    high: Float

    def median(self) -> Estimate:
        """The time by which half of the runs reach the target, with its interval.

        The first time at which the curve is at least one half; infinite if it never is.
        The interval ends where those of the curve cross one half (Brookmeyer and
        Crowley, *A confidence interval for the median survival time*, 1982).
        """
        # The upper end of the curve's interval is the first to cross.
        return Estimate(*(self._half(c) for c in (self.reached, self.high, self.low)))

    def _half(self, curve: Float) -> float:
        crossed = curve >= 1 - HALF
        return float(self.seconds[crossed.argmax()]) if crossed.any() else math.inf


def kaplan_meier(times: Times) -> ReachedCurve:
    """The probability to have reached the target, over time, from censored runs.

    Kaplan and Meier's estimate S(t) = Π (1 - d_i / n_i) of the share that has not, over
    the times t_i up to t at which d_i of the n_i runs that were still on their way
    arrived, with the interval of log(-log S) (the exponential Greenwood formula). The
    interval is [0, 0] before the first arrival; where all have arrived its upper end is
    1, and its lower one that before.

    A run that stopped by itself says more than that it was cut off: it would never have
    arrived. The estimate takes censored runs as no different from the others, so give
    such a run its limit of time, not the time at which it stopped.

    Parameters
    ----------
    times
        Of N runs.
    """
    data = scipy.stats.CensoredData(
        uncensored=times.seconds[times.reached], right=times.seconds[~times.reached]
    )
    curve = scipy.stats.ecdf(data).cdf
    with warnings.catch_warnings():
        # The formula gives NaN where nobody has arrived and where everybody has.
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = curve.confidence_interval(0.95, method="log-log")
    reached = np.asarray(curve.probabilities)
    low, high = interval.low.probabilities, interval.high.probabilities
    low, high = (np.where(reached == 0, 0.0, end) for end in (low, high))
    if reached[-1] == 1:
        low[-1], high[-1] = low[-2] if len(low) > 1 else 0.0, 1.0
    return ReachedCurve(np.asarray(curve.quantiles), reached, low, high)


def expected_running_time(
    times: Times, clusters: ArrayLike | None = None, seed: int = 0
) -> Estimate:
    """Expected time to the target of a solver that is started anew until it succeeds.

    ERT = (time of all runs, until the target or the end) / (number of successes): Auger
    and Hansen, *Performance evaluation of an advanced local search evolutionary
    algorithm*, 2005. Infinite without a success. With a 95 % bootstrap interval.

    Parameters
    ----------
    times
        Of N runs. A run that stopped by itself counts with the time it took.
    clusters : [N], optional
        As for `bootstrap`.
    seed
        Of the bootstrap.
    """

    def ert(weights: Float) -> Float:
        successes = weights @ times.reached
        result = np.full(successes.shape, math.inf)
        total = weights @ times.seconds
        np.divide(total, successes, out=result, where=successes > 0)
        return result

    return bootstrap(ert, len(times.seconds), clusters, seed=seed)


@dataclass(frozen=True)
class TimeToSolution:
    """How long repeated runs take to succeed with a given confidence.

    Attributes
    ----------
    seconds
        The time, with its 95 % interval.
    at
        Seconds after which each run is stopped.
    successes, runs
        How many of the runs had reached the target by then.
    """

    seconds: Estimate
    at: float
    successes: int
    runs: int


def time_to_solution(
    times: Times, at: float | None = None, confidence: float = 0.99
) -> TimeToSolution:
    """Time until repeated runs have succeeded with a confidence of 99 %.

    TTS(t) = t · max(1, log(1 - 0.99) / log(1 - p(t))), p(t) the share of all runs that
    reach the target by t (Rønnow et al., *Defining and detecting quantum speedup*,
    2014; repetitions are not rounded to whole numbers, but one is the least). A run
    that was censored before t has not reached the target by t.

    The interval is that of p (Clopper and Pearson), at the same t: that t was chosen
    by the same runs it does not know, so take `at` from the plan, or from other runs,
    where few runs succeed.

    Parameters
    ----------
    times
        Of N runs.
    at
        The t at which runs are stopped; by default the one with the least TTS. Without
        any success that is the end of the longest run.
    confidence
        Probability of at least one success.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence must be between 0 and 1, not {confidence}")
    runs = len(times.seconds)
    arrivals = np.sort(times.seconds[times.reached])
    if at is None:
        candidates = arrivals if arrivals.size else times.seconds.max(keepdims=True)
    elif 0 <= at < math.inf:
        candidates = np.array([at], np.float64)
    else:
        raise InputError(f"at must be at least 0 and finite, not {at}")
    arrived = np.searchsorted(arrivals, candidates, side="right")
    totals = _repeated(candidates, arrived / runs, confidence)
    chosen = int(totals.argmin())
    t, successes = candidates[chosen], int(arrived[chosen])
    share = scipy.stats.binomtest(successes, runs).proportion_ci(0.95, method="exact")
    low, high = _repeated(t, np.array([share.high, share.low]), confidence)
    seconds = Estimate(float(totals[chosen]), float(low), float(high))
    return TimeToSolution(seconds, float(t), successes, runs)


def _repeated(t: Float, share: Float, confidence: float) -> Float:
    """Time of as many runs of t seconds as have a success with the given confidence."""
    with np.errstate(divide="ignore", invalid="ignore"):
        repetitions = np.maximum(1.0, math.log1p(-confidence) / np.log1p(-share))
        return np.where(share > 0, t * repetitions, math.inf)
