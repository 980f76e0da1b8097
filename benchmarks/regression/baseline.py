"""What the suite measured, what it should have, and the difference."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solvers import InputError

STORED = Path(__file__).with_name("baseline.json")
# Counts of another processor, or of other versions of the libraries, may be off by this
# share: last bits decide differently there, and one decision leads to others.
COUNTS_ELSEWHERE = 0.1
FORM = "a baseline of this suite; python -m benchmarks regression --update makes one"


@dataclass(frozen=True)
class Entry:
    """One case.

    Attributes
    ----------
    energy
        Of the answers, summed over the rows.
    tolerance
        The share of it by which a stored energy may be exceeded.
    time
        Median seconds of a round over those of `calibration` at that time.
    counts
        Of what the solver says it did: sweeps, flips, steps.
    """

    energy: float
    tolerance: float
    time: float
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = (self.energy, self.tolerance, self.time, *self.counts.values())
        if not all(type(number) in (int, float) for number in numbers):
            raise TypeError("an entry holds numbers")
        if not all(map(math.isfinite, numbers)):
            raise ValueError("an entry holds finite numbers")

    def faults(self, stored: Entry, counts_off: float) -> list[str]:
        """What is wrong with the answer: its energy, its counts.

        The latter may be off by the share `counts_off`, to either side.
        """
        found = []
        allowed = stored.energy + self.tolerance * abs(stored.energy)
        if not self.energy <= allowed:
            found.append(f"energy {self.energy:.10g}, was {stored.energy:.10g}")
        for name in sorted(self.counts.keys() | stored.counts.keys()):
            now, before = self.counts.get(name), stored.counts.get(name)
            if now is None or before is None or _off(now, before) > counts_off:
                found.append(f"{name} {now}, was {before}")
        return found

    def beats(self, stored: Entry) -> bool:
        """Whether the energy is lower by more than the tolerance."""
        return self.energy < stored.energy - self.tolerance * abs(stored.energy)


@dataclass(frozen=True)
class Baseline:
    """Entries by case, and what they were made with (see `platform`)."""

    made_with: dict[str, str]
    entries: dict[str, Entry]

    def counts_off(self) -> float:
        """By which share counts may be off here."""
        return 0.0 if self.made_with == platform() else COUNTS_ELSEWHERE


def read(path: Path) -> Baseline:
    """A stored baseline.

    Raises
    ------
    InputError
        A file that cannot be read or that is none.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        entries = {name: Entry(**one) for name, one in content["entries"].items()}
        return Baseline(dict(content["made_with"]), entries)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not {FORM}") from error


def platform() -> dict[str, str]:
    """What decides about last bits: processor and libraries."""
    import llvmlite.binding
    import numba
    import numpy
    import scipy

    # Untyped: numba sets the settings' names at run time.
    config: Any = numba.config
    return {
        "processor": config.CPU_NAME or llvmlite.binding.get_host_cpu_name(),
        **{module.__name__: module.__version__ for module in (numpy, scipy, numba)},
    }


def compare(
    measured: Mapping[str, Entry], stored: Baseline, slower: float
) -> dict[str, list[str]]:
    """What is wrong with every case, measured or stored; nothing: an empty list.

    A case that takes more than `slower` times as long is wrong.
    """
    found: dict[str, list[str]] = {}
    for name in [*measured, *sorted(stored.entries.keys() - measured.keys())]:
        if name not in measured:
            found[name] = ["missing"]
        elif name not in stored.entries:
            found[name] = ["new"]
        else:
            now, before = measured[name], stored.entries[name]
            found[name] = now.faults(before, stored.counts_off())
            if now.time > slower * before.time:
                found[name].append(f"{now.time / before.time:.2f} times as long")
    return found


def _off(now: int, before: int) -> float:
    return abs(now - before) / max(before, 1)
