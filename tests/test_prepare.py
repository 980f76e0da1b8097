"""Networks made ready: folded, opened, tied and repeated layers known."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from qubo_rounding.network.cifar_resnet import CifarResNet
from qubo_rounding.network.exposed import Exposed
from qubo_rounding.network.folding import fold_batch_norms, trace
from qubo_rounding.network.layer_data import following_activation
from qubo_rounding.network.layers import (
    capture_inputs,
    find_layer,
    layer_moments,
    supported_layers,
)
from qubo_rounding.network.prepare import (
    UNPROVEN,
    likely_layers,
    prepare,
    require_likely_layer,
)
from solvers.errors import InputError, UnknownNameError
from tests.own_layers import (
    ROWS,
    Clamped,
    Conv1D,
    DynamicSame,
    HarmlessLinear,
    InPlace,
    Masked,
    MaskedHere,
    Scaled,
    X,
)
from tests.test_folding import norms, randomised


class Tf(nn.Module):
    """What EfficientNet is made of, small."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = DynamicSame(3, 8, 3, stride=2, bias=False)
        self.norm0 = nn.BatchNorm2d(8)
        self.depthwise = DynamicSame(8, 8, 5, groups=8, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.act = nn.ReLU6()
        self.scaled = Scaled(8, 8, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm0(self.stem(x)))
        x = self.act(self.norm1(self.depthwise(x)))
        x = self.norm2(self.scaled(x))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


@pytest.fixture
def tf() -> Any:
    torch.manual_seed(0)
    return randomised(Tf())


def test_batch_norms_are_folded_into_exposed_layers(tf: Any) -> None:
    prepared = prepare(tf, X[:1])
    assert prepared.layers == ["stem", "depthwise", "scaled", "head"]
    # What comes of `scaled` is no longer what its layer gives.
    assert norms(prepared.network) == ["norm2"]
    assert prepared.untraced is None
    with torch.no_grad():
        torch.testing.assert_close(prepared.network(X), tf(X), rtol=1e-4, atol=1e-5)
    names = [name for name, _ in prepared.network.named_modules() if "." not in name]
    assert names == [name for name, _ in tf.named_modules() if "." not in name]
    moments = layer_moments(prepared.network, "depthwise", [X], progress=False)
    assert moments.second_moment.shape == (8, 25, 25)


def test_activations_after_exposed_layers_are_known(tf: Any) -> None:
    network = prepare(tf, X).network
    assert isinstance(following_activation(network, "stem"), nn.ReLU6)
    network = prepare(nn.Sequential(Scaled(3, 2, 1), nn.ReLU()), X).network
    assert following_activation(network, "0") is None


def test_exposed_layers_are_leaves_of_the_graph(tf: Any) -> None:
    targets = [str(node.target) for node in trace(prepare(tf, X).network).nodes]
    assert {"stem", "depthwise", "scaled", "head"} <= set(targets)
    assert not any(".layer" in target for target in targets)


def test_a_subclass_that_changes_in_place_does_not_give_its_layers_output() -> None:
    network = randomised(nn.Sequential(InPlace(3, 4, 3), nn.BatchNorm2d(4)))
    assert norms(prepare(network, X).network) == ["1"]


def test_copies_and_files_keep_what_is_exposed(tf: Any) -> None:
    network: Any = prepare(tf, X).network
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    for again in (copy.deepcopy(network), torch.load(file, weights_only=False)):
        assert supported_layers(again) == supported_layers(network)
        with torch.no_grad():
            assert torch.equal(again(X), network(X))
            find_layer(again, "stem").weight.zero_()  # type: ignore[operator, union-attr]
            assert not torch.equal(again(X), network(X))
    as_double = copy.deepcopy(network).double().to(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(as_double(X.double()).float(), network(X))
    # Every weight is there once.
    assert sum(p.numel() for p in network.parameters()) == (
        8 * 27 + 8 + 8 * 25 + 8 + 64 + 16 + 36
    )


def test_attributes_of_exposed_modules_can_be_read(tf: Any) -> None:
    network: Any = prepare(tf, X).network
    assert isinstance(network.stem, Exposed)
    assert network.stem.weight.shape == (8, 3, 3, 3)
    assert network.stem.stride == (2, 2)
    with pytest.raises(AttributeError, match="nothing"):
        _ = network.stem.nothing


def test_plain_networks_are_folded_and_nothing_else() -> None:
    torch.manual_seed(0)
    network = randomised(CifarResNet(20, 10))
    x = torch.randn(2, 3, 32, 32)
    folded, prepared = fold_batch_norms(network), prepare(network, x[:1])
    with torch.no_grad():
        assert torch.equal(folded(x), prepared.network(x))
    kinds = [type(module) for module in folded.modules()]
    assert [type(module) for module in prepared.network.modules()] == kinds
    assert prepared.layers == supported_layers(folded)
    assert prepared.tied == prepared.repeated == []
    assert prepare(network, None).layers == prepared.layers


def test_skipped_layers_are_refused_with_their_reason() -> None:
    network = prepare(nn.Sequential(Masked(4, 4)), ROWS, unsupported="skip").network
    for found in (network, copy.deepcopy(network)):
        with pytest.raises(InputError, match="layer '0' is a Masked that cannot be"):
            find_layer(found, "0")


def test_all_that_cannot_be_taken_is_counted() -> None:
    network = nn.Sequential(Masked(4, 4), MaskedHere(4, 4), Clamped(4, 4))
    with pytest.raises(InputError, match=r"^layer '0' .*\(and 2 more cannot\); unsupp"):
        prepare(network, ROWS)


class Language(nn.Module):
    """An embedding that is also the head's weight."""

    def __init__(self, head: bool) -> None:
        super().__init__()
        self.embedding, self.inner = nn.Embedding(7, 4), nn.Linear(4, 4)
        if head:
            self.head = nn.Linear(4, 7)
            self.head.weight = nn.Parameter(self.embedding.weight.data)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.inner(self.embedding(tokens))
        if hasattr(self, "head"):
            out: Tensor = self.head(x)
            return out
        return F.linear(x, self.embedding.weight)


TOKENS = torch.tensor([[1, 2, 3]])


def test_a_head_with_the_embeddings_weight() -> None:
    with pytest.raises(
        InputError, match="layer 'embedding' shares its weight with 'head'; give each"
    ):
        prepare(Language(head=True), TOKENS)
    prepared = prepare(Language(head=True), TOKENS, unsupported="skip")
    assert prepared.tied == [["embedding", "head"]]
    assert prepared.layers == ["inner"]
    with pytest.raises(InputError, match=r"'embedding' .* weight is used by embed"):
        prepare(Language(head=False), TOKENS)


def test_embeddings_alone_may_share() -> None:
    network = nn.ModuleDict({"a": nn.Embedding(7, 4), "b": nn.Linear(4, 2)})
    twin = nn.Embedding(7, 4)
    twin.weight = network["a"].weight  # type: ignore[assignment]
    prepared = prepare(nn.Sequential(network["a"], network["b"], twin)[:2], TOKENS)
    assert prepared.layers == ["1"]


@pytest.mark.parametrize("kind", [nn.Linear, HarmlessLinear])
def test_layers_that_share_a_weight(kind: Any) -> None:
    network = nn.Sequential(kind(4, 4), nn.ReLU(), kind(4, 4), nn.Linear(4, 4))
    network[2].weight = network[0].weight
    with pytest.raises(InputError, match="layer '0' shares its weight with '2'; give"):
        prepare(network, ROWS)
    prepared = prepare(network, ROWS, unsupported="skip")
    assert prepared.tied == [["0", "2"]]
    assert prepared.layers == ["3"]
    assert set(prepared.skipped) == {"0", "2"}


def test_attentions_that_share_a_weight() -> None:
    network = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(4, 1, 8), 2, enable_nested_tensor=False
    )
    one, two = (layer.self_attn for layer in network.layers)
    two.in_proj_weight = one.in_proj_weight
    prepared = prepare(network, ROWS, unsupported="skip")
    assert {"layers.0.self_attn", "layers.1.self_attn"} <= set(prepared.skipped)
    assert [n.split(".")[-1] for n in prepared.layers] == ["linear1", "linear2"] * 2


class Loop(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = self.alias = layer

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = self.layer(x)
        out: Tensor = self.alias(x)
        return out


@pytest.mark.parametrize("kind", [nn.Linear, HarmlessLinear])
def test_a_layer_that_runs_several_times(kind: Any) -> None:
    network = Loop(kind(4, 4))
    prepared = prepare(network, ROWS)
    assert prepared.layers == prepared.repeated == ["layer"]
    captured = list(capture_inputs(prepared.network, "layer", [ROWS]))
    assert len(captured) == 3
    with torch.no_grad():
        torch.testing.assert_close(captured[2], network.layer(network.layer(ROWS)))
        torch.testing.assert_close(prepared.network(ROWS), network(ROWS))
    assert find_layer(prepared.network, "alias") is find_layer(
        prepared.network, "layer"
    )


class ByFunction(nn.Module):
    """Multiplies by the weights of layers that it does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.one.weight, self.one.bias).relu()
        return F.linear(x, self.two.weight)


def test_layers_whose_weights_others_use_are_called() -> None:
    network = nn.Sequential(ByFunction(), nn.Linear(4, 4), ByFunction())
    prepared = prepare(network, ROWS)
    assert prepared.layers == ["0.one", "0.two", "1", "2.one", "2.two"]
    assert [str(n.target) for n in trace(prepared.network).nodes][1:-1] == [*"012"]
    file = io.BytesIO()
    torch.save(prepared.network, file)
    file.seek(0)
    for found in (
        prepared.network,
        copy.deepcopy(prepared.network),
        torch.load(file, weights_only=False),
    ):
        (x,) = capture_inputs(found, "2.two", [ROWS])
        with torch.no_grad():
            assert torch.equal(found(ROWS), network(ROWS))
            torch.testing.assert_close(x, network[2].one(network[:2](ROWS)).relu())
            find_layer(found, "2.two").weight.zero_()  # type: ignore[operator, union-attr]
            assert not found(ROWS).any()


class Listed(nn.Module):
    """Holds its layer a second time where no module sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = HarmlessLinear(4, 4)
        self.hidden = [self.layer]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.hidden[0](x)
        return out


def test_what_cannot_be_seen_is_noticed_by_the_outputs() -> None:
    with pytest.raises(InputError, match="Listed gives other outputs once its layers"):
        prepare(Listed(), ROWS)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = DynamicSame(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> dict[str, Any]:
        x = self.norm(self.conv(x))
        return {"out": [x if x.mean() > 0 else -x], "nothing": None}


def test_batch_norms_stay_where_the_network_cannot_be_traced() -> None:
    network: Any = randomised(Branching())
    prepared: Any = prepare(network, X)
    assert norms(prepared.network) == ["norm"]
    assert "torch.fx cannot trace it" in prepared.untraced
    assert prepared.layers == ["conv"]
    assert torch.equal(prepared.network(X)["out"][0], network(X)["out"][0])


def test_training_mode_and_gradients_are_the_originals_own_affair() -> None:
    network = nn.Sequential(DynamicSame(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    before = copy.deepcopy(network.state_dict())
    prepared = prepare(network.train(), X).network
    assert network.training
    assert not any(module.training for module in prepared.modules())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert not network[0]._forward_hooks
    assert not network[0]._forward_pre_hooks


def test_parametrised_weights_become_plain() -> None:
    network = nn.Sequential(parametrizations.weight_norm(HarmlessLinear(4, 4)))
    prepared = prepare(network, ROWS)
    with torch.no_grad():
        torch.testing.assert_close(prepared.network(ROWS), network(ROWS))
    assert prepared.layers == ["0"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    network = nn.Sequential(DynamicSame(3, 8, 3), nn.ReLU(), DynamicSame(8, 4, 3))
    prepared = prepare(network.to(dtype), X)
    assert prepared.layers == ["0", "2"]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_scripted_modules_are_refused() -> None:
    network = nn.Sequential(torch.jit.script(nn.Linear(4, 4)))
    with pytest.raises(InputError, match="layer '0' is compiled by TorchScript; give"):
        prepare(network, ROWS)


def test_a_network_that_does_not_run_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="Sequential cannot be run on a batch of"):
        prepare(nn.Sequential(nn.Linear(5, 4)), ROWS)
    with pytest.raises(InputError, match="unsupported must be refuse or skip, not"):
        prepare(nn.Sequential(), ROWS, unsupported="no")  # type: ignore[arg-type]


def test_nothing_is_proven_without_an_example(tf: Any) -> None:
    with pytest.raises(InputError, match="layer 'stem' is of a class of its own"):
        prepare(tf, None)
    prepared = prepare(tf, None, unsupported="skip")
    assert prepared.layers == ["head"]
    assert prepared.skipped == dict.fromkeys(["stem", "depthwise", "scaled"], UNPROVEN)


def test_likely_layers(tf: Any) -> None:
    with pytest.raises(UnknownNameError, match="layer 'stemm'; did you mean stem"):
        require_likely_layer(tf, "stemm")
    assert likely_layers(tf) == prepare(tf, X).layers
    network = nn.Sequential(nn.MultiheadAttention(4, 2), nn.ReLU(), Conv1D(2, 2))
    names = [f"0.{name}_proj" for name in ("q", "k", "v", "out")]
    assert likely_layers(network) == names
    for name in (*names, "2"):
        require_likely_layer(network, name)
    with pytest.raises(InputError, match="layer '1' is a ReLU; supported are"):
        require_likely_layer(network, "1")
    with pytest.raises(UnknownNameError, match=r"unknown layer '0\.q_prj'; did you"):
        require_likely_layer(network, "0.q_prj")


def test_what_is_prepared_is_only_copied() -> None:
    network = randomised(Tf())
    once = prepare(network, X[:1], unsupported="skip")
    twice = prepare(once.network, X[:1])
    assert twice.layers == once.layers
    assert twice.skipped == once.skipped
    assert twice.network is not once.network
    with torch.no_grad():
        torch.testing.assert_close(twice.network(X), once.network(X), rtol=0, atol=0)
