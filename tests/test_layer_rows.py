"""A layer as rows times columns, verified against torch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, weight_norm

from qubo_rounding.network import layer_rows, layers
from solvers.errors import InputError

CONVS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@st.composite
def conv_and_input(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    spatial = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))

    def each(least: int, most: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(least, most)) for _ in range(spatial))

    padding: Any = draw(st.sampled_from(["same", "valid", "integers"]))
    stride = (1,) * spatial if padding == "same" else each(1, 3)
    if padding == "integers":
        padding = each(0, 2)
    torch.manual_seed(draw(st.integers(0, 1000)))
    conv = CONVS[spatial](
        groups * draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 2)),
        each(1, 3),
        stride=stride,
        padding=padding,
        dilation=each(1, 2),
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=draw(
            st.sampled_from(["zeros", "reflect", "replicate", "circular"])
        ),
    )
    x = torch.randn(draw(st.integers(1, 3)), conv.in_channels, *each(5, 7))
    return conv, x


@st.composite
def linear_and_input(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(draw(st.integers(0, 1000)))
    layer = nn.Linear(
        draw(st.integers(1, 5)), draw(st.integers(1, 5)), bias=draw(st.booleans())
    )
    leading = draw(st.lists(st.integers(1, 3), max_size=3))
    return layer, torch.randn(*leading, layer.in_features)


def by_rows(module: Any, x: Tensor) -> Tensor:
    """The layer's output ``[R, P]`` as rows times columns."""
    columns = layers.unfold(module, x)
    rows = torch.from_numpy(layers.weight_rows(module)).to(x.dtype)
    rows = rows.reshape(layers.groups(module), -1, rows.shape[1])
    out = (rows @ columns).flatten(0, 1)
    return out if module.bias is None else out + module.bias.detach()[:, None]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=150, deadline=None)
@given(st.one_of(conv_and_input(), linear_and_input()))
def test_rows_times_columns_is_the_layer(case: tuple[Any, Tensor]) -> None:
    module, x = case
    with torch.no_grad():
        expected = layers.output_rows(module, module(x))
        torch.testing.assert_close(by_rows(module, x), expected, atol=1e-5, rtol=1e-5)
        module, x = module.double(), x.double()
        expected = layers.output_rows(module, module(x))
    torch.testing.assert_close(by_rows(module, x), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=60, deadline=None)
@given(st.one_of(conv_and_input(), linear_and_input()))
def test_row_errors_from_moments_are_those_on_the_data(
    case: tuple[Any, Tensor],
) -> None:
    module, x = case[0].double().eval(), case[1].double()
    module.bias = None
    # A batch axis for a linear layer that was drawn without any.
    x = x if x.ndim > 1 else x[None]
    rows = layers.weight_rows(module)
    rounded = np.round(rows * 4) / 4
    batches = [x[:1], x[1:]][: len(x)]
    moments = layers.layer_moments(nn.Sequential(module).eval(), "0", batches)
    groups = layers.groups(module)
    error = (rounded - rows).reshape(groups, -1, rows.shape[1])
    from_moments = np.einsum(
        "gri,gij,grj->gr", error, moments.second_moment, error
    ).ravel()
    other = copy.deepcopy(module)
    layers.set_weight_rows(other, rounded)
    with torch.no_grad():
        difference = layers.output_rows(module, module(x) - other(x))
    measured = (difference**2).mean(dim=1).numpy()
    assert moments.count == difference.shape[1]
    np.testing.assert_allclose(from_moments, measured, rtol=1e-9, atol=1e-18)


def test_an_image_without_batch_axis_is_a_batch_of_one() -> None:
    conv, x = nn.Conv2d(2, 3, 3), torch.randn(2, 5, 6)
    with torch.no_grad():
        expected = layers.output_rows(conv, conv(x))
    torch.testing.assert_close(by_rows(conv, x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_unfold_keeps_the_dtype(dtype: torch.dtype) -> None:
    x = torch.randn(1, 2, 5, 5).to(dtype)
    assert layers.unfold(nn.Conv2d(2, 3, 3, padding=1), x).dtype == dtype


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Conv2d(4, 6, 3, padding=1, groups=2), torch.randn(5, 4, 9, 7)),
        (nn.Conv1d(4, 4, 3, stride=2), torch.randn(5, 4, 33)),
        (nn.Conv3d(2, 3, 2), torch.randn(3, 2, 5, 4, 6)),
        (nn.Linear(6, 2), torch.randn(4, 11, 6)),
    ],
    ids=["conv2d", "conv1d", "conv3d", "linear"],
)
@pytest.mark.parametrize("limit", [1, 700, 2000])
def test_columns_come_in_bounded_chunks(
    monkeypatch: pytest.MonkeyPatch, module: nn.Module, x: Tensor, limit: int
) -> None:
    whole = layers.unfold(module, x).double().numpy()
    monkeypatch.setattr(layer_rows, "CHUNK_BYTES", limit)
    chunks = list(layer_rows.column_chunks(module, x))
    assert len(chunks) > 1
    # One line of output positions is the least that is unfolded.
    assert max(c.nbytes for c in chunks) <= max(limit, whole.nbytes / len(x) / 4)
    together = np.concatenate(chunks, axis=2)
    assert together.shape == whole.shape
    order = [np.lexsort(a[0]) for a in (together, whole)]
    np.testing.assert_array_equal(together[..., order[0]], whole[..., order[1]])


def test_weights_round_trip_in_place() -> None:
    conv = nn.Conv2d(4, 6, 3, groups=2).half()
    parameter, rows = conv.weight, layers.weight_rows(conv)
    assert rows.shape == (6, 18)
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows[1], parameter[1].detach().numpy().ravel())
    rows[:] = 0.5
    assert not (layers.weight_rows(conv) == 0.5).any()
    layers.set_weight_rows(conv, rows)
    assert conv.weight is parameter
    assert parameter.dtype == torch.float16
    assert (parameter == 0.5).all()


def test_weights_are_checked_before_they_are_set() -> None:
    layer = nn.Linear(3, 2).half()
    before = layers.weight_rows(layer)
    with pytest.raises(InputError, match=r"shape \(3, 2\), the layer needs \(2, 3\)"):
        layers.set_weight_rows(layer, np.zeros((3, 2)))
    for bad in (np.nan, 1e6):
        with pytest.raises(InputError, match=r"not finite in torch\.float16"):
            layers.set_weight_rows(layer, np.full((2, 3), bad))
    np.testing.assert_array_equal(layers.weight_rows(layer), before)


def test_parametrised_weights_are_read_but_not_set() -> None:
    layer = parametrizations.weight_norm(nn.Conv2d(2, 3, 3))
    with torch.no_grad():
        layer.parametrizations.weight.original0 *= 2
    rows = layers.weight_rows(layer)
    np.testing.assert_array_equal(rows, layer.weight.detach().flatten(1).numpy())
    with pytest.raises(
        InputError, match="this Conv2d is parametrised and cannot be set"
    ):
        layers.set_weight_rows(layer, rows)


class OwnConv(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


def pruned() -> nn.Module:
    layer = nn.Linear(3, 3)
    prune.l1_unstructured(layer, "weight", 0.5)  # type: ignore[no-untyped-call]
    return layer


def normed() -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"):
        return weight_norm(nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.ConvTranspose2d(2, 2, 3), "is a ConvTranspose2d; supported are"),
        (lambda: nn.LazyConv2d(2, 3), "is a LazyConv2d; supported are"),
        (lambda: nn.LazyLinear(2), "is a LazyLinear; supported are"),
        (lambda: nn.BatchNorm2d(2), "is a BatchNorm2d; supported are"),
        (lambda: nn.Bilinear(2, 2, 2), "is a Bilinear; supported are Conv1d, Conv2d"),
        (lambda: OwnConv(2, 2, 3), "is a OwnConv; supported are"),
        (lambda: nn.Linear(2, 2, dtype=torch.complex64), "not real floating-point"),
        (pruned, "rebuilds its weight in a hook"),
        (normed, "rebuilds its weight in a hook"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_modules_are_refused_by_name(make: Any, message: str) -> None:
    network = nn.Sequential(make(), nn.Linear(2, 2))
    with pytest.raises(InputError, match=f"layer '0' .*{message}"):
        layers.find_layer(network, "0")
    with pytest.raises(InputError, match=message):
        layers.weight_rows(network[0])
    assert layers.supported_layers(network) == ["1"]


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(2, 3, 3), (1, 3, 5, 5)),
        (nn.Conv2d(2, 3, 3), (5, 5)),
        (nn.Conv1d(2, 3, 3), (1, 2, 5, 5)),
        (nn.Linear(4, 2), (4, 3)),
    ],
)
def test_inputs_must_fit_the_layer(module: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=rf"input of shape \({shape[0]}, .* for a"):
        layers.unfold(module, torch.zeros(shape))
