"""Suites: which problems are solved by which solvers, with which seeds and limits."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from solvers import InputError, Solver, parse_solver
from solvers.checks import is_number
from solvers.errors import UnknownNameError, shown

# Suites that come with the project, by the names of their files.
FOLDER = Path(__file__).parent.parent / "suites"
TRACKS = ("layer", "row")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Some problems of a suite: layers of a network, or a file.

    Attributes
    ----------
    model, layers
        A network and names of its layers.
    weights, images, calibration, evaluation
        As the options of these names.
    bits, grid, granularity, saturated
        The grids; each layer is posed with each of the bits.
    file
        A saved rounding problem or a QUBO file, in place of a network.
    rows
        Only the first rows; None: all.
    track
        ``"layer"``: all rows together; ``"row"``: each row is a problem of its own.
    accuracy
        Whether answers are scored on the network, too.
    """

    model: str = ""
    layers: tuple[str, ...] = ()
    weights: str = "auto"
    images: str | None = None
    calibration: int = 256
    evaluation: int | None = None
    bits: tuple[int, ...] = (4,)
    grid: str | None = None
    granularity: str | None = None
    saturated: str | None = None
    file: str | None = None
    rows: int | None = None
    track: str = "layer"
    accuracy: bool = False


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Problems, solvers, seeds and limits: every combination is a run.

    Attributes
    ----------
    name
        What it is called.
    entries
        The problems.
    solvers
        Solvers that run for each of the `seconds`, with each seed.
    untimed
        Solvers that end by themselves, run without a limit in seconds.
    seeds
        Number of seeds.
    seconds
        Limits of the solvers.
    threads
        Number of threads of each run.
    memory
        GiB that a run may take on top of what it is given.
    grace
        Seconds beyond its limit after which a run is killed.
    hard
        Seconds after which a run without a limit is killed.
    description
        What lists of suites say.
    """

    name: str
    entries: tuple[Entry, ...]
    solvers: tuple[str, ...] = ()
    untimed: tuple[str, ...] = ()
    seeds: int = 1
    seconds: tuple[float, ...] = ()
    threads: int = 1
    memory: float = 8.0
    grace: float = 10.0
    hard: float = 600.0
    description: str = ""

    def runs(self) -> list[tuple[Solver, float | None, int]]:
        """Solver, limit in seconds and seed of all runs on one problem."""
        timed = [(text, s) for text in self.solvers for s in self.seconds]
        untimed = [(text, None) for text in self.untimed]
        return [
            (parse_solver(text), seconds, seed)
            for text, seconds in (*timed, *untimed)
            for seed in range(self.seeds)
        ]


def named_suites() -> dict[str, Path]:
    """Files of the suites that come with the project, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def read_suite(text: str) -> Suite:
    """The suite in a file, or one of `named_suites`.

    Raises
    ------
    UnknownNameError
        There is no such suite.
    InputError
        The file cannot be read, or does not describe a suite.
    """
    path = Path(text)
    if path.suffix != ".toml":
        known = named_suites()
        if text not in known:
            raise UnknownNameError("suite (or FILE.toml)", text, known)
        path = known[text]
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} is no TOML: {error}") from error
    problems = content.pop("problems", None)
    if not isinstance(problems, list) or not problems:
        raise InputError(f"{path}: a suite needs [[problems]]")
    entries = tuple(
        _checked(Entry, entry, f"{path}: problem {number}")
        for number, entry in enumerate(problems, 1)
    )
    suite: Suite = _checked(Suite, content, str(path), name=path.stem, entries=entries)
    for number, entry in enumerate(entries, 1):
        _check_entry(entry, f"{path}: problem {number}")
    _check_suite(suite, str(path))
    return suite


def with_inputs(suite: Suite, weights: str | None, images: Path | None) -> Suite:
    """The suite with other weights, and other images, for all its networks."""
    given: dict[str, Any] = {} if weights is None else {"weights": weights}
    given |= {} if images is None else {"images": str(images)}
    entries = tuple(
        replace(entry, **given) if entry.model else entry for entry in suite.entries
    )
    return replace(suite, entries=entries)


def _checked(kind: Any, given: Any, where: str, **rest: Any) -> Any:
    """An object of a dataclass from a table, and the rest; lists become tuples."""
    if not isinstance(given, Mapping):
        raise InputError(f"{where} is not a table")
    kinds = {each.name: str(each.type) for each in fields(kind)}
    known = kinds.keys() - rest.keys()
    for name in given:
        if name not in known:
            raise UnknownNameError(f"setting of {where}", name, sorted(known))
    values = {
        name: _as(kinds[name], value, f"{where}: {name}")
        for name, value in given.items()
    }
    return kind(**values, **rest)


def _as(kind: str, value: Any, where: str) -> Any:
    """A value of the kind that an annotation names."""
    if kind.startswith("tuple["):
        inner = kind[len("tuple[") :].partition(",")[0]
        parts = value if isinstance(value, list) else [value]
        return tuple(_as(inner, part, where) for part in parts)
    wanted = kind.partition(" |")[0]
    fits = {
        "str": isinstance(value, str),
        "int": type(value) is int,
        "float": is_number(value) and math.isfinite(value),
        "bool": isinstance(value, bool),
    }
    if not fits[wanted]:
        raise InputError(f"{where} must be of kind {wanted}, not {shown(value)}")
    return float(value) if wanted == "float" else value


def _check_entry(entry: Entry, where: str) -> None:
    if (entry.file is None) == (not entry.model):
        raise InputError(f"{where}: give one of model and file")
    if entry.model and not entry.layers:
        raise InputError(f"{where}: a model needs layers")
    if entry.file is not None:
        for each in fields(entry):
            of_files = each.name in ("file", "rows", "track")
            if not of_files and getattr(entry, each.name) != each.default:
                raise InputError(f"{where}: {each.name} is for models, not files")
    if entry.track not in TRACKS:
        raise UnknownNameError(f"track of {where}", entry.track, TRACKS)
    if not entry.bits or not all(2 <= bits <= 8 for bits in entry.bits):
        raise InputError(f"{where}: bits must be 2 to 8")
    for name in ("calibration", "evaluation", "rows"):
        value = getattr(entry, name)
        if value is not None and value < 1:
            raise InputError(f"{where}: {name} must be at least 1, not {value}")
    if entry.accuracy and (entry.rows is not None or entry.track == "row"):
        raise InputError(f"{where}: accuracy is that of whole layers of a model")


def _check_suite(suite: Suite, where: str) -> None:
    if not suite.solvers and not suite.untimed:
        raise InputError(f"{where}: a suite needs solvers, or untimed ones")
    if suite.solvers and not suite.seconds:
        raise InputError(f"{where}: solvers need seconds; others go into untimed")
    for name in ("seeds", "threads"):
        if getattr(suite, name) < 1:
            raise InputError(f"{where}: {name} must be at least 1")
    positive = (*suite.seconds, suite.grace, suite.hard, suite.memory)
    if min(positive) <= 0:
        raise InputError(f"{where}: seconds, grace, hard and memory must be positive")
    for text in (*suite.solvers, *suite.untimed):
        try:
            parse_solver(text)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
