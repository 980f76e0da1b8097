"""Relaxations in torch, on any device, against those in the kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solvers.errors import InputError
from solvers.relaxations import on_layer as reconstruction
from solvers.relaxations.adam import relax, typical_curvature
from solvers.testing import example_batch
from tests.cases import make
from tests.test_relaxation import how, task


class TestDevice:
    @pytest.mark.parametrize("rectified", [True, False])
    def test_torch_takes_the_kernels_steps(self, rectified):
        """The same V after a few steps, from a start that noise cannot decide."""
        qubo = make(6, 20)
        given = qubo.pin(1 - qubo.nearest())
        unit = typical_curvature(qubo)
        relaxation = how(6, steps=30, rectified=rectified, warm_up=0.3, cold=0.5)
        one, other = task(qubo, given), task(qubo, given)
        a = relax(one, relaxation, unit)
        b = reconstruction.relax_on_device(other, relaxation, unit, "cpu")
        np.testing.assert_array_equal(a, b)
        assert one.info["soft_fraction"] == other.info["soft_fraction"]
        np.testing.assert_allclose(
            one.info["loss"][-1], other.info["loss"][-1], rtol=0.05
        )

    @pytest.mark.parametrize("name", ["cuda:77", "no-such-device"])
    def test_missing(self, name):
        with pytest.raises(InputError, match=rf"device '{name}' is not available here"):
            reconstruction.find_device(name)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
    def test_cuda(self):
        qubo = example_batch(8, 40)
        unit = typical_curvature(qubo)
        relaxation = how(8, steps=2000)
        here = relax(task(qubo), relaxation, unit)
        there = reconstruction.relax_on_device(task(qubo), relaxation, unit, "cuda")
        a, b = (qubo.energies(states).sum() for states in (here, there))
        assert abs(a - b) < 0.1 * a
