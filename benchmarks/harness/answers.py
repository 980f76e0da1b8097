"""What a run's process leaves to the one that started it: its answer, or why not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.failures import plain
from benchmarks.harness.race import remarks
from solvers import Solution
from solvers.registry import reason

FILE = "answer.npz"


def write_answer(folder: Path, solutions: Sequence[Solution]) -> None:
    """Leave solutions, or why they are none."""
    try:
        about: list[dict[str, Any]] = []
        arrays: dict[str, Any] = {}
        for i, solution in enumerate(solutions):
            seconds, energies = solution.trace
            about.append(
                {
                    "status": str(solution.status),
                    "timing": {part: float(s) for part, s in solution.timing.items()},
                    "info": remarks(solution.info),
                }
            )
            arrays |= {
                f"states{i}": _array(solution.states),
                f"energies{i}": _array(solution.energies),
                f"seconds{i}": _array(seconds),
                f"trace{i}": _array(energies),
            }
        header = plain({"status": "ok", "message": "", "solutions": about})
    except Exception as error:
        write_failure(folder, "invalid", f"no solution: {reason(error)}")
    else:
        _write(folder, header, arrays)


def write_failure(folder: Path, status: str, message: str) -> None:
    """Leave why there are no solutions."""
    _write(folder, {"status": status, "message": message, "solutions": []}, {})


def read_answer(folder: Path) -> tuple[str, str, list[Solution]] | None:
    """Status, message and solutions, if the process came so far."""
    path = folder / FILE
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        header = json.loads(str(arrays["header"]))
        solutions = [
            Solution(
                states=arrays[f"states{i}"],
                energies=arrays[f"energies{i}"],
                trace=(arrays[f"seconds{i}"], arrays[f"trace{i}"]),
                **about,
            )
            for i, about in enumerate(header["solutions"])
        ]
    return header["status"], header["message"], solutions


def _array(values: Any) -> Any:
    """An array of numbers; refused is what would need pickle."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"an array of {array.dtype}")
    return array


def _write(folder: Path, header: dict[str, Any], arrays: dict[str, Any]) -> None:
    # What bears the name is whole.
    partial = folder / f"partial-{FILE}"
    np.savez(partial, header=np.array(json.dumps(header)), **arrays)
    partial.rename(folder / FILE)
