"""The oracles, and the conformance kit on solvers that break one promise each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

import numpy as np
import pytest

from solvers.base import Solver, Task
from solvers.qubo import QuboBatch, States
from solvers.testing import (
    brute_force,
    check_solver,
    example_batches,
    reference_energies,
)


@pytest.mark.parametrize("name", example_batches())
def test_oracles_by_loops(name):
    """Term by term, state by state."""
    qubo = example_batches()[name]
    s, n = qubo.full_scale(), qubo.n
    terms = [(i, j) for i in range(n) for j in range(n)]
    found, lowest = brute_force(qubo)
    for r in range(qubo.rows):
        energies = {}
        for x in list(product((0, 1), repeat=n))[:: 1 if n < 3 else 13]:
            e = qubo.offset[r] + sum(qubo.linear[r, i] * x[i] for i in range(n))
            e += sum(s[r, i] * x[i] * qubo.H[i, j] * s[r, j] * x[j] for i, j in terms)
            energies[x] = e
            reference = reference_energies(qubo.take([r]), np.array([x], np.uint8))
            assert reference[0] == pytest.approx(e, abs=1e-6)
        pins = [-1] * n if qubo.fixed is None else qubo.fixed[r]
        allowed = [
            e
            for x, e in energies.items()
            if all(p in (-1, b) for p, b in zip(pins, x, strict=True))
        ]
        assert lowest[r] <= min(allowed, default=np.inf) + 1e-6
        assert all(p in (-1, b) for p, b in zip(pins, found[r], strict=True))


@dataclass(frozen=True, kw_only=True)
class Honest(Solver):
    """The start; a base for solvers that break one promise each."""

    name: ClassVar[str] = "honest"

    def search(self, task: Task) -> States:
        return task.start


@dataclass(frozen=True, kw_only=True)
class WrongDtype(Honest):
    def solve(self, qubo, **options):
        found = super().solve(qubo, **options)
        return replace(found, states=found.states.astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class Unseeded(Honest):
    calls: ClassVar[list[int]] = []
    rule: ClassVar[bool] = True

    def search(self, task: Task) -> States:
        self.calls.append(0)
        return np.full_like(task.start, len(self.calls) % 2)


@dataclass(frozen=True, kw_only=True)
class ThreadDependent(Honest):
    rule: ClassVar[bool] = True

    def search(self, task: Task) -> States:
        return np.full_like(task.start, task.budget.threads % 2)


@dataclass(frozen=True, kw_only=True)
class RowDependent(Honest):
    rule: ClassVar[bool] = True

    def search(self, task: Task) -> States:
        return np.full_like(task.start, task.qubo.rows > 1)


@dataclass(frozen=True, kw_only=True)
class StartingRule(Honest):
    rule: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class GlobalRandom(Honest):
    def search(self, task: Task) -> States:
        np.random.rand()  # noqa: NPY002
        return task.start


@dataclass(frozen=True, kw_only=True)
class Scribbler(Honest):
    def search(self, task: Task) -> States:
        task.qubo.linear.flags.writeable = True
        task.qubo.linear[0] += 1
        return task.start


@dataclass(frozen=True, kw_only=True)
class Tireless(Honest):
    def search(self, task: Task) -> States:
        energies = task.qubo.energies(task.start)
        for _ in range(50):
            task.monitor.report(energies)
        return task.start


@dataclass(frozen=True, kw_only=True)
class OddStatus(Honest):
    def search(self, task: Task) -> States:
        task.monitor.status = "bored"
        return task.start


@dataclass(frozen=True, kw_only=True)
class LateForNoReason(Honest):
    def search(self, task: Task) -> States:
        task.monitor.status = "time"
        return task.start


@dataclass(frozen=True, kw_only=True)
class Liar(Honest):
    def solve(self, qubo, **options):
        found = super().solve(qubo, **options)
        return replace(
            found, energies=found.energies - 1e-5 * (1 + abs(found.energies))
        )


@dataclass(frozen=True, kw_only=True)
class Unpinned(Honest):
    def solve(self, qubo, **options):
        found = super().solve(qubo, **options)
        states = 1 - found.states
        return replace(found, states=states, energies=qubo.energies(states))


@dataclass(frozen=True, kw_only=True)
class Worse(Honest):
    """Without the guard of `Solver.solve`."""

    def solve(self, qubo, **options):
        found = super().solve(qubo, **options)
        states = qubo.pin(1 - found.states)
        return replace(found, states=states, energies=qubo.energies(states))


@dataclass(frozen=True, kw_only=True)
class OtherValues(Honest):
    def solve(self, qubo, **options):
        found = super().solve(qubo, **options)
        return replace(found, states=found.states * 2)


@dataclass(frozen=True, kw_only=True)
class BackInTime(Honest):
    def solve(self, qubo, **options):
        found = super().solve(qubo, **options)
        return replace(found, trace=(-found.trace[0], found.trace[1]))


@dataclass(frozen=True, kw_only=True)
class Rising(Honest):
    def solve(self, qubo, **options):
        found = super().solve(qubo, **options)
        seconds, energies = found.trace
        rising = energies + np.arange(len(energies))[:, None]
        return replace(found, trace=(seconds, rising))


@dataclass(frozen=True, kw_only=True)
class Unvalidated(Honest):
    share: float = 0.5


@dataclass(frozen=True, kw_only=True)
class NoSuper(Honest):
    def __post_init__(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class NoDefault(Honest):
    share: int


@dataclass(frozen=True, kw_only=True)
class ListOption(Honest):
    shares: tuple[int, ...] = ()


class NoDataclass(Honest):
    pass


@dataclass(frozen=True, kw_only=True)
class SupportsNothing(Honest):
    def supports(self, qubo: QuboBatch) -> str | None:
        return "too hard"


class TestKit:
    def test_honest(self):
        assert check_solver(Honest) == []
        assert check_solver(Honest(polish="one-flip")) == []

    @pytest.mark.parametrize(
        ("broken", "message"),
        [
            (WrongDtype, r"states are int64\(4, 9\), not uint8\(4, 9\)"),
            (Unseeded, "the same seed gives other states"),
            (ThreadDependent, "other states on two threads than on one"),
            (RowDependent, "the first row depends on the rows after it"),
            (StartingRule, "the answer depends on a start that it does not keep"),
            (GlobalRandom, "the batch or numpy's global random state is changed"),
            (Scribbler, "the batch or numpy's global random state is changed|claimed"),
            (Tireless, r"as many reports with Budget\(sweeps=1\) as without"),
            (OddStatus, "unknown status 'bored'"),
            (LateForNoReason, "status time for lack of such a limit"),
            (Liar, "claimed energies .* are really"),
            (Unpinned, "'some pinned': a pinned variable has another value|worse"),
            (Worse, "a row is worse than its start"),
            (OtherValues, "states hold other values than 0 and 1"),
            (BackInTime, "the trace runs back in time"),
            (Rising, "the trace's energies rise"),
            (Unvalidated, "Unvalidated accepts {'share': nan}"),
            (NoSuper, "NoSuper accepts {'polish': 'no such polish'}"),
            (NoDefault, "option share of solver class NoDefault has no default"),
            (ListOption, "option shares .* must be a bool, int, float or str"),
            (NoDataclass, "NoDataclass must be a dataclass"),
            (SupportsNothing, "SupportsNothing supports no batch"),
        ],
    )
    def test_broken(self, broken, message):
        with pytest.raises(AssertionError, match=message):
            check_solver(broken)

    def test_names_the_unsupported(self):
        @dataclass(frozen=True, kw_only=True)
        class Tiny(Honest):
            def supports(self, qubo: QuboBatch) -> str | None:
                return None if qubo.n <= 2 else "takes n <= 2"

        skipped = check_solver(Tiny)
        assert "positive definite: takes n <= 2" in skipped
        sizes = [qubo.n for qubo in example_batches().values()]
        assert len(skipped) == sum(n > 2 for n in sizes)
