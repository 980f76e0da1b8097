"""The adaptor to dwave's simulated annealing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from solvers.budget import Budget, Monitor
from solvers.errors import InputError
from solvers.qubo import QuboBatch
from solvers.sampling import neal
from solvers.sampling.neal import Neal
from solvers.testing import brute_force, example_batch, reference_energies
from tests.cases import rounding
from tests.clocks import Clock

pytestmark = pytest.mark.arithmetic


class Recorder:
    """The sampler, with its calls written down."""

    def __init__(self) -> None:
        self.sampler = neal.dwave_sampler()
        self.calls = []

    def sample(self, bqm, **options):
        self.calls.append((bqm, options))
        return self.sampler.sample(bqm, **options)


@pytest.fixture
def calls(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(neal, "dwave_sampler", lambda: recorder)
    return recorder.calls


def test_one_seed_per_row(calls):
    Neal(num_sweeps=1).solve(example_batch(30, 2), seed=3)
    seeds = [options["seed"] for _, options in calls]
    assert len(set(seeds)) == 30
    assert min(seeds) >= 0
    assert max(seeds) < 2**31
    Neal(num_sweeps=1).solve(example_batch(4, 2), seed=3)
    assert [options["seed"] for _, options in calls[30:]] == seeds[:4]


def test_options_reach_the_sampler(calls):
    solver = Neal(num_reads=3, num_sweeps=50, beta_min=0.5, beta_max=4)
    solver.solve(example_batch(1, 4))
    solver.solve(example_batch(1, 4), budget=Budget(sweeps=7))
    Neal().solve(example_batch(1, 4))
    options = [options for _, options in calls]
    assert [o["num_sweeps"] for o in options] == [50, 7, 1000]
    assert [o["num_reads"] for o in options] == [3, 3, 1]
    assert options[0]["beta_range"] == (0.5, 4)
    assert "beta_range" not in options[2]
    assert "initial_states" not in options[2]


def test_beta_range_matters():
    """Hot to the end: the last state is far from an optimum; cold: near it."""
    qubo = replace(example_batch(8, 12), prior=np.full((8, 12), 0.0))
    worst, _ = brute_force(
        replace(qubo, H=-qubo.H, linear=-qubo.linear, offset=-qubo.offset)
    )
    _, lowest = brute_force(qubo)
    hot = Neal(beta_min=1e-9, beta_max=1e-8).solve(qubo, initial=worst).energies
    cold = Neal(beta_min=0.01, beta_max=5).solve(qubo, initial=worst).energies
    assert cold.sum() < 1.5 * lowest.sum() < 0.5 * hot.sum()


def test_keeps_the_best_of_its_reads():
    qubo = example_batch(6, 12)
    one, many = (Neal(num_reads=k, num_sweeps=3).solve(qubo) for k in (1, 200))
    assert (many.energies <= one.energies + rounding(qubo)).all()
    assert many.energies.sum() < 0.95 * one.energies.sum()


def test_pinned_variables_are_not_in_the_model(calls):
    fixed = np.array([[-1, 0, 1, -1], [0, 1, 0, 1], [-1] * 4])
    qubo = replace(example_batch(3, 4), fixed=fixed)
    found = Neal().solve(qubo)
    # The second row has nothing to choose and is not sampled.
    assert [list(bqm.variables) for bqm, _ in calls] == [[0, 3], [0, 1, 2, 3]]
    np.testing.assert_allclose(found.energies, brute_force(qubo)[1], atol=1e-9)


def test_warm_start(calls):
    """Frozen from the first sweep: only downhill from the given states."""
    fixed = [[-1, -1, -1, -1, -1, 1], [-1] * 6]
    qubo = replace(example_batch(2, 6), fixed=fixed)
    start, lowest = brute_force(qubo)
    frozen = Neal(warm=True, num_sweeps=1, beta_min=1e9, beta_max=1e9)
    found = frozen.solve(qubo, initial=start)
    np.testing.assert_array_equal(found.states, start)
    for r, (_, options) in enumerate(calls):
        free = np.flatnonzero(qubo.free(r))
        given = options["initial_states"]
        assert given == {int(i): int(start[r, i]) for i in free}
    np.testing.assert_allclose(found.energies, lowest, atol=1e-9)


def test_every_read_starts_warm():
    """A frozen read ends where the first did, so more reads find nothing new."""
    qubo = example_batch(1, 30)
    start = np.random.default_rng(0).integers(0, 2, (1, 30))
    frozen = {"warm": True, "num_sweeps": 1, "beta_min": 1e9, "beta_max": 1e9}
    one = Neal(num_reads=1, **frozen).solve(qubo, initial=start)
    many = Neal(num_reads=20, **frozen).solve(qubo, initial=start)
    np.testing.assert_array_equal(one.states, many.states)


def test_rows_not_reached_in_time_keep_the_start():
    qubo = example_batch(200, 40)
    start = 1 - qubo.nearest()
    found = Neal(num_sweeps=3000).solve(
        qubo,
        initial=start,
        budget=Budget(seconds=40),
        monitor=Monitor(clock=Clock(tick=1, last=400)),
    )
    assert found.status == "time"
    np.testing.assert_array_equal(found.states[-1], start[-1])
    exact = reference_energies(qubo, found.states)
    np.testing.assert_allclose(found.energies, exact)
    assert found.energies[0] < reference_energies(qubo, start)[0]


def test_target():
    qubo = QuboBatch.from_matrix(np.diag([-1.0, 2.0]), np.zeros((3, 2)))
    found = Neal().solve(qubo, initial=np.zeros((3, 2)), budget=Budget(target=-1.0))
    assert found.status == "target"
    # The start, a report for each row, and the answer.
    np.testing.assert_array_equal(
        found.trace[1], [[0, 0, 0], [-1, 0, 0], [-1, -1, 0], [-1] * 3, [-1] * 3]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_reads": 0}, "num_reads must be at least 1"),
        ({"num_sweeps": 0}, "num_sweeps must be 1 to"),
        ({"beta_min": 1.0}, "give both beta_min and beta_max"),
        ({"beta_max": 1.0}, "give both beta_min and beta_max"),
        ({"beta_min": 2.0, "beta_max": 1.0}, "0 < beta_min <= beta_max"),
        ({"beta_min": -1.0, "beta_max": 1.0}, "0 < beta_min <= beta_max"),
        pytest.param(
            {"beta_min": 1.0, "beta_max": np.inf},
            "beta_max",
        ),
    ],
)
def test_options(options, message):
    with pytest.raises(InputError, match=f"solver neal: .*{message}"):
        Neal(**options)


def test_ctrl_c_reaches_the_caller(monkeypatch):
    """The sampler swallows what its callback raises."""

    def interrupted(_: Monitor) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(Monitor, "remaining", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Neal(num_reads=50).solve(example_batch(1, 9))
