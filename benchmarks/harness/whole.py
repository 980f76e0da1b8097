"""Whole networks: quantized by each solver in turn, and scored on held-out images."""

from __future__ import annotations

import argparse
import hashlib
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

from benchmarks.harness.environment import code_digest
from benchmarks.harness.failures import SolverFailure, contained
from benchmarks.harness.race import about
from benchmarks.harness.tables import as_interval, columns, number
from qubo_rounding.problem.grid import Grid
from solvers import Budget, Solver, label
from solvers.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from qubo_rounding.network.source import Source
    from qubo_rounding.network.whole.parts import Parts
    from qubo_rounding.network.whole.result import QuantizedNetwork


def is_network(layer: str | None) -> bool:
    """Whether the text names a model alone, without a layer."""
    return layer is not None and "." not in layer.rpartition(":")[2]


def parse_parts(without: Sequence[str] | None) -> Parts:
    """The parts of the objective, less those that ``--without`` names.

    Raises
    ------
    UnknownNameError
        There is no such part.
    """
    from qubo_rounding.network.whole.parts import Parts

    switches = [f.name for f in fields(Parts) if f.type == "bool"]
    # The scale's rounds are the grid's.
    known = [*switches, "scale", "all"]
    for name in without or ():
        if name not in known:
            raise UnknownNameError("part of --without", name, known)
    off = set(without or ())
    off = set(switches) if "all" in off else off - {"scale"}
    # What makes up for the errors of others needs to see them.
    off |= {"residual"} if "inputs" in off else set()
    return replace(Parts(), **dict.fromkeys(off, False))


def parse_bits_of(text: Sequence[str] | None) -> dict[str, int]:
    """Bits by layer of ``LAYER=BITS,…``."""
    bits = {}
    for part in text or ():
        layer, equals, value = part.partition("=")
        if not equals or not value.isdecimal():
            raise InputError(f"--bits-of takes LAYER=BITS, as conv1=8, not {part!r}")
        bits[layer] = int(value)
    return bits


def quantized(
    source: Source,
    solver: Solver,
    grid: Grid,
    parts: Parts,
    options: argparse.Namespace,
    batches: Iterable[Any] | None = None,
) -> tuple[QuantizedNetwork, dict[str, Any]]:
    """A network quantized by a solver, and its part of the record.

    Parameters
    ----------
    source
        The network and the calibration images.
    options
        ``seed``, and where there are any ``layers``, ``exclude``, ``bits_of``,
        ``seconds``, ``threads``, ``memory`` (GiB) and ``keep`` of the command line.
    batches
        Calibration batches in place of the source's.

    Raises
    ------
    InputError
        The network or a layer cannot be quantized.
    SolverFailure
        The solver has failed.
    """
    from qubo_rounding.network.whole.quantize import quantize_network

    given = vars(options)
    memory, keep = given.get("memory"), given.get("keep")
    begun = time.perf_counter()
    try:
        with contained(solver):
            found = quantize_network(
                source.network,
                source.batches() if batches is None else batches,
                bits=grid.bits,
                grid=grid,
                solver=solver,
                layers=given.get("layers"),
                exclude=given.get("exclude") or (),
                bits_of=parse_bits_of(given.get("bits_of")),
                parts=parts,
                budget=Budget(given.get("seconds"), threads=given.get("threads") or 1),
                seed=options.seed,
                memory=None if memory is None else int(memory * 2**30),
                keep=None if keep is None else keep / _folder(solver, parts),
                # What cannot be rounded was named when the network was loaded.
                unsupported="skip",
                origin={"code": code_digest(), "weights_hash": source.weights_hash},
            )
    except SolverFailure as failure:
        cause = failure.__cause__
        if isinstance(cause, InputError) and not str(cause).startswith("solver "):
            # The network's fault, or the images'.
            raise cause from None
        raise
    layers = {name: dict(layer.report) for name, layer in found.layers.items()}
    return found, {
        **about(solver, options.seed),
        "parts": asdict(parts),
        "status": "done",
        "seconds": sum(report["seconds"] for report in layers.values()),
        "total_seconds": time.perf_counter() - begun,
        "layers": layers,
    }


def _folder(solver: Solver, parts: Parts) -> str:
    """A folder's name for what a solver leaves with some parts of the objective."""
    text = f"{label(solver)} {parts}"
    return f"{solver.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def named(result: Mapping[str, Any]) -> str:
    """A result's solver, and the parts of the objective that it did without."""
    parts = result.get("parts", {})
    off = [name for name, on in parts.items() if on is False]
    switches = [name for name, value in parts.items() if isinstance(value, bool)]
    without = "no parts" if off == switches else f"without {', '.join(off)}"
    text = str(result["label"]) + " *" * bool(result["out_of_set"])
    return f"{text}, {without}" if off else text


def table(record: Mapping[str, Any]) -> str:
    """The results as a table with one line for each solver."""
    full = record["full_precision"]
    lines = [
        ["solver", "error", "held-out", "top-1 %", "top-5 %", "agreement %"],
        ["full precision", "0", "0"],
    ]
    lines[0] += ["solving s", "all s", "fell back", "status"]
    lines[1] += [number(full["top1"], 1), number(full["top5"], 1), "100.0"]
    lines[1] += [""] * 4
    for result in record["results"]:
        name = named(result)
        if result["status"] == "error":
            lines.append([name, *["-"] * 8, "error"])
            continue
        layers = list(result["layers"].values())
        lines.append(
            [
                name,
                _ratio(layers, "error"),
                _ratio(layers, "heldout_error"),
                number(result["top1"], 1) + as_interval(result["top1_minus_nearest"]),
                number(result["top5"], 1),
                number(result["agreement"], 1),
                f"{result['seconds']:.1f}",
                f"{result['total_seconds']:.1f}",
                str(sum(layer["guarded"] for layer in layers)),
                result["status"],
            ]
        )
    return columns(lines)


def _ratio(layers: Sequence[Mapping[str, Any]], key: str) -> str:
    """Geometric mean over the layers of an error by that of rounding to nearest."""
    ratios = [
        layer[key] / layer[f"{key}_nearest"]
        for layer in layers
        if layer.get(key) and layer.get(f"{key}_nearest")
    ]
    return f"{statistics.geometric_mean(ratios):.4f}" if ratios else "-"
