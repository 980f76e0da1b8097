"""`window` against brute force over the whole grid, and its rounds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from qubo_rounding.problem import RoundingProblem
from solvers.base import Solver, Task
from solvers.budget import Budget, Monitor
from solvers.composed.window import Window, windows
from solvers.errors import InputError
from solvers.proofs.exact import Exact
from solvers.qubo import QuboBatch, States
from solvers.registry import label, parse_solver
from solvers.testing import check_solver, example_batch, reference_energies
from tests.cases import rounding
from tests.clocks import Clock

pytestmark = pytest.mark.arithmetic


def problem(
    rows: int, n: int, bits: int = 2, seed: int = 0, coupling: float = 1.0
) -> RoundingProblem:
    """Random weights, some of them saturated; inputs correlated by `coupling`."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4 * n)) + coupling * rng.standard_normal(4 * n)
    half = 2 ** (bits - 1)
    return RoundingProblem(
        weight=rng.normal(0, 0.5 * half, (rows, n)),
        scale=np.full((rows, 1), 0.7),
        lo=np.int32(-half),
        hi=np.int32(half - 1),
        moment=x @ x.T / (4 * n),
        saturated="fixed",
    )


def batch(*arguments: object, **options: object) -> QuboBatch:
    (qubo,) = problem(*arguments, **options).to_qubos()  # type: ignore[arg-type]
    return qubo


def lowest_in(qubo: QuboBatch, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The lowest energy [R] with every step from `low` to `high` [R, n]."""
    found = []
    for r in range(qubo.rows):
        axes = [range(a, b + 1) for a, b in zip(low[r], high[r], strict=True)]
        every = np.array(list(itertools.product(*axes)), np.int16)
        found.append(reference_energies(qubo.take([r]), every[None])[0].min())
    return np.array(found)


@pytest.mark.parametrize(
    "text",
    [
        "window[solver=kbest[paths=2],rounds=2]",
        "window[solver=descent]",
        "window[solver=floor,rounds=1]",
        "window[solver=sa[num_sweeps=10],rounds=3]",
        "window[solver=lattice[num_sweeps=10,elites=1],rounds=1]",
    ],
)
def test_conformance(text):
    skipped = check_solver(parse_solver(text))
    assert all("no levels" in reason for reason in skipped)


@pytest.mark.parametrize("inner", ["exact", "kbest[paths=1]", "descent", "ceil"])
@pytest.mark.parametrize("bits", [2, 3])
def test_never_above_the_inner_solver(inner, bits):
    qubo = batch(6, 5, bits)
    alone = parse_solver(inner).solve(qubo).energies
    found = Window(solver=inner).solve(qubo)
    assert (found.energies <= alone + rounding(qubo)).all()
    best = lowest_in(qubo, *qubo.levels)
    assert (found.energies >= best - rounding(qubo)).all()
    sums = np.array(found.info["rounds"])
    assert (np.diff(sums) <= 0).all()
    assert sums[-1] == pytest.approx(found.energies.sum())


@pytest.mark.parametrize("bits", [2, 3])
@pytest.mark.parametrize("n", [1, 3, 5])
def test_ends_in_a_window_that_holds_nothing_better(n, bits):
    qubo = batch(8, n, bits, seed=n)
    found = Window(solver="exact", rounds=50).solve(qubo)
    low = windows(qubo, found.states)
    assert ((found.states == low) | (found.states == low + 1)).all()
    best = lowest_in(qubo, low, low + 1)
    assert (found.energies <= best + rounding(qubo)).all()
    assert len(found.info["rounds"]) < 50


def test_often_reaches_the_best_of_the_grid():
    """Where inputs are weakly correlated, exact windows lead to the optimum."""
    qubo = batch(40, 4, 3, coupling=0.3)
    alone = Exact().solve(qubo).energies
    found = Window(solver="exact", rounds=20).solve(qubo).energies
    best = lowest_in(qubo, *qubo.levels)
    is_best = found <= best + rounding(qubo)
    assert is_best.sum() >= 36
    assert is_best.sum() > (alone <= best + rounding(qubo)).sum()


def test_windows_lie_on_the_side_to_which_the_energy_falls():
    qubo = batch(5, 6, 3, seed=4)
    low, high = qubo.levels
    steps = np.random.default_rng(0).integers(low, high + 1).astype(np.int16)
    found = windows(qubo, steps)
    assert ((low <= found) & (found < high)).all()
    pull = 2 * qubo.scale * ((qubo.scale * steps) @ qubo.H) + qubo.linear
    inside = (low < steps) & (steps < high)
    np.testing.assert_array_equal(
        found[inside], np.where(pull < 0, steps, steps - 1)[inside]
    )
    np.testing.assert_array_equal(found[steps == low], steps[steps == low])
    np.testing.assert_array_equal(found[steps == high], steps[steps == high] - 1)


def test_saturated_weights_may_leave_the_end():
    """They are pinned for the first answer only, as `gptq` takes them."""
    near = np.array([[1.0, 0.99], [0.99, 1.0]])
    p = replace(problem(1, 2), weight=[[1.4, -3.2]], scale=1.0, moment=near)
    (qubo,) = p.to_qubos()
    assert qubo.fixed.tolist() == [[1, 0]]
    found = Window(solver="exact").solve(qubo)
    steps = p.base + found.states
    assert steps[0, 0] < 1
    assert found.energies < Exact().solve(qubo).energies
    np.testing.assert_allclose(found.energies, lowest_in(qubo, *qubo.levels))


@pytest.mark.parametrize("inner", ["kbest", "sa", "lattice[elites=1,num_sweeps=20]"])
def test_same_answer_in_all_circumstances(inner):
    """With any number of threads, and in the rows before others."""
    qubo = batch(5, 40, 2)
    solver = Window(solver=inner)
    states = solver.solve(qubo, seed=3).states
    threaded = solver.solve(qubo, seed=3, budget=Budget(threads=2)).states
    np.testing.assert_array_equal(threaded, states)
    fewer = solver.solve(qubo.take(slice(0, 3)), seed=3).states
    np.testing.assert_array_equal(fewer, states[:3])


def test_starts_from_the_given_states():
    qubo = batch(3, 12)
    given = qubo.pin(np.ones((3, 12), np.uint8))
    floor = Window(solver="floor", rounds=1)
    found = floor.solve(qubo, initial=given)
    assert (found.energies <= reference_energies(qubo, given) + rounding(qubo)).all()


@dataclass(frozen=True, kw_only=True)
class Recorder(Solver):
    """Keeps its start, takes a second of its clock, and notes what it was given."""

    name: ClassVar[str] = "recorder"
    tasks: ClassVar[list[Task]] = []
    clock: ClassVar[Clock] = Clock()

    def search(self, task: Task) -> States:
        self.tasks.append(task)
        self.clock.now += 1.0
        # The first flip that gains in each row: later rounds have something to do.
        states = task.start.copy()
        for r in range(task.qubo.rows):
            energies = task.qubo.take([r]).energies(
                (states[r] ^ np.eye(task.qubo.n, dtype=np.uint8))[None]
            )[0]
            if energies.min() < task.qubo.take([r]).energies(states[[r]])[0]:
                states[r, energies.argmin()] ^= 1
        return states


@pytest.fixture
def tasks(install):
    install(recorder=f"{__name__}:Recorder")
    Recorder.tasks.clear()
    Recorder.clock.now = 0.0
    return Recorder.tasks


class TestRounds:
    window = staticmethod(
        lambda rounds: parse_solver(f"window[solver=recorder,rounds={rounds}]")
    )

    def test_each_starts_from_the_answer(self, tasks):
        qubo = batch(1, 20)
        found = self.window(3).solve(qubo)
        assert len(tasks) == 4
        assert [task.warm for task in tasks] == [False, True, True, True]
        sums = found.info["rounds"]
        for task, before in zip(tasks[1:], sums, strict=False):
            np.testing.assert_allclose(task.qubo.energies(task.start), [before])
        assert len({task.seed for task in tasks}) == 4

    def test_only_rows_that_improved_go_on(self, tasks):
        qubo = batch(6, 3)
        self.window(30).solve(qubo)
        rows = [task.qubo.rows for task in tasks]
        assert rows[:2] == [6, 6]
        assert rows == sorted(rows, reverse=True)
        assert 1 < len(rows) < 31
        assert rows[-1] < 6

    def test_sweeps_are_shared(self, tasks):
        self.window(3).solve(batch(1, 20), budget=Budget(sweeps=10))
        assert [task.budget.sweeps for task in tasks] == [2, 2, 3, 3]
        tasks.clear()
        self.window(3).solve(batch(1, 20), budget=Budget(sweeps=2))
        assert [task.budget.sweeps for task in tasks] == [1, 1]

    def test_seconds_are_shared(self, tasks):
        monitor = Monitor(clock=Recorder.clock)
        found = self.window(3).solve(
            batch(1, 20), budget=Budget(seconds=2.5), monitor=monitor
        )
        np.testing.assert_allclose(
            [task.budget.seconds for task in tasks], [2.5 / 4, 1.5 / 3, 0.5 / 2]
        )
        assert found.status == "time"

    def test_a_target_of_each_row_is_the_inner_solvers(self, tasks):
        qubo = batch(6, 3)
        target = np.array([-np.inf, 1e9, -np.inf, 1e9, -np.inf, 1e9])
        self.window(2).solve(qubo, budget=Budget(target=target))
        assert tasks[0].budget.target.tolist() == target.tolist()
        assert len(tasks[-1].budget.target) == tasks[-1].qubo.rows
        tasks.clear()
        found = self.window(2).solve(qubo, budget=Budget(target=1e9))
        assert (found.status, len(tasks)) == ("target", 1)

    def test_reports_hold_all_rows(self, tasks):
        seen = []
        monitor = Monitor(lambda seconds, best: seen.append(best))
        found = self.window(4).solve(batch(6, 3), monitor=monitor)
        assert all(best.shape == (6,) for best in seen)
        assert (np.diff(np.array(seen), axis=0) <= 0).all()
        np.testing.assert_allclose(seen[-1], found.energies)

    def test_compiles_the_inner_solver(self, tasks, monkeypatch):
        compiled = []
        monkeypatch.setattr(Recorder, "compile_for", lambda self, q: compiled.append(q))
        qubo = batch(6, 3)
        self.window(4).compile_for(qubo)
        assert compiled == [qubo]
        assert len(tasks) == 2


class TestRefuses:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"solver": "gptq"}, "gptq is out of the set itself"),
            ({"solver": "window"}, "window is out of the set itself"),
            ({"solver": "adaround"}, "adaround needs a layer's data"),
            ({"solver": "lattise"}, "unknown solver 'lattise'; did you mean lattice"),
            ({"solver": "kbest[paths=0]"}, "solver kbest: paths must be"),
            ({"rounds": 0}, "rounds must be at least 1"),
            ({"polish": "one-flip"}, "polish must be none"),
            ({"solver": 3}, "solver must be a text"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(InputError, match=f"solver .*{message}|{message}") as caught:
            Window(**options)
        assert "\n" not in str(caught.value)

    def test_what_has_no_levels(self):
        with pytest.raises(InputError, match="solver window: the batch has no levels"):
            Window().solve(example_batch(1, 3))

    def test_what_the_inner_solver_refuses(self, tasks, monkeypatch):
        monkeypatch.setattr(Recorder, "supports", lambda self, qubo: "too prime")
        with pytest.raises(InputError, match="solver window: too prime"):
            parse_solver("window[solver=recorder]").solve(batch(1, 3))


def test_one_text_for_one_solver():
    first = parse_solver("window[solver= kbest[ polish = pair-flip , paths=16 ] ]")
    assert first == Window(solver="kbest[paths=16]")
    assert label(first) == "window[solver=kbest[paths=16]]"


class TestSeenFrom:
    """A batch seen from other steps is the same batch."""

    qubo = batch(4, 6, 3, seed=2)

    def steps(self, seed: int) -> np.ndarray:
        low, high = self.qubo.levels
        return np.random.default_rng(seed).integers(low, high).astype(np.int16)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_energies(self, dtype):
        k = self.steps(0)
        qubo = replace(self.qubo, H=self.qubo.H.astype(dtype))
        moved = qubo.seen_from(k)
        x = np.random.default_rng(1).integers(0, 2, k.shape).astype(np.int16)
        expected = reference_energies(qubo, k + x)
        np.testing.assert_allclose(reference_energies(moved, x), expected)
        assert moved.H is qubo.H
        assert moved.fixed is None
        np.testing.assert_array_equal(moved.levels, qubo.levels - k)
        assert not any(
            getattr(moved, name).flags.writeable
            for name in ("linear", "offset", "prior", "levels")
        )

    def test_priors_are_the_windows_nearest_points(self):
        (qubo,) = replace(problem(4, 6, 3, seed=2), saturated="free").to_qubos()
        k = np.zeros((4, 6), np.int16)
        np.testing.assert_array_equal(qubo.seen_from(k).prior, qubo.prior)
        k[:, 0] = -1
        assert (qubo.seen_from(k).prior[:, 0] == 1).all()

    def test_slopes(self):
        k = self.steps(0)
        expected = 2 * self.qubo.scale * ((self.qubo.scale * k) @ self.qubo.H)
        for threads in (1, 2):
            found = self.qubo.slopes(k, threads)
            np.testing.assert_allclose(found, expected + self.qubo.linear, atol=1e-12)

    @pytest.mark.parametrize(
        ("steps", "message"),
        [
            (np.zeros((2, 2)), r"steps must have shape \(4, 6\)"),
            (np.full((4, 6), 100), "steps must lie within the levels"),
            (qubo.levels[1], "and below the highest"),
            (np.full((4, 6), 0.5), "steps"),
        ],
    )
    def test_refused(self, steps, message):
        with pytest.raises(InputError, match=message):
            self.qubo.seen_from(steps)

    def test_without_levels(self):
        with pytest.raises(InputError, match="the batch has no levels"):
            example_batch(1, 2).seen_from(np.zeros((1, 2), int))
        with pytest.raises(InputError, match="states may hold only 0 and 1"):
            example_batch(1, 2).slopes(np.full((1, 2), 3))
