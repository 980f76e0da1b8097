"""Records of a run: the table, the JSON file, the rounded weights."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.subject import Subject
from qubo_rounding import problem_file
from solvers.errors import InputError

PACKAGES = (
    *("qubo-rounding", "numpy", "scipy", "numba", "torch", "torchvision"),
    *("dimod", "dwave-samplers", "pillow"),
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
    nearest = record["results"][0]
    header = ["solver", "local MSE", "ratio"]
    lines = []
    network = record["full_precision"] is not None
    if network:
        header += ["held-out", "SQNR dB", "top-1 %", "agreement %"]
        lines.append(
            ["full precision", "0", "0", "0", "inf"]
            + [_number(record["full_precision"]["top1"]), "100.0", "", ""]
        )
    header += ["seconds", "status"]
    for result in record["results"]:
        line = [
            result["label"],
            f"{result['local_mse']:.6g}",
            f"{result['ratio_to_nearest']:.5f}",
        ]
        if network:
            line += [
                f"{result['heldout_mse'] / nearest['heldout_mse']:.5f}"
                if nearest["heldout_mse"]
                else "",
                f"{result['sqnr_db']:.2f}",
                _number(result["top1"]) + _interval(result["top1_minus_nearest"]),
                f"{result['agreement']:.1f}",
            ]
        lines.append([*line, f"{result['seconds']:.3f}", result["status"]])
    widths = [max(len(row[i]) for row in [header, *lines]) for i in range(len(header))]

    def show(row: list[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [
            cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)
        ]
        return "  ".join(cells).rstrip()

    text = "\n".join([show(header), *map(show, lines)])
    if any("[" in line[header.index("top-1 %")] for line in lines if network):
        text += "\n[a, b]: 95 % interval of the gain in top-1 over nearest, same images"
    return text


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record whole or not at all.

    Raises
    ------
    InputError
        A place that cannot be written to.
    """
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        partial.write_text(json.dumps(record, indent=2) + "\n")
        partial.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def save_roundings(
    path: Path, subject: Subject, states: Mapping[str, NDArray[np.uint8]]
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
    problem_file.write(path, arrays, {})


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _interval(interval: tuple[float, float] | None) -> str:
    if interval is None or interval[0] == interval[1] == 0:
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
