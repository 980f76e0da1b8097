"""The graph walk: order of steps, equal answers in all its modes, what it costs."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qubo_rounding.network.cifar_resnet import CifarResNet
from qubo_rounding.network.folding import fold_batch_norms
from qubo_rounding.network.layers import supported_layers
from qubo_rounding.network.whole.graph import steps_of
from qubo_rounding.network.whole.values import Values
from qubo_rounding.network.whole.walk import Walk
from solvers.errors import InputError


class Branches(nn.Module):
    """A block whose shortcut comes after the main branch in the code, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        out = self.relu(self.conv1(x))
        out = self.conv2(out)
        shortcut = self.down(x)
        out += shortcut
        out = F.relu(out, inplace=True)
        return self.fc(out.mean((2, 3)))


class Untraceable(Branches):
    """The same, with a branch that torch.fx cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 1e9:
            raise ValueError
        return super().forward(x)


class Repeated(nn.Module):
    """One layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(self.conv(x)))


class Reused(nn.Module):
    """An operation in place on a value that is used again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        z = F.relu_(y)
        return self.b(y) + z


def _network(kind: type[nn.Module] = Branches) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = kind()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2.0)
    return network.eval()


def _batches(count: int = 2, size: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 3, 8, 8, generator=generator) for _ in range(count)]


def _all_statistics(network: nn.Module, change: float = 0.1, **options):
    """The statistics of every layer; each layer's weights are changed on the way."""
    original, rounded = copy.deepcopy(network), copy.deepcopy(network)
    seen = {}
    with Values(options.pop("memory", None)) as values:
        walk = Walk(original, rounded, supported_layers(network), values, **options)
        for stop in walk.stops(_batches()):
            seen[stop.name] = stop.statistics()[0]
            with torch.no_grad():
                stop.rounded.weight.mul_(1 + change)
    return seen, walk


def _walked(network: nn.Module, layers: list[str], batches: list[Tensor]) -> None:
    with Values() as values:
        walk = Walk(network, copy.deepcopy(network), layers, values)
        for stop in walk.stops(batches):
            stop.statistics()


def _expected(network: nn.Module, name: str, earlier: list[str], change: float):
    """Second moment and pull of a layer by forward passes with hooks."""
    rounded = copy.deepcopy(network)
    for other in earlier:
        with torch.no_grad():
            rounded.get_submodule(other).weight.mul_(1 + change)
    caught: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(side):
        def store(module, args, output):
            caught[side] = args[0].clone(), output.clone()

        return store

    for side, model in (("x", network), ("q", rounded)):
        handle = model.get_submodule(name).register_forward_hook(hook(side))
        with torch.no_grad():
            model(torch.cat(_batches()))
        handle.remove()
    return caught


def test_the_shortcut_comes_first_and_the_other_branch_makes_up_for_it() -> None:
    network = fold_batch_norms(_network())
    seen, walk = _all_statistics(network)
    assert list(seen) == ["stem", "down", "conv1", "conv2", "fc"]
    assert walk.graph.traced
    earlier = ["stem", "down", "conv1"]
    own = _expected(network, "conv2", earlier, 0.1)
    other = _expected(network, "down", [*earlier], 0.1)
    error = own["x"][1] - own["q"][1] + other["x"][1] - other["q"][1]
    expected = (error**2).mean((0, 2, 3)).numpy()
    np.testing.assert_allclose(seen["conv2"].square, expected, rtol=1e-4)
    down = _expected(network, "down", ["stem"], 0.1)
    error = down["x"][1] - down["q"][1]
    # Of two branches the one that comes last makes up for the other.
    np.testing.assert_allclose(
        seen["down"].error_mean, error.mean((0, 2, 3)).numpy(), rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("kind", [lambda: CifarResNet(8), Branches])
def test_spilling_changes_nothing(kind) -> None:
    network = fold_batch_norms(_network(kind))
    seen, _ = _all_statistics(network)
    spilled, walk = _all_statistics(network, memory=1000)
    assert walk.values.spilled > 0
    for name, moments in seen.items():
        np.testing.assert_array_equal(moments.pull, spilled[name].pull)
        np.testing.assert_array_equal(
            moments.second_moment, spilled[name].second_moment
        )


def test_hooks_see_what_the_graph_shows() -> None:
    network = fold_batch_norms(_network(lambda: CifarResNet(8)))
    seen, walk = _all_statistics(network)
    hooked, other = _all_statistics(network, traced=False)
    assert walk.graph.traced
    assert not other.graph.traced
    assert list(seen) == list(hooked)
    for name, moments in seen.items():
        assert moments.square.any() == (name != "conv1")
        np.testing.assert_allclose(moments.pull, hooked[name].pull, rtol=1e-9)
        np.testing.assert_allclose(moments.square, hooked[name].square, rtol=1e-9)


def test_every_operation_runs_at_most_three_times_in_each_network() -> None:
    network = fold_batch_norms(_network(lambda: CifarResNet(8)))
    original, rounded = copy.deepcopy(network), copy.deepcopy(network)
    counts = {"original": 0, "rounded": 0}
    for side, model in (("original", original), ("rounded", rounded)):
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(
                    lambda *_, side=side: counts.update({side: counts[side] + 1})
                )
    names = supported_layers(network)
    with Values() as values:
        walk = Walk(original, rounded, names, values)
        for stop in walk.stops(_batches()):
            stop.statistics()
    layers = len(_batches()) * len(names)
    assert layers <= counts["original"] <= 3 * layers
    assert layers <= counts["rounded"] + 2 * len(_batches()) <= 3 * layers


def test_what_does_not_trace_is_run_as_a_whole() -> None:
    seen, walk = _all_statistics(_network(Untraceable))
    assert not walk.graph.traced
    # In the order of calls, which is that of the code.
    assert list(seen) == ["stem", "conv1", "conv2", "down", "fc"]


def test_a_layer_that_runs_twice_is_given_the_inputs_of_both_calls() -> None:
    network = _network(Repeated)
    seen, walk = _all_statistics(network)
    assert not walk.graph.traced
    assert "runs several times" in walk.graph.reason
    assert seen["conv"].count == 2 * sum(len(b) for b in _batches()) * 64


def test_values_that_are_used_again_are_not_overwritten() -> None:
    network = _network(Reused)
    layers = {name: network.get_submodule(name) for name in ("a", "b")}
    graph = steps_of(network, layers)
    assert not graph.traced
    assert "used again" in graph.reason


def test_a_mask_leaves_images_out() -> None:
    network = fold_batch_norms(_network())
    few, _ = _all_statistics(network, mask=lambda batch: torch.tensor([1, 1, 0, 1]))
    every, _ = _all_statistics(network)
    assert few["fc"].count == 6
    assert every["fc"].count == 8
    assert few["conv1"].count == 6 * 64


class Moody(nn.Module):
    """Runs its second layer for some batches only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x) if float(x.flatten()[0]) > -1e9 and len(x) == 4 else x


def test_a_network_that_changes_its_graph_is_refused() -> None:
    network = _network(Moody)
    batches = [*_batches(1), torch.randn(3, 3, 8, 8)]
    with pytest.raises(InputError, match="'b' is called 0 times on batch 1"):
        _walked(network, ["a", "b"], batches)


def test_a_layer_that_never_runs_is_named() -> None:
    network = _network()
    network.extra = nn.Linear(3, 3)
    with pytest.raises(InputError, match="does not depend on layer 'extra'"):
        _all_statistics(network)


def test_activations_that_are_not_finite_name_the_layer() -> None:
    network = _network()
    with torch.no_grad():
        network.conv1.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="input of layer 'conv2' is nan"):
        _all_statistics(network)


def test_inputs_of_the_wrong_size_are_one_line() -> None:
    network = _network()
    with pytest.raises(InputError, match="cannot be run at stem on a batch of"):
        _walked(network, ["stem"], [torch.randn(2, 4, 8, 8)])


def test_a_full_disk_is_one_line(monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(InputError, match=r"cannot spill .*No space left") as error:
        _all_statistics(_network(), memory=10)
    assert "\n" not in str(error.value)
