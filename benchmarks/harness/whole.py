"""Whole networks: quantized by each solver in turn, and scored on held-out images."""

from __future__ import annotations

import argparse
import hashlib
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

from benchmarks.harness.digests import code_digest_of
from benchmarks.harness.failures import SolverFailure, contained
from benchmarks.harness.race import about
from benchmarks.harness.report import OUT_OF_SET
from benchmarks.harness.tables import as_interval, columns, number
from qubo_rounding.problem.grid import Grid
from solvers import Budget, Solver, label
from solvers.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from qubo_rounding.network.source import NetworkAndData, Source
    from qubo_rounding.network.whole.parts import Parts
    from qubo_rounding.network.whole.result import QuantizedNetwork
    from qubo_rounding.network.whole.walk import Mask

# What quantizes a network, beside the solver.
MAKER = "qubo_rounding.network.whole.quantize"
# Bits of rounded activations.
ACTIVATION_BITS = 8
# So many layers are named in one line.
NAMED = 6


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


def quantized(
    source: Source | NetworkAndData,
    solver: Solver,
    grid: Grid,
    parts: Parts,
    options: argparse.Namespace,
    batches: Iterable[Any] | None = None,
    mask: Mask | None = None,
) -> tuple[QuantizedNetwork, dict[str, Any]]:
    """A network quantized by a solver, and its part of the record.

    Parameters
    ----------
    source
        The network and its calibration batches.
    options
        ``seed``, and where there are any ``layers``, ``exclude``, ``bits_of``,
        ``seconds``, ``threads``, ``memory`` (GiB) and ``keep`` of the command line.
    batches
        Calibration batches in place of the source's.
    mask
        Says of a batch which positions count; None: all.

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
                bits_of=given.get("bits_of"),
                parts=parts,
                budget=Budget(given.get("seconds"), threads=given.get("threads") or 1),
                seed=options.seed,
                memory=None if memory is None else int(memory * 2**30),
                mask=mask,
                keep=None if keep is None else keep / _folder(solver, parts),
                # What cannot be rounded was named when the network was loaded.
                unsupported="skip",
                origin={
                    "code": code_digest_of(solver, MAKER),
                    "model": source.model,
                    "weights": source.weights,
                    "weights_hash": source.weights_hash,
                },
            )
    except SolverFailure as failure:
        cause = failure.__cause__
        if isinstance(cause, InputError) and not str(cause).startswith("solver "):
            # The network's fault, or the images'.
            raise cause from None
        raise
    layers = {
        name: {
            "bits": layer.grid.bits,
            "rows": len(layer.codes),
            "n": layer.codes.shape[1],
            **layer.report,
        }
        for name, layer in found.layers.items()
    }
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
    """A result's solver, and whether it did without all parts of the objective."""
    parts = result.get("parts", {})
    switches = [value for value in parts.values() if isinstance(value, bool)]
    alone = ", no parts" * (bool(switches) and not any(switches))
    return str(result["label"]) + " *" * bool(result["out_of_set"]) + alone


def table(record: Mapping[str, Any]) -> str:
    """The results as a table with one line for each solver, and notes below it."""
    results = [r for r in record["results"] if r["status"] != "error"]
    rounded = next((r["activations"] for r in results if "activations" in r), None)
    # Heading, cell of a solver, cell of the full-precision network.
    parts: list[tuple[str, Callable[[Mapping[str, Any]], str], str]] = [
        ("solver", named, "full precision"),
        ("error", lambda r: _ratio(r["layers"].values(), "error"), "0"),
        ("held-out", lambda r: _ratio(r["layers"].values(), "heldout_error"), "0"),
        *_scores(record),
    ]
    if rounded is not None:
        bits = f"A{rounded['bits']}"
        # Its interval would make the table too wide; the record has it.
        key, digits = ("score", 4) if "score" in rounded else ("top1", 1)
        parts.append(
            (
                f"{bits} {parts[3][0]}",
                lambda r: number(r["activations"][key], digits),
                "",
            )
        )
    parts += [
        ("solving s", lambda r: f"{r['seconds']:.1f}", ""),
        ("all s", lambda r: f"{r['total_seconds']:.1f}", ""),
        ("status", lambda r: r["status"], ""),
    ]
    lines = [[heading for heading, _, _ in parts], [cell for _, _, cell in parts]]
    for result in record["results"]:
        if result["status"] == "error":
            lines.append([named(result), *["-"] * (len(parts) - 2), "error"])
        else:
            lines.append([cell(result) for _, cell, _ in parts])
    notes = [_fell_back(result) for result in results]
    if record["spec"]["without"]:
        notes.append(f"without {', '.join(record['spec']['without'])}")
    if rounded is not None:
        notes.append(f"{bits}: with activations of {bits[1:]} bits, {rounded['rule']}")
    if any(result["out_of_set"] for result in record["results"]):
        notes.append(OUT_OF_SET)
    gains = [result.get("top1_minus_nearest") for result in results]
    gains += [result.get("score_minus_nearest") for result in results]
    if any(gains):
        notes.append("[a, b]: 95 % interval of the gain over nearest, same inputs")
    return "\n".join([columns(lines), *filter(None, notes)])


def _scores(
    record: Mapping[str, Any],
) -> list[tuple[str, Callable[[Mapping[str, Any]], str], str]]:
    """The columns that say how good the networks are, the most important first."""
    full = record["full_precision"]
    if "score" in full:
        return [
            (
                record["network"]["score"],
                lambda r: (
                    number(r["score"], 4) + as_interval(r["score_minus_nearest"], 4)
                ),
                number(full["score"], 4),
            )
        ]
    return [
        (
            "top-1 %",
            lambda r: number(r["top1"], 1) + as_interval(r["top1_minus_nearest"]),
            number(full["top1"], 1),
        ),
        ("top-5 %", lambda r: number(r["top5"], 1), number(full["top5"], 1)),
        ("agree %", lambda r: number(r["agreement"], 1), "100.0"),
    ]


def _fell_back(result: Mapping[str, Any]) -> str | None:
    """A line that names the layers that were rounded to nearest; None of none."""
    layers = [name for name, layer in result["layers"].items() if layer["guarded"]]
    if not layers:
        return None
    more = f" and {len(layers) - NAMED} more" if len(layers) > NAMED else ""
    return f"{named(result)} fell back to nearest in {', '.join(layers[:NAMED])}{more}"


def _ratio(layers: Iterable[Mapping[str, Any]], key: str) -> str:
    """Geometric mean over the layers of an error by that of rounding to nearest."""
    ratios = [
        layer[key] / layer[f"{key}_nearest"]
        for layer in layers
        if layer.get(key) and layer.get(f"{key}_nearest")
    ]
    return f"{statistics.geometric_mean(ratios):.4f}" if ratios else "-"
