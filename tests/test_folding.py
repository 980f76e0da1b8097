"""Batch-norm folding: exact, or not done."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from qubo_rounding.network import vision
from qubo_rounding.network.folding import BATCH_NORMS, fold_batch_norms
from qubo_rounding.network.layers import supported_layers
from solvers.errors import InputError


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every batch norm statistics and parameters that matter."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if not isinstance(module, BATCH_NORMS):
            continue
        for tensor, low, high in (
            (module.running_mean, -0.2, 0.2),
            (module.running_var, 0.5, 2.0),
            (module.weight, 0.5, 1.5),
            (module.bias, -0.2, 0.2),
        ):
            if tensor is not None:
                tensor.data.uniform_(low, high, generator=generator)
    return network.eval()


def norms(network: nn.Module) -> list[str]:
    return [n for n, m in network.named_modules() if isinstance(m, BATCH_NORMS)]


def module_names(network: nn.Module) -> list[str]:
    names = (name for name, _ in network.named_modules())
    return [name for name in names if "parametrizations" not in name]


def check_same(network: nn.Module, x: Tensor) -> nn.Module:
    """Fold in float64 and compare; the original must stay as it was."""
    network, x = randomised(network).double(), x.double()
    before = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        expected = network(x)
        folded = fold_batch_norms(network)
        torch.testing.assert_close(folded(x), expected, rtol=1e-10, atol=1e-10)
        after = network.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
    assert type(folded) is type(network)
    torch.testing.assert_close(network(x), expected)
    assert not any(module.training for module in folded.modules())
    assert set(supported_layers(network)) <= set(supported_layers(folded))
    assert module_names(folded) == module_names(network)
    return folded


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", ["1d", "2d", "3d", "linear"])
def test_pairs_fold_exactly(kind: str, bias: bool, affine: bool) -> None:
    if kind == "linear":
        layer: nn.Module = nn.Linear(4, 6, bias=bias)
        norm: nn.Module = nn.BatchNorm1d(6, affine=affine)
        x = torch.randn(5, 4)
    else:
        spatial = int(kind[0])
        conv = getattr(nn, f"Conv{kind}")
        layer = conv(
            4, 6, 3, padding=1, groups=2, bias=bias, padding_mode="reflect", stride=2
        )
        norm = getattr(nn, f"BatchNorm{kind}")(6, affine=affine, eps=0.1)
        x = torch.randn(5, 4, *(6,) * spatial)
    assert norms(check_same(nn.Sequential(layer, norm, nn.ReLU()), x)) == []


def test_one_dtype_stays_and_float32_is_folded_in_float64() -> None:
    network = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    folded: Any = fold_batch_norms(network)
    exact: Any = fold_batch_norms(copy.deepcopy(network).double())
    assert folded[0].weight.dtype == folded[0].bias.dtype == torch.float32
    assert torch.equal(folded[0].weight, exact[0].weight.float())
    assert torch.equal(folded[0].bias, exact[0].bias.float())


def test_a_batch_norm_before_the_convolution_stays() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3))
    assert norms(check_same(network, torch.randn(2, 3, 5, 5))) == ["0"]


def test_an_activation_in_between_keeps_the_batch_norm() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))
    assert norms(check_same(network, torch.randn(2, 3, 5, 5))) == ["2"]


def test_a_batch_norm_without_running_statistics_stays() -> None:
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), norm)
    assert norms(check_same(network, torch.randn(2, 3, 5, 5))) == ["1"]


class Own(nn.Module):
    """A convolution and a batch norm, wired by the given function."""

    def __init__(self, wiring: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.wiring = wiring

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.wiring(self, x)
        return out


@pytest.mark.parametrize(
    ("wiring", "kept"),
    [
        (lambda m, x: (y := m.conv(x)) + m.norm(y), ["norm", "other"]),
        (lambda m, x: m.norm(m.conv(x)) + m.other(m.conv(x)), ["norm", "other"]),
        (lambda m, x: m.norm(m.conv(x)) + m.norm(x), ["norm", "other"]),
        (lambda m, x: m.norm(m.conv(x)) + m.conv.weight.sum(), ["norm", "other"]),
        (lambda m, x: m.norm(m.conv(x)) + m.norm.bias.sum(), ["norm", "other"]),
        (lambda m, x: m.norm(m.conv(x) * 2), ["norm", "other"]),
        (lambda m, x: m.norm(input=m.conv(input=x)), ["other"]),
        (lambda m, x: m.other(m.norm(m.conv(x))), ["other"]),
    ],
    ids=[
        "output used twice",
        "convolution called twice",
        "norm called twice",
        "weight read elsewhere",
        "norm read elsewhere",
        "something in between",
        "keyword arguments",
        "second norm",
    ],
)
def test_only_what_is_exact_is_folded(wiring: Any, kept: list[str]) -> None:
    assert norms(check_same(Own(wiring), torch.randn(2, 4, 5, 5))) == kept


def test_modules_shared_under_two_names_stay() -> None:
    conv, norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
    network = nn.Sequential(conv, norm, nn.Sequential(conv, nn.BatchNorm2d(4)))
    assert norms(check_same(network, torch.randn(2, 4, 5, 5))) == ["1", "2.1"]


def test_a_weight_shared_by_two_layers_is_folded_into_one() -> None:
    one, two = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
    two.weight = one.weight
    network = nn.Sequential(one, nn.BatchNorm2d(4), two)
    assert norms(check_same(network, torch.randn(2, 4, 7, 7))) == []


def test_hooks_keep_the_batch_norm() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network[0].register_forward_hook(lambda module, args, output: output * 2)
    assert norms(check_same(network, torch.randn(2, 3, 5, 5))) == ["1"]


class OwnConv(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).abs()


def test_subclasses_with_their_own_arithmetic_stay() -> None:
    network = nn.Sequential(OwnConv(3, 4, 3), nn.BatchNorm2d(4))
    assert norms(check_same(network, torch.randn(2, 3, 5, 5))) == ["1"]


def test_parametrised_weights_become_plain() -> None:
    network = nn.Sequential(
        parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)
    )
    assert norms(check_same(network, torch.randn(2, 3, 5, 5))) == []
    folded: Any = fold_batch_norms(network)
    assert type(folded[0]) is nn.Conv2d
    assert type(network[0]) is not nn.Conv2d


def test_a_linear_layer_over_sequences_is_not_folded_silently() -> None:
    # BatchNorm1d normalises axis 1, here the sequence; folding would be wrong, and
    # only the input's shape tells.
    network = randomised(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    folded = fold_batch_norms(network)
    x = torch.randn(3, 4)
    torch.testing.assert_close(folded(x), network(x))
    with pytest.raises(InputError, match=r"inputs of 2 axes was given shape \(3, 4, 4"):
        folded(torch.randn(3, 4, 4))


def test_a_convolution_over_one_image_is_not_folded_silently() -> None:
    # Without a batch axis BatchNorm1d would take the positions for channels.
    network = randomised(nn.Sequential(nn.Conv1d(2, 4, 1), nn.BatchNorm1d(4)))
    with pytest.raises(InputError, match=r"inputs of 3 axes was given shape \(4, 4\)"):
        fold_batch_norms(network)(torch.randn(2, 4))


def test_folding_twice_is_folding_once() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    once: Any = fold_batch_norms(randomised(network))
    twice: Any = fold_batch_norms(randomised(nn.Sequential(once, nn.BatchNorm1d(2))))
    x = torch.randn(3, 4)
    torch.testing.assert_close(once(x), network(x))
    torch.testing.assert_close(twice[0][:2](x), once[:2](x))
    assert norms(twice) == []


class Untraceable(nn.Module):
    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out if out.mean() > 0 else -out


def test_a_network_that_cannot_be_traced_is_refused_if_it_matters() -> None:
    with pytest.raises(
        InputError, match=r"norms of Untraceable: torch\.fx cannot trace it \(symbol"
    ) as caught:
        fold_batch_norms(Untraceable(norm=True))
    assert "\n" not in str(caught.value)
    check_same(Untraceable(norm=False), torch.randn(2, 3, 5, 5))


class Optional(nn.Module):
    """An argument that images alone leave at its default."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        y = self.conv(x)
        if shift is not None:
            y = y + shift
        out: Tensor = self.norm(y)
        return out


def test_optional_arguments_take_their_defaults() -> None:
    assert norms(check_same(Optional(), torch.randn(2, 3, 5, 5))) == []


@pytest.mark.parametrize(
    ("name", "size", "kept"),
    [
        ("resnet18", 64, 0),
        ("mobilenet_v2", 64, 0),
        ("squeezenet1_1", 64, 0),
        ("inception_v3", 80, 0),
        ("efficientnet_b0", 64, 0),
        # Its batch norms come before the convolutions, but for one in each dense
        # layer (58) and the first of all.
        ("densenet121", 64, 121 - 59),
        ("shufflenet_v2_x0_5", 64, 0),
    ],
)
def test_torchvision_models_keep_their_logits(name: str, size: int, kept: int) -> None:
    torch.manual_seed(0)
    network = randomised(vision.build(name, num_classes=10))
    x = torch.randn(2, 3, size, size)
    folded = fold_batch_norms(network)
    with torch.no_grad():
        expected, found = network(x), folded(x)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert len(norms(folded)) == kept
    assert supported_layers(folded) == supported_layers(network)
