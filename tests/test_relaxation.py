"""What relaxations share: h(V), schedules, gradients, precision, limits of time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.base import Task
from solvers.budget import Budget, Monitor
from solvers.kernels import relaxation as kernels
from solvers.qubo import QuboBatch
from solvers.relaxations.adam import (
    Quadratic,
    Relaxation,
    origin,
    padded,
    relax,
    relaxed_energies,
    typical_curvature,
    zeros_like,
)
from solvers.testing import brute_force, example_batch, reference_energies
from tests.cases import make

pytestmark = pytest.mark.arithmetic


def how(rows: int = 1, **options) -> Relaxation:
    options = {"steps": 100, "rate": 0.01, "weight": np.full(rows, 0.3)} | options
    return Relaxation(**options)


def task(qubo: QuboBatch, initial=None, **budget) -> Task:
    start = qubo.nearest() if initial is None else initial
    monitor, limits = Monitor(), Budget(**budget)
    monitor.start(limits, qubo.energies(start))
    return Task(qubo, start, initial is not None, 0, limits, monitor, {})


def soften(V: np.ndarray, relaxation: Relaxation, temperature: float = 1.0):
    """The kernel's h and derivative at V [n]."""
    V = padded(V[None])
    h, slope, y = (zeros_like(V) for _ in range(3))
    span, low = np.float32(relaxation.span), np.float32(relaxation.low)
    kernels.soften(V, 0, np.float32(1 / temperature), low, span, y, y, h, slope, y)
    return h[0], slope[0]


class TestSoftening:
    def test_start(self):
        """The values of AIMET's tests and of the paper's formula."""
        V = how().start(np.array([0.0, 0.25, 0.5, 0.999]))
        np.testing.assert_allclose(V, [-2.3979, -0.8873, 0, 2.3870], atol=5e-5)

    @pytest.mark.parametrize("rectified", [True, False])
    @pytest.mark.parametrize("hot", [1.0, 0.2])
    def test_starts_where_h_is_the_prior(self, rectified, hot):
        relaxation = how(rectified=rectified, hot=hot, cold=0.1)
        t = np.linspace(0.02, 0.98, 49)
        h, _ = soften(relaxation.start(t), relaxation, hot)
        np.testing.assert_allclose(h[:49], t, atol=3e-7)

    @pytest.mark.parametrize("rectified", [True, False])
    def test_weights_on_the_grid_can_move(self, rectified):
        """At the border itself rounding decides whether the derivative is 0."""
        relaxation = how(rectified=rectified)
        h, slope = soften(relaxation.start(np.array([0.0, 1.0])), relaxation)
        np.testing.assert_allclose(h[:2], [0, 1], atol=0.011)
        assert (slope[:2] > 0.009).all()

    @pytest.mark.parametrize("rectified", [True, False])
    @pytest.mark.parametrize("temperature", [1.0, 0.1])
    def test_derivative(self, rectified, temperature):
        relaxation = how(rectified=rectified)
        V = temperature * np.linspace(-2.2, 2.2, 41)
        _, slope = soften(V, relaxation, temperature)
        step = 1e-2 * temperature
        sides = [soften(V + d, relaxation, temperature)[0] for d in (step, -step)]
        expected = (sides[0] - sides[1])[:41] / (2 * step)
        np.testing.assert_allclose(slope[:41], expected, rtol=1e-3)

    def test_rectified_reaches_the_ends(self):
        h, slope = soften(np.array([-2.4, -30.0, 2.4, 300.0]), how())
        np.testing.assert_array_equal(h[:4], [0, 0, 1, 1])
        np.testing.assert_array_equal(slope[:4], 0)

    def test_elementary_functions(self):
        x = np.linspace(-120, 120, 4001).astype(np.float32)
        exp2 = np.array([kernels.exp2(v) for v in x], np.float64)
        np.testing.assert_allclose(exp2, np.exp2(x.astype(float)), rtol=1e-6)
        positive = np.exp2(x.astype(float)).astype(np.float32)
        log2 = np.array([kernels.log2(v) for v in positive])
        np.testing.assert_allclose(log2, np.log2(positive.astype(float)), atol=1e-5)


class TestSchedule:
    def test_beta_is_aimets(self):
        """AIMET's test of step 8000 of 10 000; BRECQ's line."""
        assert how().beta(np.array(0.8)) == pytest.approx(4.636038969321072, abs=1e-12)
        assert how(cosine=False).beta(np.array(0.8)) == pytest.approx(6.5)

    @pytest.mark.parametrize("cosine", [True, False])
    def test_beta_ends(self, cosine):
        beta = how(cosine=cosine, warm_up=0.4).beta(np.array([0, 0.4, 1.0]))
        np.testing.assert_allclose(beta, [20, 20, 2])

    def test_regularisation(self):
        h = np.array([[0.0, 0.5, 1.0, 0.75]])
        relaxation = how(weight=np.array([2.0]))
        assert relaxation.regularisation(h, 0.1) == 0
        beta = relaxation.beta(np.array(0.6))
        expected = 2 * (1 + 1 - 0.5**beta)
        assert relaxation.regularisation(h, 0.6) == pytest.approx(expected)

    def test_regularisation_is_aimets(self):
        """Their random V, 0.01 for weight, step 8000 of 10 000."""
        V = np.random.RandomState(0).rand(432)
        relaxation = how(weight=np.array([0.01]))
        h = soften(V, relaxation)[0][None, :432].astype(float)
        found = relaxation.regularisation(h, 0.8)
        assert found == pytest.approx(4.266157, abs=2e-6)

    def test_temperature(self):
        relaxation = how(hot=1.0, cold=0.01)
        found = relaxation.temperature(np.array([0, 0.5, 1.0]))
        np.testing.assert_allclose(found, [1, 0.1, 0.01])

    @pytest.mark.parametrize(
        ("rate", "steps", "expected"),
        [(1e-3, 10_000, 1e-3), (1e-3, 1000, 1e-2), (0.1, 100, 1.0), (5.0, 100, 5.0)],
    )
    def test_fewer_steps_are_longer(self, rate, steps, expected):
        relaxation = how(steps=10_000, rate=rate)
        plan = relaxation.plan(np.zeros(1), 1 / steps, 10**6)
        assert plan[0, 0] == pytest.approx(expected)


class TestGradient:
    @settings(max_examples=30, deadline=None)
    @given(
        rows=st.integers(1, 20),
        n=st.integers(1, 35),
        seed=st.integers(0, 9),
        float32=st.booleans(),
    )
    def test_of_the_quadratic_form(self, rows, n, seed, float32):
        qubo = make(rows, n, seed, np.float32 if float32 else np.float64)
        x = np.random.default_rng(seed).random((rows, n))
        found, scale = np.empty_like(x), qubo.full_scale()
        kernels.gradients(qubo.H, scale, qubo.linear, x, found)
        expected = 2 * scale * ((scale * x) @ qubo.H) + qubo.linear
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)

    @pytest.mark.parametrize("rectified", [True, False])
    def test_of_the_whole_loss(self, rectified):
        """One step from moments of 0 leaves the gradient in m."""
        qubo = replace(make(5, 9), fixed=None)
        relaxation = how(5, rectified=rectified, warm_up=0.0, weight=np.full(5, 2.0))
        unit = np.linspace(1, 2, 5)
        free = qubo.free()
        form = Quadratic.at(qubo, qubo.prior, unit, free, 1)
        start = np.random.default_rng(0).normal(0, 0.8, (5, 9))
        V = padded(start)
        m, v, h, slope, y, g = (zeros_like(V) for _ in range(6))
        plan = relaxation.plan(np.array([0.7]), 0.01, 0)
        constants = form.H, np.float32(relaxation.low), np.float32(relaxation.span)
        weight = relaxation.weight.astype(np.float32)
        vectors = (V, m, v, h, slope, y, g, form.s, form.c, form.p, weight)
        kernels.relax(*constants, plan, *vectors)
        beta = float(relaxation.beta(np.array(0.7)))
        W = torch.tensor(start, requires_grad=True)
        x = (relaxation.span * torch.sigmoid(W) + relaxation.low).clamp(0, 1)
        y = torch.tensor(qubo.scale) * x
        energy = ((y @ torch.tensor(qubo.H)) * y).sum(1)
        energy = energy + (torch.tensor(qubo.linear) * x).sum(1)
        f_reg = (1 - (2 * x - 1).abs() ** beta).sum(1)
        (energy / torch.tensor(unit) + 2.0 * f_reg).sum().backward()
        expected = W.grad.numpy()
        np.testing.assert_allclose(10 * m[:, :9], expected, rtol=2e-4, atol=2e-4)
        # Adam's first step is the rate, against the gradient's sign.
        np.testing.assert_allclose(
            V[:, :9] - start, -0.01 * np.sign(expected), rtol=1e-3
        )

    def test_rounding_errors_do_not_grow_with_the_mean(self):
        """Terms that cancel 1e8 times over do so in float64."""
        rng = np.random.default_rng(0)
        x = rng.normal(1e4, 1, (200, 20))
        H = x.T @ x / 200
        t = rng.random((3, 20))
        pull = t @ H
        qubo = QuboBatch(H, -2 * pull, (t * pull).sum(axis=1), np.ones((3, 1)), t)
        form = Quadratic.at(qubo, t, np.ones(3), qubo.free(), 1)
        assert np.abs(form.c).max() < 1e-6 * np.abs(qubo.linear).max()


class TestRows:
    @pytest.mark.parametrize("n", [3, 16, 50])
    def test_bits_depend_on_no_other_row(self, n):
        qubo = make(37, n)
        unit = typical_curvature(qubo)
        relaxation = how(37, steps=150)
        states = relax(task(qubo), relaxation, unit)
        for rows in ([36], [5, 20, 1], list(range(16, 37))):
            part = replace(relaxation, weight=relaxation.weight[rows])
            alone = relax(task(qubo.take(rows)), part, unit[rows])
            np.testing.assert_array_equal(alone, states[rows])

    def test_products_have_the_same_bits_in_any_company(self):
        """States alone could hide differences that rounding happens to swallow."""
        rng = np.random.default_rng(1)
        H, y = padded(rng.normal(size=(50, 50))), padded(rng.normal(size=(21, 50)))
        whole, alone = zeros_like(y), zeros_like(y)
        kernels.product(H, y, 0, 21, whole)
        for r in range(21):
            kernels.product(H, y, r, r + 1, alone)
        np.testing.assert_array_equal(whole, alone)
        np.testing.assert_allclose(whole[:, :50], y[:, :50] @ H[:, :50].T, atol=1e-4)

    @pytest.mark.parametrize("threads", [2, 5])
    def test_bits_depend_on_no_number_of_threads(self, threads):
        qubo = make(23, 30)
        unit = typical_curvature(qubo)
        one = relax(task(qubo), how(23), unit)
        many = relax(task(qubo, threads=threads), how(23), unit)
        np.testing.assert_array_equal(one, many)


class TestPinned:
    def test_do_not_disturb(self):
        """Left in with the prior clamped, they would pull the others along."""
        qubo = example_batch(4, 12)
        pins = np.full((4, 12), -1, np.int8)
        pins[:, ::3] = [1, 0, 0, 1]
        held = replace(qubo, fixed=pins)
        job = task(held)
        states = relax(job, how(4, steps=3000), typical_curvature(held))
        np.testing.assert_array_equal(held.pin(states), states)
        # The same problem with the pinned variables taken out.
        free = np.flatnonzero(pins[0] < 0)
        on = np.where(pins < 0, 0, pins).astype(float)
        smaller = QuboBatch(
            qubo.H[np.ix_(free, free)],
            (qubo.linear + 2 * on @ qubo.H)[:, free],
            reference_energies(qubo, on.astype(np.uint8)),
            qubo.scale,
            qubo.prior[:, free],
        )
        unit = typical_curvature(held)
        np.testing.assert_allclose(typical_curvature(smaller), unit)
        alone = relax(task(smaller), how(4, steps=3000), unit)
        np.testing.assert_array_equal(states[:, free], alone)
        assert job.info["soft_fraction"] == 0


class TestAnswer:
    @pytest.mark.parametrize("rectified", [True, False])
    def test_optimal_on_easy_problems(self, rectified):
        """Nearly diagonal matrices, with a prior that points the wrong way."""
        rng = np.random.default_rng(0)
        H = np.diag(rng.uniform(1, 2, 10)) + 0.02
        t = rng.random((6, 10))
        pull = t @ H
        qubo = QuboBatch(H, -2 * pull, (t * pull).sum(axis=1), np.ones((6, 1)), 1 - t)
        job = task(qubo)
        relaxation = how(6, steps=3000, rectified=rectified)
        states = relax(job, relaxation, typical_curvature(qubo))
        np.testing.assert_array_equal(states, brute_force(qubo)[0])
        assert job.info["soft_fraction"] < 0.01

    def test_given_states_count(self):
        qubo = example_batch(2, 6)
        given = np.ones((2, 6), np.uint8)
        np.testing.assert_allclose(origin(task(qubo, given)), (qubo.prior + 1) / 2)
        np.testing.assert_array_equal(origin(task(qubo)), qubo.prior)

    def test_loss_of_relaxed_states(self):
        qubo = make(3, 8)
        states = qubo.nearest()
        found = relaxed_energies(qubo, states.astype(float))
        np.testing.assert_allclose(found, reference_energies(qubo, states))
        job = task(qubo)
        relax(job, how(3, steps=1000), typical_curvature(qubo))
        steps, errors, pushes = zip(*job.info["loss"], strict=True)
        assert steps == tuple(range(100, 1001, 100))
        assert np.isfinite(errors).all()
        # Off at first, on later, and small once states are hard.
        assert pushes[0] == 0
        assert pushes[2] > pushes[-1] >= 0

    def test_soft_ends_are_told(self):
        qubo = example_batch(3, 20)
        job = task(qubo)
        relax(job, how(3, steps=5, weight=np.zeros(3)), typical_curvature(qubo))
        assert job.info["soft_fraction"] > 0.5
        assert "are not near 0 or 1; take more steps" in job.info["warning"]

    def test_typical_curvature(self):
        qubo = make(4, 11)
        cost = qubo.scale**2 * abs(np.diag(qubo.H))
        expected = [np.median(cost[r][qubo.fixed[r] < 0]) for r in range(4)]
        np.testing.assert_allclose(typical_curvature(qubo), expected)
        zero = QuboBatch.from_matrix(np.zeros((2, 2)), [[3.0, -5.0], [0.0, 0.0]])
        np.testing.assert_allclose(typical_curvature(zero), [5, 1])
        coupled = QuboBatch.from_matrix([[0.0, 4.0], [4.0, 0.0]])
        np.testing.assert_allclose(typical_curvature(coupled), 4)
