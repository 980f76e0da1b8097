"""Layers by what they compute: taken when one image proves it, else refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from qubo_rounding.network.evaluate import with_weights
from qubo_rounding.network.layer_rows import output_rows, unfold, weight_rows
from qubo_rounding.network.layers import capture_inputs, find_layer, supported_layers
from qubo_rounding.network.prepare import prepare
from solvers.errors import InputError
from tests.own_layers import (
    ROWS,
    Beside,
    BiasAgain,
    BiasOnce,
    Clamped,
    Conv1D,
    DynamicSame,
    HarmlessConv,
    InPlace,
    Masked,
    MaskedHere,
    Multiplied,
    Outside,
    Packed,
    Pairs,
    Product,
    Scaled,
    Sequences,
    Several,
    Sized,
    Standardised,
    StaticSame,
    Strides,
    TwiceACall,
    Unused,
    X,
    as_kernel_of_one,
    einsum,
    left,
    right,
    sliced,
    turned,
)

IMAGE, TEXT = (2, 4, 7, 9), (2, 5, 6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (DynamicSame(4, 6, 3, stride=2), IMAGE),
        (DynamicSame(4, 6, (3, 4), dilation=2, groups=2, bias=False), IMAGE),
        (DynamicSame(4, 4, 5, stride=2, groups=4), IMAGE),
        (StaticSame(4, 6, 3, stride=2), IMAGE),
        (HarmlessConv(4, 6, 3, padding=1, padding_mode="circular"), IMAGE),
        (HarmlessConv(4, 6, 3, padding="same"), IMAGE),
        (Scaled(4, 6, 3), IMAGE),
        (InPlace(4, 6, 3), IMAGE),
        (nn.modules.linear.NonDynamicallyQuantizableLinear(6, 3), TEXT),
        (Conv1D(3, 6), TEXT),
        (Product(right, 6, 3), TEXT),
        (Product(turned, 3, 6), TEXT),
        (Product(left, 3, 5), TEXT),
        (Product(as_kernel_of_one, 3, 6, 1), TEXT),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else "",
)
def test_what_is_taken(layer: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Identity(), copy.deepcopy(layer)).double()
    x = torch.randn(shape, dtype=torch.float64)
    before = copy.deepcopy(network.state_dict())
    prepared = prepare(network, x[:1])
    assert prepared.layers == supported_layers(prepared.network) == ["1"]
    assert not prepared.skipped
    plain = find_layer(prepared.network, "1")
    assert type(plain) in (nn.Conv2d, nn.Linear)
    # The layer's rows times what it is given are what it gives.
    (given,) = capture_inputs(prepared.network, "1", [x])
    rows = torch.from_numpy(weight_rows(plain))
    columns = unfold(plain, given)
    product = (rows.reshape(len(columns), -1, rows.shape[1]) @ columns).flatten(0, 1)
    with torch.no_grad():
        bias = 0 if plain.bias is None else plain.bias[:, None]
        torch.testing.assert_close(output_rows(plain, plain(given)), product + bias)
        torch.testing.assert_close(prepared.network(x), network(x))
        # New weights have the effect that they would have had in the original.
        new = rows.numpy().round(1)
        changed = with_weights(prepared.network, "1", new)
        parameter = next(iter(network[1].parameters()))
        parameter.copy_(_like(parameter, torch.from_numpy(new), layer))
        torch.testing.assert_close(changed(x), network(x))
        assert not torch.allclose(changed(x), prepared.network(x))
        parameter.copy_(next(iter(before.values())))
    assert before.keys() == network.state_dict().keys()


def _like(parameter: Tensor, rows: Tensor, layer: nn.Module) -> Tensor:
    """Weight rows in the original layer's form."""
    transposed = isinstance(layer, Conv1D) or getattr(layer, "product", None) is right
    return (rows.T if transposed else rows).reshape(parameter.shape)


@pytest.mark.parametrize(
    ("layer", "name", "reason"),
    [
        (Masked(4, 4), "0", "its weight is changed or divided before it multiplies"),
        (MaskedHere(4, 4), "0", "cannot be taken: its weight is used by mul"),
        (TwiceACall(4, 4), "0", "does not multiply by its weight just once a call"),
        (Sized(4, 4), "0", "its weight is read by __float__"),
        (Multiplied(4, 4), "0", "its weight is used by mul"),
        (Clamped(4, 4), "0", "its weight is changed by clamp_"),
        (BiasOnce(4, 4), "0", "changes its bias before it is added"),
        (BiasAgain(4, 4), "0", "whose bias is also used elsewhere"),
        (Packed(), "0", "its packed is changed or divided before"),
        (Several(), "0", r"is a Several with several weights or none \(one, two\)"),
        (Beside(), "0.projection", "is a weight of a Beside, beside its submodules"),
        (Outside(), "0.inner", "has its weight used outside of it, by Outside"),
        (Sequences(), "0.cells", "is a LSTM; supported are Conv1d"),
        (Unused(), "0.unused", "is never called in a forward pass"),
        (Strides(), "0.conv", "multiplies in different ways in one forward pass"),
        (Product(einsum, 3, 4), "0", "its kernel is used by einsum"),
        (Product(sliced, 4, 3), "0", "its kernel is changed or divided before"),
        (Pairs(), "0.both", "is a Bilinear; supported are"),
        (Standardised(3, 2, 3), "0", "its weight is changed or divided before"),
        (nn.ConvTranspose1d(3, 2, 2), "0", "is a ConvTranspose1d; supported are"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else "",
)
def test_what_is_refused_by_name(layer: nn.Module, name: str, reason: str) -> None:
    network = nn.Sequential(copy.deepcopy(layer))
    x = X if isinstance(layer, nn.Conv2d) else ROWS
    with pytest.raises(InputError, match=f"^layer '{name}' .*{reason}") as caught:
        prepare(network, x)
    assert "\n" not in str(caught.value)
    prepared = prepare(network, x, unsupported="skip")
    assert list(prepared.skipped) == [name]
    assert name not in prepared.layers
    with torch.no_grad():
        assert torch.equal(prepared.network(x), network(x))
