"""Gaps over time: how far above the best known energy each run was, and when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.stats.checks import numbers, one_each
from benchmarks.stats.runtimes import Times
from solvers.checks import real
from solvers.errors import InputError
from solvers.qubo import Float

TARGETS = (0.1, 0.01, 0.001, 0.0)
"""The gaps that times are taken to."""

# What rounding may make of the energy of one state, summed by two routines, relative to
# the larger of the best known energy and that of nearest; and of a gap.
ROUNDING = 1e-9


def gaps(energies: ArrayLike, best: ArrayLike, nearest: ArrayLike) -> Float:
    """Gaps to the best known energies, in units of what nearest rounding loses.

    The gap is (E - E*) / (E_nearest - E*): 0 at the best known energy, 1 at that of
    rounding to nearest. What rounding errors may explain counts as 0. Where nearest is
    itself the best, all that is worse has an infinite gap.

    Parameters
    ----------
    energies : [...]
        Energies; +inf where there is none.
    best : [...]
        Best known energies E*, of a shape that can be broadcast.
    nearest : [...]
        Energies of rounding to nearest, or of another reference.

    Returns
    -------
    float64 [...]
        The gaps, from 0 to +inf.

    Raises
    ------
    InputError
        For NaN, and for an energy, or a nearest, below the best known energy.
    """
    found = numbers("energies", energies, None, infinite=True)
    lowest, reference = numbers("best", best, None), numbers("nearest", nearest, None)
    try:
        found, lowest, reference = np.broadcast_arrays(found, lowest, reference)
    except ValueError as error:
        shapes = f"{found.shape}, {lowest.shape} and {reference.shape}"
        raise InputError(
            f"energies, best and nearest of shapes {shapes} do not go together"
        ) from error
    rounding = ROUNDING * np.maximum(np.abs(lowest), np.abs(reference))
    for name, values in (("energy", found), ("nearest", reference)):
        below = values < lowest - rounding
        if below.any():
            index = tuple(np.argwhere(below)[0])
            raise InputError(
                f"the {name} {values[index]:.9g} is below the best known energy "
                f"{lowest[index]:.9g}; correct that first"
            )
    loss, unit = found - lowest, reference - lowest
    result = np.full(found.shape, math.inf)
    np.divide(loss, unit, out=result, where=unit > rounding)
    result[loss <= rounding] = 0.0
    return result


@dataclass(frozen=True, eq=False)
class GapTraces:
    """The gaps of many runs as step functions of time, all in a few long arrays.

    A run keeps what it has found: its gap stays what it was from one entry to the next,
    and from the last one on for ever, whether the run goes on or not.

    Attributes
    ----------
    owner : int [K]
        Which run the entry belongs to, in increasing order.
    seconds : float64 [K]
        When the gap fell.
    gaps : float64 [K]
        To what.
    ends : float64 [N]
        Seconds after which nothing more is known of the run.
    """

    owner: NDArray[np.intp]
    seconds: Float
    gaps: Float
    ends: Float

    @classmethod
    def of(
        cls,
        falls: Sequence[ArrayLike | None],
        ends: ArrayLike,
        best: ArrayLike,
        nearest: ArrayLike,
    ) -> GapTraces:
        """Traces of energies as traces of gaps.

        Parameters
        ----------
        falls : N arrays [T, 2]
            Of each run seconds and energy, whenever that fell; None or no entries of a
            run that found nothing.
        ends : [N] or one number
            Seconds of each run, or its limit, if that was less: entries after the end
            do not count.
        best, nearest : [N] or one number
            As in `gaps`, of each run's problem.

        Raises
        ------
        InputError
            For a trace that rises, goes back in time, or holds NaN or negative times,
            and for all that `gaps` refuses.
        """
        if not len(falls):
            raise InputError("falls is empty; at least one run is needed")
        parts = [_entries(run, trace) for run, trace in enumerate(falls)]
        entries = np.concatenate(parts)
        owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        seconds, energies = entries.T
        _require_falling(owner, seconds, energies)
        last, lowest, reference = (
            one_each(name, numbers(name, values, None), len(parts), "runs")
            for name, values in (("ends", ends), ("best", best), ("nearest", nearest))
        )
        numbers("ends", last, least=0)
        known = seconds <= last[owner]
        owner = owner[known]
        found = np.empty(0)
        if owner.size:
            found = gaps(energies[known], lowest[owner], reference[owner])
        return cls(owner, seconds[known], found, last)

    def times_to(self, target: float) -> Times:
        """Seconds until the gap is at most `target`, censored at each run's end.

        `target` is from 0 to below 1, such as those in `TARGETS`.
        """
        if not 0 <= target < 1:
            raise InputError(f"a target must be from 0 to below 1, not {target}")
        above = self.gaps > target + ROUNDING
        runs = len(self.ends)
        count = np.bincount(self.owner, minlength=runs)
        # Gaps only fall, so the entry after those above the target is the first below.
        passed = np.bincount(self.owner[above], minlength=runs)
        reached = passed < count
        first = (np.cumsum(count) - count + passed)[reached]
        seconds = self.ends.copy()
        seconds[reached] = self.seconds[first]
        return Times(seconds, reached)

    def at(self, times: ArrayLike) -> Float:
        """Primal gaps at the given times.

        After Berthold, *Measuring the impact of primal heuristics* (2013): the gap is
        1 as long as there is no answer, and never more than 1. His is relative to the
        larger of two values and so depends on an offset; this one is relative to what
        nearest loses, as in `gaps`.

        Parameters
        ----------
        times : [M]
            Increasing times.

        Returns
        -------
        float64 [N, M]
            From 0 to 1.
        """
        grid = numbers("times", times, least=0)
        if (np.diff(grid) <= 0).any():
            raise InputError("times must increase")
        cells = np.searchsorted(grid, self.seconds)
        seen = cells < len(grid)
        steps = np.ones((len(self.ends), len(grid)))
        np.minimum.at(steps, (self.owner[seen], cells[seen]), self.gaps[seen])
        return np.minimum.accumulate(steps, axis=1)

    def integral(self, until: ArrayLike, since: float = 0.0) -> Float:
        """Primal integrals: the integral of the primal gap from `since` to `until`.

        After Berthold (2013), with the primal gap of `at`. Divided by the length of
        time it is the mean gap over that time: the expected quality of the answer if
        the run is stopped at random.

        Parameters
        ----------
        until : [N] or one number
            Seconds at which to stop, at least `since`.
        since
            Seconds at which to begin.

        Returns
        -------
        float64 [N]
            Seconds, from 0 to `until - since`.
        """
        if not 0 <= since < math.inf:
            raise InputError(f"since must be at least 0 and finite, not {since}")
        runs = len(self.ends)
        stop = numbers("until", until, None, least=since)
        stop = one_each("until", stop, runs, "runs")
        first = np.full(runs, math.inf)
        np.minimum.at(first, self.owner, self.seconds)
        following = np.append(self.seconds[1:], math.inf)
        following[self.owner != np.append(self.owner[1:], runs)] = math.inf
        begin = np.clip(self.seconds, since, stop[self.owner])
        end = np.clip(following, since, stop[self.owner])
        areas = np.minimum(self.gaps, 1.0) * (end - begin)
        nothing_yet = np.clip(first, since, stop) - since
        integral: Float = nothing_yet + np.bincount(self.owner, areas, minlength=runs)
        return integral


def log_grid(first: float, last: float, per_decade: int = 10) -> Float:
    """Times from first to last, evenly on a logarithmic scale.

    Parameters
    ----------
    first, last
        Seconds, positive and increasing.
    per_decade
        At least so many times in each factor of ten.
    """
    if not 0 < first < last < math.inf:
        raise InputError(
            f"a grid of times must begin above 0 and end later, not [{first}, {last}]"
        )
    if per_decade < 1:
        raise InputError(f"per_decade must be at least 1, not {per_decade}")
    steps = math.ceil(per_decade * math.log10(last / first) - 1e-9)
    return np.geomspace(first, last, max(steps, 1) + 1)


def _entries(run: int, trace: ArrayLike | None) -> Float:
    """Seconds and energies of one trace, float64 [T, 2]."""
    if trace is None:
        return np.empty((0, 2))
    entries = real(f"falls[{run}]", trace)
    if not entries.size:
        return np.empty((0, 2))
    if entries.ndim != 2 or entries.shape[1] != 2:
        raise InputError(
            f"falls[{run}] must be seconds and energies [T, 2], not of shape "
            f"{entries.shape}"
        )
    return np.asarray(entries, np.float64)


def _require_falling(owner: NDArray[np.intp], seconds: Float, energies: Float) -> None:
    """Refuse traces with NaN, negative times, or steps up or back."""
    same = np.diff(owner) == 0
    faults = (
        (~np.isfinite(energies), "holds an energy that is not finite"),
        (~np.isfinite(seconds), "holds a time that is not finite"),
        (seconds < 0, "holds a negative time"),
        (same & (np.diff(seconds) < 0), "goes back in time"),
        (same & (np.diff(energies) > 0), "rises"),
    )
    for bad, fault in faults:
        if bad.any():
            at = int(bad.argmax())
            run = int(owner[at])
            entry = at - int(np.searchsorted(owner, run))
            raise InputError(
                f"falls[{run}] {fault} at entry {entry}; seconds must not fall from "
                "0 on, energies not rise"
            )
