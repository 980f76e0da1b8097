"""The state of a single-flip search, and rows shared out among threads."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

from solvers.kernels import flips
from solvers.testing import reference_energies
from solvers.threads import over_rows
from solvers.walk import CACHE_LINE, Walk, apart
from tests.cases import DTYPES, SIZES, flip_costs, make, some_states

pytestmark = pytest.mark.arithmetic


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_walk_starts_right(n, dtype):
    qubo = make(4, n, seed=n, dtype=dtype)
    states = some_states(qubo)
    walk = Walk.at(qubo, states, dtype=np.float64)
    s = qubo.scale
    u = (s * states) @ qubo.H.astype(float) + qubo.linear / (2 * s)
    np.testing.assert_allclose(walk.u[:, :n], u, rtol=1e-10, atol=1e-10)
    exact = reference_energies(qubo, states)
    np.testing.assert_allclose(walk.energy, exact, rtol=1e-10, atol=1e-9)
    np.testing.assert_array_equal(walk.states(), states)
    expected = flip_costs(qubo, states)
    np.testing.assert_allclose(walk.flip_costs(), expected, rtol=1e-7, atol=1e-7)


def test_padding():
    qubo = make(2, 5)
    walk = Walk.at(qubo, some_states(qubo))
    assert walk.z.shape == walk.u.shape == walk.q.shape
    assert walk.z.shape[1] % flips.LANES == 0
    assert walk.H.shape == (5, walk.z.shape[1])
    assert np.isinf(walk.q[:, 5:]).all()
    assert (walk.H[:, 5:] == 0).all()
    np.testing.assert_array_equal(np.isinf(walk.q[:, :5]), qubo.fixed >= 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_walk_dtype(dtype):
    qubo = make(2, 5, dtype=dtype)
    walk = Walk.at(qubo, some_states(qubo))
    assert {walk.H.dtype, walk.z.dtype, walk.u.dtype, walk.q.dtype} == {np.dtype(dtype)}
    assert walk.energy.dtype == np.float64


def test_move_to():
    qubo = make(3, 33)
    walk = Walk.at(qubo, some_states(qubo, 1))
    target = some_states(qubo, 2)
    walk.move_to(qubo, target)
    fresh = Walk.at(qubo, target)
    for name in ("z", "u", "energy"):
        np.testing.assert_array_equal(getattr(walk, name), getattr(fresh, name))


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_every_row_once(threads):
    seen = np.zeros(5, int)

    def kernel(amount, rows):
        rows += amount

    over_rows(kernel, (2,), (seen,), threads)
    np.testing.assert_array_equal(seen, 2)


def test_an_error_in_a_thread_surfaces():
    def kernel(rows):
        raise RuntimeError("from a thread")

    with pytest.raises(RuntimeError, match="from a thread"):
        over_rows(kernel, (), (np.zeros(4),), 2)


def test_values_of_their_own_cache_lines():
    values = np.arange(5, dtype=np.uint64)
    lines = apart(values)
    np.testing.assert_array_equal(lines[:, 0], values)
    assert lines.strides == (CACHE_LINE, values.itemsize)
    assert lines.ctypes.data % CACHE_LINE == 0


class TestUneven:
    """Each row is a slice, and threads take the next one when they are free."""

    def test_a_thread_goes_on_while_another_is_at_a_long_row(self):
        first_begun, done = threading.Event(), threading.Event()
        left = [3]

        def kernel(rows):
            if rows[0] == 0:
                first_begun.set()
                assert done.wait(60)
            else:
                assert first_begun.wait(60)
                left[0] -= 1
                if not left[0]:
                    done.set()

        over_rows(kernel, (), (np.arange(4),), 2, uneven=True)

    @pytest.mark.parametrize("threads", [1, 2, 3, 9])
    @pytest.mark.parametrize("rows", [0, 1, 5])
    def test_every_row_is_worked_on_once(self, rows, threads):
        counts = np.zeros(rows, int)

        def kernel(part):
            part += 1

        over_rows(kernel, (), (counts,), threads, uneven=True)
        assert (counts == 1).all()

    def test_what_a_thread_raises_ends_the_others(self):
        def kernel(rows):
            raise LookupError(rows[0])

        with pytest.raises(LookupError):
            over_rows(kernel, (), (np.arange(9),), 2, uneven=True)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_threads_are_made_anew_after_a_fork():
    def kernel(part):
        part += 1

    counts = np.zeros(2, int)
    over_rows(kernel, (), (counts,), 2)
    child = os.fork()
    if not child:
        try:
            # Without workers of its own it would wait for ever.
            signal.alarm(30)
            over_rows(kernel, (), (counts,), 2)
        finally:
            os._exit(int((counts != 2).any()))
    assert os.waitpid(child, 0)[1] == 0
    assert (counts == 1).all()
