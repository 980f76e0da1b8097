"""A layer's arithmetic as a matrix product: weight rows times input columns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from solvers.errors import InputError

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
SUPPORTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
CHUNK_BYTES = 16 * 2**20
"""Float64 memory of the columns that are unfolded at a time."""
_MARK = "_why_not_rounded"


def refusal(module: nn.Module) -> str | None:
    """Why the module cannot be rounded, or None.

    Subclasses are refused, since they may compute something else; what they compute
    can be found out by `qubo_rounding.network.prepare`.
    """
    if _MARK in module.__dict__:
        return str(module.__dict__[_MARK])
    if _kind(module) not in SUPPORTED:
        known = ", ".join(kind.__name__ for kind in SUPPORTED)
        return f"is a {_kind(module).__name__}; supported are {known}"
    if "weight" not in module._parameters and not parametrize.is_parametrized(
        module, "weight"
    ):
        return (
            "rebuilds its weight in a hook (old weight_norm or pruning); make the "
            "weight a plain parameter first"
        )
    weight = module.weight
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        return "has weights that are not real floating-point numbers"
    return None


def refuse(module: nn.Module, reason: str) -> None:
    """Let `refusal` give this reason for the module, and for copies of it."""
    module.__dict__[_MARK] = reason


def marked(module: nn.Module) -> str | None:
    """The reason that `refuse` gave for the module, or None."""
    reason: str | None = module.__dict__.get(_MARK)
    return reason


def groups(module: nn.Module) -> int:
    """Return the groups of a convolution; 1 for a linear layer."""
    layer = _supported(module)
    return 1 if isinstance(layer, nn.Linear) else layer.groups


def weight_rows(module: nn.Module) -> NDArray[np.float64]:
    """Return the weights as ``[R, n]``: a row per output channel.

    ``n`` is C_in/groups · kernel size, in the order of the weight tensor; rows
    split evenly into ``groups(module)`` contiguous blocks. A parametrised weight
    is read as the layer uses it.
    """
    weight = _supported(module).weight.detach()
    rows: NDArray[np.float64] = weight.flatten(1).cpu().double().numpy().copy()
    return rows


def set_weight_rows(module: nn.Module, rows: NDArray[np.float64]) -> None:
    """Write ``[R, n]`` rows into the layer, in place and in its own dtype.

    Raises
    ------
    InputError
        If the shape differs, a row is not finite in the layer's dtype, or the
        weight is parametrised and so cannot be set exactly.
    """
    weight = _supported(module).weight
    if parametrize.is_parametrized(module, "weight"):
        raise InputError(
            f"the weight of this {_kind(module).__name__} is parametrised and cannot "
            "be set; bake it in with parametrize.remove_parametrizations first"
        )
    expected = tuple(weight.flatten(1).shape)
    if rows.shape != expected:
        raise InputError(f"rows have shape {rows.shape}, the layer needs {expected}")
    new = torch.from_numpy(np.ascontiguousarray(rows)).to(weight.dtype)
    if not torch.isfinite(new).all():
        raise InputError(f"rows hold values that are not finite in {weight.dtype}")
    with torch.no_grad():
        weight.copy_(new.reshape(weight.shape))


def unfold(module: nn.Module, x: Tensor) -> Tensor:
    """Return the columns ``[G, n, P]`` that the rows of each group multiply.

    ``P`` runs over the batch, then over the output positions in row-major order
    (for a linear layer: over all leading dimensions), so that
    ``rows[g] @ unfold(x)[g]`` plus bias is the output of group ``g``. The dtype and
    device are those of ``x``.

    Raises
    ------
    InputError
        If ``x`` does not fit the layer.
    """
    return _columns(_windows(module, x))


def output_rows(module: nn.Module, output: Tensor) -> Tensor:
    """Reorder a layer's output to ``[R, P]``, in the positions of `unfold`."""
    if isinstance(module, nn.Linear):
        return output.reshape(-1, module.out_features).T
    spatial = len(_conv(module).kernel_size)
    if output.ndim == spatial + 1:
        output = output[None]
    return output.transpose(0, 1).flatten(1)


def column_chunks(module: nn.Module, x: Tensor) -> Iterator[NDArray[np.float64]]:
    """Yield the columns of `unfold` as float64, a bounded number at a time."""
    windows = _windows(module, x)
    linear = windows.ndim == 3
    batch_axis = 2 if linear else 2 + (windows.ndim - 3) // 2
    lines_per_image = 1 if linear else windows.shape[batch_axis + 1]
    line_bytes = (
        8 * windows.numel() // max(windows.shape[batch_axis] * lines_per_image, 1)
    )
    lines = max(1, CHUNK_BYTES // max(line_bytes, 1))
    for images in torch.split(windows, max(1, lines // lines_per_image), batch_axis):
        parts = (
            (images,)
            if linear
            else torch.split(images, min(lines, lines_per_image), batch_axis + 1)
        )
        for part in parts:
            yield _columns(part).cpu().double().numpy()


def _windows(module: nn.Module, x: Tensor) -> Tensor:
    """View of the inputs as ``[G, C/G, *kernel, N, *output]``."""
    if isinstance(module, nn.Linear):
        if x.shape[-1] != module.in_features:
            raise InputError(
                f"input of shape {tuple(x.shape)} for a Linear layer with "
                f"{module.in_features} input features"
            )
        return x.reshape(-1, module.in_features).T[None]
    conv = _conv(module)
    spatial = len(conv.kernel_size)
    if x.ndim == spatial + 1:
        x = x[None]
    if x.ndim != spatial + 2 or x.shape[1] != conv.in_channels:
        raise InputError(
            f"input of shape {tuple(x.shape)} for a {_kind(conv).__name__} layer with "
            f"{conv.in_channels} input channels"
        )
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    x = F.pad(x, _padding(conv), mode=mode)
    for axis, (size, stride, dilation) in enumerate(
        zip(conv.kernel_size, conv.stride, conv.dilation, strict=True), start=2
    ):
        reach = dilation * (size - 1) + 1
        x = x.unfold(axis, reach, stride)[..., ::dilation]
    # [N, C, *output, *kernel] -> [G, C/G, *kernel, N, *output]
    per_group = conv.in_channels // conv.groups
    x = x.reshape(x.shape[0], conv.groups, per_group, *x.shape[2:])
    output, kernel = range(3, 3 + spatial), range(3 + spatial, 3 + 2 * spatial)
    return x.permute(1, 2, *kernel, 0, *output)


def _columns(windows: Tensor) -> Tensor:
    if windows.ndim == 3:
        return windows
    spatial = (windows.ndim - 3) // 2
    return windows.flatten(2 + spatial).flatten(1, 1 + spatial)


def _padding(conv: Conv) -> list[int]:
    """Zeros before and after each axis, last axis first, as `F.pad` wants them."""
    if conv.padding == "valid":
        return [0, 0] * len(conv.kernel_size)
    if conv.padding == "same":
        # An odd total puts the larger half behind, as torch does.
        totals = [
            d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)
        ]
        sides = [(total // 2, total - total // 2) for total in totals]
    else:
        sides = [(int(p), int(p)) for p in conv.padding]
    return [side for pair in reversed(sides) for side in pair]


def _kind(module: nn.Module) -> type[nn.Module]:
    return parametrize.type_before_parametrizations(module)


def _supported(module: nn.Module) -> Conv | nn.Linear:
    reason = refusal(module)
    if reason is not None:
        raise InputError(f"this layer {reason}")
    assert isinstance(module, Conv | nn.Linear)
    return module


def _conv(module: nn.Module) -> Conv:
    module = _supported(module)
    assert not isinstance(module, nn.Linear)
    return module
