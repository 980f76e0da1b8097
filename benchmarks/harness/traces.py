"""When runs of growing length reach a target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from benchmarks.harness.trials import Trial
from solvers.qubo import Float

# How far apart, at most, are the budgets in which a target is looked for.
STEP = math.sqrt(2)
# A run that takes longer than its budget by this factor does not keep to it.
LATE = 1.1
# Sums of the same errors may differ by this share.
ROUNDING = 1e-9
RESAMPLES = 10_000
MISSED = (math.inf, math.inf)


def budgets(seconds: Sequence[float]) -> Iterator[float]:
    """The given budgets, in increasing order, and so many between that none is far."""
    yield seconds[0]
    for low, high in pairwise(seconds):
        steps = math.ceil(math.log(high / low) / math.log(STEP) - 1e-9)
        yield from (low * (high / low) ** (i / steps) for i in range(1, steps))
        yield high


def time_to(
    run: Callable[[float], Trial], ratio: float, ladder: Sequence[float]
) -> tuple[float, float]:
    """Seconds to the ratio, with building and without; infinite where it is missed.

    `run` gives the run with so many seconds, `ladder` the seconds to try. The building
    taken off is that of the whole run.
    """
    enough = ratio * (1 + ROUNDING)

    def reached(seconds: float) -> tuple[float, float]:
        trial = run(seconds)
        # What the trace claims must hold of the answer.
        held = trial.ratio is not None and trial.ratio <= enough
        if held and trial.status != "invalid":
            for at, lowest in trial.falls:
                if lowest <= enough and at <= LATE * ladder[-1]:
                    return at, max(at - trial.building, 0.0)
        return MISSED

    # Most that miss with the longest budget need not be tried with every shorter one.
    if reached(ladder[-1]) == MISSED:
        return MISSED
    return next(found for s in ladder if (found := reached(s)) != MISSED)


def interval(times: Float) -> tuple[float, float]:
    """A 95 % bootstrap interval of the median; infinite times sort last."""
    generator = np.random.default_rng(0)
    draws = generator.choice(times, (RESAMPLES, len(times)))
    low, high = np.sort(np.median(draws, axis=1))[[RESAMPLES // 40, -RESAMPLES // 40]]
    return float(low), float(high)
