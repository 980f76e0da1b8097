"""AdaRound: the quadratic form, eq. (25), presets."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from qubo_rounding.problem import RoundingProblem
from solvers.budget import Budget, Monitor
from solvers.errors import InputError
from solvers.layer_data import LayerData
from solvers.qubo import QuboBatch
from solvers.relaxations.adam import typical_curvature
from solvers.relaxations.adaround import AdaRound
from solvers.relaxations.hopfield import Hopfield
from solvers.relaxations.on_layer import EQ_25, LayerLoss
from solvers.testing import check_solver, example_batch, reference_energies
from tests.clocks import Clock
from tests.test_annealing import ill_conditioned


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of torch wait for each other at every small operation."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def linear_layer(
    rows: int = 6, n: int = 10, images: int = 24, shift: float = 0.0, seed: int = 0
) -> tuple[QuboBatch, LayerData]:
    """A linear layer on 3 positions, its rounded inputs `shift` times off."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.5, 1, (images, 3, n))
    x_hat = x + shift * rng.normal(size=x.shape)
    w, scale = rng.normal(size=(rows, n)), rng.uniform(0.3, 0.5, (rows, 1))
    flat, flat_hat = x.reshape(-1, n), x_hat.reshape(-1, n)
    H, C, S = (
        a.T @ b / len(flat)
        for a, b in ((flat_hat, flat_hat), (flat, flat_hat), (flat, flat))
    )
    mismatch = H - C - C.T + S
    problem = RoundingProblem(
        weight=w,
        scale=scale,
        lo=np.array(-4),
        hi=np.array(3),
        moment=(H + H.T) / 2,
        gradient=2 * w @ (H - C),
        constant=np.einsum("ri,ij,rj->r", w, mismatch, w),
    )
    inputs, sources, weight = (torch.tensor(a) for a in (x_hat, x, w))
    data = LayerData(
        floor=problem.scale * problem.base,
        images=images,
        outputs=lambda rows, i: (inputs[i] @ rows.to(inputs.dtype).T).transpose(1, 2),
        targets=lambda i: (sources[i] @ weight.T).transpose(1, 2),
        activation=torch.relu,
    )
    return problem.to_qubos()[0], data


def some_points(qubo: QuboBatch) -> torch.Tensor:
    rng = np.random.default_rng(3)
    return torch.tensor(rng.random((qubo.rows, qubo.n)))


class TestLoss:
    @pytest.mark.parametrize("shift", [0.0, 0.3])
    def test_without_activation_is_the_quadratic_form(self, shift):
        """All images, inputs of the rounded network or the original one."""
        qubo, data = linear_layer(shift=shift)
        loss = LayerLoss(data, qubo, seed=0, batch=24, activation=False)
        states = qubo.nearest()
        errors, _ = loss(torch.tensor(states))
        np.testing.assert_allclose(errors, reference_energies(qubo, states), rtol=1e-10)
        x = some_points(qubo)
        expected = 2 * qubo.scale * ((qubo.scale * x.numpy()) @ qubo.H) + qubo.linear
        np.testing.assert_allclose(loss(x)[1], expected, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(loss.judge(x, 10**9), loss(x)[0])

    def test_gradient_with_activation(self):
        qubo, data = linear_layer(shift=0.1)
        loss = LayerLoss(data, qubo, seed=0, batch=99, activation=True)
        x, step = some_points(qubo), 1e-6
        _, gradient = loss(x)
        for r, i in ((0, 0), (3, 7), (5, 9)):
            away = torch.zeros_like(x)
            away[r, i] = step
            sides = [loss(x + a)[0] for a in (away, -away)]
            difference = (sides[0] - sides[1]) / (2 * step)
            assert difference[r] == pytest.approx(float(gradient[r, i]), rel=1e-5)
            # A row's error is of its own weights alone.
            assert (difference != 0).sum() == 1

    def test_activation_acts_on_both_sides(self):
        qubo, data = linear_layer()
        loss = LayerLoss(data, qubo, seed=0, batch=24, activation=True)
        x = some_points(qubo)
        rows = torch.tensor(data.floor) + torch.tensor(qubo.scale) * x
        every = torch.arange(24)
        gap = data.outputs(rows, every).relu() - data.targets(every).relu()
        np.testing.assert_allclose(loss(x)[0], (gap**2).mean((0, 2)))
        off = LayerLoss(data, qubo, seed=0, batch=24, activation=False)
        assert (off(x)[0] > loss(x)[0]).all()

    def test_minibatches(self):
        qubo, data = linear_layer(images=20)
        seen: list[list[int]] = []
        spy = replace(
            data, targets=lambda i: seen.append(i.tolist()) or data.targets(i)
        )
        x = some_points(qubo)
        for seed in (0, 0, 1):
            loss = LayerLoss(spy, qubo, seed, batch=8, activation=True)
            loss(x), loss(x)
        first, again, other = (seen[i : i + 3][1:] for i in (0, 3, 6))
        assert first == again != other
        assert first[0] != first[1]
        for drawn in (*first, *other):
            assert len(set(drawn)) == 8
            assert set(drawn) <= set(range(20))


class TestOnData:
    def test_improves_what_follows_the_activation(self):
        qubo, data = linear_layer(rows=12, n=30, images=64)
        solver = AdaRound(steps=600, rate=0.02, regularisation=0.3)
        found = solver.solve(qubo, data=data)
        quadratic = solver.solve(qubo)
        assert found.info["objective"] == EQ_25
        assert found.info["soft_fraction"] < 0.01
        loss = LayerLoss(data, qubo, 0, 64, True)
        ours, theirs, nearest = (
            float(loss.judge(torch.tensor(states), 64).sum())
            for states in (found.states, quadratic.states, qubo.nearest())
        )
        assert ours < theirs < nearest
        # On the form that it does not look at, it is the other way round.
        assert quadratic.energies.sum() < found.energies.sum()

    def test_finds_the_optimum_of_small_layers(self):
        qubo, data = linear_layer(rows=5, n=4)
        found = AdaRound(steps=800, rate=0.02, batch=24).solve(qubo, data=data)
        loss = LayerLoss(data, qubo, 0, 24, True)
        every = (np.arange(16)[:, None] >> np.arange(4) & 1).astype(np.uint8)
        errors = np.array(
            [loss.judge(torch.tensor(np.tile(s, (5, 1))), 24).numpy() for s in every]
        )
        mine = loss.judge(torch.tensor(found.states), 24).numpy()
        # The guard on the quadratic form may put the nearest rounding back.
        start = loss.judge(torch.tensor(qubo.nearest()), 24).numpy()
        kept = (found.states == qubo.nearest()).all(axis=1)
        assert (mine <= np.where(kept, start, 1.3 * errors.min(axis=0))).all()
        assert np.isclose(mine, errors.min(axis=0)).sum() >= 3

    def test_same_answer_again_and_on_two_threads(self):
        qubo, data = linear_layer()
        solver = AdaRound(steps=150, rate=0.02, batch=8)
        one = solver.solve(qubo, data=data, seed=4)
        before = torch.get_num_threads(), torch.random.get_rng_state()
        two = solver.solve(qubo, data=data, seed=4, budget=Budget(threads=2))
        np.testing.assert_array_equal(one.states, two.states)
        assert torch.get_num_threads() == before[0]
        assert torch.equal(torch.random.get_rng_state(), before[1])

    def test_rows_are_independent(self):
        qubo, data = linear_layer()
        part = replace(
            data,
            floor=data.floor[:2],
            outputs=lambda w, i: data.outputs(
                torch.cat([w, torch.tensor(data.floor[2:], dtype=w.dtype)]), i
            )[:, :2],
            targets=lambda i: data.targets(i)[:, :2],
        )
        solver = AdaRound(steps=300, rate=0.02, batch=8)
        whole = solver.solve(qubo, data=data).states
        alone = solver.solve(qubo.take([0, 1]), data=part).states
        np.testing.assert_array_equal(whole[:2], alone)

    def test_pinned_stay_where_they_are(self):
        qubo, data = linear_layer()
        pins = np.full((6, 10), -1, np.int8)
        pins[:, ::4] = 1 - qubo.nearest()[:, ::4]
        held, points = replace(qubo, fixed=pins), []
        spy = replace(
            data, outputs=lambda w, i: points.append(w.detach()) or data.outputs(w, i)
        )
        AdaRound(steps=20, rate=0.1).solve(held, data=spy)
        expected = data.floor + qubo.scale * pins
        for rows in points:
            np.testing.assert_allclose(rows[:, ::4], expected[:, ::4], rtol=1e-6)

    def test_limits(self, monkeypatch):
        qubo, data = linear_layer()
        short = AdaRound().solve(qubo, data=data, budget=Budget(sweeps=7))
        assert short.info["steps"] == 7
        clock = Clock(last=500)
        clock.paces(monkeypatch, each=1.0)
        timed = AdaRound(steps=10**7).solve(
            qubo, data=data, budget=Budget(seconds=400), monitor=Monitor(clock=clock)
        )
        assert timed.info["steps"] == pytest.approx(400, rel=0.03)
        # What is traced are energies of states at hand: of the start, then the answer.
        np.testing.assert_array_equal(timed.trace[1][-1], timed.energies)

    def test_refuses_data_of_other_rows(self):
        qubo, data = linear_layer()
        with pytest.raises(InputError, match=r"layer's data must have rows of shape"):
            AdaRound().solve(qubo.take([0]), data=data)


class TestOnTheQuadraticForm:
    def test_conforms(self):
        assert check_solver(AdaRound(steps=60)) == []

    def test_info_names_the_objective(self):
        found = AdaRound(steps=10).solve(example_batch(2, 5))
        assert found.info["objective"] == "quadratic form: no layer data given"

    def test_is_hopfields_rectified_form_in_units_of_energy(self):
        qubo = example_batch(1, 30)
        weight = float(0.3 * typical_curvature(qubo)[0])
        mine = AdaRound(steps=500, rate=0.1, regularisation=weight).solve(qubo)
        other = Hopfield(form="rectified+reg", steps=500).solve(qubo)
        np.testing.assert_array_equal(mine.states, other.states)

    def test_hard_and_far_better_than_nearest(self):
        """The weight for outputs of size 0.1 is nothing to those of size 10."""
        qubo = ill_conditioned(8, 80)
        assert "not near 0 or 1" in AdaRound().solve(qubo).info["warning"]
        found = AdaRound(regularisation=3.0).solve(qubo)
        assert found.info["soft_fraction"] < 0.01
        nearest = reference_energies(qubo, qubo.nearest()).sum()
        assert found.energies.sum() < 0.03 * nearest

    def test_first_layer_of_resnet18(self, real_data):
        """What the project's design page says of this relaxation."""
        path = real_data / "problems" / "resnet18.conv1.npz"
        (qubo,) = RoundingProblem.load(path, "fixed").to_qubos()
        nearest = qubo.energies(qubo.nearest()).sum()
        for rate, least, most in ((1e-3, 0.0170, 0.0184), (1e-2, 0.0160, 0.0168)):
            found = AdaRound(rate=rate).solve(qubo)
            assert least < found.energies.sum() / nearest < most
            assert found.info["soft_fraction"] < 0.01

    def test_missing_device(self):
        with pytest.raises(InputError, match="device 'cuda:99' is not available here"):
            AdaRound(device="cuda:99").solve(example_batch(1, 2))


class TestOptions:
    def test_presets(self):
        paper, aimet, brecq = (
            AdaRound(preset=p).settings() for p in ("paper", "aimet", "brecq")
        )
        assert paper == {
            "steps": 10_000,
            "rate": 1e-3,
            "batch": 32,
            "regularisation": 0.01,
            "beta_start": 20.0,
            "beta_end": 2.0,
            "schedule": "cosine",
            "warm_up": 0.2,
        }
        assert aimet == paper | {"steps": 15_000}
        assert brecq == paper | {"steps": 20_000, "schedule": "linear"}

    def test_override_the_preset(self):
        given = {
            "steps": 7,
            "rate": 0.5,
            "batch": 3,
            "regularisation": 0.0,
            "beta_start": 9.0,
            "beta_end": 3.0,
            "schedule": "cosine",
            "warm_up": 0.0,
        }
        assert AdaRound(preset="brecq", **given).settings() == given

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"preset": "qdrop"}, "preset must be one of paper, aimet, brecq"),
            ({"steps": -1}, "steps must be at least 1"),
            ({"rate": -1e-3}, "rate must be positive"),
            ({"rate": math.nan}, "rate must be positive"),
            ({"batch": -1}, "batch must be at least 1"),
            ({"regularisation": -0.5}, "regularisation must be 0 or more"),
            ({"beta_end": 1.0}, "beta must fall and stay above 1"),
            ({"beta_start": 1.5}, "beta must fall and stay above 1"),
            ({"schedule": "step"}, "schedule must be cosine or linear"),
            ({"warm_up": 1.0}, r"warm_up must lie in \[0, 1\)"),
            ({"warm_up": -0.5}, r"warm_up must lie in \[0, 1\)"),
            ({"device": ""}, "device must be cpu or a device of torch"),
        ],
    )
    def test_are_checked(self, options, message):
        with pytest.raises(InputError, match=f"solver adaround: {message}"):
            AdaRound(**options)
