"""Solvers by name, and by text such as ``cem[samples=200,elite=0.1]``."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, get_type_hints

from solvers.base import Solver
from solvers.checks import require_kind
from solvers.errors import InputError, UnknownNameError

# A new solver needs one file and one line here.
BUILT_IN = {
    "nearest": "solvers.sampling.nearest:Nearest",
    "floor": "solvers.sampling.nearest:Floor",
    "ceil": "solvers.sampling.nearest:Ceil",
    "stochastic": "solvers.sampling.stochastic:Stochastic",
    "descent": "solvers.flips.descent:Descent",
    "cem": "solvers.sampling.cem:CrossEntropy",
    "sa": "solvers.flips.annealing:SimulatedAnnealing",
    "tabu": "solvers.flips.tabu:Tabu",
    "qbsolv": "solvers.flips.qbsolv:Qbsolv",
    "babai": "solvers.decoders.babai:Babai",
    "kbest": "solvers.decoders.kbest:KBest",
    "lattice": "solvers.lattice.solver:Lattice",
    "auto": "solvers.composed.auto:Auto",
    "window": "solvers.composed.window:Window",
    "klein": "solvers.decoders.klein:Klein",
    "gptq": "solvers.decoders.gptq:Gptq",
    "hopfield": "solvers.relaxations.hopfield:Hopfield",
    "adaround": "solvers.relaxations.adaround:AdaRound",
    "ste": "solvers.relaxations.ste:Ste",
    "signround": "solvers.relaxations.signround:SignRound",
    "exact": "solvers.proofs.exact:Exact",
    "neal": "solvers.sampling.neal:Neal",
}
# Groups of entry points: a solver's class under its name, and packages of solvers.
GROUP = "qubo_rounding.solvers"
PACKAGES = "qubo_rounding.solver_packages"
_NAME = r"[\w.-]+"
_FILE = r".+?\.py:[^\W\d]\w*"
# Characters of an exception's message that are shown.
LONGEST = 300
# A module read from a file has this name, followed by a digest of path and source.
_FILE_MODULE = "solver_file_"


def available() -> list[str]:
    """Names of the built-in solvers and of those that installed packages add.

    Plug-ins that cannot be used are left out with a warning.
    """
    unusable = broken()
    for reason in unusable.values():
        warnings.warn(reason, stacklevel=2)
    names = [name for name in _targets() if name not in unusable]
    return [*names, *sorted(_packaged()[0])]


def broken() -> dict[str, str]:
    """Why plug-ins cannot be used, one line each, by the solver's or module's name."""
    reasons = {}
    for name in _targets().keys() - BUILT_IN.keys():
        try:
            solver_class(name)
        except InputError as error:
            reasons[name] = str(error)
    return reasons | _clashes() | _packaged()[1]


def solver_class(name: str) -> type[Solver]:
    """The solver class registered as `name`, or found in a file: ``path.py:Class``.

    A class is imported when it is first asked for. Plug-ins are looked at only if the
    name is not built in, packages of solvers only if it is no entry point of one class.

    Raises
    ------
    UnknownNameError
        There is no such solver; the message offers the nearest names.
    InputError
        A plug-in or a file cannot be imported, or does not hold the solver.
    """
    if re.fullmatch(_FILE, name):
        source = _source(name)
        cls = _class(name, lambda: _from_file(name, source))
        if not cls.__module__.startswith(_FILE_MODULE):
            raise InputError(f"solver {name} is defined elsewhere: {cls.__module__}")
        return cls
    target = BUILT_IN.get(name) or _targets().get(name)
    if target is None:
        classes, reasons = _packaged()
        if name in classes:
            return classes[name]
        for reason in reasons.values():
            warnings.warn(reason, stacklevel=2)
        raise UnknownNameError("solver", name, [*_targets(), *sorted(classes)])
    module, _, attribute = target.partition(":")
    what = f"{name!r} ({target})"
    cls = _class(what, lambda: getattr(import_module(module), attribute))
    if cls.name != name:
        raise InputError(f"solver {what}: its class has the name {cls.name!r}")
    return cls


def _class(what: str, load: Callable[[], Any]) -> type[Solver]:
    """The object that `load` gives, checked to be a usable solver class.

    Error messages begin with `what`.
    """
    cls = _loaded(what, load)
    if not (isinstance(cls, type) and issubclass(cls, Solver)):
        raise InputError(f"solver {what} is not a Solver class")
    if inspect.isabstract(cls):
        raise InputError(f"solver {what} has no method search")
    name = getattr(cls, "name", None)
    if not isinstance(name, str):
        raise InputError(f"solver {what} has no name")
    if not re.fullmatch(_NAME, name):
        raise InputError(
            f"solver {what}: its name must be of letters, digits, '.', '-' and '_', "
            f"not {name!r}"
        )
    for flag in ("rule", "out_of_set", "uses_data"):
        if not isinstance(getattr(cls, flag), bool):
            raise InputError(f"solver {what}: {flag} must be True or False")
    return cls


def _loaded(what: str, load: Callable[[], Any]) -> Any:
    """The object that `load` gives; any failure becomes an `InputError`."""
    try:
        return load()
    # A file that calls sys.exit() must not end the program.
    except (Exception, SystemExit) as error:
        raise InputError(f"solver {what}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What an exception says, after its kind, in one line of `LONGEST` at most."""
    try:
        message = str(error)
    except Exception:
        # The exceptions of a solver in a file are what the file makes them.
        message = ""
    kind = type(error).__name__
    if isinstance(error, InputError):
        # Its message is for users as it stands.
        kind, message = message, ""
    line = " ".join((f"{kind}: {message}" if message else kind).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} …"


def _packaged() -> tuple[dict[str, type[Solver]], dict[str, str]]:
    """Solvers of the installed packages of solvers.

    Returns
    -------
    classes
        The solver classes by name.
    reasons
        Why modules or solvers cannot be used, by the name of package, module or class.
    """
    classes: dict[str, type[Solver]] = {}
    reasons: dict[str, str] = {}
    taken = _targets()
    for point in entry_points(group=PACKAGES):
        for module in _modules(point.value, reasons):
            for cls in _solvers_of(module, reasons):
                what = f"{cls.__module__}:{cls.__qualname__}"
                if not isinstance(getattr(cls, "name", None), str):
                    reasons[what] = f"solver {what} has no name"
                elif classes.get(cls.name) is cls or taken.get(cls.name) == what:
                    # Named twice, by two packages or beside its package.
                    continue
                elif cls.name in taken or cls.name in classes:
                    reasons[what] = (
                        f"solver {cls.name!r} of {what} left out: the name is taken"
                    )
                else:
                    classes[cls.name] = cls
    return classes, reasons


def _modules(package: str, reasons: dict[str, str]) -> list[str]:
    """The modules of `package` whose names do not begin with an underscore.

    If the package cannot be imported, the reason is added to `reasons`.
    """
    try:
        path = _loaded(f"package {package}", lambda: import_module(package).__path__)
    except InputError as error:
        reasons[package] = str(error)
        return []
    names = sorted(info.name for info in iter_modules(path))
    return [f"{package}.{name}" for name in names if not name.startswith("_")]


def _solvers_of(module: str, reasons: dict[str, str]) -> list[type[Solver]]:
    """The concrete public solvers that `module` itself defines.

    If the module cannot be imported, the reason is added to `reasons`.
    """
    try:
        members = _loaded(f"module {module}", lambda: vars(import_module(module)))
    except InputError as error:
        reasons[module] = str(error)
        return []
    return [
        cls
        for name, cls in members.items()
        if isinstance(cls, type)
        and issubclass(cls, Solver)
        and not inspect.isabstract(cls)
        and not name.startswith("_")
        # Neither imported classes nor second names of the module's own classes.
        and (cls.__module__, cls.__qualname__) == (module, name)
    ]


def _source(name: str) -> bytes:
    path = name.rpartition(":")[0]
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"solver {name}: cannot read {path}: {error.strerror}"
        ) from error


def _from_file(name: str, source: bytes) -> Any:
    path, _, attribute = name.rpartition(":")
    module = _module_of_file(path, source)
    if not hasattr(module, attribute):
        raise AttributeError(f"it has no class {attribute}")
    return getattr(module, attribute)


def _module_of_file(path: str, source: bytes) -> ModuleType:
    """The module in the file, which is run again only if the file has changed."""
    name = _FILE_MODULE + hashlib.sha256(path.encode() + b"\0" + source).hexdigest()
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    # `label` needs the path as it was given.
    module.__file__ = path
    # A dataclass looks its module up while it is created, to resolve annotations.
    sys.modules[name] = module
    try:
        exec(compile(source, path, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def parse_solver(text: str) -> Solver:
    """A solver from ``name`` or ``name[option=value,…]``.

    Instead of a name, ``path.py:Class`` takes a class from a file. A value may be the
    text of a solver with options of its own, in brackets of its own.

    Raises
    ------
    InputError
        The text is malformed, a solver or an option is unknown, or an option does not
        take the value.

    Examples
    --------
    >>> parse_solver("cem[samples=50,elite=0.2]").samples
    50
    """
    require_kind("solver", text, str)
    name, inside = _name_and_options(text)
    cls = solver_class(name)
    types = _loaded(name, lambda: get_type_hints(cls))
    known = [f.name for f in fields(cls)]
    options: dict[str, Any] = {}
    for part in _parts(inside):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals:
            raise InputError(f"solver {name}: write {key}=value, not {part!r}")
        if key not in known:
            raise UnknownNameError(f"option of solver {name}", key, known)
        if key in options:
            raise InputError(f"solver {name}: option {key} is given twice")
        options[key] = _convert(name, key, value, types[key])
    try:
        return cls(**options)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"solver {name}: {reason(error)}") from error


def _name_and_options(text: str) -> tuple[str, str]:
    """The name of a solver, or its file and class, and what stands in its brackets."""
    # The shortest file name: the value of an option may be a solver of a file, too.
    for name in (_NAME, _FILE):
        form = rf"\s*({name})\s*(?:\[(.*)\])?\s*"
        match = re.fullmatch(form, text, re.DOTALL)
        if match is not None and _unbalanced(match.group(2) or "") is None:
            return match.group(1), match.group(2) or ""
    why = _unbalanced(text)
    raise InputError(
        f"cannot read solver {text!r}{f' ({why})' if why else ''}; write "
        "name[option=value,…], or path.py:Class"
    )


def _unbalanced(text: str) -> str | None:
    """What is wrong with the brackets of a text; None if they are balanced."""
    depth = 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if depth < 0:
            return "a ] closes no ["
    return "a [ is not closed" if depth else None


def _parts(text: str) -> list[str]:
    """The parts of a text between commas outside its brackets, if not empty."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def parse_solvers(text: str) -> list[Solver]:
    """Solvers from a comma-separated list; commas inside brackets belong to options."""
    return [parse_solver(part) for part in split_solvers(text)]


def split_solvers(text: str) -> list[str]:
    """The texts of the solvers in a comma-separated list, without parsing them.

    Raises
    ------
    InputError
        The list is empty, or its brackets are not balanced.
    """
    require_kind("solvers", text, str)
    if (why := _unbalanced(text)) is not None:
        raise InputError(f"cannot read solvers {text!r}: {why}")
    if texts := _parts(text):
        return texts
    raise InputError("no solver given")


def label(solver: Solver) -> str:
    """The text that gives `solver`: its name and the options not at their defaults."""
    changed = [
        f"{f.name}={getattr(solver, f.name)}"
        for f in fields(solver)
        if getattr(solver, f.name) != f.default
    ]
    cls = type(solver)
    if cls.__module__.startswith(_FILE_MODULE):
        name = f"{sys.modules[cls.__module__].__file__}:{cls.__qualname__}"
    else:
        name = solver.name
    return name + (f"[{','.join(changed)}]" if changed else "")


def _targets() -> dict[str, str]:
    """``module:Class`` of the built-in solvers and of single entry points, by name.

    The first of several with one name counts; `_clashes` has the others.
    """
    targets = dict(BUILT_IN)
    for point in entry_points(group=GROUP):
        targets.setdefault(point.name, point.value)
    return targets


def _clashes() -> dict[str, str]:
    """Why single entry points are left out, by their targets: their names are taken."""
    targets = _targets()
    return {
        point.value: f"solver {point.name!r} of {point.value} left out: the name is "
        "taken"
        for point in entry_points(group=GROUP)
        if targets[point.name] != point.value
    }


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
