"""Attention by plain layers against torch's own."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qubo_rounding.network.attention import Attention, refusal
from qubo_rounding.network.folding import trace
from qubo_rounding.network.layers import capture_inputs, find_layer, supported_layers
from qubo_rounding.network.prepare import prepare
from qubo_rounding.network.vision import import_torchvision

BATCH, TARGETS, SOURCES, WIDTH, HEADS = 2, 3, 5, 8, 2


def randomised(module: nn.Module) -> Any:
    """Biases that matter, which torch sets to zero; in float64 and eval mode."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double().eval()


def masks() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pairs = torch.rand(TARGETS, SOURCES, generator=generator) < 0.3
    pairs[:, 0] = False
    each = torch.rand(BATCH * HEADS, TARGETS, SOURCES, generator=generator) < 0.3
    each[..., 0] = False
    keys = torch.zeros(BATCH, SOURCES, dtype=torch.bool)
    keys[1, -2:] = True
    return {"pairs": pairs, "each": each, "keys": keys}


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("kind", ["boolean", "float"])
@pytest.mark.parametrize(
    ("attn_mask", "key_padding_mask"),
    [(None, None), ("pairs", None), ("each", None), (None, "keys"), ("each", "keys")],
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False, "batch_first": True},
        {"kdim": 4, "vdim": 6},
        {"dropout": 0.5, "batch_first": True},
    ],
    ids=str,
)
def test_same_as_torchs(
    options: dict[str, Any],
    attn_mask: str | None,
    key_padding_mask: str | None,
    kind: str,
    need_weights: bool,
) -> None:
    original = randomised(nn.MultiheadAttention(WIDTH, HEADS, **options))
    before = copy.deepcopy(original.state_dict())
    ours = Attention(original)
    shapes = ((TARGETS, WIDTH), (SOURCES, original.kdim), (SOURCES, original.vdim))
    x = [torch.randn(BATCH, *shape, dtype=torch.float64) for shape in shapes]
    if not original.batch_first:
        x = [t.transpose(0, 1) for t in x]
    arguments: dict[str, Any] = {"need_weights": need_weights}
    for argument, name in (
        ("attn_mask", attn_mask),
        ("key_padding_mask", key_padding_mask),
    ):
        if name is not None:
            mask = masks()[name]
            if kind == "float":
                mask = torch.where(mask, -1.5, 0.25).double()
            arguments[argument] = mask
    with torch.no_grad():
        for average in (True, False):
            arguments["average_attn_weights"] = average
            expected, found = original(*x, **arguments), ours(*x, **arguments)
            torch.testing.assert_close(found, expected)
    assert all(
        torch.equal(value, before[k]) for k, value in original.state_dict().items()
    )
    assert supported_layers(nn.Sequential(ours)) == [
        f"0.{name}_proj" for name in ("q", "k", "v", "out")
    ]


@pytest.mark.parametrize(
    ("batch_first", "masked", "average"),
    list(itertools.product([True, False], repeat=3)),
)
def test_without_a_batch(batch_first: bool, masked: bool, average: bool) -> None:
    original = randomised(nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first))
    x = torch.randn(SOURCES, WIDTH, dtype=torch.float64)
    arguments: dict[str, Any] = {"average_attn_weights": average}
    if masked:
        arguments["attn_mask"] = torch.ones(SOURCES, SOURCES).triu(1).bool()
        arguments["key_padding_mask"] = torch.arange(SOURCES) > 3
    with torch.no_grad():
        expected = original(x, x, x, **arguments)
        torch.testing.assert_close(Attention(original)(x, x, x, **arguments), expected)


def test_a_causal_mask_must_be_given() -> None:
    ours = Attention(nn.MultiheadAttention(WIDTH, HEADS))
    x = torch.randn(SOURCES, BATCH, WIDTH)
    mask = torch.ones(SOURCES, SOURCES).triu(1).bool()
    hinted = ours(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)[0]
    torch.testing.assert_close(hinted, ours(x, x, x, attn_mask=mask)[0])
    with pytest.raises(ValueError, match="attn_mask, which is missing"):
        ours(x, x, x, is_causal=True)


class Own(nn.MultiheadAttention):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


def hooked() -> nn.MultiheadAttention:
    module = nn.MultiheadAttention(4, 2)
    module.register_forward_hook(lambda module, args, output: None)
    return module


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.MultiheadAttention(4, 2, add_bias_kv=True), "with add_bias_kv or"),
        (nn.MultiheadAttention(4, 2, add_zero_attn=True), "or add_zero_attn"),
        (Own(4, 2), "is a Own, a MultiheadAttention with a forward of its own"),
        (hooked(), "with hooks, which would be lost"),
        (nn.MultiheadAttention(4, 2), None),
    ],
)
def test_what_stays_as_it_is(module: nn.MultiheadAttention, reason: str | None) -> None:
    found = refusal(module)
    assert found is reason is None or (reason is not None and reason in str(found))


class Encoder(nn.Module):
    """A text encoder that pads: tokens of 0 do not count."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, **options)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(WIDTH, 3)
        self.batch_first = options.get("batch_first", False)

    def forward(self, tokens: Tensor) -> Tensor:
        padding = tokens == 0
        x = self.embedding(tokens)
        x = x if self.batch_first else x.transpose(0, 1)
        x = self.encoder(x, src_key_padding_mask=padding)
        x = x if self.batch_first else x.transpose(0, 1)
        kept = (~padding)[..., None].to(x.dtype)
        out: Tensor = self.head((x * kept).sum(1) / kept.sum(1))
        return out


@pytest.mark.filterwarnings("ignore:enable_nested_tensor", "ignore:The PyTorch API of")
@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"norm_first": True}])
def test_encoder_layers_call_their_modules(options: dict[str, Any]) -> None:
    network = randomised(Encoder(**options))
    tokens = torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]])
    prepared = prepare(network, tokens[:1])
    parts = ("q_proj", "k_proj", "v_proj", "out_proj")
    layers = [*(f"self_attn.{part}" for part in parts), "linear1", "linear2"]
    names = [f"encoder.layers.{i}.{layer}" for i in range(2) for layer in layers]
    assert prepared.layers == [*names, "head"]
    ran = []
    for name in prepared.layers:
        layer = find_layer(prepared.network, name)
        # A hook would keep the encoder off its fused path by itself.
        layer.forward = lambda x, layer=layer, name=name: (  # type: ignore[method-assign]
            ran.append(name) or nn.Linear.forward(layer, x)
        )
    with torch.inference_mode():
        torch.testing.assert_close(prepared.network(tokens), network(tokens))
    assert ran == prepared.layers


def test_inputs_of_projections_are_seen() -> None:
    network = randomised(Encoder(batch_first=True))
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    prepared = prepare(network, tokens).network
    (x,) = capture_inputs(prepared, "encoder.layers.0.self_attn.k_proj", [tokens])
    torch.testing.assert_close(x, network.embedding(tokens))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.whole = nn.Transformer(WIDTH, HEADS, 1, 1, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        out: Tensor = self.whole(x, x[:, :-1], tgt_mask=mask[:-1, :-1].to(x))
        return out


def test_a_whole_transformer_is_taken() -> None:
    network, x = randomised(Decoder()), torch.randn(2, 4, WIDTH, dtype=torch.float64)
    prepared = prepare(network, x)
    assert len(prepared.layers) == 6 + 10
    with torch.no_grad():
        torch.testing.assert_close(prepared.network(x), network(x))


def test_torchvisions_vit_is_traced_through() -> None:
    transformer = import_torchvision().models.VisionTransformer
    network = randomised(transformer(32, 16, 1, HEADS, WIDTH, 16, num_classes=3))
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    prepared = prepare(network, x)
    layer = "encoder.layers.encoder_layer_0"
    parts = (*(f"self_attention.{p}_proj" for p in "qkv"), "self_attention.out_proj")
    assert prepared.layers == [
        "conv_proj",
        *(f"{layer}.{name}" for name in (*parts, "mlp.0", "mlp.3")),
        "heads.head",
    ]
    graph = trace(prepared.network)
    targets = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    assert set(prepared.layers) <= set(targets)
    with torch.no_grad():
        torch.testing.assert_close(prepared.network(x), network(x))
