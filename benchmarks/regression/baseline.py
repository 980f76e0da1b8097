"""Entries that the suite measures, the stored ones, and their comparison."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solvers import InputError

STORED = Path(__file__).with_name("baseline.json")
# On another processor, or with other versions of the libraries, counts may be off by
# this share: last bits differ there, so that decisions do, and one leads to others.
COUNTS_ELSEWHERE = 0.1
FORM = "a baseline of this suite; python -m benchmarks regression --update makes one"


@dataclass(frozen=True)
class Entry:
    """The result of one case.

    Attributes
    ----------
    energy
        Energy of the answers, summed over the rows.
    tolerance
        Share of a stored energy by which it may be exceeded.
    time
        Median seconds of a round, over those of the `calibration` beside them.
    counts
        What the solver says it did: numbers of sweeps, flips, steps.
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
        """What is wrong with the energy and the counts, one line each.

        Counts may differ from the stored ones by the share `counts_off`.
        """
        faults = []
        allowed = stored.energy + self.tolerance * abs(stored.energy)
        if not self.energy <= allowed:
            faults.append(f"energy {self.energy:.10g}, was {stored.energy:.10g}")
        for name in sorted(self.counts.keys() | stored.counts.keys()):
            now, before = self.counts.get(name), stored.counts.get(name)
            if now is None or before is None or _off(now, before) > counts_off:
                faults.append(f"{name} {now}, was {before}")
        return faults

    def beats(self, stored: Entry) -> bool:
        """Whether the energy is lower by more than the tolerance."""
        return self.energy < stored.energy - self.tolerance * abs(stored.energy)


@dataclass(frozen=True)
class Baseline:
    """Entries by case, and the `platform` that they were made with."""

    made_with: dict[str, str]
    entries: dict[str, Entry]

    def counts_off(self) -> float:
        """The share by which counts may differ on this platform."""
        return 0.0 if self.made_with == platform() else COUNTS_ELSEWHERE


def read(path: Path) -> Baseline:
    """Read a stored baseline.

    Raises
    ------
    InputError
        The file cannot be read, or is not a baseline.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        entries = {name: Entry(**entry) for name, entry in content["entries"].items()}
        return Baseline(dict(content["made_with"]), entries)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not {FORM}") from error


def platform() -> dict[str, str]:
    """The processor and the versions of libraries, which decide about last bits."""
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
    """The faults of every case, measured or stored; a case without has an empty list.

    A case that takes more than `slower` times as long as before is a fault.
    """
    faults: dict[str, list[str]] = {}
    for name in [*measured, *sorted(stored.entries.keys() - measured.keys())]:
        if name not in measured:
            faults[name] = ["missing"]
        elif name not in stored.entries:
            faults[name] = ["new"]
        else:
            now, before = measured[name], stored.entries[name]
            faults[name] = now.faults(before, stored.counts_off())
            if now.time > slower * before.time:
                faults[name].append(f"{now.time / before.time:.2f} times as long")
    return faults


def _off(now: int, before: int) -> float:
    """The relative difference of two counts."""
    return abs(now - before) / max(before, 1)
