"""Batches whose grid goes beyond 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from solvers.base import Solver
from solvers.errors import InputError
from solvers.testing import example_batch


class TestLevels:
    levels = np.array([[[-3, 0]], [[1, 4]]])

    def test_energies_of_grid_steps(self):
        """By the definition, for whole numbers beyond 0 and 1."""
        qubo = replace(example_batch(1, 2, seed=3), levels=self.levels)
        steps = np.array([[-3, 4]], np.int16)
        y = qubo.scale * steps
        expected = (y @ qubo.H * y).sum() + (qubo.linear * steps).sum() + qubo.offset
        np.testing.assert_allclose(qubo.energies(steps), expected)
        assert qubo.take([0]).levels.tolist() == self.levels.tolist()

    def test_without_levels_states_are_binary(self):
        with pytest.raises(InputError, match="states may hold only 0 and 1"):
            example_batch(1, 2).energies(np.array([[-3, 4]]))

    @pytest.mark.parametrize(
        ("levels", "message"),
        [
            ([[-1, 0], [1, 1]], r"levels must have shape \(2, 1, 2\), not \(2, 2\)"),
            ([[[1, 0]], [[1, 1]]], "levels must include 0 and 1"),
            ([[[0, 0]], [[0, 1]]], "levels must include 0 and 1"),
        ],
    )
    def test_refused(self, levels, message):
        with pytest.raises(InputError, match=message):
            replace(example_batch(1, 2), levels=levels)


@pytest.mark.parametrize(
    ("answer", "said"),
    [(None, "not None"), (np.zeros((3, 2)), r"not \(3, 2\)")],
)
def test_a_search_that_gives_no_states(answer, said):
    @dataclass(frozen=True, kw_only=True)
    class Forgetful(Solver):
        name: ClassVar[str] = "forgetful"

        def search(self, task):
            return answer

    with pytest.raises(
        InputError, match=rf"solver forgetful: the states that search gives .* {said}"
    ):
        Forgetful().solve(example_batch(3, 4))
