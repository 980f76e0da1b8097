"""Multi-head attention whose projections are linear layers of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """What `torch.nn.MultiheadAttention` computes in eval mode, by four plain layers.

    torch packs three of the projections into one matrix and multiplies by it in a
    function, where no hook sees what a layer is given. There is no dropout here.

    Parameters
    ----------
    original
        The attention whose weights are copied; see `refusal`.

    Attributes
    ----------
    q_proj, k_proj, v_proj, out_proj
        The projections of queries, keys, values, and of what the heads give.
    """

    def __init__(self, original: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads = original.embed_dim, original.num_heads
        self.kdim, self.vdim = original.kdim, original.vdim
        self.head_dim, self.batch_first = original.head_dim, original.batch_first
        # Transformer layers of torch read these before they would go past their
        # modules in one fused function. Without a bias of this form they do not.
        self._qkv_same_embed_dim = original._qkv_same_embed_dim
        self.in_proj_weight = self.in_proj_bias = None
        weights = (
            original.in_proj_weight.chunk(3)
            if original._qkv_same_embed_dim
            else (
                original.q_proj_weight,
                original.k_proj_weight,
                original.v_proj_weight,
            )
        )
        packed = original.in_proj_bias
        biases = (None, None, None) if packed is None else packed.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = (
            linear(weight, bias) for weight, bias in zip(weights, biases, strict=True)
        )
        self.out_proj = linear(original.out_proj.weight, original.out_proj.bias)
        self.train(original.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; arguments and results as of `torch.nn.MultiheadAttention`."""
        if is_causal and attn_mask is None:
            raise ValueError("is_causal is a remark about attn_mask, which is missing")
        # Axes are counted so that the same lines treat inputs with and without a
        # batch, and torch.fx meets no branch that depends on them.
        axis = -3 if self.batch_first else 0
        q, k, v = (
            layer(x).unflatten(-1, (self.num_heads, -1)).movedim(axis, -2)
            for layer, x in (
                (self.q_proj, query),
                (self.k_proj, key),
                (self.v_proj, value),
            )
        )
        mask = None
        if key_padding_mask is not None:
            mask = _additive(key_padding_mask, q.dtype)[..., None, None, :]
        if attn_mask is not None:
            pairs = _additive(attn_mask, q.dtype)
            if pairs.ndim == 3:
                pairs = pairs.reshape(*q.shape[:-1], k.shape[-2])
            mask = pairs if mask is None else pairs + mask
        weights = None
        if need_weights:
            logits = (q * self.head_dim**-0.5) @ k.mT
            weights = (logits if mask is None else logits + mask).softmax(-1)
            heads = weights @ v
            if average_attn_weights:
                weights = weights.mean(-3)
        else:
            heads = F.scaled_dot_product_attention(q, k, v, mask)
        return self.out_proj(heads.movedim(-2, axis).flatten(-2)), weights


def refusal(module: nn.MultiheadAttention) -> str | None:
    """Why the module cannot become an `Attention`, or None."""
    if type(module).forward is not nn.MultiheadAttention.forward:
        return (
            f"is a {type(module).__name__}, a MultiheadAttention with a forward of its "
            "own"
        )
    if module.bias_k is not None or module.add_zero_attn:
        return "is a MultiheadAttention with add_bias_kv or add_zero_attn"
    if any(m._forward_hooks or m._forward_pre_hooks for m in module.modules()):
        return "is a MultiheadAttention with hooks, which would be lost"
    return None


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A plain linear layer with copies of weight and bias."""
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    return layer


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as what is added to logits: minus infinity where a boolean one is set."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -torch.inf)
    return mask.to(dtype)
