"""Other packages' solvers behind the protocol."""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import pytest

from benchmarks.peers.base import FIRST_SHARE, GROWTH, Call, Peer
from benchmarks.peers.dwave import (
    DwaveGreedy,
    DwavePathIntegral,
    DwaveRotor,
    DwaveSa,
    DwaveTabu,
)
from benchmarks.peers.openjij import OpenJijSa, OpenJijSqa
from benchmarks.peers.qubolite import QuboliteDescent, QuboliteSa
from benchmarks.peers.simulated_bifurcation import SimulatedBifurcation
from solvers import Budget, InputError, Monitor, parse_solver
from solvers.testing import brute_force, check_solver, example_batch, example_batches
from tests.clocks import Clock

# With little effort each, and options off their defaults.
PEERS = (
    DwaveTabu(milliseconds=5),
    DwaveGreedy(num_reads=4),
    DwaveSa(num_sweeps=30, num_reads=2, beta_min=0.1, beta_max=5.0),
    DwavePathIntegral(num_sweeps=10),
    DwaveRotor(num_sweeps=30),
    OpenJijSa(num_sweeps=20, num_reads=2),
    OpenJijSqa(num_sweeps=10),
    SimulatedBifurcation(agents=3, max_steps=20, mode="discrete"),
    QuboliteSa(steps=5, n_parallel=2),
    QuboliteDescent(num_reads=3),
)
# dwave's tabu search looks at the clock.
SEEDED = [peer for peer in PEERS if not isinstance(peer, DwaveTabu)]


def by_name(peers):
    return pytest.mark.parametrize("peer", peers, ids=lambda peer: peer.name)


def installed(peer: Peer) -> Peer:
    reason = peer.supports(example_batch(1, 2))
    if reason is not None:
        pytest.skip(reason)
    return peer


def test_is_found_by_name():
    assert parse_solver("dwave-tabu[milliseconds=5]") == DwaveTabu(milliseconds=5)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (DwaveTabu, {"milliseconds": 0}, "milliseconds must be at least 1"),
        (DwaveGreedy, {"num_reads": 0}, "num_reads must be at least 1"),
        (DwaveSa, {"num_reads": 0}, "num_reads must be at least 1"),
        (DwaveRotor, {"num_sweeps": 0}, "num_sweeps must be at least 1"),
        (DwaveSa, {"beta_min": 1.0}, "give both beta_min and beta_max"),
        (OpenJijSa, {"beta_min": 2.0, "beta_max": 1.0}, "give both beta_min and"),
        (OpenJijSa, {"beta_min": 1.0, "beta_max": math.inf}, "give both beta_min and"),
        (OpenJijSa, {"num_sweeps": 0}, "num_sweeps must be at least 1"),
        (OpenJijSqa, {"beta": math.nan}, "beta must be positive"),
        (OpenJijSqa, {"gamma": 0.0}, "gamma must be positive"),
        (OpenJijSqa, {"trotter": 0}, "trotter must be at least 1"),
        (SimulatedBifurcation, {"agents": 0}, "agents must be at least 1"),
        (SimulatedBifurcation, {"max_steps": 0}, "max_steps must be at least 1"),
        (SimulatedBifurcation, {"mode": "cold"}, "mode must be ballistic or discrete"),
        (QuboliteSa, {"steps": 0}, "steps must be at least 1"),
        (QuboliteSa, {"n_parallel": 0}, "n_parallel must be at least 1"),
        (QuboliteDescent, {"num_reads": 0}, "num_reads must be at least 1"),
    ],
)
def test_options(cls, options, message):
    with pytest.raises(InputError, match=f"solver {cls.name}: {message}"):
        cls(**options)


@by_name(SEEDED)
def test_conformance(peer):
    assert check_solver(installed(peer)) == []


@by_name(PEERS)
def test_finds_an_optimum_of_few_variables(peer):
    """With many reads, the answer is the best of all reads, in the right order."""
    qubo = example_batch(2, 6, definite=False)
    qubo = replace(qubo, fixed=np.array([[-1, 1, -1, -1, 0, -1], [-1] * 6]))
    _, lowest = brute_force(qubo)
    budget = Budget(seconds=1, target=lowest + 1e-9)
    worst, _ = brute_force(
        replace(qubo, H=-qubo.H, linear=-qubo.linear, offset=-qubo.offset)
    )
    if isinstance(peer, DwaveRotor | SimulatedBifurcation):
        peer = type(peer)()
    if isinstance(peer, OpenJijSqa):
        peer = replace(peer, num_reads=50)
    monitor = Monitor(clock=Clock(tick=1e-4, last=2.0))
    found = installed(peer).solve(qubo, budget=budget, initial=worst, monitor=monitor)
    np.testing.assert_allclose(found.energies, lowest, atol=1e-9)
    assert found.status == "target"


@by_name(PEERS)
def test_keeps_to_the_seconds_and_says_what_building_took(peer):
    clock = Clock(tick=1e-2, last=1.0)
    found = installed(peer).solve(
        example_batch(3, 30), budget=Budget(seconds=0.3), monitor=Monitor(clock=clock)
    )
    assert clock.now > 0.2
    # A model is built between two readings.
    assert found.info["build_seconds"] == pytest.approx(3e-2)


def test_dwave_tabu_is_given_its_seconds(monkeypatch):
    """The sampler has a clock of its own, in whole milliseconds."""
    peer = installed(DwaveTabu())
    module = import_module(DwaveTabu.package)
    given = []

    class Sampler(module.TabuSampler):
        def sample(self, *arguments, timeout, **options):
            given.append(timeout)
            return super().sample(*arguments, timeout=1, **options)

    monkeypatch.setattr(module, "TabuSampler", Sampler)
    model, start = peer.model(example_batch(1, 6), 0), np.zeros(6, np.uint8)
    for seconds in (0.25, 1e-6, math.inf):
        peer.sample(model, Call(0, start, 1, seconds, -math.inf))
    assert given == [250, 1, DwaveTabu().milliseconds]


@by_name(SEEDED)
def test_the_seed_matters(peer):
    installed(peer)
    model = peer.model(example_batch(1, 60, definite=False), 0)
    start = np.zeros(60, np.uint8)
    calls = [Call(seed, start, 8, math.inf, -math.inf) for seed in range(6)]
    assert len({peer.sample(model, call).tobytes() for call in calls}) > 1


@pytest.mark.parametrize("cls", [OpenJijSa, OpenJijSqa])
def test_openjij_reads_differ(cls):
    """OpenJij's own reads with one seed are all the same."""
    installed(cls())
    qubo = example_batch(6, 40, definite=False)
    one, many = (cls(num_reads=k, num_sweeps=5).solve(qubo) for k in (1, 30))
    assert (many.energies < one.energies).sum() > 3


def test_models_below_the_packages_tolerances_are_not_too_small():
    """OpenJij drops what is below 1e-8."""
    qubo = example_batch(3, 8)
    tiny = replace(
        qubo, H=1e-12 * qubo.H, linear=1e-12 * qubo.linear, offset=1e-12 * qubo.offset
    )
    peer = installed(OpenJijSa())
    np.testing.assert_array_equal(peer.solve(tiny).states, peer.solve(qubo).states)


def test_temperatures_are_in_units_of_the_energy():
    """Hot to the end: a random state; cold: near an optimum."""
    qubo = example_batch(8, 12)
    worst, _ = brute_force(
        replace(qubo, H=-qubo.H, linear=-qubo.linear, offset=-qubo.offset)
    )
    for cls in (DwaveSa, OpenJijSa):
        hot, cold = (
            installed(cls(beta_min=low, beta_max=high)).solve(qubo, initial=worst)
            for low, high in ((1e-9, 1e-8), (0.01, 5))
        )
        assert cold.energies.sum() < 0.5 * hot.energies.sum()


def test_global_random_states_stay_as_they_are():
    torch = pytest.importorskip("torch")
    peer = installed(SimulatedBifurcation(agents=2, max_steps=5))
    before = torch.random.get_rng_state()
    first = peer.solve(example_batch(2, 20), seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(3)
    second = peer.solve(example_batch(2, 20), seed=1)
    np.testing.assert_array_equal(first.states, second.states)


def test_ctrl_c_reaches_the_caller(monkeypatch):
    """The package turns it into a warning."""
    peer = installed(SimulatedBifurcation(agents=2, max_steps=50))
    from simulated_bifurcation.optimizer.symplectic_integrator import (
        SymplecticIntegrator,
    )

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SymplecticIntegrator, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        peer.solve(example_batch(1, 9))


def test_what_packages_print_is_not_shown(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for peer in (QuboliteSa(steps=5), SimulatedBifurcation(agents=2, max_steps=5)):
            if peer.supports(example_batch(1, 2)) is None:
                peer.solve(example_batch(2, 9))
    assert capfd.readouterr() == ("", "")


@by_name(PEERS)
def test_a_missing_package(peer, monkeypatch):
    for name in [m for m in sys.modules if m.split(".")[0] == peer.package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, peer.package, None)
    with pytest.raises(InputError) as error:
        peer.solve(example_batch(1, 4))
    assert str(error.value) == (
        f"solver {peer.name}: {peer.package} is not installed; "
        'pip install "qubo-rounding[peers]" installs it'
    )


def test_a_missing_parent_package(monkeypatch):
    monkeypatch.setattr(DwaveTabu, "package", "no_such_package.samplers")
    reason = DwaveTabu().supports(example_batch(1, 2))
    assert reason is not None
    assert reason.startswith("no_such_package.samplers is not installed")


@pytest.mark.parametrize("name", example_batches())
def test_dwave_tabu_finds_optima(name):
    """A peer that takes a set time per unit of effort, and records its calls."""
    qubo = example_batches()[name]
    states, lowest = brute_force(qubo)
    states[:, 0] ^= 1
    found = DwaveTabu(milliseconds=20).solve(qubo, initial=qubo.pin(states))
    np.testing.assert_allclose(found.energies, lowest, atol=1e-9)
    np.testing.assert_array_equal(qubo.pin(found.states), found.states)


def test_dwave_tabu_stops_at_the_target():
    """A call with an hour's limit must end early, or the test takes that hour."""
    qubo = example_batch(1, 10)
    _, lowest = brute_force(qubo)
    budget = Budget(seconds=60, target=lowest + 1e-9)
    assert DwaveTabu().solve(qubo, budget=budget).status == "target"


@dataclass(frozen=True, kw_only=True)
class Paced(Peer):
    """A peer that takes a given time per unit of effort, and records its calls."""

    name: ClassVar[str] = "paced"
    package: ClassVar[str] = "numpy"
    calls: ClassVar[list[Call]] = []
    clock: ClassVar[Clock] = Clock()

    unit: float = 1e-4
    building: float = 0.0

    @property
    def effort(self) -> int:
        return 640

    def model(self, qubo, row):
        self.clock.now += self.building
        return qubo.linear[row]

    def sample(self, model, call):
        self.calls.append(call)
        self.clock.now += self.unit * call.effort
        return call.start


@pytest.fixture
def calls(monkeypatch):
    made: list[Call] = []
    clock = Clock()
    clock.for_all(monkeypatch)
    monkeypatch.setattr(Paced, "calls", made)
    monkeypatch.setattr(Paced, "clock", clock)
    return made


def test_without_seconds_a_row_is_one_call(calls):
    Paced(unit=0).solve(example_batch(3, 5))
    assert [(c.effort, c.seconds) for c in calls] == [(640, math.inf)] * 3
    Paced(unit=0).solve(example_batch(3, 5), budget=Budget(sweeps=7))
    assert [c.effort for c in calls[3:]] == [7, 7, 7]
    assert len({c.seed for c in calls}) == 3


def test_effort_grows_until_it_fills_the_share(calls):
    found = Paced().solve(example_batch(4, 5), budget=Budget(seconds=0.8))
    assert 0.6 < found.timing["solve"] < 0.82
    efforts = [c.effort for c in calls]
    assert efforts[0] == 640 // FIRST_SHARE
    longest = np.maximum.accumulate(efforts)
    assert (efforts[1:] <= GROWTH * longest[:-1]).all()
    # About 0.2 s of 1e-4 s each, in one call once the cost is known.
    assert max(efforts) > 1000
    assert len(calls) < 20


def test_a_cap_holds_for_all_calls_of_a_row(calls):
    Paced().solve(example_batch(2, 5), budget=Budget(seconds=0.4, sweeps=100))
    assert sum(c.effort for c in calls) == 200


def test_rows_not_reached_keep_the_start(calls):
    """A row gets as long as its model took: few rows well rather than all in vain."""
    qubo = example_batch(50, 5)
    found = Paced(building=0.02).solve(qubo, budget=Budget(seconds=0.2))
    assert found.status == "time"
    assert found.timing["solve"] < 0.25
    assert 0.06 < found.info["build_seconds"] < 0.16
    np.testing.assert_array_equal(found.states[-1], qubo.nearest()[-1])


def test_building_is_left_time(calls):
    """Early rows leave the later ones the seconds that their models will take."""
    peer = Paced(building=0.02, unit=1e-3)
    found = peer.solve(example_batch(8, 5), budget=Budget(seconds=0.6))
    assert len({c.seed for c in calls}) >= 8
    assert found.timing["solve"] < 0.65


def test_rows_at_their_target_are_left_alone(calls):
    qubo = example_batch(3, 5)
    energies = qubo.energies(qubo.nearest())
    target = energies + np.array([0, -1e3, 0])
    found = Paced(unit=0).solve(qubo, budget=Budget(target=target))
    assert len(calls) == 1
    assert calls[0].target == pytest.approx(target[1])
    assert found.status == "done"
