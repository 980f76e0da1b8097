"""Batches: tensors, or mappings from the names of a network's arguments to tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from qubo_rounding.network.layers import like_weights


def moved(network: nn.Module, batch: Any) -> Any:
    """A batch on the network's device and in its floating-point type."""
    if isinstance(batch, Mapping):
        return {name: moved(network, value) for name, value in batch.items()}
    return like_weights(network, batch) if isinstance(batch, Tensor) else batch


def given(network: nn.Module, batch: Any) -> Any:
    """What the network makes of a batch."""
    return network(**batch) if isinstance(batch, Mapping) else network(batch)


def examples(batch: Any) -> int:
    """Number of examples in a batch, by the first tensor of a mapping."""
    return len(next(iter(batch.values())) if isinstance(batch, Mapping) else batch)
