"""Readers of options: from text to a checked value, or an error of one line.

A `Reader` takes the flag, for error messages, and the text or the number that the
parser has read.
"""

from __future__ import annotations

import math
import os
import re
from argparse import Namespace
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.harness.runs import STATUSES
from qubo_rounding.problem.grid import Grid
from solvers.base import Solver
from solvers.errors import InputError, UnknownNameError
from solvers.registry import parse_solver

Reader = Callable[[str, Any], Any]
FIGURES = (".svg", ".png")
# The rule of the scale, and the word for fitting it to the rounded weights.
RULE, IN_TURN = "weight-mse", "in-turn"


def at_least(least: int) -> Reader:
    """A reader of finite numbers that are at least `least`."""

    def read(flag: str, value: float) -> float:
        if not least <= value < math.inf:
            raise InputError(f"{flag} must be at least {least}, not {value}")
        return value

    return read


def positive(flag: str, value: float) -> float:
    """Read a finite number above 0."""
    if not 0 < value < math.inf:
        raise InputError(f"{flag} must be positive, not {value}")
    return value


def numbers(kind: type, example: str, each: Reader) -> Reader:
    """A reader of numbers separated by commas, each of which the reader `each` takes.

    Error messages quote `example`.
    """

    def read(flag: str, text: str) -> list[Any]:
        try:
            values = [kind(part) for part in text.split(",")]
        except ValueError as error:
            raise InputError(f"cannot read {flag} {text!r}; write {example}") from error
        return [each(flag, value) for value in values]

    return read


def ladder(kind: type, example: str, each: Reader) -> Reader:
    """A reader as from `numbers` that sorts the numbers and removes duplicates."""
    read = numbers(kind, example, each)
    return lambda flag, text: sorted(set(read(flag, text)))


def names(flag: str, text: str) -> list[str]:
    """Read names separated by commas."""
    values = [name.strip() for name in text.split(",")]
    if not all(values):
        raise InputError(f"{flag} {text!r} has an empty name")
    return values


def statuses(flag: str, text: str) -> list[str]:
    """Read statuses of runs."""
    found = names(flag, text)
    for name in found:
        if name not in STATUSES:
            raise UnknownNameError("status", name, STATUSES)
    return found


def bits_by_layer(flag: str, text: str) -> dict[str, int]:
    """Read bits of layers, ``LAYER=BITS,…``."""
    bits: dict[str, int] = {}
    for part in names(flag, text):
        layer, equals, value = part.partition("=")
        if not (layer and equals and re.fullmatch("[2-8]", value)):
            raise InputError(
                f"{flag} takes LAYER=BITS with 2 to 8 bits, as conv1=8, not {part!r}"
            )
        if layer in bits:
            raise InputError(f"{flag} names layer {layer!r} twice")
        bits[layer] = int(value)
    return bits


def activation_rule(flag: str, text: str) -> str:
    """Read a rule that chooses the ranges of activations."""
    from qubo_rounding.network.whole.ranges import parse_rule

    parse_rule(text)
    return text


def numbers_or_all(flag: str, text: str) -> list[int] | None:
    """Read whole numbers separated by commas; None for ``all``."""
    if text == "all":
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{flag} takes numbers or all, not {text!r}") from None


def writable(flag: str, path: Path) -> Path:
    """Read a path that can be written; it is checked before the work, not after."""
    try:
        if not path.resolve().parent.is_dir():
            raise InputError(f"cannot write {path}: its folder does not exist")
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder")
        if path.exists() and not path.is_file():
            raise InputError(f"cannot write {path}: it is not a regular file")
        if not os.access(path.resolve().parent, os.W_OK):
            raise InputError(f"cannot write {path}: its folder cannot be written to")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    return path


def begun_or_writable(flag: str, path: Path) -> Path:
    """Read a path of a store: a file to continue, or one that can be written."""
    try:
        return path if path.is_file() else writable(flag, path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def folder(flag: str, path: Path) -> Path:
    """Read a path of a folder that is there."""
    try:
        if path.is_dir():
            return path
    except OSError as error:
        raise InputError(f"{flag}: cannot read {path}: {error.strerror}") from error
    raise InputError(f"{flag}: folder {path} does not exist")


def writable_arrays(flag: str, path: Path) -> Path:
    """Read a path that can be written and whose suffix is that of a file of arrays."""
    if path.suffix not in (".npz", ".safetensors"):
        raise InputError(f"cannot write {path}: name it .npz or .safetensors")
    return writable(flag, path)


def writable_network(flag: str, path: Path) -> Path:
    """Read a path that can be written and is named as files of networks are."""
    if path.suffix != ".safetensors":
        raise InputError(f"cannot write {path}: name it .safetensors")
    return writable(flag, path)


def writable_parquet(flag: str, path: Path) -> Path:
    """Read a path for a table, and check that pyarrow is installed."""
    if find_spec("pyarrow") is None:
        raise InputError(
            f"{flag}: pyarrow is not installed; "
            'pip install "qubo-rounding[parquet]" installs it'
        )
    return writable(flag, path)


def writable_onnx(flag: str, path: Path) -> Path:
    """Read a path for an ONNX graph, and check that the exporter is installed."""
    if path.suffix != ".onnx":
        raise InputError(f"cannot write {path}: name it .onnx")
    if find_spec("onnxscript") is None:
        raise InputError(
            f"{flag}: onnxscript is not installed; "
            'pip install "qubo-rounding[onnx]" installs it'
        )
    return writable(flag, path)


def folder_to_fill(flag: str, path: Path) -> Path:
    """Read a path of a folder that can be written to, or made."""
    try:
        there = path.resolve()
        while not there.exists():
            there = there.parent
        if there.is_dir() and os.access(there, os.W_OK):
            return path
    except OSError as error:
        raise InputError(f"{flag}: cannot read {path}: {error.strerror}") from error
    raise InputError(f"{flag}: {path} is no folder that can be made and written to")


def figure(flag: str, path: Path) -> Path:
    """Read a path for a figure, and check that matplotlib is installed."""
    if path.suffix not in FIGURES:
        raise InputError(f"{flag} must end in .svg or .png, not {path.name!r}")
    if find_spec("matplotlib") is None:
        raise InputError(
            f"{flag}: matplotlib is not installed; "
            'pip install "qubo-rounding[report]" installs it'
        )
    return writable(flag, path)


def read_entry(text: str) -> tuple[Solver, float | None]:
    """Solver and seconds of ``NAME[option=value,…]@SECONDS``; None without seconds."""
    name, at, seconds = text.rpartition("@")
    if not at or "]" in seconds:
        return parse_solver(text), None
    solver = parse_solver(name)
    try:
        return solver, positive("seconds", float(seconds))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"cannot read seconds {seconds!r} of {text!r}") from error


def read_target(text: str) -> float | tuple[Solver, float]:
    """A ratio; or a solver and seconds, whose result is the target."""
    try:
        ratio = float(text)
    except ValueError:
        solver, seconds = read_entry(text)
        if seconds is None:
            raise InputError(
                f"--target takes a ratio or SOLVER@SECONDS, not {text!r}"
            ) from None
        return solver, seconds
    if not 0 < ratio < math.inf:
        raise InputError(f"--target must be a positive ratio, not {text}")
    return ratio


def split_layer(text: str) -> tuple[str, str]:
    """Model and layer of ``MODEL.LAYER`` or ``package.module:factory.LAYER``."""
    package, colon, rest = text.rpartition(":")
    model, dot, layer = rest.partition(".")
    if not (model and dot and layer):
        raise InputError(
            f"cannot read layer {text!r}; write MODEL.LAYER, such as resnet18.conv1"
        )
    return package + colon + model, layer


def parse_grid(options: Namespace, *, in_turn: bool = False) -> Grid:
    """The grid that ``--bits --grid --granularity --saturated`` describe.

    Parameters
    ----------
    in_turn
        Whether the command can fit scale and codes in turn, which is refused otherwise.
    """
    parts = (options.grid or RULE).split(",")
    fits = [part for part in parts if part.startswith(IN_TURN)]
    # The rule comes first, and may be left out before in-turn.
    rule, *rest = [RULE, *parts] if parts[0] in fits else parts
    turns = _turns(",".join(fits)) if fits else 0
    if turns and not in_turn:
        raise InputError(
            f"--grid: {IN_TURN} changes the scale from answer to answer; only "
            "python -m benchmarks.run takes it"
        )
    span = ",".join(part for part in rest if part not in fits)
    rule, _, percentile = rule.partition(":")
    granularity, _, size = (options.granularity or "tensor").partition(":")
    if percentile and rule != "percentile":
        raise InputError(f"--grid {rule} takes no :{percentile}")
    if (granularity == "group") != bool(size):
        raise InputError("--granularity is tensor, channel or group:SIZE, as group:32")
    if span not in ("", "symmetric", "restricted", "asymmetric"):
        raise InputError(
            f"--grid: range must be symmetric, restricted or asymmetric, not {span!r}"
        )
    try:
        more: dict[str, Any] = {"percentile": float(percentile)} if percentile else {}
        if size:
            more["group_size"] = int(size)
    except ValueError as error:
        raise InputError(f"--grid and --granularity: {error}") from error
    return Grid(
        bits=4 if options.bits is None else options.bits,
        symmetric=span != "asymmetric",
        restricted=span == "restricted",
        granularity=granularity,  # type: ignore[arg-type]  # checked by Grid
        scale=rule,  # type: ignore[arg-type]
        saturated=options.saturated or "fixed",
        turns=turns,
        **more,
    )


def _turns(text: str) -> int:
    """The rounds of ``in-turn:ROUNDS``."""
    match = re.fullmatch(rf"{IN_TURN}:([1-9][0-9]{{0,3}})", text)
    if match is not None:
        return int(match.group(1))
    raise InputError(f"--grid: write {IN_TURN}:ROUNDS, as {IN_TURN}:5, not {text!r}")
