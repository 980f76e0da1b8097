"""Finished runs in a file, so that long work can be interrupted and resumed."""

from __future__ import annotations

import argparse
import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness.environment import environment
from solvers import Solver, label
from solvers.errors import InputError
from solvers.registry import source_digest

# Raised when what a log holds gets another meaning: older files are refused.
FORMAT = 2


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


def solver_key(solver: Solver) -> str:
    """A solver's label and, if its class is read from a file, a digest of that file."""
    source = source_digest(solver)
    return label(solver) if source is None else f"{label(solver)} {source}"


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

    Parameters
    ----------
    path
        The file, which is continued if it exists; None keeps nothing.
    settings
        What all runs of the file share. Runs under other settings cannot be compared,
        so a file that was begun with others is refused.
    about
        What the first line should say beside the settings, such as the environment. A
        file begun in another one (commit, packages, processor) is taken up with a
        warning.

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
        settings = json.loads(json.dumps(settings, default=str))
        if path is None:
            return
        if not path.exists():
            self._append({"settings": settings, **about})
            return
        first = self._read(path)
        begun = first["settings"]
        for name in settings.keys() | begun.keys():
            if settings.get(name) != begun.get(name):
                raise InputError(
                    f"{path} was begun with {name} = {begun.get(name)!r}, not "
                    f"{settings.get(name)!r}; name another file"
                )
        before, now = first.get("environment", {}), about.get("environment", {})
        for what in ("commit", "packages", "processor"):
            if before.get(what) != now.get(what):
                warnings.warn(
                    f"{path} was begun with another {what}: its runs may not compare",
                    stacklevel=3,
                )

    def run(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The run with the given key: from the file, or made now and kept."""
        if key not in self._runs:
            self._runs[key] = make()
            if self._path is not None:
                self._append({"key": key, "run": self._runs[key]})
        return self._runs[key]

    def _read(self, path: Path) -> dict[str, Any]:
        """Read the runs of a file; return the settings it was begun with."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        whole, newline, _ = content.rpartition(b"\n")
        try:
            first, *entries = (json.loads(line) for line in whole.split(b"\n"))
            self._runs = {entry["key"]: entry["run"] for entry in entries}
            if not isinstance(first["settings"], dict):
                raise TypeError("settings")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a log of runs") from error
        # A last line without an end was cut off while it was written: remove it.
        with path.open("r+b") as file:
            file.truncate(len(whole) + len(newline))
        return dict(first)

    def _append(self, line: dict[str, Any]) -> None:
        assert self._path is not None
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {self._path}: {error.strerror}") from error
