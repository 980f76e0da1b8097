"""The layers of a network, what they are given, and its moments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qubo_rounding.network import layer_rows, layers
from qubo_rounding.network.images import load_images
from qubo_rounding.network.models import load_network
from solvers.errors import InputError, UnknownNameError

CONVS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Net(nn.Module):
    """Conv, in-place ReLU, then a linear layer; counts full passes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3)
        self.relu = nn.ReLU(inplace=True)
        self.block = nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2))
        self.alias = self.first
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(2, 3)
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.relu(self.first(x)))
        x = self.head(input=x.mean((2, 3)))
        self.passes += 1
        return x


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def images(*sizes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 1, 8, 8, generator=generator) for size in sizes]


def test_layers_are_found_by_name(net: Net) -> None:
    assert layers.supported_layers(net) == ["first", "block.0", "unused", "head"]
    assert layers.find_layer(net, "block.0") is net.block[0]
    assert layers.find_layer(net, "alias") is net.first
    with pytest.raises(
        UnknownNameError, match=r"unknown layer 'blok\.0'; did you mean bl"
    ):
        layers.find_layer(net, "blok.0")


def test_captured_inputs_are_what_the_layer_is_given(net: Net) -> None:
    batches = images(3, 2)
    for name, prefix in (("block.0", [net.first, net.relu]), ("first", [])):
        captured = list(layers.capture_inputs(net, name, batches))
        assert len(captured) == 2
        for x, batch in zip(captured, batches, strict=True):
            torch.testing.assert_close(x, nn.Sequential(*prefix)(batch.clone()))
    assert [len(x) for x in layers.capture_inputs(net, "head", batches)] == [3, 2]


def test_captured_inputs_can_enter_a_graph(net: Net) -> None:
    (x,) = layers.capture_inputs(net, "block.0", images(2))
    assert not x.requires_grad
    net.block[0](x).sum().backward()
    assert net.block[0].weight.grad is not None


def test_the_forward_pass_stops_at_the_layer(net: Net) -> None:
    list(layers.capture_inputs(net, "first", images(1, 1, 1)))
    # One whole pass, of one image, counts the calls.
    assert net.passes == 1


def test_batches_are_moved_to_the_type_of_the_network(net: Net) -> None:
    (x,) = layers.capture_inputs(net.double(), "block.0", images(2))
    assert x.dtype == torch.float64


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        first = x.clone()
        second = self.conv(first)
        self.relu(first)  # overwrites what the layer was given
        out: Tensor = self.conv(second)
        return out


def test_every_call_of_a_shared_layer_is_captured() -> None:
    net, x = Twice().eval(), torch.randn(2, 1, 5)
    captured = list(layers.capture_inputs(net, "conv", [x, x + 1]))
    assert len(captured) == 4
    with torch.no_grad():
        for i, batch in enumerate((x, x + 1)):
            torch.testing.assert_close(captured[2 * i], batch)
            torch.testing.assert_close(captured[2 * i + 1], net.conv(batch))
    assert layers.layer_moments(net, "conv", [x, x + 1]).count == 2 * 2 * 2 * 5


class Failing(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.conv, self.error = nn.Conv1d(1, 1, 1), error

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            raise self.error
        out: Tensor = self.conv(x)
        return out


@pytest.mark.parametrize(
    ("error", "raised"),
    [(RuntimeError("broken"), InputError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_hooks_are_removed_whatever_happens(
    error: BaseException, raised: type[BaseException]
) -> None:
    net = Failing(error).eval()
    with pytest.raises(raised):
        list(layers.capture_inputs(net, "conv", [torch.ones(2, 1, 3)]))
    assert not net.conv._forward_pre_hooks
    walk = layers.capture_inputs(net, "conv", [torch.ones(1, 1, 3)] * 2)
    next(walk)
    assert not net.conv._forward_pre_hooks


def test_what_cannot_be_captured_is_refused(net: Net) -> None:
    with pytest.raises(InputError, match="never calls layer 'unused'"):
        list(layers.capture_inputs(net, "unused", images(1)))
    bad = images(2)
    bad[0][1, 0, 3, 4] = float("nan")
    with pytest.raises(InputError, match=r"layer 'first' is nan at \[1, 0, 3, 4\]"):
        list(layers.capture_inputs(net, "first", bad))
    net.block[1].train()
    with pytest.raises(InputError, match=r"training mode; call network\.eval"):
        list(layers.capture_inputs(net, "first", images(1)))


def test_moments_of_a_layer(
    net: Net, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    batches = images(3, 2)
    (x,) = layers.capture_inputs(net, "block.0", [torch.cat(batches)])
    columns = layers.unfold(net.block[0], x)[0].double().numpy()
    monkeypatch.setattr(layer_rows, "CHUNK_BYTES", 2000)
    moments = layers.layer_moments(net, "block.0", iter(batches))
    expected = columns @ columns.T / columns.shape[1]
    np.testing.assert_allclose(moments.second_moment[0], expected, rtol=1e-6)
    assert moments.count == columns.shape[1] == 5 * 4 * 4
    # No terminal, no bar.
    assert capfd.readouterr() == ("", "")


def test_moments_are_refused_without_images(net: Net) -> None:
    with pytest.raises(InputError, match=r"no images .* 'block\.0'"):
        layers.layer_moments(net, "block.0", [])


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["conv1", "layer1.0.conv1"])
def test_moments_of_a_real_layer_match_the_stored_ones(
    real_data: Path, layer: str
) -> None:
    stored = np.load(real_data / "problems" / f"resnet18.{layer}.npz")
    checkpoint = real_data / "checkpoints" / "resnet18_layer4_reconstructed.pth"
    network = load_network("resnet18", str(checkpoint))
    folded = layers.fold_batch_norms(network.module)
    rows = layers.weight_rows(layers.find_layer(folded, layer))
    np.testing.assert_allclose(rows, stored["weight"], rtol=1e-5, atol=1e-7)
    moments, rest = (
        layers.layer_moments(folded, layer, part.batches(32))
        for part in load_images(real_data / "imagenet-sample", network, 256)
    )
    moments.merge(rest)
    assert moments.count == stored["count"]
    scale = np.abs(stored["second_moment"]).max()
    difference = np.abs(moments.second_moment[0] - stored["second_moment"]).max()
    assert difference < 1e-5 * scale


def test_moments_that_memory_cannot_hold_are_refused() -> None:
    network = nn.Sequential(nn.Linear(10**6, 1, device="meta")).eval()
    network[0].weight = nn.Parameter(torch.zeros(1, 1).expand(1, 10**6))
    with pytest.raises(
        InputError, match=r"second moments of layer '0' .* GiB is avail"
    ):
        layers.layer_moments(network, "0", [torch.zeros(1, 10**6)])
