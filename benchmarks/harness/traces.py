"""The time at which runs of growing length reach a target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from benchmarks.harness.trials import Trial

# Largest factor between two successive budgets in which a target is looked for.
STEP = math.sqrt(2)
# A run that takes longer than this many times its budget does not keep to it.
LATE = 1.1
# Relative difference that rounding may make between sums of the same errors.
ROUNDING = 1e-9
MISSED = (math.inf, math.inf)


def budgets(seconds: Sequence[float]) -> Iterator[float]:
    """The given increasing budgets, with others between them at most `STEP` apart."""
    yield seconds[0]
    for low, high in pairwise(seconds):
        steps = math.ceil(math.log(high / low) / math.log(STEP) - 1e-9)
        yield from (low * (high / low) ** (i / steps) for i in range(1, steps))
        yield high


def time_to(
    run: Callable[[float], Trial], ratio: float, ladder: Sequence[float]
) -> tuple[float, float]:
    """Seconds to the ratio, with building and without; infinite if it is missed.

    Parameters
    ----------
    run
        Gives the trial with a budget in seconds.
    ratio
        The ratio to nearest to reach.
    ladder
        The budgets to try, in increasing order.

    Returns
    -------
    whole, search
        Seconds with building and without; all of the run's building is subtracted.
    """
    enough = ratio * (1 + ROUNDING)

    def reached(seconds: float) -> tuple[float, float]:
        trial = run(seconds)
        # The answer must bear out what the trace claims.
        held = trial.ratio is not None and trial.ratio <= enough
        if held and trial.run.status != "invalid":
            for at, lowest in trial.falls:
                if lowest <= enough and at <= LATE * ladder[-1]:
                    return float(at), max(float(at) - trial.building, 0.0)
        return MISSED

    # The longest budget comes first: most runs that miss with it would miss with every
    # shorter one.
    if reached(ladder[-1]) == MISSED:
        return MISSED
    return next(times for s in ladder if (times := reached(s)) != MISSED)
