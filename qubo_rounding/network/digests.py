"""Hashes of tensors and of what holds them, and of networks."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def add(sha: Any, value: Any) -> None:
    """Add a value, with its form, to a hash.

    Parameters
    ----------
    sha
        An object of `hashlib`.
    value
        Tensors, arrays, mappings and sequences of such, and other values, of which the
        text counts.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous()
        sha.update(json.dumps([str(value.dtype), list(value.shape)]).encode())
        # As bytes, since numpy lacks some of torch's kinds of numbers.
        sha.update(value.flatten().view(torch.uint8).numpy().data)
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        sha.update(json.dumps([value.dtype.str, list(value.shape)]).encode())
        sha.update(value.tobytes())
    elif isinstance(value, Mapping):
        sha.update(f"mapping of {len(value)}".encode())
        for key, part in value.items():
            sha.update(repr(key).encode())
            add(sha, part)
    elif isinstance(value, list | tuple):
        sha.update(f"sequence of {len(value)}".encode())
        for part in value:
            add(sha, part)
    else:
        sha.update(repr(value).encode())


def tensors_digest(tensors: Iterable[Tensor]) -> str:
    """A hash of the values of tensors, such as decoded images."""
    sha = hashlib.sha256()
    for tensor in tensors:
        add(sha, tensor)
    return sha.hexdigest()[:16]


def network_digest(model: str, network: nn.Module) -> str:
    """A hash of what a network is beside its weights: its layers, its factory's file.

    Parameters
    ----------
    model
        The network's name, or ``package.module:factory``.
    network
        The network.
    """
    sha = hashlib.sha256(repr(network).encode())
    module, colon, _ = model.partition(":")
    path = getattr(sys.modules[module], "__file__", None) if colon else None
    if path is not None:
        sha.update(Path(path).read_bytes())
    return sha.hexdigest()[:16]
