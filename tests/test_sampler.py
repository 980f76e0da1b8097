"""Every solver behind dimod's interface."""

from __future__ import annotations

import io
import pickle
import unittest

import dimod
import dimod.testing
import numpy as np
import pytest

from solvers import InputError, QuboBatch, as_sampler, available, label, parse_solver
from solvers.registry import solver_class
from tests.clocks import Clock

SWEEPS = 3
CUSTOM = QuboBatch.from_matrix(np.eye(2))
NAMES = [name for name in available() if solver_class(name)().supports(CUSTOM) is None]
RULES = [name for name in NAMES if solver_class(name).rule]
quiet = pytest.mark.filterwarnings("ignore:All bqm biases are zero")

rng = np.random.default_rng(8)
MODEL = dimod.BinaryQuadraticModel.from_qubo(
    {(i, j): float(rng.normal()) for i in range(12) for j in range(i, 12)}, 1.5
).relabel_variables({i: f"v{i}" for i in range(12)}, inplace=False)


def rows(samples):
    """Values in the order of the model's variables, read by read."""
    order = [samples.variables.index(v) for v in MODEL.variables]
    return samples.record.sample[:, order]


@quiet
@pytest.mark.parametrize("name", NAMES)
class TestEverySolver:
    def test_dimods_own_tests(self, name):
        sampler = as_sampler(name, sweeps=SWEEPS)
        dimod.testing.assert_sampler_api(sampler)

        @dimod.testing.load_sampler_bqm_tests(sampler)
        class Generic(unittest.TestCase):
            pass

        suite = unittest.defaultTestLoader.loadTestsFromTestCase(Generic)
        log = io.StringIO()
        result = unittest.TextTestRunner(log).run(suite)
        assert result.testsRun >= 30
        assert result.wasSuccessful(), log.getvalue()

    @pytest.mark.parametrize("vartype", ["BINARY", "SPIN"])
    def test_reads(self, name, vartype):
        bqm = MODEL.change_vartype(vartype, inplace=False)
        sampler = as_sampler(name, sweeps=SWEEPS)
        samples = sampler.sample(bqm, num_reads=5, seed=11)
        assert len(samples) == 5
        assert samples.vartype is bqm.vartype
        np.testing.assert_array_equal(samples.record.num_occurrences, 1)
        dimod.testing.assert_sampleset_energies(samples, bqm)
        again = sampler.sample(bqm, num_reads=5, seed=11)
        np.testing.assert_array_equal(rows(samples), rows(again))
        two = sampler.sample(bqm, num_reads=5, seed=11, threads=2)
        np.testing.assert_array_equal(rows(samples), rows(two))

    def test_no_read_is_worse_than_its_start(self, name):
        start = rng.integers(0, 2, (4, 12))
        given = (start, list(MODEL.variables))
        found = as_sampler(name, sweeps=SWEEPS).sample(MODEL, initial_states=given)
        assert len(found) == 4
        if name not in RULES:
            assert (found.record.energy <= MODEL.energies(given) + 1e-9).all()


class TestReads:
    sampler = as_sampler("sa[num_sweeps=1,polish=none,beta_min=0.01,beta_max=0.01]")

    def test_differ_from_each_other(self):
        found = rows(self.sampler.sample(MODEL, num_reads=20, seed=1))
        assert len(np.unique(found, axis=0)) > 1

    def test_differ_where_the_start_is_the_same(self):
        """Each read has a random stream of its own."""
        sampler = as_sampler("sa[num_sweeps=3,polish=none,beta_min=.01,beta_max=.01]")
        start = dict.fromkeys(MODEL.variables, 0)
        found = sampler.sample(
            MODEL,
            initial_states=start,
            initial_states_generator="tile",
            num_reads=20,
            seed=1,
        )
        assert len(np.unique(rows(found), axis=0)) > 1

    def test_more_reads_leave_the_first_alone(self):
        three = rows(self.sampler.sample(MODEL, num_reads=3, seed=5))
        five = rows(self.sampler.sample(MODEL, num_reads=5, seed=5))
        np.testing.assert_array_equal(three, five[:3])

    def test_fresh_seeds(self):
        first, second = (self.sampler.sample(MODEL, num_reads=8) for _ in range(2))
        assert first.info["seed"] != second.info["seed"]
        assert not np.array_equal(rows(first), rows(second))
        again = self.sampler.sample(MODEL, num_reads=8, seed=first.info["seed"])
        np.testing.assert_array_equal(rows(first), rows(again))

    @pytest.mark.parametrize("seed", [0, 2**31 - 1, np.int64(5)])
    def test_seeds_at_the_ends(self, seed):
        assert self.sampler.sample(MODEL, seed=seed).info["seed"] == seed

    @pytest.mark.parametrize("seed", [-1, 2**31, 1.5, "1"])
    def test_seeds_refused(self, seed):
        with pytest.raises(InputError, match="seed must be a whole number from 0 to 2"):
            self.sampler.sample(MODEL, seed=seed)


class TestInitialStates:
    """Floors never move: what descent makes of a flat model is its start."""

    sampler = as_sampler("descent")
    flat = dimod.BinaryQuadraticModel({"b": 0, "a": 0, "c": 0}, {}, 0, "BINARY")

    def given(self, *arguments, **options):
        found = self.sampler.sample(self.flat, *arguments, seed=1, **options)
        order = [found.variables.index(v) for v in "abc"]
        return found.record.sample[:, order].tolist()

    def test_by_label_whatever_the_order(self):
        states = ([[1, 0, 1], [0, 0, 1]], ["c", "a", "b"])
        assert self.given(initial_states=states) == [[0, 1, 1], [0, 1, 0]]
        assert self.given(initial_states={"a": 1, "b": 0, "c": 1}) == [[1, 0, 1]]

    def test_of_the_other_vartype(self):
        assert self.given(initial_states={"a": 1, "b": -1, "c": -1}) == [[1, 0, 0]]
        spins = self.flat.change_vartype("SPIN", inplace=False)
        found = self.sampler.sample(spins, initial_states={"a": 1, "b": 0, "c": 0})
        assert found.first.sample == {"a": 1, "b": -1, "c": -1}

    def test_generators(self):
        one = {"a": 1, "b": 0, "c": 1}
        tiled = self.given(
            initial_states=one, initial_states_generator="tile", num_reads=3
        )
        assert tiled == [[1, 0, 1]] * 3
        filled = self.given(initial_states=one, num_reads=30)
        assert filled[0] == [1, 0, 1]
        assert len(set(map(tuple, filled))) > 4
        with pytest.raises(ValueError, match="insufficient number of initial states"):
            self.given(initial_states=one, initial_states_generator="none", num_reads=2)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"initial_states": {"a": 1}}, "mismatch between variables"),
            ({"initial_states_generator": "best"}, "initial_states_generator"),
            ({"num_reads": 0}, "num_reads"),
        ],
    )
    def test_refused_by_dimod(self, options, message):
        with pytest.raises(ValueError, match=message):
            self.given(**options)


class TestSampler:
    def test_info(self):
        found = as_sampler("sa[num_sweeps=30]").sample(MODEL, seed=3)
        assert found.info["seed"] == 3
        assert found.info["status"] == "done"
        assert found.info["solver"] == "sa[num_sweeps=30]"
        assert found.info["solver_info"]["sweeps"] == 30
        timing = found.info["timing"]
        assert set(timing) == {
            "preprocessing_ns",
            "sampling_ns",
            "postprocessing_ns",
        }
        assert all(type(ns) is int and ns > 0 for ns in timing.values())

    def test_time_limit_is_in_seconds(self, monkeypatch):
        clock = Clock(last=55)
        clock.for_all(monkeypatch)
        clock.paces(monkeypatch, each=1e-2)
        sampler = as_sampler("sa[num_sweeps=1000000000]", time_limit=600)
        found = sampler.sample(MODEL, time_limit=50)
        assert found.info["solver_info"]["sweeps"] == pytest.approx(5000, rel=0.03)

    def test_defaults_hold_unless_the_call_says_otherwise(self):
        sampler = as_sampler("sa", sweeps=7)
        assert sampler.sample(MODEL).info["solver_info"]["sweeps"] == 7
        assert sampler.sample(MODEL, sweeps=9).info["solver_info"]["sweeps"] == 9

    def test_parameters_and_properties(self):
        sampler = as_sampler(parse_solver("cem[samples=50]"))
        assert set(sampler.parameters) == {
            *("num_reads", "seed", "initial_states", "initial_states_generator"),
            *("time_limit", "sweeps", "threads"),
        }
        assert sampler.properties["solver"] == "cem[samples=50]"

    def test_unknown_parameters_are_warned_of(self):
        with pytest.warns(
            dimod.exceptions.SamplerUnknownArgWarning, match="'chain_strength'"
        ):
            as_sampler("sa", sweeps=1).sample(MODEL, chain_strength=3)

    def test_is_a_sampler_and_initialized(self):
        sampler = as_sampler()
        assert isinstance(sampler, dimod.Sampler)
        assert isinstance(sampler, dimod.Initialized)

    def test_pickled(self):
        sampler = pickle.loads(pickle.dumps(as_sampler("sa[num_sweeps=5]", sweeps=4)))
        assert label(sampler.solver) == "sa[num_sweeps=5]"
        assert sampler.sample(MODEL).info["solver_info"]["sweeps"] == 4

    def test_exact_where_numbers_differ_in_size(self):
        """Energies are the caller's model's, not those of what it was turned into."""
        bqm = dimod.BinaryQuadraticModel({"a": 1e-9, "b": 1e9}, {}, 1e9, "SPIN")
        found = as_sampler("sa").sample(bqm)
        assert found.first.energy == bqm.energy(found.first.sample)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"solver": "tabou"}, "unknown solver"),
            ({"solver": 3}, "solver must be a text"),
            ({"time_limit": 0}, "seconds must be positive"),
            ({"threads": 0}, "threads must be at least 1"),
        ],
    )
    def test_refused(self, options, message):
        with pytest.raises(InputError, match=message):
            as_sampler(**options)

    def test_a_model_with_nan(self):
        bqm = dimod.BinaryQuadraticModel({"a": np.nan}, {}, 0, "BINARY")
        with pytest.raises(InputError, match=r"linear\[0\] is nan"):
            as_sampler().sample(bqm)
