"""Checkpoint files: reading, checking, packing and fitting them to a network."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from qubo_rounding.network.messages import first_line
from solvers.errors import InputError
from solvers.memory import require_memory

# Training scripts wrap the state under one of these names.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
# Code k of a packed tensor stands for sign(k) (|k| / 127)^POWER · scale: finer near
# zero, where most weights are, and not a uniform grid, so that rounding an unpacked
# weight to 8 bits remains a problem.
_CODES, _SCALE, _POWER = ".codes", ".scale", 1.75
# Types whose values are the numbers themselves; others come with scales of their own.
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
# Bytes for each number of a checkpoint: the network's, and those of its folded copy.
_BYTES = 8


@dataclass(frozen=True)
class Checkpoint:
    """A state dictionary as read from a file.

    Attributes
    ----------
    state
        Tensors by name, without wrapper or ``module.`` prefix.
    metadata
        Metadata from the header of a safetensors file; empty for ``.pth``.
    """

    state: OrderedDict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a ``.pth``/``.pt`` (tensors only) or ``.safetensors`` file.

    Raises
    ------
    InputError
        Missing, unreadable or not a state dictionary of dense real numbers, or more
        of them than memory holds; one line names the file.
    """
    where = f"checkpoint {path}"
    metadata: dict[str, str] = {}
    try:
        if not path.is_file():
            raise FileNotFoundError
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                raw: object = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        else:
            # torch warns of kinds of tensors that are refused below.
            with warnings.catch_warnings(action="ignore"):
                raw = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{where} does not exist, or is no file") from None
    except Exception as error:  # whatever readers raise on damaged files
        raise InputError(
            f"{where} cannot be read ({_reason(error)}); "
            "expected a state dictionary as .pth or .safetensors"
        ) from error
    state = _plain_state(raw, where)
    count = sum(value.numel() for value in state.values())
    require_memory(
        f"the {count} numbers of {where}", _BYTES * count, "take a smaller network"
    )
    return Checkpoint(_unpacked(state, where), metadata)


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        # torch's own text is a page about its options.
        return "not a file of tensors only"
    return first_line(error)


def _plain_state(raw: object, where: str) -> OrderedDict[str, Tensor]:
    for name in _WRAPPERS:
        if isinstance(raw, Mapping) and isinstance(raw.get(name), Mapping):
            raw = raw[name]
    if not isinstance(raw, Mapping) or not raw:
        raise InputError(f"{where} holds no state dictionary")
    for key, value in raw.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise InputError(
                f"{where} holds a {type(value).__name__} at {key!r}; "
                "expected tensors by name"
            )
        fault = _fault(value)
        if fault is not None:
            raise InputError(
                f"{where}: {key} {fault}; expected a dense tensor of real numbers"
            )
    wrapped = all(key.startswith("module.") for key in raw)
    state = OrderedDict(
        (_current_key(key.removeprefix("module.") if wrapped else key), value)
        for key, value in raw.items()
    )
    if len(state) < len(raw):
        raise InputError(f"{where} holds {len(raw) - len(state)} tensors twice")
    # torch keeps the versions of the modules here and converts old states by them.
    if not wrapped and hasattr(raw, "_metadata"):
        state._metadata = raw._metadata  # type: ignore[attr-defined]
    return state


def _fault(value: Tensor) -> str | None:
    """What keeps a tensor of a file from being used as numbers; None: nothing."""
    if value.is_nested:
        return "is nested"
    if value.layout is not torch.strided:
        return "is sparse"
    if value.is_quantized:
        return "is quantized"
    if value.is_meta:
        return "is on the meta device, without values"
    if value.dtype not in _FLOATS + _WHOLE:
        return f"is {_dtype(value)}"
    if not value.numel():
        return f"is empty, {list(value.shape)}"
    return None


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _current_key(key: str) -> str:
    """Today's name for a key of torchvision's published DenseNets (``norm.1.…``)."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key)


def pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """8-bit companded codes of a weight and its scale per output channel.

    Returns
    -------
    codes, scale
        int8, the weight's shape, and float32 ``[rows]``: the largest magnitude.
    """
    scale = weight.flatten(1).abs().amax(1).clamp(min=1e-12)
    relative = weight / scale.view(-1, *[1] * (weight.ndim - 1))
    codes = torch.round(127 * relative.abs() ** (1 / _POWER)) * relative.sign()
    return codes.to(torch.int8), scale.float()


def unpack(codes: Tensor, scale: Tensor) -> Tensor:
    """Float32 weight of what `pack` returned."""
    table = (torch.arange(-127, 128, dtype=torch.float64) / 127).abs() ** _POWER
    table[:127] *= -1
    values = table.float()[codes.long() + 127]
    return values * scale.view(-1, *[1] * (codes.ndim - 1))


def _unpacked(state: OrderedDict[str, Tensor], where: str) -> OrderedDict[str, Tensor]:
    for key in [k for k in state if k.endswith(_CODES)]:
        name = key.removesuffix(_CODES)
        if name + _SCALE in state:
            codes, scale = state.pop(key), state.pop(name + _SCALE)
            fault = _packing_fault(codes, scale)
            if name in state:
                fault = "is there twice, packed and as it is"
            if fault is not None:
                raise InputError(f"{where}: {name} {fault}")
            state[name] = unpack(codes, scale)
    return state


def _packing_fault(codes: Tensor, scale: Tensor) -> str | None:
    """Why these cannot be what `pack` returned; None: they can."""
    if codes.dtype != torch.int8:
        return f"has codes of {_dtype(codes)}; expected int8"
    if not codes.ndim or scale.shape != codes.shape[:1]:
        return (
            f"has codes {list(codes.shape)} and scales {list(scale.shape)}; "
            "expected one scale for each row of codes"
        )
    if int(codes.min()) < -127:
        return "has a code of -128; codes are from -127 to 127"
    if scale.dtype not in _FLOATS or not bool(((scale > 0) & scale.isfinite()).all()):
        return "has scales that are not positive and finite"
    return None


def packed(state: Mapping[str, Tensor], keys: set[str]) -> dict[str, Tensor]:
    """State for a file, with the named weights as codes and scales."""
    packed_state: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in keys:
            packed_state[key + _CODES], packed_state[key + _SCALE] = pack(value)
        else:
            packed_state[key] = value
    return packed_state


def class_count(module: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """Number of classes of a checkpoint that differs from the module in that alone.

    Parameters
    ----------
    module
        The architecture with its usual number of classes.
    state
        The checkpoint's tensors. Another number of classes shows as another first
        dimension of the final weight and bias, the same in both.

    Returns
    -------
    int or None
        None where the shapes agree, or disagree otherwise.
    """
    wrong = _wrong_shapes(module, state)
    sizes = {tuple(there[:1]) for _, there, _ in wrong}
    if len(sizes) != 1 or any(a[1:] != b[1:] or not a for _, a, b in wrong):
        return None
    return int(wrong[0][1][0])


def _wrong_shapes(
    module: nn.Module, state: Mapping[str, Tensor]
) -> list[tuple[str, torch.Size, torch.Size]]:
    """Name, shape in `state` and shape in the module, where the two differ."""
    module_state = module.state_dict()
    return [
        (key, state[key].shape, module_state[key].shape)
        for key in module_state
        if key in state and state[key].shape != module_state[key].shape
    ]


def load_state(module: nn.Module, state: OrderedDict[str, Tensor], what: str) -> None:
    """Load a state dictionary in place, refusing any misfit.

    Parameters
    ----------
    module
        Network to fill.
    state
        Its tensors; ``num_batches_tracked`` may be missing.
    what
        ``"checkpoint … / model …"``, for the message.

    Raises
    ------
    InputError
        Missing or unexpected keys, another shape, whole numbers in place of
        floating-point ones, NaN or inf; one line names them.
    """
    wrong = _wrong_shapes(module, state)
    if wrong:
        key, file_shape, module_shape = wrong[0]
        raise InputError(
            f"{what}: {key} is {list(file_shape)} in the checkpoint, "
            f"{list(module_shape)} in the model ({len(wrong)} of another shape)"
        )
    for key, _ in _floats(module):
        if key in state and state[key].dtype in _WHOLE:
            raise InputError(
                f"{what}: {key} is {_dtype(state[key])} in the checkpoint; "
                "expected floating-point numbers"
            )
    if not hasattr(state, "_metadata"):
        state = OrderedDict(state)
        versions = module.state_dict()._metadata  # type: ignore[attr-defined]
        state._metadata = versions  # type: ignore[attr-defined]
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except Exception as error:  # modules convert old states with code of their own
        raise InputError(
            f"{what}: the state cannot be loaded ({first_line(error)})"
        ) from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise InputError(
            f"{what}: the checkpoint is of another architecture "
            f"({_listed('missing', missing)}; {_listed('unexpected', unexpected)})"
        )
    refuse_nonfinite(module, what)


def _listed(label: str, keys: list[str], most: int = 3) -> str:
    if not keys:
        return f"none {label}"
    more = ", …" if len(keys) > most else ""
    return f"{len(keys)} {label}: {', '.join(keys[:most])}{more}"


def refuse_nonfinite(module: nn.Module, what: str) -> None:
    """Raise `InputError` naming the first tensor that holds NaN or inf, or no numbers.

    Only floating-point tensors are looked at.
    """
    for key, value in _floats(module):
        fault = _fault(value) if value.numel() else None
        if fault is not None:
            raise InputError(f"{what}: {key} {fault}; expected a dense tensor")
        if not bool(torch.isfinite(value).all()):
            bad = int((~torch.isfinite(value)).sum())
            raise InputError(f"{what}: {key} holds {bad} NaN or infinite values")


def _floats(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The floating-point tensors of a network's state, which may hold other things."""
    for key, value in module.state_dict().items():
        if isinstance(value, Tensor) and value.is_floating_point():
            yield key, value


def state_hash(module: nn.Module) -> str:
    """SHA-256 (hex) of a network's weights, whatever file they came from.

    Over the floating-point tensors of the state in order of their keys: for each the
    key, the shape and the values as little-endian float32.
    """
    digest = hashlib.sha256()
    for key, value in sorted(_floats(module), key=lambda item: item[0]):
        digest.update(json.dumps([key, list(value.shape)]).encode())
        values = value.detach().cpu().float().contiguous().numpy()
        digest.update(values.astype("<f4").tobytes())
    return digest.hexdigest()
