"""Fisher blocks against one image, one position and one row at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qubo_rounding.network.hessian import fisher_blocks
from solvers.errors import InputError, UnknownNameError

Array = NDArray[np.float64]


def labels_by_hand(logits: Tensor, seed: int) -> list[int]:
    """Inversion of the softmax's distribution function, a uniform per image."""
    generator = torch.Generator().manual_seed(seed)
    labels = []
    for row in logits.double():
        uniform = torch.rand(1, generator=generator, dtype=torch.float64).item()
        total, label = 0.0, 0
        for label, p in enumerate((row.exp() / row.exp().sum()).tolist()):  # noqa: B007
            total += p
            if total > uniform:
                break
        labels.append(label)
    return labels


def by_hand(
    head: nn.Module, layer: Any, tail: nn.Module, x: Tensor, seed: int
) -> Array:
    """Loops over images, rows and positions; no unfold, no batch, no hooks."""
    rows = layer.weight.shape[0]
    n = layer.weight[0].numel()
    out = np.zeros((rows, n, n))
    with torch.no_grad():
        labels = labels_by_hand(tail(layer(head(x))), seed)
    for image, label in zip(x, labels, strict=True):
        given = head(image[None]).detach()
        z = layer(given).detach().clone().requires_grad_()
        log_probability = tail(z * 1).log_softmax(dim=1)[0, label]
        (slope,) = torch.autograd.grad(-log_probability, z)
        for r in range(rows):
            # The inputs of one output position are the gradient of that output with
            # respect to the row's weights.
            channel = slope[0, r] if z.ndim > 2 else slope[:, r]
            for index in np.ndindex(*channel.shape):
                weight = layer.weight.detach().clone().requires_grad_()
                again = torch.func.functional_call(layer, {"weight": weight}, (given,))
                unit = again[(0, r, *index)] if z.ndim > 2 else again[(*index, r)]
                (inputs,) = torch.autograd.grad(unit, weight)
                column = inputs[r].flatten().numpy()
                out[r] += channel[index].item() ** 2 * np.outer(column, column)
    return out / len(x)


def case(name: str) -> tuple[nn.Module, nn.Module, nn.Module, Tensor]:
    torch.manual_seed(3)
    after = [nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(3)]
    if name == "conv":
        head: nn.Module = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU())
        layer: nn.Module = nn.Conv2d(2, 3, 2, padding=1)
        tail = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(3))
        x = torch.randn(5, 1, 4, 4)
    elif name == "grouped":
        head, layer = nn.Identity(), nn.Conv1d(4, 6, 3, groups=2, stride=2, padding=1)
        tail, x = nn.Sequential(*after), torch.randn(5, 4, 7)
    elif name == "linear":
        head, layer = nn.Flatten(), nn.Linear(6, 4)
        tail, x = nn.Sequential(*after), torch.randn(5, 2, 3)
    network = nn.Sequential(head, layer, tail).double().eval()
    network(x.double())
    return head, layer, tail, x.double()


@pytest.mark.parametrize("name", ["conv", "grouped", "linear"])
def test_blocks_by_hand(name: str) -> None:
    head, layer, tail, x = case(name)
    network = nn.Sequential(head, layer, tail).eval()
    found = fisher_blocks(network, "1", [x], seed=7)
    np.testing.assert_allclose(found, by_hand(head, layer, tail, x, 7), rtol=1e-9)
    np.testing.assert_array_equal(found, found.transpose(0, 2, 1))
    assert np.linalg.eigvalsh(found).min() > -1e-12 * np.abs(found).max()


def test_sequences_sum_over_their_positions() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(3, 4), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.inner(x).tanh().mean(dim=1))
            return out

    torch.manual_seed(0)
    network, x = Mean().double().eval(), torch.randn(4, 6, 3, dtype=torch.float64)
    found = fisher_blocks(network, "inner", [x], seed=1)
    expected = np.zeros((4, 3, 3))
    labels = labels_by_hand(network(x).detach(), 1)
    for image, label in zip(x, labels, strict=True):
        z = network.inner(image).detach().requires_grad_()
        logits = network.head(z.tanh().mean(dim=0))
        (slope,) = torch.autograd.grad(-logits.log_softmax(0)[label], z)
        for r in range(4):
            for p in range(6):
                expected[r] += slope[p, r].item() ** 2 * np.outer(image[p], image[p])
    np.testing.assert_allclose(found, expected / 4, rtol=1e-9)


def test_labels_follow_the_softmax() -> None:
    # At the logits themselves E[(∂ℓ/∂z_r)²] = p_r (1 − p_r).
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(2, 4)).double().eval()
    x = torch.tensor([[0.5, -2.0]], dtype=torch.float64)
    found = fisher_blocks(network, "0", [x.expand(4000, 2)])
    p = network(x).softmax(dim=1)[0].detach().numpy()
    expected = (p * (1 - p))[:, None, None] * np.outer(x[0], x[0])
    np.testing.assert_allclose(found, expected, rtol=0.15)


def test_labels_do_not_depend_on_the_batches_but_on_the_seed() -> None:
    *parts, x = case("conv")
    network = nn.Sequential(*parts).eval()
    whole = fisher_blocks(network, "1", [x], seed=2)
    np.testing.assert_allclose(
        fisher_blocks(network, "1", iter([x[:2], x[2:]]), seed=2), whole, rtol=1e-12
    )
    assert np.abs(fisher_blocks(network, "1", [x], seed=3) - whole).max() > 1e-6


def test_the_network_is_left_as_it_was() -> None:
    *parts, x = case("grouped")
    network = nn.Sequential(*parts).eval().requires_grad_(False)
    state = torch.get_rng_state()
    fisher_blocks(network, "1", [x])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in network.parameters())
    assert not any(m._forward_hooks for m in network.modules())


def test_too_large_blocks_are_refused_with_the_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = SimpleNamespace(available=3 * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    network = nn.Sequential(nn.Conv2d(512, 512, 3)).eval()
    with pytest.raises(
        InputError,
        match=r"'0' \(512 x 4608² x 8 bytes\) need 81\.0 GiB and 3\.0 GiB is",
    ):
        fisher_blocks(network, "0", [])


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(self.layer(x))
        return out


def test_what_cannot_be_computed_is_refused() -> None:
    network, x = (
        nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).eval(),
        torch.ones(2, 3),
    )
    with pytest.raises(UnknownNameError, match="unknown layer 'x'"):
        fisher_blocks(network, "x", [x])
    with pytest.raises(InputError, match="no images to compute the Fisher blocks"):
        fisher_blocks(network, "0", [])
    with pytest.raises(InputError, match="layer '0' is nan at"):
        fisher_blocks(network, "0", [x * float("nan")])
    with pytest.raises(InputError, match="training mode"):
        fisher_blocks(nn.Linear(3, 3).train(), "", [x])
    with pytest.raises(InputError, match="'layer' is called more than once"):
        fisher_blocks(Shared().eval(), "layer", [x])
    with pytest.raises(InputError, match="never calls layer 'unused'"):
        fisher_blocks(Shared().eval(), "unused", [x])
    wide = nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (2, 2))).eval()
    with pytest.raises(InputError, match=r"returns Tensor \(\(2, 2, 2\)\)"):
        fisher_blocks(wide, "0", [x])
    with torch.no_grad():
        for parameter in network[1].parameters():
            parameter.mul_(float("inf"))
    with pytest.raises(InputError, match="logits hold NaN or inf"):
        fisher_blocks(network, "0", [x])
