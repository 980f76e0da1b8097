"""Scores against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from qubo_rounding.network.evaluate import (
    Predictions,
    output_mse,
    paired_interval,
    predict,
    sqnr_db,
    with_weights,
)
from qubo_rounding.network.images import Images
from qubo_rounding.network.preprocessing import Preprocessing
from solvers import InputError

pytestmark = pytest.mark.arithmetic


def images(count: int) -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return Images(
        name="random",
        digest="",
        labels=torch.arange(count) % 7,
        skipped=0,
        preprocessing=Preprocessing(resize=8, crop=8),
        _items=pixels,
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_output_mse_is_what_the_data_say(groups: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((groups, 5, 300)) + 1
    moment = x @ x.transpose(0, 2, 1) / 300
    weight, rounded = rng.standard_normal((2, 4, 5))
    error = (rounded - weight).reshape(groups, -1, 5) @ x
    expected = (error**2).mean(axis=2).ravel()
    given = moment[0] if groups == 1 else moment
    np.testing.assert_allclose(output_mse(weight, rounded, given), expected)
    signal = ((weight.reshape(groups, -1, 5) @ x) ** 2).mean(axis=2).sum()
    expected_db = 10 * np.log10(signal / expected.sum())
    assert sqnr_db(weight, rounded, given) == pytest.approx(expected_db)
    assert sqnr_db(weight, weight, given) == np.inf


def test_predictions_are_those_of_the_network_and_leave_it_alone() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 7)).eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    some = images(20)
    found = predict(network, some, batch=6)
    logits = network(torch.cat(list(some.batches(20))))
    np.testing.assert_array_equal(found.top5, logits.topk(5).indices.numpy())
    rows = np.zeros((4, 27))
    changed = with_weights(network, "0", rows)
    assert float(changed[0].weight.detach().abs().max()) == 0  # type: ignore[index]
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_accuracy_and_agreement_by_hand() -> None:
    labels = torch.tensor([0, 1, 2, 3])
    a = Predictions(np.array([[0, 9], [9, 1], [9, 8], [3, 9]]))
    b = Predictions(np.array([[0, 9], [1, 9], [9, 2], [9, 3]]))
    np.testing.assert_array_equal(a.correct(labels), [True, False, False, True])
    np.testing.assert_array_equal(a.correct(labels, 2), [True, True, False, True])
    np.testing.assert_array_equal(a.agrees(b), [True, False, True, False])


def test_paired_interval_covers_the_difference() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random(400) < 0.8, rng.random(400) < 0.6
    low, high = paired_interval(a, b)
    assert low < a.mean() - b.mean() < high
    # Four standard errors wide, about.
    error = (a.astype(float) - b).std() / 20
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert paired_interval(a, b) == (low, high)
    # Another seed draws other samples: nearly the same interval.
    other = paired_interval(a, b, seed=1)
    assert other != (low, high)
    assert other == pytest.approx((low, high), abs=0.1 * (high - low))
    assert paired_interval(a, a) is None
    assert paired_interval(a[:20], b[:20]) is None


class _Nan(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x), 3), torch.nan)


class _Mixed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_networks_of_any_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 7)).eval()
    expected = predict(network, images(9)).top5[:, 0]
    found = predict(network.to(dtype), images(9)).top5[:, 0]
    np.testing.assert_array_equal(found, expected)


def test_outputs_that_are_no_logits_are_refused() -> None:
    with pytest.raises(InputError, match="outputs hold NaN"):
        predict(_Nan(), images(2))
    with pytest.raises(InputError, match=r"logits \[images, classes\]"):
        predict(nn.Identity(), images(2))
    with pytest.raises(InputError, match=r"logits \[images, classes\]"):
        predict(_Mixed(), images(2))
