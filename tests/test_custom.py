"""`solve` on everything that it reads."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace

import dimod
import numpy as np
import psutil
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import solvers
from solvers import InputError, QuboBatch, Solution, parse_solver, solve
from solvers.flips.annealing import SimulatedAnnealing
from solvers.io.solve import DEFAULT_SOLVER
from solvers.testing import brute_force, example_batch

rng = np.random.default_rng(4)
Q = rng.normal(size=(7, 7))
C = rng.normal(size=7)
LABELS = ("a", 3, ("x", 1), 2.5, frozenset({1}), (), b"z")


def lowest(Q, linear, offset=0.0):
    """By enumeration, straight from the definition."""
    states = np.array(list(itertools.product((0, 1), repeat=len(Q))))
    return (((states @ Q) * states).sum(1) + states @ linear).min() + offset


def check(found, Q, linear=None, offset=0.0):
    linear = np.zeros(len(Q)) if linear is None else linear
    x = found.states[0].astype(float)
    assert found.states.dtype == np.uint8
    assert found.energies[0] == pytest.approx(x @ Q @ x + linear @ x + offset)
    assert found.energies[0] == pytest.approx(lowest(Q, linear, offset))


class TestMatrices:
    @pytest.mark.parametrize(
        "form",
        [
            np.array,
            np.ndarray.tolist,
            np.asfortranarray,
            scipy.sparse.coo_matrix,
            scipy.sparse.csr_array,
            scipy.sparse.dok_matrix,
        ],
    )
    @pytest.mark.parametrize("shape", [np.array, np.triu, np.tril])
    def test_every_form(self, form, shape):
        check(solve(form(shape(Q)), C, 2.5), shape(Q), C, 2.5)

    def test_whole_numbers_and_float32(self):
        whole = np.round(10 * Q).astype(np.int16)
        check(solve(whole), whole.astype(float))
        assert solve(Q.astype(np.float32)).energies[0] == pytest.approx(
            lowest(Q, 0 * C)
        )

    def test_repeated_entries_of_a_sparse_matrix_add_up(self):
        twice = scipy.sparse.coo_array(([-1.0, -2.0], ([0, 0], [1, 1])), (2, 2))
        assert solve(twice).energies == [-3.0]

    def test_many_problems_with_one_matrix(self):
        linear, offset = rng.normal(size=(5, 7)), np.arange(5.0)
        found = solve(Q, linear, offset)
        wanted = [lowest(Q, linear[r], offset[r]) for r in range(5)]
        np.testing.assert_allclose(found.energies, wanted)

    def test_a_batch_as_it_is(self):
        batch = replace(example_batch(3, 8), fixed=rng.integers(-1, 2, (3, 8)))
        found = solve(batch)
        np.testing.assert_allclose(found.energies, brute_force(batch)[1], atol=1e-9)
        assert (batch.pin(found.states) == found.states).all()

    def test_no_variables(self):
        for nothing in (np.zeros((0, 0)), {}, scipy.sparse.csr_array((0, 0))):
            found = solve(nothing, offset=1.5)
            assert found.states.shape == (1, 0)
            assert found.energies == [1.5]


class TestDicts:
    def test_labels_in_order_of_appearance(self):
        pairs = itertools.product(range(7), repeat=2)
        weights = {(LABELS[i], LABELS[j]): Q[i, j] for i, j in pairs}
        found = solve(weights, C, 1.0)
        check(found, Q, C, 1.0)
        assert found.variables == LABELS

    def test_weights_of_both_orders_add_up(self):
        assert solve({("a", "b"): -1, ("b", "a"): -2}).energies == [-3]

    def test_linear_by_label(self):
        found = solve({("a", "b"): 2}, {"b": -1, "lonely": -4}, 0.5)
        assert found.variables == ("a", "b", "lonely")
        assert found.states.tolist() == [[0, 1, 1]]
        assert found.energies == [-4.5]

    def test_any_mapping_of_any_real_numbers(self):
        found = solve(OrderedDict({(1, 1): Fraction(-1, 2), (1, 0): np.float32(-1)}))
        assert found.energies == [-1.5]


class TestModels:
    @pytest.mark.parametrize("vartype", ["BINARY", "SPIN"])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64, object])
    def test_labels_values_and_energies_are_the_callers(self, vartype, dtype):
        bqm = dimod.BinaryQuadraticModel(vartype, dtype=dtype)
        bqm.offset = 2.5
        for label, bias in zip(LABELS, C, strict=True):
            bqm.add_variable(label, float(bias))
        for i, j in itertools.combinations(range(7), 2):
            bqm.add_interaction(LABELS[i], LABELS[j], float(Q[i, j]))
        found = solve(bqm)
        assert found.variables == LABELS
        samples = found.to_sampleset()
        assert samples.vartype is bqm.vartype
        assert tuple(samples.variables) == LABELS
        dimod.testing.assert_sampleset_energies(samples, bqm, precision=4)
        best = dimod.ExactSolver().sample(bqm).first
        assert samples.first.energy == pytest.approx(best.energy, rel=1e-6)
        np.testing.assert_array_equal(
            found.states[0], [samples.first.sample[v] > 0 for v in LABELS]
        )

    def test_row_of_a_sampleset(self):
        found = solve(np.zeros((2, 2)), [[-1, -1], [1, -1], [1, 1]], [0, 0, 7])
        assert found.to_sampleset().first.sample == {0: 1, 1: 1}
        second = found.to_sampleset(1)
        assert second.first.sample == {0: 0, 1: 1}
        assert second.first.energy == -1
        assert second.info["status"] == "done"
        assert found.to_sampleset(row=2).first.energy == 7

    def test_states_that_are_no_samples(self):
        zero = np.zeros(1)
        states = np.array([[2, 0]], np.int16)
        found = Solution(states, zero, "done", {}, (zero, zero[None]))
        with pytest.raises(InputError, match="states may hold only 0 and 1"):
            found.to_sampleset()


class TestHow:
    def test_solver_by_text_or_instance(self):
        by_text = solve(Q, solver="sa[num_sweeps=20]", seed=3)
        instance = solve(Q, solver=SimulatedAnnealing(num_sweeps=20), seed=3)
        assert by_text.info == instance.info
        assert by_text.info["sweeps"] == 20

    def test_default(self):
        default = parse_solver(DEFAULT_SOLVER)
        np.testing.assert_array_equal(
            solve(Q).states, default.solve(QuboBatch.from_matrix(Q)).states
        )

    def test_limits_reach_the_solver(self):
        assert solve(Q, solver="sa", sweeps=7).info["sweeps"] == 7
        endless = "stochastic[samples=1000000000]"
        assert solve(Q, solver=endless, seconds=0.01).status == "time"
        assert solve(Q, solver="sa", target=1e9).status == "target"

    def test_seed_and_threads(self):
        batch = example_batch(6, 30)
        hasty = {"solver": "stochastic[samples=1]"}
        one, two = (solve(batch, seed=s, **hasty).states for s in (1, 2))
        assert not np.array_equal(one, two)
        np.testing.assert_array_equal(
            one, solve(batch, seed=1, threads=3, **hasty).states
        )

    @pytest.mark.parametrize("vartype", ["BINARY", "SPIN"])
    def test_initial(self, vartype):
        """A flat problem keeps its start, whatever it is given as."""
        bqm = dimod.BinaryQuadraticModel({"b": 0, "a": 0, "c": 0}, {}, 0, vartype)
        low = 0 if vartype == "BINARY" else -1
        start = {"a": 1, "c": low, "b": low}
        for initial in (start, [low, 1, low], np.array([[low, 1, low]], float)):
            found = solve(bqm, initial=initial, solver="descent")
            assert found.states.tolist() == [[0, 1, 0]]
            assert found.to_sampleset().first.sample == start

    def test_one_initial_state_for_all_rows(self):
        flat = np.zeros((3, 3))
        for initial in ([1, 0, 1], {2: 1, 0: 1, 1: 0}, [[1, 0, 1]] * 4):
            found = solve(flat, np.zeros((4, 3)), initial=initial, solver="descent")
            assert found.states.tolist() == [[1, 0, 1]] * 4


weights = st.floats(-1e6, 1e6, allow_subnormal=False)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.tuples(*[st.sampled_from("abcd")] * 2), weights), weights)
def test_a_dict_means_what_dimod_reads_in_it(weights, offset):
    found = solve(weights, offset=offset, solver="stochastic[samples=2]")
    bqm = dimod.BinaryQuadraticModel.from_qubo(weights, offset)
    sample = dict(zip(found.variables, found.states[0], strict=True))
    size = abs(offset) + sum(map(abs, weights.values()))
    assert found.energies[0] == pytest.approx(bqm.energy(sample), abs=1e-9 * size)


def holed(value):
    matrix = Q.copy()
    matrix[1, 2] = value
    return matrix


SPIN = dimod.BinaryQuadraticModel({"a": 1.0}, {}, 0.0, "SPIN")


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((holed(np.nan),), r"Q\[1, 2\] is nan; it must be finite"),
        ((scipy.sparse.csr_array(holed(np.inf)),), r"Q\[1, 2\] is inf"),
        ((Q[:3],), r"Q must be a square matrix, not of shape \(3, 7\)"),
        ((scipy.sparse.csr_array(Q[:3]),), r"square matrix, not of shape \(3, 7\)"),
        ((scipy.sparse.coo_array(C),), r"square matrix, not of shape \(7,\)"),
        (([1.0, 2.0],), r"Q must be a square matrix, not of shape \(2,\)"),
        (([[1.0, 2.0], [3.0]],), "Q must be real numbers in a regular array"),
        ((Q + 1j,), "Q must be real numbers"),
        ((scipy.sparse.csr_array(Q * 1j),), "Q must be real numbers"),
        ((None,), "cannot read a problem from NoneType; give a matrix, a dict"),
        ((3.5,), "cannot read a problem from float"),
        (({1, 2},), "cannot read a problem from set"),
        ((dimod.ConstrainedQuadraticModel(),), "from ConstrainedQuadraticModel"),
        (("matrix",), "Q must be real numbers"),
        ((Q, C[:3]), r"linear must have shape \[R, 7\]"),
        ((Q, [np.inf] * 7), r"linear\[0\] is inf"),
        ((Q, {0: 1.0}), "linear may be a dict only where Q is one"),
        ((Q, C, [1.0, 2.0]), r"offset must have shape \(1,\), not \(2,\)"),
        ((Q, C, np.nan), "offset is nan"),
        (({"ab": 1.0},), r"keys of Q must be pairs \(i, j\), not 'ab'"),
        (({("a", "b", "c"): 1.0},), r"must be pairs .* not \('a', 'b', 'c'\)"),
        (({3: 1.0},), "must be pairs .* not 3"),
        (({("a", "b"): np.nan},), r"Q\[\('a', 'b'\)\] is nan; it must be a finite"),
        (({("a", "b"): 1j},), r"Q\[\('a', 'b'\)\] is 1j"),
        (({("a", "b"): "1"},), r"Q\[\('a', 'b'\)\] is '1'; .* finite real number"),
        (({("a", "b"): None},), r"is None"),
        (({("a", "b"): Decimal(1)},), r"is Decimal\('1'\)"),
        (({("a", "b"): 10**400},), r"is 1000.*; it must be a finite real number"),
        (({("a", "b"): 1e308, ("b", "a"): 1e308},), r"\[0, 1\] is inf"),
        (({("a", "b"): np.eye(30)},), r"is array.*…; it must be a finite"),
        (({("a", "a"): 1.0}, {"b": np.inf}), r"linear\['b'\] is inf"),
        (({("a", "a"): 1.0}, [1.0, 2.0]), r"linear must have shape \[R, 1\]"),
        ((SPIN, [1.0]), "a BinaryQuadraticModel has linear terms and an offset of"),
        ((example_batch(1, 2), None, 3.0), "a QuboBatch has linear terms and an off"),
        (
            (dimod.BinaryQuadraticModel({"a": np.nan}, {}, 0, "BINARY"),),
            r"linear\[0\] is nan",
        ),
    ],
)
def test_problems_refused(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        solve(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "tabou"}, "unknown solver 'tabou'"),
        ({"solver": SimulatedAnnealing}, "solver must be a text such as 'sa"),
        ({"solver": None}, "or an instance of Solver, not None"),
        ({"seed": -1}, "seed must be a whole number from 0, not -1"),
        ({"seconds": 0}, "seconds must be positive"),
        ({"sweeps": 0}, "sweeps must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"target": np.nan}, "target must be a number"),
        ({"initial": [1, -1]}, r"initial must have shape \(1, 1\), not \(1, 2\)"),
        ({"initial": [0]}, r"initial may hold only -1 and \+1 for a SPIN model"),
        ({"initial": [np.nan]}, "initial may hold only -1"),
        ({"initial": ["up"]}, "initial must be real numbers .* not of dtype <U2"),
        ({"initial": [[1], [1, 1]]}, "initial must be real numbers in a regular array"),
        ({"initial": {}}, "initial has no value for variable 'a'"),
        ({"initial": {"a": 1, "b": 1}}, "initial has a value for 'b', which is no"),
    ],
)
def test_options_refused(options, message):
    with pytest.raises(InputError, match=message) as caught:
        solve(SPIN, **options)
    assert "\n" not in str(caught.value)


def test_binary_initial_states_refused():
    with pytest.raises(InputError, match="initial may hold only 0 and 1"):
        solve(Q, initial=[-1] * 7)


class TestMemory:
    HUGE = 3_000_000

    @pytest.mark.parametrize(
        "problem",
        [
            scipy.sparse.coo_array((HUGE, HUGE)),
            scipy.sparse.eye_array(HUGE, format="csr"),
        ],
    )
    def test_huge_sparse_matrix(self, problem):
        with pytest.raises(
            InputError, match=r"3000000 variables as a dense matrix need \d+\.\d GiB"
        ):
            solve(problem)

    def test_little_memory(self, monkeypatch):
        monkeypatch.setattr(
            psutil, "virtual_memory", lambda: SimpleNamespace(available=7 * 7 * 32)
        )
        bqm = dimod.BinaryQuadraticModel.from_qubo({(i, i): 1 for i in range(8)})
        for fits in (scipy.sparse.csr_array(Q), {(i, i): 1.0 for i in range(7)}):
            assert solve(fits, sweeps=1).states.shape == (1, 7)
        for problem in (scipy.sparse.eye_array(8), {(0, i): 1 for i in range(8)}, bqm):
            with pytest.raises(
                InputError, match=r"8 variables as a dense matrix need 0.0 GiB"
            ):
                solve(problem)


def test_exported():
    for name in ("solve", "as_sampler", "read_qubo", "write_qubo"):
        assert name in solvers.__all__
        assert callable(getattr(solvers, name))
