"""Records of a run: the table, the JSON file, the rounded weights."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.subject import Subject
from qubo_rounding.problem import file
from solvers.atomic import replacing

PACKAGES = (
    *("qubo-rounding", "numpy", "scipy", "numba", "torch", "torchvision"),
    *("dimod", "dwave-samplers", "openjij", "simulated-bifurcation", "qubolite"),
    "pillow",
)


def environment(threads: int) -> dict[str, Any]:
    """Machine, versions and commit a record was made with."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def table(record: Mapping[str, Any]) -> str:
    """The results as text, one solver a line."""
    nearest, full = record["results"][0], record["full_precision"]
    objective = record["problem"]["objective"]
    own = objective != "second-moment"

    def ratio(result: Mapping[str, Any], key: str) -> str:
        return f"{result[key] / nearest[key]:.5f}" if nearest[key] else "-"

    # Heading, cell of a solver, cell of the full-precision network.
    parts: list[tuple[str, Callable[[Mapping[str, Any]], str], str]] = [
        ("solver", lambda r: r["label"] + " *" * r["out_of_set"], "full precision")
    ]
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
            ("SQNR dB", lambda r: _number(r["sqnr_db"], "inf", 2), "inf"),
            (
                "top-1 %",
                lambda r: _number(r["top1"]) + _interval(r["top1_minus_nearest"]),
                _number(full["top1"]),
            ),
            ("agreement %", lambda r: _number(r["agreement"]), "100.0"),
        ]
    parts += [
        ("seconds", lambda r: f"{r['seconds']:.3f}", ""),
        ("status", lambda r: r["status"], ""),
    ]
    lines = [[heading for heading, _, _ in parts]]
    if full is not None:
        lines.append([cell for _, _, cell in parts])
    lines += [[cell(r) for _, cell, _ in parts] for r in record["results"]]
    text = columns(lines)
    if any(result["out_of_set"] for result in record["results"]):
        text += "\n*: out of the set, not held to the two nearest grid points"
    if any(result.get("top1_minus_nearest") for result in record["results"]):
        text += "\n[a, b]: 95 % interval of the gain in top-1 over nearest, same images"
    return text


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as a table, the first column to the left, the others right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record whole or not at all.

    Raises
    ------
    InputError
        A place that cannot be written to.
    """
    with replacing(path) as partial:
        partial.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")


def save_roundings(
    path: Path, subject: Subject, states: Mapping[str, NDArray[np.integer[Any]]]
) -> None:
    """Write what is needed to score every rounding without this code.

    ``weight``, ``base`` and ``scale`` are ``[R, n]`` (scale ``[R, 1]`` where rows have
    one); per solver ``states_<solver>`` is ``[R, n]`` and ``weights_<solver>`` the
    rounded weight in the layer's own shape.
    """
    problem = subject.problem
    arrays: dict[str, NDArray[Any]] = {
        "weight": problem.weight,
        "base": problem.base,
        "scale": problem.scale,
    }
    for name, x in states.items():
        arrays[f"states_{name}"] = x
        arrays[f"weights_{name}"] = problem.decode(x).reshape(subject.shape)
    file.write(path, arrays, {})


def _number(value: float | None, missing: str = "-", digits: int = 1) -> str:
    return missing if value is None else f"{value:.{digits}f}"


def _interval(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return ""
    return f" [{interval[0]:+.1f}, {interval[1]:+.1f}]"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def _commit() -> str | None:
    """Commit of the checkout this file is in, ``+`` if it is changed."""
    folder = Path(__file__).resolve().parent
    try:
        run = [
            subprocess.run(
                ["git", *arguments],
                cwd=folder,
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for arguments in (
                ["rev-parse", "--short", "HEAD"],
                ["ls-files", "--error-unmatch", Path(__file__).name],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return run[0] + ("+" if run[2] else "")
