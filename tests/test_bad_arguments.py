"""Arguments of another kind: one line that names them; no number is read wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from qubo_rounding.problem import Moments, RoundingProblem
from solvers import (
    Budget,
    InputError,
    QuboBatch,
    Solver,
    as_sampler,
    descend,
    parse_solver,
    parse_solvers,
    read_qubo,
    solve,
    write_qubo,
)
from solvers.base import Task
from solvers.checks import finite, whole
from solvers.flips.annealing import SimulatedAnnealing
from solvers.qubo import States
from solvers.testing import example_batch, example_batches

BATCH = example_batch(2, 3)
GRID: dict[str, Any] = {"weight": np.ones((2, 3)), "scale": 0.5, "moment": np.eye(3)}
PROBLEM = RoundingProblem(lo=-4, hi=3, **GRID)
NEAREST = parse_solver("nearest")


class Tensor:
    """Refuses to become an array, as a tensor with a gradient does."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise RuntimeError("Can't call numpy() on Tensor\nthat requires grad.")


def refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


# What is no array of real numbers, as [2, 3], and how it is refused.
NO_NUMBERS = [
    (np.ones((2, 3), complex), "not of dtype complex128"),
    (np.full((2, 3), np.datetime64("2020-01-01")), r"not of dtype datetime64\[D\]"),
    (np.ones((2, 3), "m8[s]"), r"not of dtype timedelta64\[s\]"),
    (np.ones((2, 3), [("re", float)]), "not of dtype .*'re'"),
    (np.ones((2, 3), object), "not of dtype object"),
    (np.full((2, 3), "1"), "not of dtype <U1"),
    (np.full((2, 3), b"1"), r"not of dtype \|S1"),
    ([[10**400] * 3] * 2, "not of dtype object"),
    ([[1, 2, 3], [1, 2]], "inhomogeneous shape"),
    (np.ma.masked_array(np.ones((2, 3)), [[0, 0, 1]] * 2), "no masked entries"),
    (Tensor(), r"Can't call numpy\(\) on Tensor that requires grad"),
]


@pytest.mark.parametrize(("values", "reason"), NO_NUMBERS)
@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("linear", lambda v: replace(BATCH, linear=v)),
        ("H", lambda v: replace(BATCH, H=v)),
        ("offset", lambda v: replace(BATCH, offset=v)),
        ("scale", lambda v: replace(BATCH, scale=v)),
        ("prior", lambda v: replace(BATCH, prior=v)),
        ("fixed", lambda v: replace(BATCH, fixed=v)),
        ("levels", lambda v: replace(BATCH, levels=v)),
        ("Q", QuboBatch.from_matrix),
        ("offset", lambda v: QuboBatch.from_matrix(np.eye(2), offset=v)),
        ("offset", lambda v: solve(np.eye(2), offset=v)),
        ("offset", lambda v: solve(BATCH, offset=v)),
        ("target", lambda v: Budget(target=v)),
        ("states", BATCH.energies),
        ("states", BATCH.pin),
        ("states", lambda v: descend(BATCH, v)),
        ("initial", lambda v: NEAREST.solve(BATCH, initial=v)),
        ("initial", lambda v: solve(BATCH, initial=v)),
        ("weight", lambda v: replace(PROBLEM, weight=v)),
        ("moment", lambda v: replace(PROBLEM, moment=v)),
        ("lo", lambda v: replace(PROBLEM, lo=v)),
        ("states", PROBLEM.decode),
        ("states", PROBLEM.local_mse),
        ("states of batch 0", lambda v: PROBLEM.join([v])),
    ],
)
def test_no_real_numbers(name, use, values, reason):
    refused(lambda: use(values), f"{name}.*{reason}")


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: Budget(threads=None), "threads must be a whole number, not None"),
        (lambda: Budget(threads=True), "threads must be a whole number, not True"),
        (lambda: Budget(threads="2"), "threads must be a whole number, not '2'"),
        (lambda: Budget(threads=-(10**5000)), "threads must be at least 1, not a huge"),
        (lambda: Budget(sweeps=True), "sweeps must be a whole number, not True"),
        (lambda: Budget(sweeps=10.0), "sweeps must be a whole number, not 10.0"),
        (lambda: Budget(sweeps=[3]), r"sweeps must be a whole number, not \[3\]"),
        (lambda: Budget(seconds="1"), "seconds must be positive, not '1'"),
        (lambda: Budget(seconds=True), "seconds must be positive, not True"),
        (lambda: Budget(seconds=1j), "seconds must be positive, not 1j"),
        (lambda: Budget(seconds=np.complex128(1)), "seconds must be positive, not"),
        (lambda: Budget(seconds=[1.0]), r"seconds must be positive, not \[1.0\]"),
        (lambda: replace(BATCH, linear=None), "linear must be .* array, not None"),
        (lambda: replace(PROBLEM, hi=None), "hi must be .* array, not None"),
        (lambda: PROBLEM.join([None]), "states of batch 0 must be .* not None"),
        (lambda: Budget(target="x"), "target must be real numbers"),
        (lambda: NEAREST.solve(BATCH, budget=0.5), "budget must be a Budget, not 0.5"),
        (lambda: NEAREST.solve(BATCH, budget=0), "budget must be a Budget, not 0"),
        (lambda: NEAREST.solve(BATCH, monitor=print), "monitor must be a Monitor, not"),
        (lambda: NEAREST.solve(BATCH, data=[1]), r"data must be a LayerData, not \[1"),
        (lambda: NEAREST.solve(np.eye(3)), "qubo must be a QuboBatch, not array"),
        (lambda: NEAREST.solve(PROBLEM), "qubo must be a QuboBatch, not RoundingP"),
        (lambda: NEAREST.solve(BATCH, seed=-1), "seed must be a whole .* 0, not -1"),
        (lambda: NEAREST.solve(BATCH, seed=True), "seed must be a whole .* not True"),
        (lambda: NEAREST.solve(BATCH, seed=1.0), "seed must be a whole .* not 1.0"),
        (lambda: NEAREST.solve(BATCH, seed="1"), "seed must be a whole .* not '1'"),
        (lambda: NEAREST.solve(BATCH, seed=None), "seed must be a whole .* not None"),
        (lambda: solve(BATCH, threads=None), "threads must be a whole number"),
        (lambda: solve(PROBLEM), r"a RoundingProblem is .* from to_qubos\(\)"),
        (lambda: solve(Tensor()), "Q must be real numbers .* requires grad"),
        (lambda: as_sampler(threads=None), "threads must be a whole number"),
        (
            lambda: as_sampler().sample_qubo({(0, 0): 1}, seed=True),
            "seed must be a whole number from 0 to",
        ),
        (lambda: BATCH.energies(BATCH.nearest(), threads=0), "threads must be at lea"),
        (lambda: descend(BATCH, BATCH.nearest(), threads=None), "threads must be a wh"),
        (lambda: descend(BATCH, BATCH.nearest(), passes=1.5), "passes must be a whole"),
        (lambda: Budget(seconds=10**400), "seconds must be positive, not 1000"),
        (lambda: descend(BATCH, BATCH.nearest(), None), "moves must be a str, not No"),
        (lambda: descend(np.eye(3), [[0]]), "qubo must be a QuboBatch, not array"),
        (lambda: BATCH.take([2]), r"a list of rows from 0 to 1, not \[2\]"),
        (lambda: BATCH.take(0), "take needs a slice or a list of rows .* not 0"),
        (lambda: BATCH.take(Tensor()), "take needs a slice or a list of rows"),
        (lambda: parse_solver(3), "solver must be a str, not 3"),
        (lambda: parse_solvers(None), "solvers must be a str, not None"),
        (lambda: read_qubo(3), "a path must be a text or a Path, not 3"),
        (lambda: write_qubo(None, BATCH), "a path must be a text or a Path, not None"),
        (lambda: write_qubo("a.npz", np.eye(2)), "qubo must be a QuboBatch, not array"),
        (lambda: read_qubo("a\nb.npz"), "no file a\\\\nb.npz"),
        (lambda: RoundingProblem.load(3), "a path must be a text or a Path, not 3"),
        (lambda: PROBLEM.save(None), "a path must be a text or a Path, not None"),
        (lambda: replace(PROBLEM, saturated=[1]), r"saturated must be a str, not \[1"),
        (lambda: Moments("3"), "n must be a whole number, not '3'"),
        (lambda: Moments(3, groups=0), "groups must be at least 1, not 0"),
        (lambda: PROBLEM.join(3), "states must be a Sequence, not 3"),
        (
            lambda: RoundingProblem.on_grid(np.ones((2, 3), "m8[s]"), None, None),
            "weight must be real numbers",
        ),
        (lambda: replace(PROBLEM, meta=3), "meta must be a mapping, not 3"),
        (lambda: PROBLEM.join([]), r"states must be 1 of shape \(2, 3\), .* not"),
        (lambda: PROBLEM.join([[0, 1]]), r"not of the shapes \[\(2,\)\]"),
        (lambda: PROBLEM.join([np.zeros((3, 2))]), r"not of the shapes \[\(3, 2\)\]"),
    ],
)
def test_arguments_of_another_kind(use, message):
    refused(use, message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_sweeps": "9"}, "solver sa: num_sweeps must be a whole number, not '9'"),
        ({"num_sweeps": 2.0}, "solver sa: num_sweeps must be a whole number, not 2.0"),
        ({"num_sweeps": True}, "num_sweeps must be a whole number, not True"),
        ({"num_sweeps": None}, "num_sweeps must be a whole number, not None"),
        ({"beta_min": "hot"}, "beta_min must be a number, not 'hot'"),
        ({"beta_min": [1.0]}, r"beta_min must be a number, not \[1.0\]"),
        ({"polish": None}, "polish must be a text, not None"),
        ({"polish": np.eye(2)}, "polish must be a text, not array"),
    ],
)
def test_options_of_another_kind(options, message):
    refused(lambda: SimulatedAnnealing(**options), message)


def test_numbers_of_numpy_are_options_too():
    solver = SimulatedAnnealing(num_sweeps=np.int64(2), beta_max=np.float32(0))
    assert solver.solve(BATCH).states.shape == (2, 3)


@pytest.mark.parametrize("seed", [2**63, 2**64 + 1, 10**40, np.uint8(200)])
@pytest.mark.parametrize("name", ["sa", "tabu", "cem", "klein", "neal[num_reads=1]"])
def test_any_seed(name, seed):
    solver = parse_solver(name)
    found = solver.solve(BATCH, seed=seed, budget=Budget(sweeps=1))
    again = solver.solve(BATCH, seed=int(seed), budget=Budget(sweeps=1))
    np.testing.assert_array_equal(found.states, again.states)


def test_counts_of_numpy_do_not_overflow():
    budget = Budget(sweeps=np.int8(100), threads=np.uint8(2))
    assert (type(budget.sweeps), type(budget.threads)) == (int, int)
    found = parse_solver("tabu").solve(BATCH, budget=budget)
    assert found.status == "done"
    assert descend(BATCH, BATCH.nearest(), passes=2**70).shape == (2, 3)


@pytest.mark.parametrize("value", [257, -1, 2, 0.5, 256.0, np.nan, np.inf, 2**40])
class TestStates:
    """Nothing but 0 and 1 passes for a state, whatever its last byte is."""

    def states(self, value: float) -> np.ndarray:
        states = np.zeros((2, 3), np.asarray(value).dtype)
        states[1, 2] = value
        return states

    @pytest.mark.parametrize(
        "use",
        [
            BATCH.energies,
            BATCH.pin,
            replace(BATCH, fixed=np.zeros((2, 3), np.int8)).pin,
            lambda v: descend(BATCH, v),
            lambda v: NEAREST.solve(BATCH, initial=v),
            lambda v: solve(BATCH, initial=v),
        ],
    )
    def test_given(self, use, value):
        refused(lambda: use(self.states(value)), r"may hold only 0 and 1; .*\[1, 2\]")

    @pytest.mark.parametrize("pins", [None, np.full((2, 3), -1)])
    def test_claimed(self, value, pins):
        solver = Claims()
        solver.answers[:] = [self.states(value)]
        message = r"solver claims: the states that search gives may hold only 0 and 1"
        refused(lambda: solver.solve(replace(BATCH, fixed=pins)), message)


@dataclass(frozen=True, kw_only=True)
class Claims(Solver):
    name: ClassVar[str] = "claims"
    answers: ClassVar[list[Any]] = []

    def search(self, task: Task) -> States:
        return self.answers[0]


class Steps(Claims):
    out_of_set: ClassVar[bool] = True


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (65_536, r"search gives\[1, 2\] is 65536; it must be a whole number from -327"),
        (0.5, r"search gives\[1, 2\] is 0.5; it must be a whole number"),
        (np.nan, r"search gives\[1, 2\] is nan; it must be a whole number"),
        (3, "search gives must lie within the levels of the batch"),
        (-3, "search gives must lie within the levels of the batch"),
        ("2", "search gives must be real numbers"),
    ],
)
def test_claimed_grid_steps(value, message):
    levels = np.zeros((2, 2, 3), int) + [[[-2]], [[2]]]
    states = np.zeros((2, 3), np.asarray(value).dtype)
    states[1, 2] = value
    Steps.answers[:] = [states]
    refused(lambda: Steps().solve(replace(BATCH, levels=levels)), message)


def test_grid_steps_within_the_levels():
    qubo = replace(BATCH, levels=np.zeros((2, 2, 3), int) + [[[-2]], [[2]]])
    Steps.answers[:] = [[[-2, 2, 0], [1, 0, -1]]]
    found = Steps().solve(qubo, initial=np.zeros((2, 3)))
    assert found.states.dtype == np.int16


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: replace(BATCH, fixed=[[255] * 3] * 2), r"fixed\[0, 0\] is 255; .* 1$"),
        (lambda: replace(BATCH, fixed=[[0.5] * 3] * 2), r"fixed\[0, 0\] is 0.5"),
        (
            lambda: replace(BATCH, levels=_levels(2**32 + 1)),
            r"levels\[1, 0, 0\] is 4",
        ),
        (lambda: replace(BATCH, levels=_levels(2**63)), r"levels\[1, 0, 0\] is 9223"),
        (lambda: replace(BATCH, levels=_levels(1.5)), r"levels\[1, 0, 0\] is 1.5; it"),
        (
            lambda: replace(BATCH, levels=_levels(np.float32(2**31))),
            r"levels\[1, 0, 0\] is 2147483648.0; it must be a whole number",
        ),
        (lambda: RoundingProblem(lo=-(2**32), hi=3, **GRID), "lo is -4294967296; it"),
        (lambda: RoundingProblem(lo=0, hi=2**32 + 3, **GRID), "hi is 4294967299; it"),
        (lambda: RoundingProblem(lo=0, hi=1.5, **GRID), "hi is 1.5; it must be a whol"),
        (lambda: RoundingProblem(lo=np.nan, hi=1, **GRID), "lo is nan; it must be"),
        (
            lambda: RoundingProblem(lo=-(2**31), hi=2**31 - 1, **GRID).to_qubos(),
            r"levels\[0, 0, 0\] is -2147483650; it must be a whole number",
        ),
        (lambda: PROBLEM.decode(np.full((2, 3), 257)), "states must lie on the grid"),
        (lambda: PROBLEM.decode(np.full((2, 3), 0.5)), r"states\[0, 0\] is 0.5"),
        (lambda: PROBLEM.local_mse(np.full((2, 3), -9)), "states must lie on the grid"),
        (lambda: PROBLEM.join([np.full((2, 3), 2**32)]), r"states\[0, 0\] is 429"),
    ],
)
def test_no_number_wraps_around(use, message):
    refused(use, message)


def _levels(highest: float) -> np.ndarray:
    return np.stack([np.zeros((2, 3)), np.full((2, 3), highest)]).astype(
        np.asarray(highest).dtype
    )


@pytest.mark.parametrize(
    "values", [[True, False], np.float16([1, 0]), np.uint64([1, 0]), range(2)]
)
def test_all_real_numbers_are_read(values):
    np.testing.assert_array_equal(finite("x", values), np.asarray(values, float))
    np.testing.assert_array_equal(whole("x", values, np.int8), np.asarray(values, int))


def test_numbers_too_large_for_float64():
    with np.errstate(over="ignore"):
        huge = np.longdouble(10) ** 400
    if np.isfinite(huge):
        refused(lambda: finite("x", [huge]), r"x\[0\] is inf; it must be finite")


def test_levels_too_wide_for_16_bits_are_not_supported():
    qubo = example_batches()["with levels"]
    wide = qubo.levels.astype(np.int64)
    wide[0, 0, 0] = -(2**31)
    for name in ("gptq", "ste"):
        refused(
            lambda name=name: parse_solver(name).solve(replace(qubo, levels=wide)),
            f"solver {name}: levels must fit in 16 bits",
        )
