"""The one command, ``python -m benchmarks COMMAND``."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from benchmarks.harness.command import execute, exit_code
from solvers.errors import InputError, UnknownNameError

# A command is a module with functions `declare` and `run`. These are for users …
COMMANDS = {
    "run": "benchmarks.run",
    "layers": "benchmarks.commands.layers",
    "compare": "benchmarks.commands.compare",
    "anytime": "benchmarks.commands.anytime",
    "instances": "benchmarks.commands.instances",
    "suite": "benchmarks.commands.suite",
    "store": "benchmarks.commands.store",
    "best": "benchmarks.commands.best",
    "library": "benchmarks.commands.library",
    "warm": "benchmarks.commands.warm",
    "report": "benchmarks.commands.report",
}
# … and these measure what the project claims.
STUDIES = {
    "paper": "benchmarks.studies.paper",
    "proofs": "benchmarks.studies.proofs",
    "ablation": "benchmarks.studies.ablation",
    "limits": "benchmarks.studies.limits",
    "portfolio": "benchmarks.studies.portfolio",
    "networks": "benchmarks.studies.networks",
    "walk": "benchmarks.studies.walk",
    "speed": "benchmarks.studies.speed",
    "first-solve": "benchmarks.studies.first_solve",
    "isolation": "benchmarks.studies.isolation",
    "regression": "benchmarks.regression.__main__",
}
PROGRAM = "python -m benchmarks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; return the exit code."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]

    def work() -> int:
        if name in ("-h", "--help"):
            print(listing())
            return 0
        return execute(command(name), f"{PROGRAM} {name}", rest)

    return exit_code(work)


def command(name: str) -> ModuleType:
    """The module of a command, imported now.

    Raises
    ------
    InputError
        An option in its place.
    UnknownNameError
        There is no such command; the message offers the nearest names.
    """
    modules = {**COMMANDS, **STUDIES}
    if name.startswith("-"):
        raise InputError(f"write a command before {name}: {PROGRAM} run {name} …")
    if name not in modules:
        raise UnknownNameError("command", name, modules)
    return import_module(modules[name])


def listing() -> str:
    """The usage, and a line for each command."""
    width = max(map(len, [*COMMANDS, *STUDIES]))
    parts = [f"usage: {PROGRAM} COMMAND [--help | options]"]
    for title, modules in (("commands", COMMANDS), ("studies", STUDIES)):
        parts.append(f"\n{title}:")
        parts += [f"  {name:{width}}  {summary(m)}" for name, m in modules.items()]
    return "\n".join(parts)


def summary(module: str) -> str:
    """The first line of a module's docstring, read without importing the module."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text("utf-8")))
    assert text is not None
    return text.splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
