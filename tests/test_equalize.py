"""Cross-layer equalization: the function stays, the ranges become even."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qubo_rounding.network import vision
from qubo_rounding.network.equalize import equalize, find_pairs
from qubo_rounding.network.layer_pairs import Pair
from qubo_rounding.network.layers import find_layer, supported_layers
from qubo_rounding.network.prepare import prepare
from solvers.errors import InputError


def uneven(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every layer weights and biases whose ranges differ between channels."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in supported_layers(network):
            layer: Any = find_layer(network, name)
            sizes = torch.rand(len(layer.weight), generator=generator)
            factors = 10 ** (2 * sizes - 1)
            layer.weight.mul_(factors.view(-1, *[1] * (layer.weight.ndim - 1)))
            if layer.bias is not None:
                layer.bias.uniform_(-1, 1, generator=generator)
    return network.eval()


def names(network: nn.Module) -> list[tuple[str, str]]:
    return [(pair.first, pair.second) for pair in find_pairs(network)]


def check_same(network: nn.Module, x: Tensor) -> nn.Module:
    """Equalize in float64 and compare; the original must stay as it was."""
    network, x = uneven(network).double(), x.double()
    before = copy.deepcopy(network.state_dict())
    equalized = equalize(network)
    with torch.no_grad():
        torch.testing.assert_close(equalized(x), network(x), rtol=1e-9, atol=1e-9)
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert {*supported_layers(equalized)} <= {*supported_layers(network)}
    assert not any(module.training for module in equalized.modules())
    return equalized


def ranges(network: nn.Module, pair: Pair) -> tuple[Tensor, Tensor]:
    """Largest weights of the channels between two layers: out of one, into the next."""
    first: Any = find_layer(network, pair.first)
    second: Any = find_layer(network, pair.second)
    outputs = first.weight.abs().flatten(1).amax(1)
    count = getattr(second, "groups", 1)
    inputs = [
        rows.abs().reshape(len(rows), len(outputs) // count, -1).amax((0, 2))
        for rows in second.weight.chunk(count)
    ]
    return outputs, torch.cat(inputs)


SEQUENCES = {
    "linear": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)),
        (5, 4),
    ),
    "linear, tokens": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.PReLU(6), nn.Linear(6, 3)),
        (5, 6, 4),
    ),
    "conv": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"),
            nn.BatchNorm2d(6),
            nn.LeakyReLU(0.1),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 4, 3, groups=2, bias=False),
        ),
        (2, 3, 8, 8),
    ),
    "conv1d": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 6, 3), nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(6, 4, 2)
        ),
        (2, 3, 9),
    ),
    "no activation": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 1), nn.ZeroPad2d(1), nn.Conv2d(6, 2, 3)),
        (2, 3, 5, 5),
    ),
    "flatten": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(54, 4)
        ),
        (2, 3, 5, 5),
    ),
    "pooled to one value": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(6, 4),
        ),
        (2, 3, 5, 5),
    ),
    "several depthwise filters a channel": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=4)
        ),
        (2, 3, 5, 5),
    ),
}


@pytest.mark.parametrize("kind", SEQUENCES)
def test_two_layers_get_equal_ranges(kind: str) -> None:
    make, shape = SEQUENCES[kind]
    network = make()
    (pair,) = find_pairs(network)
    before = ranges(uneven(network), pair)
    equalized = check_same(network, torch.randn(shape))
    assert type(equalized) is nn.Sequential
    outputs, inputs = ranges(equalized, pair)
    torch.testing.assert_close(outputs, inputs)
    assert not torch.allclose(*(r.double() for r in before), rtol=0.1)


def test_a_depthwise_layer_between_two_others() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
    )
    assert names(network) == [("0", "2"), ("2", "4")]
    equalized = check_same(network, torch.randn(2, 3, 6, 6))
    # All three ranges of a channel end up as their geometric mean.
    before, after = (
        [*ranges(n, Pair("0", "2", 8)), ranges(n, Pair("2", "4", 8))[1]]
        for n in (network, equalized)
    )
    mean = torch.stack(before).double().log().mean(0).exp()
    for found in after:
        torch.testing.assert_close(found, mean, rtol=1e-5, atol=0)


class Own(nn.Module):
    """Layers wired by the given function."""

    def __init__(self, wiring: Any) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head, self.wide = nn.Linear(4, 2), nn.Linear(64, 2)
        self.square = nn.Linear(4, 4)
        self.relu, self.relu6 = nn.ReLU(inplace=True), nn.ReLU6()
        self.wiring = wiring

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.wiring(self, x)
        return out


@pytest.mark.parametrize(
    ("wiring", "pairs"),
    [
        (lambda m, x: m.b(m.relu(m.a(x))), [("a", "b")]),
        (lambda m, x: m.b(input=F.relu_(m.a(x))), [("a", "b")]),
        (lambda m, x: m.b(F.pad(m.a(x), (1, 0, 1, 0))), [("a", "b")]),
        (lambda m, x: m.head(m.a(x).relu().mean((2, 3))), [("a", "head")]),
        (lambda m, x: m.head(m.a(x).mean((-1, -2), True).flatten(1)), [("a", "head")]),
        (lambda m, x: m.wide(torch.flatten(m.a(x), 1)), [("a", "wide")]),
        (lambda m, x: m.wide((y := m.a(x)).view(y.size(0), -1)), [("a", "wide")]),
        (lambda m, x: m.wide((y := m.a(x)).reshape((y.shape[0], -1))), [("a", "wide")]),
        (lambda m, x: m.wide(m.a(x).reshape(x.size()[0], -1)), [("a", "wide")]),
        (
            lambda m, x: m.b(F.max_pool2d(F.dropout(m.a(x), 0.5, False), 2)),
            [("a", "b")],
        ),
        # What scaling does not pass through, or what would need to know more.
        (lambda m, x: m.b(m.a(x).sigmoid()), []),
        (lambda m, x: m.b(m.a(x) + 1), []),
        (lambda m, x: m.b(F.pad(m.a(x), (1, 0), value=1.0)), []),
        (lambda m, x: m.b(F.pad(m.a(x), (0, 0, 0, 0, 1, -1))), []),
        (lambda m, x: m.b(m.a(x).clamp(0.5, 6)), []),
        (lambda m, x: m.b(m.a(x).clamp(-1)), []),
        (lambda m, x: m.b(F.hardtanh(m.a(x))), []),
        (lambda m, x: m.b(F.dropout(y := m.a(x), 0.5, False)) + y, []),
        (lambda m, x: (y := m.a(x)) + m.b(y.relu()), []),
        (lambda m, x: m.a(m.b(m.a(x))), []),
        (lambda m, x: m.b(m.a(x)) * m.a.weight.sum(), []),
        (lambda m, x: m.head(m.a(x)), []),
        (lambda m, x: m.head(m.a(x).flatten(2).transpose(1, 2)), []),
        (lambda m, x: m.wide(m.a(x).transpose(1, 2).flatten(1)), []),
        (lambda m, x: m.wide(m.a(x).reshape(-1, 64)), []),
        (lambda m, x: m.head(F.max_pool2d(m.square(x), 1)), []),
    ],
)
def test_only_what_changes_nothing_is_evened_out(wiring: Any, pairs: Any) -> None:
    network = Own(wiring)
    assert names(network) == pairs
    check_same(network, torch.randn(2, 4, 4, 4))


def test_tied_weights_stay() -> None:
    network = nn.Sequential(
        nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 4)
    )
    network[3].weight = network[2].weight
    assert names(network) == []


def test_hooks_stay() -> None:
    network = nn.Sequential(
        nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2)
    )
    network[1].register_forward_hook(lambda module, args, output: output + 1)
    assert names(network) == [("2", "3")]
    network[2].register_forward_hook(lambda module, args, output: output + 1)
    assert names(network) == []


def test_dead_channels_stay() -> None:
    network = uneven(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)))
    with torch.no_grad():
        network[0].weight[1] = 0
        network[2].weight[:, 2] = 0
    equalized: Any = equalize(network)
    assert torch.equal(equalized[0].weight[1:3], network[0].weight[1:3])
    assert torch.equal(equalized[0].bias[1:3], network[0].bias[1:3])
    assert torch.equal(equalized[2].weight[:, 1:3], network[2].weight[:, 1:3])
    assert not torch.equal(equalized[0].weight, network[0].weight)
    x = torch.randn(5, 4)
    torch.testing.assert_close(equalized(x), network(x))


CLIPS = {
    "module": lambda m, x: m.relu6(x),
    "function": lambda m, x: F.relu6(x),
    "in place": lambda m, x: F.relu6(x, inplace=True),
    "hardtanh": lambda m, x: F.hardtanh(x, 0, 6),
    "method": lambda m, x: x.clamp(0, 6),
    "clamp": lambda m, x: torch.clamp(x, min=0.0, max=6.0),
}


@pytest.mark.parametrize("behind", ["conv", "flattened", "pooled"])
@pytest.mark.parametrize("kind", CLIPS)
def test_a_relu6_gets_bounds_for_channels(kind: str, behind: str) -> None:
    clip = CLIPS[kind]
    # The same module clips once more behind the last layer, where it must stay.
    wirings = {
        "conv": (lambda m, x: m.relu6(m.b(clip(m, m.a(x)))), "b"),
        "flattened": (lambda m, x: m.relu6(m.wide(clip(m, m.a(x).flatten(1)))), "wide"),
        "pooled": (lambda m, x: m.relu6(m.head(clip(m, m.a(x)).mean((2, 3)))), "head"),
    }
    wiring, second = wirings[behind]
    network = uneven(Own(wiring))
    (pair,) = find_pairs(network)
    assert (pair.first, pair.second, len(pair.clips)) == ("a", second, 1)
    x = 30 * torch.randn(2, 4, 4, 4)
    assert network.a(x).max() > 12
    equalized = check_same(network, x)
    assert [module for module in equalized.modules() if type(module) is nn.ReLU6]
    # What comes of it can be equalized again.
    check_same(equalized, x)


def test_a_relu6_behind_a_linear_layer() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU6(), nn.Linear(4, 4))
    x = 30 * torch.randn(2, 7, 4)
    assert len(find_pairs(network)[0].clips) == 1
    assert uneven(network)[0](x).max() > 12
    check_same(network, x)


@pytest.mark.parametrize("high", [1.0, 6.0])
def test_a_hardtanh_from_zero_is_a_relu6(high: float) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Hardtanh(0, high), nn.Linear(4, 4))
    assert [len(pair.clips) for pair in find_pairs(network)] == [1]
    network[1] = nn.Hardtanh(-1, high)
    assert find_pairs(network) == []


class Optional(nn.Module):
    """An argument that batches alone leave at its default."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        y = F.relu6(self.a(x))
        out: Tensor = self.b(y if shift is None else y + shift)
        return out


def test_optional_arguments_take_their_defaults() -> None:
    x = torch.randn(3, 4)
    with torch.no_grad():
        x /= 10
        network = Optional().eval()
        torch.testing.assert_close(equalize(network)(x), network(x))


def test_names_of_the_networks_own_modules_are_left_alone() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.equalized, self.values = nn.Linear(4, 4), nn.ReLU6()
            self.last = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(self.values(self.equalized(x)))
            return out

    equalized = check_same(Named().eval(), 30 * torch.randn(2, 4))
    assert supported_layers(equalized) == ["equalized", "last"]


class Padding(nn.Conv2d):
    """A convolution that pads by itself."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (0, 1, 0, 1)))


class Centring(nn.Conv2d):
    """A convolution of inputs whose mean over the channels is taken out."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input - input.mean(1, keepdim=True))


class Squashing(nn.Conv2d):
    """A convolution with an activation of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).tanh()


@pytest.mark.parametrize(
    ("kinds", "pairs"),
    [
        ((Padding, Padding), [("0", "2")]),
        ((Centring, Padding), []),
        ((nn.Conv2d, Padding), [("0", "2")]),
        ((nn.Conv2d, Centring), []),
        ((Squashing, nn.Conv2d), []),
    ],
)
def test_layers_that_do_more_count_if_factors_pass(kinds: Any, pairs: Any) -> None:
    first, second = kinds
    network = nn.Sequential(first(3, 4, 2), nn.ReLU(), second(4, 6, 2, groups=2))
    x = torch.randn(2, 3, 6, 6)
    prepared = prepare(network.eval(), x).network
    assert supported_layers(prepared) == ["0", "2"]
    assert names(prepared) == pairs
    check_same(prepared, x)


class Untraceable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else -x


@pytest.mark.parametrize("call", [equalize, find_pairs])
def test_a_network_that_cannot_be_traced_is_refused(call: Any) -> None:
    message = (
        r"^cannot equalize the layers of Untraceable: torch\.fx cannot trace it \("
    )
    with pytest.raises(InputError, match=message) as caught:
        call(Untraceable())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("iterations", [0, -1, 2.0, True, "many"])
def test_iterations_must_be_a_count(iterations: Any) -> None:
    with pytest.raises(InputError, match="iterations must be"):
        equalize(nn.Sequential(nn.Linear(2, 2)), iterations=iterations)


@pytest.mark.parametrize(
    ("name", "size", "count", "clips"),
    [
        # The two convolutions of each block.
        ("resnet18", 64, 8, 0),
        # Within each block, the first block to the second, the last to the classifier.
        ("mobilenet_v2", 64, 37, 35),
        ("squeezenet1_1", 64, 1, 0),
    ],
)
def test_torchvision_models(name: str, size: int, count: int, clips: int) -> None:
    torch.manual_seed(0)
    network = vision.build(name, num_classes=10).eval()
    pairs = find_pairs(network)
    assert (len(pairs), sum(len(pair.clips) for pair in pairs)) == (count, clips)
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        equalized = equalize(network)
        expected, found = network(x), equalized(x)
    # At random weights nothing reaches the clips.
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert set(supported_layers(equalized)) == set(supported_layers(network))
