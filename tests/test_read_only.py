"""No solver changes what another one is given, or an answer that it has given."""

from __future__ import annotations

import pickle
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

import solvers.kernels
from benchmarks.harness.race import run_solver
from qubo_rounding.problem import RoundingProblem
from solvers.base import Solver, Task
from solvers.budget import Budget
from solvers.layer_data import LayerData
from solvers.qubo import QuboBatch, States
from solvers.registry import BUILT_IN, parse_solver
from solvers.testing import example_batch, example_batches, reference_energies
from solvers.threads import over_rows

LEVELS = np.array([[[-1]], [[2]]]) + np.zeros((2, 3, 4), np.int64)


def arrays(owner: Any) -> dict[str, np.ndarray]:
    values = {field.name: getattr(owner, field.name) for field in fields(owner)}
    return {k: v for k, v in values.items() if isinstance(v, np.ndarray)}


def given() -> dict[str, np.ndarray]:
    """The arrays of a batch as its maker holds them: whole, of the right types."""
    example = example_batch(3, 4, scale=np.ones((3, 4)))
    own = {name: np.array(array) for name, array in arrays(example).items()}
    fixed = np.full((3, 4), -1, np.int8)
    return own | {"fixed": fixed, "levels": LEVELS.astype(np.int32)}


def problem() -> RoundingProblem:
    rng = np.random.default_rng(0)
    A, w = rng.normal(size=(6, 6)), rng.normal(size=(4, 6))
    w[0, 0] = 9.0
    rest = {"gradient": np.zeros((4, 6)), "constant": np.zeros(4)}
    return RoundingProblem(w, 0.3, -4, 3, A @ A.T, **rest)


@pytest.mark.parametrize(
    "derive",
    [
        lambda qubo: qubo,
        lambda qubo: qubo.take([2, 0]),
        lambda qubo: qubo.take(slice(1, 3)),
        lambda qubo: replace(qubo, offset=np.zeros(3)),
        deepcopy,
        lambda qubo: pickle.loads(pickle.dumps(qubo)),
    ],
)
def test_a_batch_is_read_only(derive):
    found = arrays(derive(QuboBatch(**given())))
    assert len(found) == 7
    for name, array in found.items():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        assert not array.flags.writeable, name


@pytest.mark.parametrize(
    "derive",
    [lambda posed: posed, deepcopy, lambda posed: pickle.loads(pickle.dumps(posed))],
)
def test_a_problem_is_read_only(derive):
    posed = derive(problem())
    found = arrays(posed) | {"base": posed.base, "fixed": posed.fixed}
    assert len(found) == 9
    for owner in posed.to_qubos():
        found |= {f"batch's {name}": array for name, array in arrays(owner).items()}
    for name, array in found.items():
        assert not array.flags.writeable, name


def test_makers_keep_their_arrays():
    """They can be written to, and but for H the batch does not notice."""
    own = given()
    qubo = QuboBatch(**own)
    for name, array in own.items():
        before = getattr(qubo, name).copy()
        assert np.shares_memory(array, getattr(qubo, name)) == (name == "H")
        array += 1
        if name != "H":
            np.testing.assert_array_equal(getattr(qubo, name), before)


def test_the_floor_of_a_layer_is_read_only():
    floor = np.zeros((2, 3))
    data = LayerData(floor, 1, lambda rows, images: rows, lambda images: images)
    assert not data.floor.flags.writeable
    assert floor.flags.writeable


@dataclass(frozen=True, kw_only=True)
class InPlace(Solver):
    """Makes its answer out of what it was given, and goes on with it afterwards."""

    name: ClassVar[str] = "in-place"
    kept: ClassVar[list[Any]] = []

    force: bool = False
    target: str = "start"

    def search(self, task: Task) -> States:
        owner = task if self.target == "start" else task.qubo
        array = getattr(owner, self.target)
        if self.force:
            array.flags.writeable = True
        array[...] = 1
        return task.start


@dataclass(frozen=True, kw_only=True)
class Keeper(Solver):
    """Keeps what it returned."""

    name: ClassVar[str] = "keeper"
    kept: ClassVar[list[Any]] = []

    def search(self, task: Task) -> States:
        states = np.zeros((task.qubo.rows, task.qubo.n), np.uint8)
        task.info["note"] = "as it was"
        self.kept[:] = [states, task.info, task.monitor]
        return states


class Pair(NamedTuple):
    array: np.ndarray
    number: int


TARGETS = ("start", "H", "linear", "offset", "scale", "prior")


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_solver_is_given_is_read_only(target):
    with pytest.raises(ValueError, match="read-only"):
        InPlace(target=target).solve(example_batch(2, 5))


@pytest.mark.parametrize("target", TARGETS)
def test_force_spoils_no_other_result(target):
    posed, fair = problem(), parse_solver("kbest")
    _, expected = run_solver(fair, posed, 0, Budget())
    run_solver(InPlace(force=True, target=target), posed, 0, Budget())
    _, found = run_solver(fair, posed, 0, Budget())
    assert found["objective"] == expected["objective"]
    assert found["status"] == "done"


def test_a_solver_that_changes_its_problem_is_invalid():
    _, record = run_solver(InPlace(force=True, target="H"), problem(), 0, Budget())
    assert record["status"] == "invalid"


def test_initial_states_stay_the_callers():
    initial = np.zeros((2, 5), np.uint8)
    InPlace(force=True).solve(example_batch(2, 5), initial=initial)
    assert not initial.any()
    initial[0, 0] = 1


def test_an_answer_does_not_change_afterwards():
    qubo = example_batch(2, 5)
    found = Keeper().solve(qubo, initial=np.ones((2, 5), np.uint8))
    before = deepcopy(found)
    states, info, monitor = Keeper.kept
    states[...] = 1 - states
    info["note"] = "changed"
    monitor.best[...] = -np.inf
    monitor.record(np.full(2, -1e9))
    for name in ("states", "energies", "info"):
        np.testing.assert_array_equal(getattr(found, name), getattr(before, name))
    np.testing.assert_array_equal(found.trace[1], before.trace[1])


def test_read_only_arrays_reach_kernels_as_writable_ones():
    """Also those in named tuples, those without elements, and slices of rows."""
    seen = []

    def kernel(*parts):
        seen.extend(parts)

    locked = np.arange(12.0).reshape(4, 3)
    locked.flags.writeable = False
    everything = (
        locked,
        locked[::2, 1:],
        locked[:0],
        np.broadcast_to(locked, (2, 4, 3)),
    )
    pair = Pair(locked, 7)
    over_rows(kernel, (*everything, pair, (0, locked)), (locked,), threads=1)
    assert [type(part) for part in seen[4:6]] == [Pair, tuple]
    assert (seen[4].number, seen[5][0]) == (7, 0)
    inner = [*seen[:4], seen[4].array, seen[5][1], seen[6]]
    for part, original in zip(inner, (*everything, *[locked] * 3), strict=True):
        assert part.flags.writeable
        assert part.strides == original.strides
        np.testing.assert_array_equal(part, original)
        assert not original.flags.writeable
    assert np.shares_memory(seen[0], locked)


def test_kernels_are_compiled_for_writable_arrays_alone():
    """Read-only arrays are another type to numba: each kernel would compile twice."""
    batch = example_batches()["with levels"]
    assert not batch.H.flags.writeable
    for name in BUILT_IN:
        parse_solver(name).solve(batch, budget=Budget(sweeps=2))
    compiled = 0
    for info in iter_modules(solvers.kernels.__path__, "solvers.kernels."):
        for kernel in vars(import_module(info.name)).values():
            if isinstance(kernel, Dispatcher):
                for signature in kernel.signatures:
                    compiled += 1
                    assert "readonly" not in str(signature), kernel
    assert compiled > 10


def test_states_of_a_read_only_array_have_the_same_energies():
    qubo = example_batch(3, 4)
    states = np.broadcast_to(np.uint8(1), (3, 4))
    np.testing.assert_allclose(qubo.energies(states), reference_energies(qubo, states))
