"""Calibration data of layers: outputs, targets, groups, the activation that follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from qubo_rounding.network import layer_data as module
from qubo_rounding.network.folding import fold_batch_norms
from qubo_rounding.network.layer_data import following_activation, layer_data
from qubo_rounding.network.layers import (
    groups,
    layer_moments,
    output_rows,
    paired_inputs,
    set_weight_rows,
    unfold,
    weight_rows,
)
from qubo_rounding.network.vision import import_torchvision
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from qubo_rounding.problem.target_moments import TargetSums
from solvers.errors import InputError, UnknownNameError
from solvers.relaxations.adaround import AdaRound
from solvers.relaxations.on_layer import EQ_25, LayerLoss
from tests.test_adaround import one_thread  # noqa: F401
from tests.test_layer_rows import conv_and_input, linear_and_input

# Of one image at least, with a leading axis to number images by.
LAYERS = st.one_of(
    conv_and_input(), linear_and_input().filter(lambda pair: pair[1].ndim > 1)
)


def pose(
    network: nn.Module,
    name: str,
    batches: list[Tensor],
    reference: nn.Module | None = None,
) -> RoundingProblem:
    if reference is None:
        moments = layer_moments(network, name, batches, False)
        weight = weight_rows(network.get_submodule(name))
        return RoundingProblem.from_moments(weight, Grid(bits=3), moments)
    layer = reference.get_submodule(name)
    weight = weight_rows(layer)
    sums = TargetSums(weight.shape[1], len(weight), groups(layer))
    for x, x_hat in paired_inputs(reference, network, name, batches):
        error = output_rows(layer, layer(x) - layer(x_hat)).detach().numpy()
        sums.update(unfold(layer, x_hat).numpy(), error)
    target = sums.moments()
    H = target.second_moment
    return RoundingProblem.on_grid(
        weight,
        Grid(bits=3),
        H[0] if len(H) == 1 else H,
        gradient=-2 * target.pull,
        constant=target.square,
    )


def changed(network: nn.Module) -> nn.Module:
    """A copy with other weights in its first layer."""
    other = nn.Sequential(*network)
    first = nn.Conv2d(2, 4, 3).double()
    other[0] = first
    return other.eval()


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return (
        nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2),
            nn.ReLU6(inplace=True),
        )
        .double()
        .eval()
    )


def images(count: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return list(torch.randn(count, 2, 7, 7, generator=generator).double().split(4))


class TestOutputs:
    @settings(max_examples=60, deadline=None)
    @given(pair=LAYERS)
    def test_without_activation_is_the_quadratic_form(self, pair):
        """Any convolution or linear layer, with its stride, padding and groups."""
        layer, x = pair
        layer, x = layer.double().eval(), x.double()
        holder = nn.Sequential(layer).eval()
        problem = pose(holder, "0", [x])
        qubos = problem.to_qubos()
        found = layer_data(holder, "0", [x], problem)
        assert len(found) == len(qubos)
        for qubo, data in zip(qubos, found, strict=True):
            assert data.images == len(x)
            loss = LayerLoss(data, qubo, 0, 10**6, True)
            states = torch.tensor(1 - qubo.nearest())
            errors = loss.judge(states, 10**6)
            expected = qubo.energies(1 - qubo.nearest())
            np.testing.assert_allclose(errors, expected, rtol=1e-7, atol=1e-12)

    def test_is_the_layers_own_output(self):
        net, batches = network(), images()
        problem = pose(net, "2", batches)
        both = layer_data(net, "2", batches, problem)
        whole = net[:3](torch.cat(batches)).flatten(2)
        chosen = torch.tensor([5, 0, 3])
        for g, data in enumerate(both):
            rows = slice(2 * g, 2 * g + 2)
            expected = whole[chosen][:, rows].detach()
            weight = torch.tensor(problem.weight[rows])
            torch.testing.assert_close(data.outputs(weight, chosen), expected)
            torch.testing.assert_close(data.targets(chosen), expected)

    def test_asymmetric(self):
        """Inputs from the rounded network, targets from the original one."""
        reference, batches = network(), images()
        rounded = changed(reference)
        problem = pose(rounded, "2", batches, reference)
        for qubo, data in zip(
            problem.to_qubos(),
            layer_data(rounded, "2", batches, problem, reference),
            strict=True,
        ):
            loss = LayerLoss(data, qubo, 0, 99, False)
            errors = loss.judge(torch.tensor(qubo.nearest()), 99)
            expected = qubo.energies(qubo.nearest())
            np.testing.assert_allclose(errors, expected, rtol=1e-9)
        both = layer_data(rounded, "2", batches, problem, reference)
        every = torch.arange(6)
        whole = reference[:3](torch.cat(batches)).flatten(2).detach()
        torch.testing.assert_close(
            torch.cat([data.targets(every) for data in both], 1), whole
        )

    def test_float32_and_its_gradient(self):
        net, batches = network().float(), [x.float() for x in images()]
        problem = pose(net, "0", batches)
        (data,) = layer_data(net, "0", iter(batches), problem)
        rows = torch.tensor(problem.weight, requires_grad=True)
        out = data.outputs(rows, torch.arange(2))
        assert out.dtype == torch.float32
        out.sum().backward()
        assert rows.grad.dtype == torch.float64
        assert (rows.grad != 0).any()

    def test_random_state_is_untouched(self):
        net, batches = network(), images()
        problem = pose(net, "0", batches)
        before = torch.random.get_rng_state()
        layer_data(net, "0", batches, problem)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_inputs_survive_the_network(self):
        """The next layers, and later passes, work in place."""
        net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2)).double().eval()
        x = torch.randn(4, 3, dtype=torch.double)
        problem = pose(net, "1", [x])
        (data,) = layer_data(net, "1", [x], problem)
        expected = net(x).detach()[:, :, None]
        x.zero_()
        torch.testing.assert_close(data.targets(torch.arange(4)), expected)

    def test_solved(self):
        net, batches = network(), images(24)
        problem = pose(net, "2", batches)
        for qubo, data in zip(
            problem.to_qubos(), layer_data(net, "2", batches, problem), strict=True
        ):
            solver = AdaRound(steps=400, rate=0.1, batch=8, regularisation=1e-4)
            found = solver.solve(qubo, data=data)
            assert found.info["objective"] == EQ_25
            loss = LayerLoss(data, qubo, 0, 24, True)
            ours, nearest = (
                float(loss.judge(torch.tensor(s), 24).sum())
                for s in (found.states, qubo.nearest())
            )
            assert ours < nearest


class Followed(nn.Module):
    """A layer and what a function makes of its output."""

    def __init__(self, then: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.other = nn.Linear(2, 2)
        self.identity = nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout()
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self, self.layer(x))


def data_dependent(net: Any, y: Tensor) -> Tensor:
    return net.relu(y) if y.sum() > 0 else y


class TestActivation:
    @pytest.mark.parametrize(
        ("then", "like"),
        [
            (lambda net, y: net.relu(y), F.relu),
            (lambda net, y: net.relu(net.drop(net.identity(y))), F.relu),
            (lambda net, y: F.relu(y, inplace=True), F.relu),
            (lambda net, y: torch.relu(y), F.relu),
            (lambda net, y: y.relu_(), F.relu),
            (lambda net, y: F.hardswish(y), F.hardswish),
            (lambda net, y: F.silu(y), F.silu),
            (lambda net, y: F.relu6(y), F.relu6),
            (lambda net, y: y.sigmoid(), torch.sigmoid),
        ],
    )
    def test_found(self, then, like):
        found = following_activation(Followed(then).eval(), "layer")
        y = torch.linspace(-9, 9, 12).reshape(3, 4)
        before = y.clone()
        torch.testing.assert_close(found(y), like(y.clone()))
        assert torch.equal(y, before), "works in place"

    @pytest.mark.parametrize(
        "then",
        [
            lambda net, y: y,
            lambda net, y: net.relu(net.other(y)),
            lambda net, y: net.relu(y + 1),
            lambda net, y: F.relu(y) + y,
            lambda net, y: net.relu(net.layer(y)),
            lambda net, y: F.max_pool1d(y, 2),
            data_dependent,
        ],
    )
    def test_none(self, then):
        assert following_activation(Followed(then).eval(), "layer") is None

    @pytest.mark.parametrize(
        ("model", "layer", "expected"),
        [
            ("resnet18", "conv1", nn.ReLU),
            ("resnet18", "layer1.0.conv1", nn.ReLU),
            ("resnet18", "layer1.0.conv2", None),
            ("resnet18", "layer2.0.downsample.0", None),
            ("resnet18", "fc", None),
            ("mobilenet_v2", "features.1.conv.0.0", nn.ReLU6),
            ("mobilenet_v2", "features.1.conv.1", None),
            ("mobilenet_v3_small", "features.0.0", nn.Hardswish),
            ("efficientnet_b0", "features.0.0", nn.SiLU),
        ],
    )
    def test_of_published_networks(self, model, layer, expected, folded):
        found = following_activation(folded(model), layer)
        assert found is None if expected is None else isinstance(found, expected)


@pytest.fixture(scope="class")
def folded() -> Iterator[Callable[[str], nn.Module]]:
    made: dict[str, nn.Module] = {}

    def make(model: str) -> nn.Module:
        if model not in made:
            build = getattr(import_torchvision().models, model)
            made[model] = fold_batch_norms(build(weights=None))
        return made[model]

    return make


class TestRefusals:
    def test_another_objective(self):
        net, batches = network(), images()
        problem = pose(net, "0", batches)
        blocks = np.stack([problem.moment] * problem.rows)
        hessian = RoundingProblem.from_hessian(problem.weight, Grid(bits=3), blocks)
        with pytest.raises(InputError, match="layer data are for the error of a layer"):
            layer_data(net, "0", batches, hessian)
        fisher = RoundingProblem.from_hessian(
            problem.weight, Grid(bits=3), blocks, meta={"objective": "fisher"}
        )
        with pytest.raises(InputError, match=r"asks for something else \(objective fi"):
            layer_data(net, "0", batches, fisher)

    def test_another_layer(self):
        net, batches = network(), images()
        problem = pose(net, "0", batches)
        with pytest.raises(InputError, match="are not those of layer '2'"):
            layer_data(net, "2", batches, problem)
        rows = problem.weight.copy()
        rows[0, 0] += 1
        set_weight_rows(net[0], rows)
        with pytest.raises(InputError, match="are not those of layer '0'"):
            layer_data(net, "0", batches, problem)
        with pytest.raises(UnknownNameError):
            layer_data(net, "conv", batches, problem)

    def test_no_images(self):
        net = network()
        problem = pose(net, "0", images())
        with pytest.raises(InputError, match="no images to take the inputs of layer"):
            layer_data(net, "0", [], problem)

    def test_images_of_different_sizes(self):
        net = network()
        problem = pose(net, "0", images())
        batches = [torch.randn(1, 2, 7, 7), torch.randn(1, 2, 9, 7)]
        with pytest.raises(
            InputError, match=r"inputs of \(2, 7, 7\) and of \(2, 9, 7\)"
        ):
            layer_data(net, "0", batches, problem)

    def test_memory(self, monkeypatch):
        """All batches count where their number is known, before they are captured."""
        asked = []
        monkeypatch.setattr(
            module, "require_memory", lambda what, needed, advice: asked.append(needed)
        )
        net, batches = network(), images(8)
        problem = pose(net, "0", batches)
        layer_data(net, "0", batches, problem)
        layer_data(net, "0", iter(batches), problem)
        layer_data(net, "0", batches, problem, network())
        one = 8 * batches[0].numel()
        assert asked == [2 * one, one, one, 4 * one]
