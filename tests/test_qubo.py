"""`QuboBatch`: what it accepts, what it means, and the way to dimod and back."""

from __future__ import annotations

from dataclasses import replace

import dimod
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.errors import InputError
from solvers.qubo import QuboBatch
from solvers.testing import brute_force, example_batch, reference_energies

pytestmark = pytest.mark.arithmetic

few = settings(max_examples=40, deadline=None)


def all_states(n: int) -> np.ndarray:
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.uint8)


def all_energies(qubo: QuboBatch) -> np.ndarray:
    """Energies [R, 2^n] by the project's kernel."""
    states = np.broadcast_to(all_states(qubo.n), (qubo.rows, 2**qubo.n, qubo.n))
    return qubo.energies(states)


@st.composite
def batches(draw: st.DrawFn) -> QuboBatch:
    rows, n = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    shape = draw(st.sampled_from([(rows, 1), (rows, n)]))
    scale = rng.uniform(0.1, 4, shape)
    qubo = example_batch(rows, n, seed, draw(st.booleans()), scale)
    if draw(st.booleans()):
        qubo = replace(qubo, fixed=rng.integers(-1, 2, (rows, n), np.int8))
    return qubo


def close(found: np.ndarray, expected: np.ndarray) -> None:
    atol = 1e-9 * (1 + np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


class TestInvariances:
    """Rewritings of a model that must not change it."""

    @few
    @given(batches(), st.floats(-100, 100))
    def test_constant(self, qubo, k):
        moved = replace(qubo, offset=qubo.offset + k)
        close(all_energies(moved), all_energies(qubo) + k)
        np.testing.assert_array_equal(brute_force(moved)[0], brute_force(qubo)[0])

    @few
    @given(batches(), st.floats(0.01, 100))
    def test_factor(self, qubo, a):
        times = replace(
            qubo, H=a * qubo.H, linear=a * qubo.linear, offset=a * qubo.offset
        )
        close(all_energies(times), a * all_energies(qubo))
        close(brute_force(times)[1], a * brute_force(qubo)[1])

    @few
    @given(batches(), st.floats(0.01, 100))
    def test_factor_moved_from_scale_to_matrix(self, qubo, a):
        moved = replace(qubo, H=qubo.H / a**2, scale=a * qubo.scale)
        close(all_energies(moved), all_energies(qubo))

    @few
    @given(batches(), st.randoms(use_true_random=False))
    def test_permutation(self, qubo, random):
        p = random.sample(range(qubo.n), qubo.n)
        permuted = replace(
            qubo,
            H=qubo.H[np.ix_(p, p)],
            linear=qubo.linear[:, p],
            scale=qubo.full_scale()[:, p],
            prior=qubo.prior[:, p],
            fixed=None if qubo.fixed is None else qubo.fixed[:, p],
        )
        states = np.broadcast_to(all_states(qubo.n), (qubo.rows, 2**qubo.n, qubo.n))
        close(permuted.energies(states[:, :, p]), qubo.energies(states))
        close(brute_force(permuted)[1], brute_force(qubo)[1])

    @few
    @given(batches())
    def test_complement(self, qubo):
        """Put 1 - x in the place of x."""
        s = qubo.full_scale()
        pull = 2 * s * (s @ qubo.H)
        turned = replace(
            qubo,
            linear=-qubo.linear - pull,
            offset=qubo.offset + qubo.linear.sum(axis=1) + pull.sum(axis=1) / 2,
            prior=1 - qubo.prior,
            fixed=None
            if qubo.fixed is None
            else np.where(qubo.fixed < 0, qubo.fixed, 1 - qubo.fixed),
        )
        close(all_energies(turned)[:, ::-1], all_energies(qubo))
        close(brute_force(turned)[1], brute_force(qubo)[1])

    @few
    @given(batches())
    def test_linear_folded_into_the_diagonal(self, qubo):
        s = qubo.full_scale()
        for r in range(qubo.rows):
            Q = s[r][:, None] * qubo.H * s[r] + np.diag(qubo.linear[r])
            folded = QuboBatch.from_matrix(Q, offset=qubo.offset[r])
            close(all_energies(folded), all_energies(qubo.take([r])))


class TestFromMatrix:
    @few
    @given(st.integers(1, 6), st.integers(0, 2**32))
    def test_any_triangle_means_the_same(self, n, seed):
        Q = np.random.default_rng(seed).normal(size=(n, n))
        expected = np.array([x @ Q @ x for x in all_states(n).astype(float)])
        upper = np.triu(Q) + np.triu(Q.T, 1)
        for form in (Q, upper, upper.T):
            close(all_energies(QuboBatch.from_matrix(form))[0], expected)

    def test_rows_share_the_matrix(self):
        qubo = QuboBatch.from_matrix(np.eye(2), [[0, 0], [1, -5]], [3, 4])
        np.testing.assert_array_equal(all_energies(qubo), [[3, 4, 4, 5], [4, 6, 0, 2]])
        np.testing.assert_array_equal(qubo.prior, 0.5)
        np.testing.assert_array_equal(qubo.nearest(), 0)

    def test_keeps_float32(self):
        assert QuboBatch.from_matrix(np.eye(2, dtype=np.float32)).H.dtype == np.float32
        assert QuboBatch.from_matrix(np.eye(2, dtype=int)).H.dtype == np.float64

    @pytest.mark.parametrize("Q", [np.ones((2, 3)), np.ones(4), 1.0])
    def test_refuses_what_is_not_square(self, Q):
        with pytest.raises(InputError, match="Q must be a square matrix, not of shape"):
            QuboBatch.from_matrix(Q)

    def test_refuses_another_width(self):
        with pytest.raises(InputError, match=r"linear must have shape \[R, 2\]"):
            QuboBatch.from_matrix(np.eye(2), [1, 2, 3])

    def test_refuses_other_offsets(self):
        with pytest.raises(InputError, match="offset must have shape"):
            QuboBatch.from_matrix(np.eye(2), np.zeros((2, 2)), [1, 2, 3])


def random_bqm(vartype: dimod.Vartype, seed: int) -> dimod.BinaryQuadraticModel:
    rng = np.random.default_rng(seed)
    names = ["a", 7, ("t", 1), "z", 0]
    bqm = dimod.BinaryQuadraticModel(vartype)
    for i, name in enumerate(names):
        bqm.add_variable(name, rng.normal())
        for other in names[:i]:
            if rng.random() < 0.6:
                bqm.add_quadratic(name, other, rng.normal())
    bqm.offset = rng.normal()
    return bqm


class TestDimod:
    @pytest.mark.parametrize("vartype", [dimod.BINARY, dimod.SPIN])
    @pytest.mark.parametrize("seed", range(4))
    def test_from_bqm(self, vartype, seed):
        bqm = random_bqm(vartype, seed)
        qubo = QuboBatch.from_bqm(bqm)
        states = all_states(5)
        values = states if vartype is dimod.BINARY else 2 * states.astype(np.int8) - 1
        expected = bqm.energies((values, list(bqm.variables)))
        close(all_energies(qubo)[0], expected)
        assert bqm.vartype is vartype

    @pytest.mark.parametrize("seed", range(4))
    def test_round_trip(self, seed):
        qubo = QuboBatch.from_bqm(random_bqm(dimod.BINARY, seed))
        back = QuboBatch.from_bqm(qubo.to_bqm())
        close(all_energies(back), all_energies(qubo))

    @few
    @given(batches())
    def test_to_bqm(self, qubo):
        """Every row, with its pinned variables folded away."""
        for r in range(qubo.rows):
            bqm = qubo.to_bqm(r)
            free = np.flatnonzero(qubo.free(r))
            assert list(bqm.variables) == free.tolist()
            row = qubo.take([r])
            states = np.zeros((2 ** len(free), qubo.n), np.uint8)
            states[:, free] = all_states(len(free))
            states = row.pin(states)
            expected = reference_energies(row, states[None])[0]
            if len(free):
                found = bqm.energies((states[:, free], free.tolist()))
            else:
                found = np.array([bqm.offset])
            close(np.asarray(found), expected)

    def test_to_bqm_in_float32(self):
        qubo = example_batch(1, 5)
        low = replace(qubo, H=qubo.H.astype(np.float32))
        energies = low.to_bqm().energies((all_states(5), range(5)))
        close(energies, reference_energies(low, all_states(5)[None])[0])

    def test_a_variable_without_bias_stays(self):
        assert list(QuboBatch.from_matrix(np.diag([0.0, 1])).to_bqm().variables) == [
            0,
            1,
        ]

    def test_empty(self):
        qubo = QuboBatch.from_bqm(dimod.BinaryQuadraticModel({}, {}, 2.5, "BINARY"))
        assert qubo.n == 0
        assert qubo.energies(np.zeros((1, 0))) == [2.5]


class TestRows:
    def test_take(self):
        qubo = replace(
            example_batch(4, 3, scale=np.arange(1.0, 5)[:, None]),
            fixed=np.random.default_rng(0).integers(-1, 2, (4, 3), np.int8),
        )
        for rows in (slice(1, 3), [2, 0], np.array([3])):
            part = qubo.take(rows)
            close(all_energies(part), all_energies(qubo)[rows])
            np.testing.assert_array_equal(part.prior, qubo.prior[rows])
            np.testing.assert_array_equal(part.fixed, qubo.fixed[rows])
            assert part.H is qubo.H
        assert replace(qubo, fixed=None).take([1]).fixed is None
        with pytest.raises(InputError, match="take needs at least one row"):
            qubo.take([])

    def test_take_cuts_the_levels(self):
        levels = np.arange(1, 7) * np.array([[[-1]], [[1]]])
        qubo = replace(example_batch(3, 2), levels=levels.reshape(2, 3, 2))
        part = qubo.take([2, 0])
        np.testing.assert_array_equal(part.levels, qubo.levels[:, [2, 0]])
        assert part.levels.flags.c_contiguous

    def test_pin(self):
        qubo = replace(example_batch(2, 3), fixed=[[-1, 0, 1], [1, -1, -1]])
        pinned = qubo.pin(np.array([[1, 1, 0], [0, 0, 1]], np.uint8))
        np.testing.assert_array_equal(pinned, [[1, 0, 1], [1, 0, 1]])
        assert pinned.dtype == np.uint8
        np.testing.assert_array_equal(qubo.free(0), [True, False, False])
        np.testing.assert_array_equal(example_batch(1, 2).free(0), [True, True])

    def test_prior_and_nearest(self):
        qubo = replace(example_batch(1, 3), fixed=[[-1, 0, 1]])
        np.testing.assert_array_equal(qubo.prior[0, 1:], [0, 1])
        np.testing.assert_array_equal(qubo.nearest()[0, 1:], [0, 1])
        qubo = replace(example_batch(1, 4), prior=[[0.0, 0.5, 0.500001, 1.0]])
        np.testing.assert_array_equal(qubo.nearest(), [[0, 0, 1, 1]])

    @pytest.mark.parametrize("shape", [(3,), (2, 2), (3, 3), (1, 3), (2, 1, 1, 3)])
    def test_energies_of_another_shape(self, shape):
        with pytest.raises(InputError, match=r"states must have shape \(2, 3\) or"):
            example_batch(2, 3).energies(np.zeros(shape))


GOOD = {
    "H": np.eye(3),
    "linear": np.zeros((2, 3)),
    "offset": np.zeros(2),
    "scale": np.ones((2, 1)),
    "prior": np.full((2, 3), 0.5),
    "fixed": np.full((2, 3), -1),
}


def with_value(name: str, place: tuple[int, ...], value: float) -> np.ndarray:
    array = GOOD[name].copy()
    array[place] = value
    return array


class TestValidation:
    def test_good(self):
        qubo = QuboBatch(**GOOD)
        assert qubo.fixed is not None
        assert qubo.fixed.dtype == np.int8

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("H", np.ones((2, 3)), r"H must be a square matrix, not of shape \(2, 3\)"),
            ("H", np.ones(3), "H must be a square matrix"),
            (
                "linear",
                np.zeros((2, 4)),
                r"linear must have shape \[R, 3\] with R >= 1",
            ),
            ("linear", np.zeros(3), r"linear must have shape \[R, 3\]"),
            ("linear", np.zeros((0, 3)), r"linear must have shape .* not \(0, 3\)"),
            ("offset", np.zeros(3), r"offset must have shape \(2,\), not \(3,\)"),
            ("scale", np.ones(2), r"scale must have shape \(2, 1\) or \(2, 3\)"),
            ("prior", np.zeros((2, 1)), r"prior must have shape \(2, 3\)"),
            ("fixed", np.zeros((2, 1)), r"fixed must have shape \(2, 3\)"),
            ("H", with_value("H", (1, 2), np.nan), r"H\[1, 2\] is nan; .* finite"),
            ("H", with_value("H", (2, 0), np.inf), r"H\[2, 0\] is inf"),
            ("linear", with_value("linear", (1, 0), np.nan), r"linear\[1, 0\] is nan"),
            ("offset", with_value("offset", (1,), -np.inf), r"offset\[1\] is -inf"),
            ("scale", with_value("scale", (1, 0), np.nan), r"scale\[1, 0\] is nan"),
            ("prior", with_value("prior", (0, 2), np.inf), r"prior\[0, 2\] is inf"),
            ("H", with_value("H", (0, 2), 0.5), r"not symmetric: H\[0, 2\] = 0.5 but"),
            (
                "scale",
                with_value("scale", (1, 0), 0),
                "scale must be positive; its min",
            ),
            ("scale", with_value("scale", (1, 0), -2), "its minimum is -2"),
            ("prior", with_value("prior", (0, 0), 1.5), r"prior must lie in \[0, 1\]"),
            ("prior", with_value("prior", (0, 0), -0.1), r"it spans \[-0.1, 0.5\]"),
            (
                "fixed",
                with_value("fixed", (0, 0), 2),
                r"fixed\[0, 0\] is 2; it must be a whole number from -1 to 1",
            ),
        ],
    )
    def test_refused(self, name, value, message):
        with pytest.raises(InputError, match=message) as caught:
            QuboBatch(**{**GOOD, name: value})
        assert "\n" not in str(caught.value)

    def test_infinities_of_both_signs(self):
        linear = with_value("linear", (0, 0), np.inf)
        linear[1, 1] = -np.inf
        with pytest.raises(InputError, match=r"linear\[0, 0\] is inf"):
            QuboBatch(**{**GOOD, "linear": linear})

    def test_large_finite_numbers_pass(self):
        assert QuboBatch(**{**GOOD, "linear": np.full((2, 3), 1e308)}).n == 3

    def test_asymmetry_far_from_the_diagonal(self):
        """The check goes through the matrix in stripes."""
        H = np.eye(600)
        H[10, 590] = 1e-3
        with pytest.raises(InputError, match=r"H\[10, 590\] = 0.001 but H\[590, 10\]"):
            QuboBatch(H, np.zeros((1, 600)), [0], [[1]], np.zeros((1, 600)))

    def test_asymmetry_of_rounding_is_evened_out(self):
        """What passes for symmetric must mean ``x^T H x`` to the last digits."""
        H = np.array([[1, -1], [-1 + 9e-7, 1]])
        qubo = QuboBatch(H, np.zeros((1, 2)), [0], [[1]], np.full((1, 2), 0.5))
        assert qubo.energies([[1, 1]])[0] == pytest.approx(H.sum(), rel=1e-6)

    @pytest.mark.parametrize("value", [256, 0.5])
    def test_fixed_is_not_cast_blindly(self, value):
        fixed = np.full((2, 3), -1.0 if value == 0.5 else -1)
        fixed[0, 0] = value
        with pytest.raises(InputError, match=rf"fixed\[0, 0\] is {value}; .* -1 to 1"):
            QuboBatch(**{**GOOD, "fixed": fixed})
