"""Solvers by name, and by text such as ``cem[samples=200,elite=0.1]``."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, get_type_hints

from solvers.base import Solver
from solvers.errors import InputError, UnknownNameError

# A new solver is one file and one line here.
BUILT_IN = {
    "nearest": "solvers.nearest:Nearest",
    "floor": "solvers.nearest:Floor",
    "ceil": "solvers.nearest:Ceil",
    "stochastic": "solvers.nearest:Stochastic",
    "descent": "solvers.descent:Descent",
    "cem": "solvers.cem:CrossEntropy",
    "sa": "solvers.annealing:SimulatedAnnealing",
    "neal": "solvers.neal:Neal",
}
GROUP = "qubo_rounding.solvers"


def available() -> list[str]:
    """Names of the solvers built in and of those that installed packages add."""
    return list(_targets())


def solver_class(name: str) -> type[Solver]:
    """The class registered as `name`, imported when first asked for.

    Raises
    ------
    UnknownNameError
        With the nearest names.
    InputError
        A plug-in that cannot be imported.
    """
    targets = _targets()
    if name not in targets:
        raise UnknownNameError("solver", name, targets)
    module, _, attribute = targets[name].partition(":")
    try:
        cls = getattr(import_module(module), attribute)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"solver {name!r} ({targets[name]}): {reason}") from error
    if not (isinstance(cls, type) and issubclass(cls, Solver)):
        raise InputError(f"solver {name!r}: {targets[name]} is not a Solver class")
    return cls


def parse_solver(text: str) -> Solver:
    """A solver from ``name`` or ``name[option=value,…]``.

    Raises
    ------
    InputError
        Malformed text, an unknown solver or option, or a value that an option does not
        take.

    Examples
    --------
    >>> parse_solver("cem[samples=50,elite=0.2]").samples
    50
    """
    match = re.fullmatch(r"\s*([\w.-]+)\s*(?:\[(.*)\])?\s*", text, re.DOTALL)
    if match is None:
        raise InputError(f"cannot read solver {text!r}; write name[option=value,…]")
    name, inside = match.group(1), match.group(2) or ""
    cls = solver_class(name)
    types = get_type_hints(cls)
    known = [f.name for f in fields(cls)]
    options: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in inside.split(","))):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals:
            raise InputError(f"solver {name}: write {key}=value, not {part!r}")
        if key not in known:
            raise UnknownNameError(f"option of solver {name}", key, known)
        if key in options:
            raise InputError(f"solver {name}: option {key} is given twice")
        options[key] = _convert(name, key, value, types[key])
    return cls(**options)


def parse_solvers(text: str) -> list[Solver]:
    """Solvers from a comma-separated list; commas inside brackets belong to options."""
    parts = [p for p in re.split(r",(?![^\[]*\])", text) if p.strip()]
    if not parts:
        raise InputError("no solver given")
    return [parse_solver(part) for part in parts]


def label(solver: Solver) -> str:
    """The text that gives `solver`: its name and the options off their defaults."""
    changed = [
        f"{f.name}={getattr(solver, f.name)}"
        for f in fields(solver)
        if getattr(solver, f.name) != f.default
    ]
    return solver.name + (f"[{','.join(changed)}]" if changed else "")


def _targets() -> dict[str, str]:
    targets = dict(BUILT_IN)
    for point in entry_points(group=GROUP):
        if point.name in targets:
            warnings.warn(
                f"solver {point.name!r} of {point.value} left out: the name is taken",
                stacklevel=3,
            )
            continue
        targets[point.name] = point.value
    return targets


def _convert(solver: str, option: str, text: str, kind: type) -> Any:
    converters: dict[type, Callable[[str], Any]] = {
        bool: lambda t: {"true": True, "false": False}[t.lower()],
        int: int,
        float: float,
        str: str,
    }
    try:
        return converters[kind](text)
    except (KeyError, ValueError) as error:
        wanted = (
            "true or false"
            if kind is bool
            else f"a value of type {getattr(kind, '__name__', kind)}"
        )
        raise InputError(
            f"solver {solver}: option {option} takes {wanted}, not {text!r}"
        ) from error
