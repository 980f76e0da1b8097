"""Whole networks: optimal on small ones, resumable, guarded, and clear when refused."""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qubo_rounding.network.cifar_resnet import CifarResNet
from qubo_rounding.network.whole import quantize
from qubo_rounding.network.whole.parts import Parts
from qubo_rounding.network.whole.quantize import quantize_network
from qubo_rounding.network.whole.rounding import trusted_share
from qubo_rounding.problem.grid import Grid
from qubo_rounding.problem.target_moments import TargetSums
from solvers.errors import InputError, UnknownNameError

SOLVER = "kbest[paths=8]"
ALONE = Parts(inputs=False, residual=False, bias=False, trust=False, guard=False)

# Most networks here see few images.
pytestmark = pytest.mark.filterwarnings("ignore:layer.*positions for:UserWarning")


def _network(depth: int = 8) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = CifarResNet(depth)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2.0)
    return network.eval()


def _images(count: int = 32, side: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, side, side, generator=generator)
    return list(images.split(8))


def _quantized(network: nn.Module | None = None, **options):
    options = {"bits": 3, "solver": SOLVER, "grid": Grid()} | options
    return quantize_network(network or _network(), _images(), **options)


def _error(network: nn.Module, quantized) -> float:
    x = torch.cat(_images(64)[4:])
    with torch.no_grad():
        return float(((network(x) - quantized.network(x)) ** 2).mean())


def test_a_linear_layer_is_rounded_optimally() -> None:
    generator = torch.Generator().manual_seed(3)
    network = nn.Sequential(nn.Linear(4, 2)).eval()
    with torch.no_grad():
        network[0].weight.copy_(torch.randn(2, 4, generator=generator))
    batches = [torch.rand(40, 4, generator=generator)]
    parts = Parts(trust=False, guard=False)
    found = quantize_network(
        network, batches, grid=Grid(), bits=3, solver="exact", parts=parts
    )
    layer = found.layers["0"]
    x = batches[0].double().numpy()
    weight = network[0].weight.detach().double().numpy()
    base = np.clip(np.floor(weight / layer.scale), layer.lo, layer.hi - 1)
    for row in range(2):
        outputs = [
            (layer.scale[row] * (base[row] + b) - weight[row]) @ x.T
            for b in itertools.product((0, 1), repeat=4)
        ]
        # The best bias takes the mean away.
        least = min(output.var() for output in outputs)
        with torch.no_grad():
            error = (found.network(batches[0]) - network(batches[0]))[:, row].numpy()
        np.testing.assert_allclose(error.mean(), 0, atol=1e-6)
        np.testing.assert_allclose(error.var(), least, rtol=1e-4)


def test_each_part_lowers_the_error_of_the_network() -> None:
    network = _network()
    steps = [
        ALONE,
        Parts(residual=False, bias=False, trust=False, guard=False),
        Parts(bias=False, trust=False, guard=False),
        Parts(trust=False, guard=False),
    ]
    nearest = _error(network, _quantized(network, solver="nearest", parts=ALONE))
    errors = [_error(network, _quantized(network, parts=parts)) for parts in steps]
    assert errors[0] < nearest
    # All parts together; one by one they need not help on every network.
    assert errors[-1] < 0.9 * errors[0]


def test_the_report_says_what_the_network_does() -> None:
    network = _network()
    found = _quantized(network, layers=["conv1"], parts=ALONE)
    report = found.layers["conv1"].report
    x = torch.cat(_images())
    folded = quantize.prepare(network, x[:1]).network
    with torch.no_grad():
        difference = folded.conv1(x) - found.network.conv1(x)
    error = float((difference.double() ** 2).mean((0, 2, 3)).sum())
    assert report["error"] == pytest.approx(error, rel=1e-4)
    assert report["error"] <= report["error_nearest"]
    assert report["positions"] == 32 * 64


def test_layers_of_codes_are_the_layers_of_the_network() -> None:
    found = _quantized(bits_of={"linear": 8}, exclude=["layer1.0.conv1"])
    assert "layer1.0.conv1" not in found.layers
    assert found.layers["linear"].grid.bits == 8
    for name, layer in found.layers.items():
        module = found.network.get_submodule(name)
        np.testing.assert_array_equal(
            module.weight.detach().flatten(1).numpy(),
            layer.weight().astype(np.float32),
        )
        np.testing.assert_array_equal(module.bias.detach().numpy(), layer.bias)
        np.testing.assert_array_equal(
            layer.scale, layer.scale.astype(np.float32).astype(np.float64)
        )
        assert layer.codes.min() >= layer.lo.min()
        assert layer.codes.max() <= layer.hi.max()


def test_the_network_that_is_given_stays_as_it_is() -> None:
    network = _network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    _quantized(network)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("granularity", ["channel", "group"])
def test_grids_per_channel_and_group(granularity) -> None:
    size = 9 if granularity == "group" else None
    grid = Grid(symmetric=False, granularity=granularity, group_size=size, turns=2)
    network, layers = _network(), ["layer1.0.conv1", "layer1.0.conv2"]
    found = _quantized(network, grid=grid, layers=layers)
    coarse = _quantized(network, layers=layers)
    assert _error(network, found) < _error(network, coarse)


def test_scale_and_codes_in_turn_lower_the_error() -> None:
    network, layers = _network(), ["layer1.0.conv1", "layer1.0.conv2"]
    grid = Grid(granularity="channel", turns=3)
    turned = _quantized(network, bits=2, layers=layers, grid=grid)
    fixed = _quantized(network, bits=2, layers=layers, grid=replace(grid, turns=0))
    ours, theirs = turned.layers[layers[0]].report, fixed.layers[layers[0]].report
    assert ours["turns"] > 0
    assert ours["error"] < theirs["error"]


def test_finished_layers_are_taken_up_again(tmp_path, monkeypatch) -> None:
    whole = _quantized()
    solved: list[str] = []
    original = quantize.round_layer

    def interrupted(*args, **kwargs):
        if len(solved) == 3:
            raise KeyboardInterrupt
        solved.append("layer")
        return original(*args, **kwargs)

    monkeypatch.setattr(quantize, "round_layer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _quantized(keep=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr(quantize, "round_layer", original)
    again = _quantized(keep=tmp_path)
    assert len(list(tmp_path.iterdir())) == len(whole.layers)
    for name, layer in whole.layers.items():
        np.testing.assert_array_equal(layer.codes, again.layers[name].codes)
        np.testing.assert_array_equal(layer.bias, again.layers[name].bias)
        left_out = {"seconds"}
        assert {k: v for k, v in layer.report.items() if k not in left_out} == {
            k: v for k, v in again.layers[name].report.items() if k not in left_out
        }
    monkeypatch.setattr(quantize, "round_layer", None)
    _quantized(keep=tmp_path)
    with pytest.raises(InputError, match="kept by other work"):
        _quantized(keep=tmp_path, seed=1)


def test_a_layer_that_is_worse_than_nearest_falls_back(monkeypatch) -> None:
    found = _quantized(solver="ceil", grid=Grid(), parts=Parts(holdout=4))
    guarded = [layer for layer in found.layers.values() if layer.report["guarded"]]
    assert guarded
    for layer in guarded:
        report = layer.report
        assert report["heldout_error"] > report["heldout_error_nearest"]
    free = _quantized(solver="ceil", grid=Grid(), parts=Parts(guard=False))
    network = _network()
    assert _error(network, found) < _error(network, free)


def test_the_shift_is_trusted_as_far_as_it_holds() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 5, 400))
    shift = rng.standard_normal((3, 5))

    def moments(part: slice, sign: float):
        sums = TargetSums(5, 3)
        sums.update(x[:, :, part], sign * shift @ x[0, :, part])
        return sums.moments()

    first, second = slice(0, 200), slice(200, 400)
    assert trusted_share(moments(first, 1), moments(second, 1)) == pytest.approx(
        1, 0.01
    )
    assert trusted_share(moments(first, 1), moments(second, 0.5)) == pytest.approx(
        0.5, 0.01
    )
    assert trusted_share(moments(first, 1), moments(second, -1)) == 0


class Encoder(nn.Module):
    """Tokens through an attention block; padding positions hold rubbish."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor, padding: Tensor) -> Tensor:
        x = self.block(self.embed(tokens), src_key_padding_mask=padding)
        x = x.masked_fill(padding[:, :, None], 0.0)
        return self.head(F.relu(x.mean(dim=1)))


def test_tokens_that_are_padding_do_not_count() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Encoder().eval()
        tokens = torch.randint(1, 11, (16, 6))
    padding = torch.arange(6) >= torch.arange(16)[:, None] % 5 + 2
    batch = {"tokens": tokens, "padding": padding}
    found = quantize_network(
        network,
        [batch],
        solver=SOLVER,
        mask=lambda batch: ~batch["padding"],
        parts=Parts(trust=False, guard=False),
    )
    assert {"block.self_attn.q_proj", "block.linear1", "head"} <= set(found.layers)
    assert found.layers["block.linear1"].report["positions"] == int((~padding).sum())
    assert found.layers["head"].report["positions"] == 16
    with torch.no_grad():
        assert torch.isfinite(found.network(**batch)).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": ["conv11"]}, UnknownNameError, "conv1"),
        ({"exclude": ["linaer"]}, UnknownNameError, "linear"),
        ({"bits_of": {"liner": 8}}, UnknownNameError, "linear"),
        ({"layers": ["layer1"]}, InputError, "layer1"),
        ({"layers": ["linear"], "exclude": ["linear"]}, InputError, "no layer"),
        ({"bits": 9}, InputError, "bits"),
        ({"solver": "latice"}, UnknownNameError, "lattice"),
        ({"parts": "all"}, InputError, "parts"),
    ],
)
def test_what_is_wrong_is_one_line(options, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        _quantized(**options)
    assert "\n" not in str(caught.value)


def test_parts_say_what_is_wrong_with_them() -> None:
    with pytest.raises(InputError, match="residual needs inputs"):
        Parts(inputs=False)
    with pytest.raises(InputError, match="holdout"):
        Parts(holdout=1)
    with pytest.raises(InputError, match="guard"):
        Parts(guard="yes")  # type: ignore[arg-type]


def test_no_batches_and_wrong_ones() -> None:
    with pytest.raises(InputError, match="no calibration batches"):
        quantize_network(_network(), [])
    with pytest.raises(InputError, match="cannot be run"):
        quantize_network(_network(), [torch.randn(2, 5, 8, 8)])


def test_a_network_in_float64_stays_one() -> None:
    found = quantize_network(_network().double(), _images(), solver=SOLVER)
    assert found.network.conv1.weight.dtype == torch.float64
    assert math.isfinite(_error(_network(), _quantized()))


@pytest.mark.parametrize(
    ("widths", "said"),
    [
        ((4,), None),
        ((4, 9), "layer 1: 8 positions for 9 variables: its rounding fits the cali"),
        (
            (11, 12, 13, 14, 15),
            "layers 0: 8 positions for 11 variables, 1: 8 positions for 12 variables, "
            "2: 8 positions for 13 variables, 2 more: their rounding fits the calib",
        ),
    ],
)
def test_fewer_positions_than_variables_are_warned_of_once(
    widths: tuple[int, ...], said: str | None
) -> None:
    ends = zip(widths, (*widths[1:], 2), strict=True)
    network = nn.Sequential(*(nn.Linear(a, b) for a, b in ends)).eval()
    batches = [torch.randn(8, widths[0])]

    def warned(solver: str) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            quantize_network(network, batches, solver=solver, parts=ALONE)
        return [str(warning.message) for warning in caught]

    found = warned("kbest")
    assert len(found) == (said is not None)
    assert all(line.startswith(str(said)) for line in found)
    # Rounding to nearest fits nothing.
    assert warned("nearest") == []


def test_too_few_images_to_hold_some_out_are_said() -> None:
    with pytest.warns(UserWarning, match="8 calibration images are too few to hold"):
        quantize_network(_network(), _images(8), bits=3, solver="babai")


def test_a_mask_that_fits_no_layer_is_said() -> None:
    def mask(batch: Tensor) -> Tensor:
        return torch.ones(len(batch) + 1)

    with pytest.warns(UserWarning, match="axes of no layer's output: all positions"):
        _quantized(mask=mask)
