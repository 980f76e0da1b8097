"""Problems and runs as lines of a store's tables, and back."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import astuple, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.runs import Problem, Run, Spec, States
from solvers.qubo import Float

# Falls of a run that are kept, at most.
MOST_FALLS = 400
# How states are written: eight of 0 and 1 in a byte, or each in two bytes.
BITS, WHOLE = "bits", "int16"


def text_of(value: Any) -> str:
    """A value as JSON, the same text for equal values."""
    return json.dumps(value, sort_keys=True, default=str)


def hash_of(value: Any) -> str:
    """A hash of a value that JSON can hold."""
    return hashlib.sha256(text_of(value).encode()).hexdigest()[:16]


def problem_line(problem: Problem) -> tuple[Any, ...]:
    """A problem's line: its attributes in their order."""
    return (*astuple(problem)[:-1], text_of(problem.meta))


def problem_of(line: tuple[Any, ...]) -> Problem:
    """The problem that a line holds."""
    *values, meta = line
    names = [field.name for field in fields(Problem)]
    return Problem(**dict(zip(names, [*values, json.loads(meta)], strict=True)))


def run_line(run: Run) -> dict[str, Any]:
    """What the table of runs holds of a run, by column."""
    spec = run.spec
    return {
        "run_id": spec.run_id,
        "problem": spec.problem,
        "solver": spec.solver,
        "code": spec.code,
        "seed": spec.seed,
        "seconds_limit": spec.seconds,
        "sweeps": spec.sweeps,
        "threads": spec.threads,
        "settings": text_of(spec.settings),
        "status": run.status,
        "message": run.message,
        # What is no number is NULL.
        "objective": run.objective,
        "seconds": run.seconds,
        "timing": text_of(run.timing),
        "began": run.began,
    }


def answer_line(run: Run) -> dict[str, Any]:
    """What the table of answers holds of a run, by column."""
    states = run.states
    form = None if states is None else BITS if states.dtype == np.uint8 else WHOLE
    return {
        "energies": _floats(run.energies),
        "claimed": _floats(run.claimed),
        "states": None if states is None else _packed(states),
        "states_form": form,
        "states_rows": None if states is None else len(states),
        "states_n": None if states is None else states.shape[1],
        "falls": None if run.falls is None else _floats(thinned(run.falls)),
        "info": text_of(run.info),
        "scores": text_of(run.scores),
    }


def run_of(line: Mapping[str, Any], environment: dict[str, Any]) -> Run:
    """The run that lines of both tables hold together."""

    def floats(name: str) -> Float | None:
        blob = line[name]
        return None if blob is None else np.frombuffer(blob, "<f8").copy()

    def real(name: str) -> float:
        return math.nan if line[name] is None else float(line[name])

    falls = floats("falls")
    return Run(
        spec=Spec(
            problem=line["problem"],
            solver=line["solver"],
            code=line["code"],
            seed=line["seed"],
            seconds=line["seconds_limit"],
            sweeps=line["sweeps"],
            threads=line["threads"],
            settings=json.loads(line["settings"]),
        ),
        status=line["status"],
        message=line["message"],
        objective=real("objective"),
        energies=floats("energies"),
        claimed=floats("claimed"),
        states=_unpacked(line),
        falls=None if falls is None else falls.reshape(-1, 2),
        seconds=real("seconds"),
        timing=json.loads(line["timing"]),
        info=tuple(json.loads(line["info"])),
        scores=json.loads(line["scores"]),
        began=line["began"],
        environment=environment,
    )


def thinned(falls: Float, most: int = MOST_FALLS) -> Float:
    """At most so many of a run's falls, evenly chosen; the first and the last stay."""
    if len(falls) <= most:
        return falls
    return falls[np.linspace(0, len(falls) - 1, most).round().astype(np.int64)]


def _floats(values: NDArray[np.floating[Any]] | None) -> bytes | None:
    return None if values is None else np.asarray(values, "<f8").tobytes()


def _packed(states: States) -> bytes:
    if states.dtype == np.uint8:
        return np.packbits(states).tobytes()
    return states.astype("<i2").tobytes()


def _unpacked(line: Mapping[str, Any]) -> States | None:
    if line["states"] is None:
        return None
    shape = line["states_rows"], line["states_n"]
    if line["states_form"] == WHOLE:
        return np.frombuffer(line["states"], "<i2").astype(np.int16).reshape(shape)
    packed = np.frombuffer(line["states"], np.uint8)
    if len(packed) != -(-math.prod(shape) // 8):
        # `unpackbits` would fill up with zeros.
        raise ValueError(f"{len(packed)} bytes for states of shape {shape}")
    return np.unpackbits(packed, count=math.prod(shape)).reshape(shape)
