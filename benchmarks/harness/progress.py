"""How far a suite has come: a live table in a terminal, elsewhere a line a run."""

from __future__ import annotations

import sys
import time
from collections import Counter
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from benchmarks.harness.failures import FAULTS
from benchmarks.harness.runs import Run

# Runs that the live table names, the last ones.
SHOWN = 5


class Progress:
    """Shows runs as they end.

    Parameters
    ----------
    total
        Number of runs to be made.
    seconds
        Their expected seconds, all together.
    names
        Names of the problems by digest.
    at_once
        Number of runs that are made at a time; None if that changes.
    """

    def __init__(
        self, total: int, seconds: float, names: dict[str, str], at_once: int | None
    ) -> None:
        self._total, self._expected, self._names = total, seconds, names
        self._at_once = at_once
        self._counts: Counter[str] = Counter()
        self._last: list[str] = []
        self._spent = 0.0
        self._begun = time.monotonic()
        console = Console(stderr=True)
        self._live = None
        if console.is_interactive:
            self._live = Live(console=console, get_renderable=self.table)

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def ended(self, run: Run, expected: float) -> None:
        """Show that a run of so many expected seconds has ended."""
        self._counts[run.status] += 1
        self._spent += expected
        done = self._counts.total()
        line = (
            f"{done}/{self._total} {self._names[run.spec.problem]} {run.spec.solver} "
            f"{_limit(run)}seed {run.spec.seed}: {run.status}"
        )
        if run.status == "ok":
            line += f", {run.objective:.6g} in {run.seconds:.3g} s"
        elif run.message:
            line += f", {run.message}"
        self._last = [*self._last, line][-SHOWN:]
        if self._live is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._live.refresh()

    def table(self) -> Table:
        """The live table."""
        done = self._counts.total()
        left = self._total - done
        cells = {
            "done": str(done),
            "failed": str(sum(self._counts[fault] for fault in FAULTS)),
            "running": "?" if self._at_once is None else str(min(left, self._at_once)),
            "left": str(left),
            "time left": self.time_left(),
        }
        table = Table(title="suite", title_justify="left")
        for head in cells:
            table.add_column(head, justify="right")
        table.add_row(*cells.values())
        # Options of solvers are no markup.
        table.caption = Text("\n".join(self._last))
        return table

    def time_left(self) -> str:
        """Expected time until all runs have ended, from the pace so far."""
        left = max(self._expected - self._spent, 0.0)
        if self._spent:
            left *= (time.monotonic() - self._begun) / self._spent
        minutes, seconds = divmod(round(left), 60)
        return f"{minutes}:{seconds:02d}"


def _limit(run: Run) -> str:
    return "" if run.spec.seconds is None else f"{run.spec.seconds:g} s "
