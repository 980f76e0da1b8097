"""What a run has reported, kept in a file that outlives the run's process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import QuboBatch, Solution, Solver
from solvers.budget import Budget, Monitor, Reported, thinned
from solvers.qubo import Float

# Falls of the energy that are kept; the more telling half once there are more.
MOST_FALLS = 4096


class Kept:
    """The best states reported for a batch, and the falls of its energy, in a file.

    Whoever opens the file shares what is in it, at once: the kernel holds it, whatever
    becomes of the process that writes. Each row has two places, so that a process that
    is killed while it writes into one leaves the other whole.

    Parameters
    ----------
    path
        The file.
    rows, n
        Size of the batch.
    dtype
        Type of the states.
    create
        Whether to make the file; else it is there.

    Raises
    ------
    OSError
        There is no room for the file.
    """

    def __init__(
        self,
        path: Path,
        rows: int,
        n: int,
        dtype: type[np.integer[Any]],
        *,
        create: bool = False,
    ) -> None:
        layout = np.dtype(
            [
                # Seconds before the search, and which half of the falls counts, up to
                # where, as one number: half * MOST_FALLS + length.
                ("prepare", np.float64),
                # Seconds of the search up to the last report.
                ("solve", np.float64),
                ("extent", np.int64),
                ("falls", np.float64, (2, MOST_FALLS, 2)),
                # Which place holds a row's best: 0 for none, 1 or 2.
                ("place", np.int8, (rows,)),
                ("energies", np.float64, (2, rows)),
                ("states", dtype, (2, rows, n)),
            ]
        )
        if create:
            with path.open("wb") as file:
                # Written to, a file with holes would kill the process on a full disk.
                os.posix_fallocate(file.fileno(), 0, layout.itemsize)
        self._held: NDArray[Any] = np.asarray(np.memmap(path, layout, "r+", shape=(1,)))

    def keep(self, energies: Float, states: NDArray[Any]) -> None:
        """Keep the rows of states [R, n] whose energies [R] are the lowest so far."""
        place, held, slots = self._rows()
        if np.shape(energies) != place.shape or np.shape(states) != slots.shape[1:]:
            return
        rows = np.arange(len(place))
        # NaN is no energy.
        better = np.flatnonzero(
            np.isfinite(energies)
            & ((place == 0) | (energies < held[np.maximum(place - 1, 0), rows]))
        )
        free = np.where(place[better] == 1, 1, 0)
        slots[free, better] = states[better]
        held[free, better] = energies[better]
        place[better] = free + 1

    def _rows(self) -> tuple[NDArray[np.int8], Float, NDArray[Any]]:
        place, energies, states = (
            self._held[name][0] for name in ("place", "energies", "states")
        )
        return place, energies, states

    def prepared(self, seconds: float) -> None:
        """Note the seconds that have gone before the search."""
        self._held["prepare"][0] = seconds

    def note(self, seconds: float, energy: float) -> None:
        """Note the time, and the energy summed over the rows if it is a new lowest."""
        self._held["solve"][0] = seconds
        falls = self.falls
        if len(falls) and not energy < falls[-1, 1]:
            return
        extent, store = self._held["extent"], self._held["falls"][0]
        half, length = divmod(int(extent[0]), MOST_FALLS)
        if length == MOST_FALLS - 1:
            left = thinned(falls[:, 1:])
            store[1 - half, : len(left)] = falls[left]
            half, length = 1 - half, len(left)
        store[half, length] = seconds, energy
        extent[0] = half * MOST_FALLS + length + 1

    @property
    def timing(self) -> dict[str, float]:
        """Seconds before the search, and of it up to the last report."""
        return {part: float(self._held[part][0]) for part in ("prepare", "solve")}

    @property
    def falls(self) -> Float:
        """Seconds of the search and energy summed over the rows, each fall [T, 2]."""
        half, length = divmod(int(self._held["extent"][0]), MOST_FALLS)
        found: Float = self._held["falls"][0][half, :length]
        return found

    @property
    def best(self) -> tuple[NDArray[np.bool_], Float, NDArray[Any]]:
        """Which rows have states [R], their claimed energies [R], the states [R, n]."""
        place, held, slots = self._rows()
        rows, slot = np.arange(len(place)), np.maximum(place - 1, 0)
        return place > 0, held[slot, rows], slots[slot, rows]


def kept_as(
    folder: Path, batch: int, qubo: QuboBatch, solver: Solver
) -> tuple[Path, int, int, type[np.integer[Any]]]:
    """The arguments of `Kept` for one of a problem's batches."""
    dtype = np.int16 if solver.out_of_set else np.uint8
    return folder / f"kept{batch}", qubo.rows, qubo.n, dtype


class KeepingMonitor(Monitor):
    """A monitor that keeps what is reported to it.

    Parameters
    ----------
    kept
        Where it is kept.
    """

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self._kept, self._made = kept, self.clock()

    def start(self, budget: Budget, energies: Float) -> None:
        """Start the clock, and note the start's energy."""
        self._kept.prepared(self.clock() - self._made)
        self._kept.note(0.0, float(energies.sum()))
        super().start(budget, energies)

    def handle(self, seconds: float, energies: Float, states: Reported) -> None:
        """Keep the report."""
        self._kept.note(seconds, float(self.best.sum()))
        if states is not None:
            self._kept.keep(energies, states() if callable(states) else states)


def solutions_of(
    kept: Sequence[Kept], qubos: Sequence[QuboBatch], solver: Solver
) -> list[Solution]:
    """What is kept of a run as solutions; none if rows are left without an answer.

    The answer of rows of which nothing better is known is their start, if the solver
    would have kept it.
    """
    found = [each.best for each in kept]
    whole = all(has.all() for has, _, _ in found)
    if not any(has.any() for has, _, _ in found) or not (whole or solver.keeps_start):
        return []
    solutions = []
    for each, qubo, (has, energies, states) in zip(kept, qubos, found, strict=True):
        if solver.keeps_start:
            start = qubo.nearest()
            to_beat = qubo.energies(start)
            worse = ~has | (energies > to_beat)
            states = np.where(worse[:, None], start, states)
            energies = np.where(worse, to_beat, energies)
        falls = each.falls.copy()
        if not len(falls):
            # It was not begun.
            falls = np.array([[0.0, energies.sum()]])
        solutions.append(
            Solution(
                states=states,
                energies=energies,
                status="time",
                timing={**each.timing, "finish": 0.0},
                trace=(falls[:, 0], falls[:, 1:]),
            )
        )
    return solutions
