"""Rounded activations: their ranges, their simulation, and what is refused."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from qubo_rounding.network.whole.activations import (
    quantize_activations,
    round_activations,
)
from qubo_rounding.network.whole.ranges import (
    BINS,
    KL_BINS,
    ActivationRange,
    Histogram,
    choose,
    divergence,
)
from qubo_rounding.problem.grid import Grid
from solvers.errors import InputError
from tests.network_cases import GRIDS, images, rounded, small_network

RULES = ("minmax", "percentile:99.9", "mse", "kl")


def histogram(values: np.ndarray) -> Histogram:
    low, high = min(values.min(), 0), max(values.max(), 0)
    counts, _ = np.histogram(values, BINS, (low, high))
    return Histogram(low, high, counts.astype(float), float((values == 0).sum()))


def sample(kind: str, count: int = 50_000) -> np.ndarray:
    rng = np.random.default_rng(0)
    values = {"normal": rng.normal(1, 2, count), "heavy": rng.standard_t(3, count)}
    if kind == "relu":
        return np.maximum(values["heavy"], 0)
    return values[kind]


def ends(r: ActivationRange) -> tuple[float, float]:
    return r.scale * (r.lo - r.zero_point), r.scale * (r.hi - r.zero_point)


@pytest.fixture(scope="module")
def quantized():
    return rounded(small_network(), GRIDS["tensor"])


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 3), (0.5, 3), (-3.0, -1), (0, 0)])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_range_covers_what_it_should(bits, low, high, symmetric):
    r = ActivationRange.cover(low, high, bits, symmetric)
    assert r.hi - r.lo == 2**bits - 1
    assert r.nearest(np.zeros(1)) == 0
    step = r.scale / 2 * (1 + 1e-6)
    values = np.linspace(low, high, 101)
    assert np.abs(r.nearest(values) - values).max() <= step
    assert r.zero_point == 0 if symmetric or low >= 0 else r.zero_point > 0
    assert r.signed == symmetric


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("bits", 9, "2 to 8 bits"),
        ("bits", 8.0, "2 to 8 bits"),
        ("scale", 0.0, "positive float32"),
        ("scale", 0.1, "positive float32"),
        ("scale", math.inf, "positive float32"),
        ("zero_point", 256, "from 0 to 255"),
        ("zero_point", -1, "from 0 to 255"),
        ("signed", 1, "true or false"),
    ],
)
def test_a_range_refuses_what_is_none(field, value, message):
    right = ActivationRange(8, 0.5, 0, False)
    with pytest.raises(InputError, match=message):
        replace(right, **{field: value})


@pytest.mark.parametrize("kind", ["normal", "heavy", "relu"])
@pytest.mark.parametrize("share", [95.0, 99.9, 100.0])
def test_percentiles_are_numpys(kind, share):
    values = sample(kind)
    found = histogram(values)
    bin_width = (found.high - found.low) / BINS
    r = choose(f"percentile:{share}", found, 8, False)
    for end, p in zip(ends(r), (100 - share, share), strict=True):
        # In the tails two neighbours may be some bins apart.
        low, high = (np.percentile(values, p, method=m) for m in ("lower", "higher"))
        slack = np.array([-2, 2]) * bin_width
        least, most = np.array([low, high]) + slack
        assert least < found.percentile(p) < most
        # A range moves by half a step, so that zero is a value.
        assert least - r.scale < end < most + r.scale


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("kind", ["normal", "heavy", "relu"])
def test_mse_against_a_dense_search(kind, symmetric, bits):
    values = sample(kind, 2000)

    def error(r: ActivationRange) -> float:
        return float(((values - r.nearest(values)) ** 2).sum())

    shares = np.linspace(0.04, 1, 25)
    low = [0.0] if symmetric or kind == "relu" else shares * values.min()
    high = shares * (np.abs(values).max() if symmetric else values.max())
    best = min(
        error(ActivationRange.cover(a, b, bits, symmetric)) for a in low for b in high
    )
    found = error(choose("mse", histogram(values), bits, symmetric))
    assert found < 1.05 * best
    assert found <= error(choose("minmax", histogram(values), bits, symmetric))


def direct_divergence(counts: np.ndarray, centres: np.ndarray, r: ActivationRange):
    """TensorRT's divergence, bin by bin."""
    integer = [round(c / r.scale) + r.zero_point for c in centres]
    inside = [i for i, q in enumerate(integer) if r.lo <= q <= r.hi and counts[i] > 0]
    P = {i: counts[i] for i in inside}
    P[inside[0]] += sum(c for c, q in zip(counts, integer, strict=True) if q < r.lo)
    P[inside[-1]] += sum(c for c, q in zip(counts, integer, strict=True) if q > r.hi)
    Q = {}
    for i in inside:
        together = [j for j in inside if integer[j] == integer[i]]
        Q[i] = sum(counts[j] for j in together) / len(together)
    p, q = sum(P.values()), sum(Q.values())
    return sum(P[i] / p * math.log(P[i] / p / (Q[i] / q)) for i in inside)


@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("kind", ["normal", "relu"])
def test_divergence_against_a_direct_sum(kind, share):
    found = histogram(sample(kind))
    r = ActivationRange.cover(share * found.low, share * found.high, 4, False)
    values = sample(kind)[sample(kind) != 0]
    counts, _ = np.histogram(values, KL_BINS, (found.low, found.high))
    expected = direct_divergence(counts, found.centres(KL_BINS), r)
    assert divergence(found, r) == pytest.approx(expected, rel=1e-6)


def test_kl_cuts_a_far_outlier_and_keeps_a_flat_range():
    rng = np.random.default_rng(0)
    flat = rng.uniform(0, 1, 200_000)
    assert ends(choose("kl", histogram(flat), 8, False))[1] > 0.98
    outlier = np.append(np.abs(rng.normal(size=200_000)), 12.0)
    assert ends(choose("kl", histogram(outlier), 8, False))[1] < 8
    # Few values: nothing is lost by rounding, and nothing may be cut.
    few = np.tile([0.0, 0.1, 0.5, 4.0], 1000)
    assert ends(choose("kl", histogram(few), 8, False))[1] == pytest.approx(4)


def watch(layer: nn.Module, seen: dict, name: str) -> None:
    def note(_, args, output) -> None:
        seen[name] = args[0].detach()

    layer.register_forward_hook(note)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_a_network_rounds_what_it_says(quantized, rule, symmetric):
    x = images(32)
    found = quantize_activations(quantized, lambda: [x], rule=rule, symmetric=symmetric)
    assert set(found.activations) == {*quantized.layers, "add[0]", "add[1]"}
    assert found.layers is quantized.layers
    expected = {"bits": 8, "rule": rule, "symmetric": symmetric}
    assert found.meta == {**quantized.meta, "activations": expected}
    seen = {}
    for name in quantized.layers:
        watch(found.network.get_submodule(name), seen, name)
    y, exact = found.network(x), quantized.network(x)
    assert 0 < (y - exact).abs().max() < 0.2 * exact.abs().max()
    for name, inputs in seen.items():
        r = found.activations[name]
        q = inputs.double().numpy() / r.scale + r.zero_point
        assert np.abs(q - np.rint(q)).max() < 1e-3
        assert r.lo - 1e-3 <= q.min() <= q.max() <= r.hi + 1e-3
    if not symmetric:
        assert found.activations["grouped"].zero_point == 0  # behind a ReLU
    assert torch.equal(copy.deepcopy(found.network)(x), y)
    assert torch.equal(quantized.network(x), exact)


def test_ranges_are_those_of_all_batches_and_calls(quantized):
    x = images(32)
    whole = quantize_activations(quantized, lambda: [x], rule="mse")
    parts = quantize_activations(quantized, lambda: x.split(5), rule="mse")
    for name, r in whole.activations.items():
        assert parts.activations[name].scale == pytest.approx(r.scale, rel=1e-4)
    low, high = ends(quantize_activations(quantized, lambda: [x]).activations["conv1"])
    assert low == pytest.approx(float(x.min()), abs=(high - low) / 255)
    assert high == pytest.approx(float(x.max()), abs=(high - low) / 255)


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x, mask=None):
        y = self.first(input=x)
        if y.sum() > 1e9:
            return y
        return self.second(F.relu(y) + x)


def test_where_nothing_traces_the_inputs_of_layers_are_rounded():
    network = rounded(Untraceable().eval(), Grid())
    x = torch.randn(20, 4)
    found = quantize_activations(network, lambda: [x])
    assert set(found.activations) == {"first", "second"}
    assert type(found.network) is Untraceable
    assert not any(module.training for module in found.network.modules())
    assert not torch.equal(found.network(x), network.network(x))
    again = pickle.loads(pickle.dumps(found.network))
    assert torch.equal(again(x), found.network(x))


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x, mask=None, factor=2):
        sizes = x.size(0) + x.size(1)
        return torch.add(self.layer(x), x) * factor * (sizes / sizes)


def test_additions_of_tensors_alone_in_a_network_with_options():
    network = rounded(Optional().eval(), Grid())
    x = torch.randn(20, 4)
    found = quantize_activations(network, lambda: [x])
    assert len(found.activations) == 3
    assert found.network(x).shape == (20, 4)


class NotUsed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.idle = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 9}, "2 to 8 bits"),
        ({"bits": True}, "2 to 8 bits"),
        ({"rule": "mae"}, "did you mean mse"),
        ({"rule": "percentile:many"}, "over 50 and at most 100"),
        ({"rule": "percentile:50"}, "over 50 and at most 100"),
        ({"rule": "mse:3"}, "over 50 and at most 100"),
    ],
)
def test_bad_options(quantized, options, message):
    def batches():
        raise AssertionError("refused before any image is read")

    with pytest.raises(InputError, match=message):
        quantize_activations(quantized, batches, **options)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_activations_that_are_not_finite_name_their_layer(value):
    network = rounded(small_network(), GRIDS["tensor"])
    network.network.grouped.bias.data[0] = value
    with pytest.raises(InputError, match="activations at 'depthwise' run from") as e:
        quantize_activations(network, lambda: [images()])
    assert "\n" not in str(e.value)


def test_what_cannot_be_observed(quantized):
    with pytest.raises(InputError, match="no images"):
        quantize_activations(quantized, list)
    idle = rounded(NotUsed().eval(), Grid())
    with pytest.raises(InputError, match="'idle' never runs"):
        quantize_activations(idle, lambda: [torch.randn(3, 4)])
    found = quantize_activations(quantized, lambda: [images()])
    with pytest.raises(InputError, match="rounded already"):
        quantize_activations(found, lambda: [images()])
    with pytest.raises(InputError, match=r"unknown place .* did you mean add"):
        round_activations(quantized.network, {"add[2]": found.activations["add[0]"]})
    training = replace(quantized, network=copy.deepcopy(quantized.network).train())
    with pytest.raises(InputError, match="training mode"):
        quantize_activations(training, lambda: [images()])
