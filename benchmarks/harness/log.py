"""Finished runs in a file, so that long work can be interrupted and resumed."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness.environment import OWN, code_digest, environment, installed
from solvers import Solver, label
from solvers.composed.window import Window
from solvers.errors import InputError
from solvers.registry import source_digest

if TYPE_CHECKING:
    from torch import Tensor, nn

# Raised when what a log holds gets another form: older files are refused.
FORMAT = 3
# How every log begins; a file that ends before its first line does was cut off there.
BEGINNING = b'{"settings": '


def digest(path: Path) -> str:
    """A hash of a file's content, by which a log recognises the file.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def tensors_digest(tensors: Iterable[Tensor]) -> str:
    """A hash of the values of tensors, such as decoded images."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        sha.update(tensor.contiguous().numpy().data.cast("B"))
    return sha.hexdigest()[:16]


def network_digest(model: str, network: nn.Module) -> str:
    """A hash of what a network is beside its weights: its layers, its factory's file.

    Parameters
    ----------
    model
        The network's name, or ``package.module:factory``.
    network
        The network.
    """
    sha = hashlib.sha256(repr(network).encode())
    module, colon, _ = model.partition(":")
    file = getattr(sys.modules[module], "__file__", None) if colon else None
    if file is not None:
        sha.update(Path(file).read_bytes())
    return sha.hexdigest()[:16]


def solver_key(solver: Solver) -> str:
    """A solver's label, and what makes its runs beside the code of this project.

    Of another package's sampler that is the package's version; of a class that is not
    the project's, a digest of its file; of a solver that wraps another, the latter's.
    """
    parts = [label(solver)]
    if type(solver).__module__.partition(".")[0] not in OWN:
        parts.append(source_digest(solver) or "")
    if (package := getattr(solver, "package", None)) is not None:
        parts.append(f"{package} {installed(package)}")
    if isinstance(solver, Window):
        parts.append(solver_key(solver.inner))
    return " ".join(parts)


def open_log(
    command: str,
    options: argparse.Namespace,
    *names: str,
    about: dict[str, Any] | None = None,
    **settings: Any,
) -> RunLog:
    """The log that a command's option ``--log`` names.

    Parameters
    ----------
    command
        The command's name.
    options
        The command's options.
    names
        Names of the options that all runs of the file share.
    about
        What the file's first line should say beside the settings and the environment.
    settings
        What all runs share beside these options, such as the digest of a file.
    """
    shared = {name: vars(options)[name] for name in names}
    threads = vars(options).get("threads", 1)
    return RunLog(
        options.log,
        {"format": FORMAT, "command": command, **shared, **settings},
        {"environment": environment(threads), **(about or {})},
    )


class RunLog:
    """Runs by their keys, each kept as a line of JSON as soon as it is finished.

    Each line says which code made the run (`code_digest`). Runs of other code stay in
    the file and are left aside, with a warning that counts them: what is asked for of
    them is made again.

    Parameters
    ----------
    path
        The file, which is continued if it exists; None keeps nothing.
    settings
        What all runs of the file share. Runs under other settings cannot be compared,
        so a file that was begun with others is refused.
    about
        What the first line should say beside the settings, such as the environment. A
        file begun on another processor is taken up with a warning.

    Raises
    ------
    InputError
        The file is not a log of runs, was begun with other settings, or cannot be read
        or written.
    """

    def __init__(
        self, path: Path | None, settings: dict[str, Any], about: dict[str, Any]
    ) -> None:
        self._path = path
        self._runs: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        settings = json.loads(json.dumps(settings, default=str))
        whole, newline, torn = _content(path).rpartition(b"\n")
        if newline:
            self._take(whole.split(b"\n"), settings, about)
        elif torn[: len(BEGINNING)] != BEGINNING[: len(torn)]:
            raise InputError(f"{path} is not a log of runs; name another file")
        if torn:
            # A last line without an end was cut off while it was written.
            _cut(path, len(whole) + len(newline))
        if not newline:
            self._append({"settings": settings, **about})

    def run(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The run with the given key: from the file, or made now and kept."""
        if key not in self._runs:
            self._runs[key] = make()
            if self._path is not None:
                line = {"key": key, "code": code_digest(), "run": self._runs[key]}
                self._append(line)
        return self._runs[key]

    def _take(
        self, lines: list[bytes], settings: dict[str, Any], about: dict[str, Any]
    ) -> None:
        """Take the runs that this code has made under the same settings."""
        path = self._path
        assert path is not None
        first = _parsed(path, 1, lines[0], "settings")
        begun = first["settings"]
        for name in settings.keys() | begun.keys():
            if settings.get(name) != begun.get(name):
                raise InputError(
                    f"{path} was begun with {name} = {begun.get(name)!r}, not "
                    f"{settings.get(name)!r}; name another file"
                )
        entries = [_parsed(path, i, line, "run") for i, line in enumerate(lines[1:], 2)]
        mine = [entry for entry in entries if entry.get("code") == code_digest()]
        self._runs = {entry["key"]: entry["run"] for entry in mine}
        if others := len(entries) - len(mine):
            warnings.warn(
                f"{path}: {others} runs of other code are left aside", stacklevel=4
            )
        if _processor(first) != _processor(about):
            warnings.warn(
                f"{path} was begun on another processor: its times may not compare",
                stacklevel=4,
            )

    def _append(self, line: dict[str, Any]) -> None:
        assert self._path is not None
        left = memoryview(json.dumps(line, allow_nan=False).encode() + b"\n")
        try:
            with self._path.open("ab", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                try:
                    while left:
                        left = left[file.write(left) :]
                except BaseException:
                    # No part of a line stays, be it the disk that is full or Ctrl-C.
                    file.truncate(size)
                    raise
        except OSError as error:
            raise InputError(f"cannot write {self._path}: {error.strerror}") from error


def _processor(about: dict[str, Any]) -> object:
    environment = about.get("environment")
    return environment.get("processor") if isinstance(environment, dict) else None


def _content(path: Path) -> bytes:
    """The content of a file; empty if there is none."""
    try:
        if not path.exists():
            return b""
        if not path.is_file():
            raise InputError(f"{path} is not a file")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _cut(path: Path, size: int) -> None:
    try:
        os.truncate(path, size)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _parsed(path: Path, at: int, line: bytes, what: str) -> dict[str, Any]:
    """A line of a log, which must hold an object by the name `what`."""
    try:
        entry = json.loads(line)
        if isinstance(entry[what], dict) and (at == 1 or isinstance(entry["key"], str)):
            return dict(entry)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    if at == 1:
        raise InputError(f"{path} is not a log of runs; name another file")
    raise InputError(f"{path}:{at}: not a run; remove the line, or name another file")
