"""Output of a run: the table, the JSON file, the rounded weights."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.subject import Subject
from benchmarks.harness.tables import as_interval, columns, number
from qubo_rounding.problem import RoundingProblem, file
from solvers.atomic import replacing

# What an asterisk behind a solver means.
OUT_OF_SET = "*: out of the set, not held to the two nearest grid points"


def table(record: Mapping[str, Any]) -> str:
    """The results as a table with one line for each solver."""
    nearest, full = record["results"][0], record["full_precision"]
    objective = record["problem"]["objective"]
    own = objective != "second-moment"

    def ratio(result: Mapping[str, Any], key: str) -> str:
        return f"{result[key] / nearest[key]:.5f}" if nearest[key] else "-"

    in_turn = any("objective_by_round" in result for result in record["results"])

    def before(result: Mapping[str, Any]) -> str:
        errors = result.get("objective_by_round")
        return f"{errors[0]:.6g}" if errors else "-"

    # Heading, cell of a solver, cell of the full-precision network.
    parts: list[tuple[str, Callable[[Mapping[str, Any]], str], str]] = [
        ("solver", lambda r: r["label"] + " *" * r["out_of_set"], "full precision")
    ]
    if in_turn:
        parts += [("before", before, "")]
    if own:
        parts += [
            (objective, lambda r: f"{r['objective']:.6g}", "0"),
            ("ratio", lambda r: ratio(r, "objective"), "0"),
        ]
    if not own or full is not None:
        parts += [
            ("local MSE", lambda r: f"{r['local_mse']:.6g}", "0"),
            ("ratio", lambda r: ratio(r, "local_mse"), "0"),
        ]
    if full is not None:
        parts += [
            ("held-out", lambda r: ratio(r, "heldout_mse"), "0"),
            ("SQNR dB", lambda r: number(r["sqnr_db"], 2, "inf"), "inf"),
            (
                "top-1 %",
                lambda r: number(r["top1"], 1) + as_interval(r["top1_minus_nearest"]),
                number(full["top1"], 1),
            ),
            ("agreement %", lambda r: number(r["agreement"], 1), "100.0"),
        ]
    parts += [
        ("seconds", lambda r: f"{r['seconds']:.3f}", ""),
        ("status", lambda r: r["status"], ""),
    ]
    lines = [[heading for heading, _, _ in parts]]
    if full is not None:
        lines.append([cell for _, _, cell in parts])
    for r in record["results"]:
        if "objective" not in r:
            lines.append([parts[0][1](r), *["-"] * (len(parts) - 2), r["status"]])
        else:
            lines.append([cell(r) for _, cell, _ in parts])
    text = columns(lines)
    if any(result["out_of_set"] for result in record["results"]):
        text += f"\n{OUT_OF_SET}"
    if in_turn:
        error = objective if own else "local MSE"
        text += f"\nbefore: {error} at nearest's scale; the rest is at fitted scales"
    if any(result.get("top1_minus_nearest") for result in record["results"]):
        text += "\n[a, b]: 95 % interval of the gain in top-1 over nearest, same images"
    return text


def spec(options: argparse.Namespace) -> dict[str, Any]:
    """The options as JSON holds them."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record whole or not at all.

    Raises
    ------
    InputError
        `path` cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")


def save_roundings(
    path: Path,
    subject: Subject,
    roundings: Mapping[str, tuple[RoundingProblem, NDArray[np.integer[Any]]]],
) -> None:
    """Write what is needed to score every rounding without this code.

    ``weight`` and ``base`` are ``[R, n]``, ``scale`` is ``[R, n]``, or ``[R, 1]`` with
    one scale per row. For each solver, ``states_<solver>`` is ``[R, n]`` and
    ``weights_<solver>`` is the rounded weight in the layer's own shape. A solver that
    had its scale fitted has a ``base_<solver>`` and ``scale_<solver>`` of its own.
    """
    problem = subject.problem
    arrays: dict[str, NDArray[Any]] = {
        "weight": problem.weight,
        "base": problem.base,
        "scale": problem.scale,
    }
    for name, (own, x) in roundings.items():
        arrays[f"states_{name}"] = x
        arrays[f"weights_{name}"] = own.decode(x).reshape(subject.shape)
        if own is not problem:
            arrays[f"base_{name}"], arrays[f"scale_{name}"] = own.base, own.scale
    file.write(path, arrays, {})
