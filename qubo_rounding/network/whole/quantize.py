"""`quantize_network`: the weights of a whole network rounded, layer by layer."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from qubo_rounding.network.layer_rows import set_weight_rows, weight_rows
from qubo_rounding.network.layers import find_layer, supported_layers
from qubo_rounding.network.prepare import Prepared, Unsupported, prepare
from qubo_rounding.network.whole.kept import Kept
from qubo_rounding.network.whole.parts import Parts
from qubo_rounding.network.whole.result import QuantizedLayer, QuantizedNetwork
from qubo_rounding.network.whole.rounding import round_layer
from qubo_rounding.network.whole.stop import Stop
from qubo_rounding.network.whole.values import Values
from qubo_rounding.network.whole.walk import Mask, Walk
from qubo_rounding.problem.grid import Grid
from solvers import Budget, Solver, label, parse_solver
from solvers.checks import require_kind
from solvers.errors import InputError, UnknownNameError

# Rounds of fitting scale and codes in turn, where no grid says how many.
TURNS = 5
# The solver of whole networks, where none is named.
SOLVER = "auto[effort=light,polish=one-flip]"
# So many layers are named in a warning.
NAMED = 3


def quantize_network(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    bits: int = 4,
    grid: Grid | None = None,
    solver: Solver | str = SOLVER,
    layers: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    bits_of: Mapping[str, int] | None = None,
    parts: Parts | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    memory: int | None = None,
    mask: Mask | None = None,
    keep: Path | None = None,
    unsupported: Unsupported = "refuse",
    origin: Mapping[str, Any] | None = None,
    traced: bool = True,
    progress: bool = True,
) -> QuantizedNetwork:
    """Round the weights of a network, layer by layer in the order of its graph.

    A layer is posed on the inputs that the rounded layers before it leave, and its
    output aims at the original one, less the error of what it is added to; see `Parts`.
    Two networks, the original and the rounded one, are walked through side by side, so
    that all layers together cost few passes over the calibration images.

    Parameters
    ----------
    model
        A network in eval mode. It is not changed: its copy's batch norms are folded
        first.
    batches
        Calibration inputs, read once: tensors ``[B, …]``, or mappings from the names of
        the network's arguments to tensors. They should not be used to judge the result.
    bits
        Bits of all layers but those in `bits_of`.
    grid
        The grid, of which `bits` is replaced; default: symmetric, a scale per tensor,
        fitted in turn with the integers for `TURNS` rounds.
    solver
        A solver, or its text as in `solvers.parse_solver`. ``"auto"`` takes several
        times as long as the default, and networks are hardly more accurate.
    layers, exclude
        Names of the layers to round (default: all that can be) and to leave.
    bits_of
        Bits of single layers by name.
    parts
        What a layer's rounding takes into account beside the layer itself.
    budget
        Limits of each solve. The solver solves a layer once. Before that `babai`,
        within the same limits, finds the scale, in turn with the integers, and which
        share of the shift to trust.
    seed
        Seed of the solver.
    memory
        Bytes that activations may take in memory; what is beyond goes to a temporary
        file. Default: no limit.
    mask
        Says of a batch which positions count, as a tensor with the leading axes of the
        layers' outputs (``[B, T]`` for tokens), or None for all.
    keep
        A folder in which every finished layer is kept. The same call takes them up
        again, after Ctrl-C for example.
    unsupported
        Whether layers that cannot be rounded are refused by name, or left as they are.
    origin
        What else identifies the work, such as the hash of the code; becomes part of
        the result's `meta`.
    traced
        Whether to trace the network with torch.fx; where that fails, or with False, it
        is run anew for every layer.
    progress
        Whether to show progress; it stays quiet where there is no terminal.

    Returns
    -------
    QuantizedNetwork
        Its layers' `report` holds: ``error`` and ``error_nearest``, the mean squared
        error of the output on the calibration images, summed over the rows, as rounded
        and with rounding to nearest (with the same bias correction);
        ``heldout_error`` and ``heldout_error_nearest`` on images that are held out;
        ``trust``, the share of the shift that was trusted; ``turns``, the rounds of
        fitting the scale; ``guarded``, whether the
        layer fell back to nearest; ``positions``; and ``seconds`` of ``statistics``
        and of solving.

    Raises
    ------
    UnknownNameError
        A layer does not exist.
    InputError
        The network, a layer or the batches cannot be used; the message says why.

    Warns
    -----
    UserWarning
        Layers have fewer positions than variables, and the solver is not ``"nearest"``;
        there are too few images to hold some out; the mask fits no layer's output.
    """
    parts = Parts() if parts is None else parts
    require_kind("parts", parts, Parts)
    grid = Grid(bits, turns=TURNS) if grid is None else replace(grid, bits=bits)
    solver = parse_solver(solver) if isinstance(solver, str) else solver
    budget = Budget() if budget is None else budget
    first, rest = _first(batches)
    prepared = prepare(model, _example(first), unsupported="skip")
    original = prepared.network
    names = chosen_layers(prepared, layers, exclude, unsupported)
    grids = _grids(original, names, grid, bits_of or {})
    meta = {
        "solver": label(solver),
        "seed": seed,
        "parts": asdict(parts),
        "grids": {name: asdict(own) for name, own in grids.items()},
        "seconds": budget.seconds,
        "sweeps": budget.sweeps,
        **(origin or {}),
    }
    kept = Kept(keep, meta, original)
    rounded = copy.deepcopy(original)
    done: dict[str, QuantizedLayer] = {}
    with (
        Values(memory) as values,
        tqdm(total=len(names), unit="layer", disable=None if progress else True) as bar,
    ):
        walk = Walk(
            original,
            rounded,
            names,
            values,
            mask=mask,
            rounded_inputs=parts.inputs,
            traced=traced and not isinstance(first, Mapping),
        )
        for stop in walk.stops(kept.watched(itertools.chain([first], rest))):
            bar.set_postfix_str(stop.name)
            layer = kept.find(stop.name, grids[stop.name])
            if layer is None:
                layer = _quantized(stop, grids[stop.name], solver, parts, budget, seed)
                kept.keep(layer)
            done[stop.name] = layer
            write(rounded, layer)
            bar.update()
    # Rounding to nearest fits nothing.
    if solver.name != "nearest":
        images = sum(walk.sizes)
        if (parts.trust or parts.guard) and images < parts.holdout:
            warnings.warn(
                f"{images} calibration images are too few to hold one of every "
                f"{parts.holdout} out: there is no trust and no guard",
                stacklevel=2,
            )
        if few := _few_positions(done):
            warnings.warn(few, stacklevel=2)
    if walk.mask_fits is False:
        warnings.warn(
            "the mask has the leading axes of no layer's output: all positions count",
            stacklevel=2,
        )
    return QuantizedNetwork(rounded, done, meta=meta)


def chosen_layers(
    prepared: Prepared,
    layers: Sequence[str] | None,
    exclude: Sequence[str],
    unsupported: Unsupported = "skip",
) -> list[str]:
    """The layers to round: those named, or all that can be, less those excluded.

    Raises
    ------
    UnknownNameError
        A layer does not exist.
    InputError
        A layer cannot be rounded, or none is left.
    """
    network = prepared.network
    for name in layers or ():
        find_layer(network, name)
    for name in exclude:
        if name not in prepared.skipped:
            find_layer(network, name)
    left = [name for name in prepared.skipped if name not in exclude]
    if left and layers is None and unsupported == "refuse":
        reason = prepared.skipped[left[0]]
        raise InputError(
            f"layer {left[0]!r} {reason}; exclude it, or leave such layers as they are "
            "with unsupported='skip'"
        )
    names = supported_layers(network) if layers is None else list(dict.fromkeys(layers))
    names = [name for name in names if name not in exclude]
    if not names:
        raise InputError(f"no layer of {type(network).__name__} is left to be rounded")
    return names


def write(network: nn.Module, layer: QuantizedLayer) -> None:
    """Put a quantized layer's weights and bias into a network, in place."""
    module: Any = find_layer(network, layer.name)
    set_weight_rows(module, layer.weight())
    if layer.bias is not None:
        bias = torch.tensor(layer.bias, dtype=module.weight.dtype)
        module.bias = nn.Parameter(
            bias.to(module.weight.device), module.weight.requires_grad
        )


def _grids(
    network: nn.Module, names: list[str], grid: Grid, bits_of: Mapping[str, int]
) -> dict[str, Grid]:
    for name in bits_of:
        if name not in names:
            raise UnknownNameError("layer to be rounded", name, names)
    return {name: replace(grid, bits=bits_of.get(name, grid.bits)) for name in names}


def _few_positions(layers: Mapping[str, QuantizedLayer]) -> str | None:
    """A warning of layers with fewer positions than variables; None if there are none.

    Many weights give the same outputs at so few positions, and those that are chosen
    need not do so at others.
    """
    counts = {
        name: (layer.report["positions"], layer.codes.shape[1])
        for name, layer in layers.items()
    }
    few = {name: count for name, count in counts.items() if count[0] < count[1]}
    if not few:
        return None
    named = [
        f"{name}: {positions} positions for {variables} variables"
        for name, (positions, variables) in itertools.islice(few.items(), NAMED)
    ]
    if len(few) > NAMED:
        named.append(f"{len(few) - NAMED} more")
    subject, rounding = ("layer", "its") if len(few) == 1 else ("layers", "their")
    return (
        f"{subject} {', '.join(named)}: {rounding} rounding fits the calibration "
        "images more than the network; take more images"
    )


def _first(batches: Iterable[Any]) -> tuple[Any, Iterable[Any]]:
    """The first of the batches, and the others."""
    rest = iter(batches)
    for first in rest:
        return first, rest
    raise InputError("no calibration batches to quantize the network with")


def _example(batch: Any) -> torch.Tensor | None:
    """One image of a batch; None where it is not a tensor."""
    return batch[:1] if isinstance(batch, torch.Tensor) else None


def _quantized(
    stop: Stop, grid: Grid, solver: Solver, parts: Parts, budget: Budget, seed: int
) -> QuantizedLayer:
    module: Any = stop.original
    holdout = parts.holdout if parts.trust or parts.guard else 0
    moments = stop.statistics(residual=parts.residual, holdout=holdout)
    found = round_layer(
        weight_rows(module),
        moments,
        grid,
        solver,
        parts,
        budget=budget,
        seed=seed,
        data=stop.data,
    )
    problem = found.problem
    codes = problem.base + found.states.astype(np.int64)
    bias = None if module.bias is None else module.bias.detach().double().cpu().numpy()
    if found.bias_shift is not None:
        bias = found.bias_shift + (0.0 if bias is None else bias)
    return QuantizedLayer(
        name=stop.name,
        shape=tuple(module.weight.shape),
        grid=grid,
        codes=codes.astype(np.int16),
        scale=problem.scale,
        lo=problem.lo,
        hi=problem.hi,
        bias=None if bias is None else bias.astype(np.float32),
        report=found.report,
    )
