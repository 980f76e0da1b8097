"""Fixtures of the suite: they measure a case and judge its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from statistics import median
from time import perf_counter
from typing import Any

import pytest
import scipy.linalg  # noqa: F401  (only libraries that are loaded can be limited)

from benchmarks.regression import baseline, calibration
from solvers.threads import one_blas_thread

# Seconds of all rounds of a case together, roughly; least and largest number of rounds.
SECONDS, FEWEST, MOST = 0.5, 5, 50

# Gives the energy and the counts of what the work returned.
Judge = Callable[[Any], tuple[float, dict[str, int]]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add an option for the command, which compares with the baseline by itself."""
    parser.addoption(
        "--no-baseline",
        action="store_true",
        help="regression suite: measure only, assert nothing about energies and counts",
    )


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Limit BLAS to one thread: its sums have one order, and times are of one core."""
    with one_blas_thread():
        yield


@pytest.fixture(scope="session")
def stored(request: pytest.FixtureRequest) -> baseline.Baseline | None:
    """The stored baseline; None with ``--no-baseline``."""
    without = request.config.getoption("--no-baseline")
    return None if without else baseline.read(baseline.STORED)


@pytest.fixture
def measure(
    benchmark: Any, stored: baseline.Baseline | None
) -> Callable[..., baseline.Entry]:
    """Measure ``work(*prepare())``, leave an `Entry` in ``extra_info``, check it."""

    def run(
        prepare: Callable[[], tuple[Any, ...]],
        work: Callable[..., Any],
        judge: Judge,
        tolerance: float,
    ) -> baseline.Entry:
        # The first run compiles, and is not measured.
        energy, counts = judge(work(*prepare()))
        arguments = prepare()
        begun = perf_counter()
        again = work(*arguments)
        rounds = SECONDS / (perf_counter() - begun)
        assert judge(again) == (energy, counts), "the same run gives another answer"
        units = []

        def next_round() -> tuple[tuple[Any, ...], dict[str, Any]]:
            # Calibrate beside every round, since other loads on a machine come and go.
            units.append(calibration.seconds())
            return prepare(), {}

        benchmark.pedantic(
            work, setup=next_round, rounds=round(min(max(rounds, FEWEST), MOST))
        )
        # With --benchmark-disable there are no statistics.
        seconds = benchmark.stats.stats.data if benchmark.stats else [0.0]
        entry = baseline.Entry(
            energy, tolerance, median(seconds) / median(units), counts
        )
        benchmark.extra_info.update(asdict(entry))
        if stored is not None:
            before = stored.entries.get(benchmark.name)
            assert before is not None, f"not in {baseline.FORM}"
            assert entry.faults(before, stored.counts_off()) == []
        return entry

    return run
