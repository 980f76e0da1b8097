"""`Store`: problems and finished runs in one SQLite file, from which none is lost."""

from __future__ import annotations

import argparse
import json
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.environment import processor
from benchmarks.harness.failures import FAULTS
from benchmarks.harness.packing import (
    answer_line,
    problem_line,
    problem_of,
    run_line,
    run_of,
    text_of,
)
from benchmarks.harness.runs import STATUSES, Problem, Run, Spec
from solvers.errors import InputError, UnknownNameError

# By this number in its header a file is known to be a store.
APPLICATION = 0x5155424F
# How long to wait for another process that writes.
PATIENCE = 60.0
# Runs that are read at a time.
CHUNK = 500

# What takes a store from each version to the next, from an empty file on: a new version
# is another entry, and nothing else changes. Answers, which are large, have a table of
# their own, so that lists of runs are read without them.
VERSIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE problems (
            digest TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL,
            rows INTEGER NOT NULL, n INTEGER NOT NULL, nearest REAL,
            meta TEXT NOT NULL)""",
        """CREATE TABLE environments (
            id INTEGER PRIMARY KEY, content TEXT NOT NULL UNIQUE)""",
        """CREATE TABLE runs (
            id INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE,
            problem TEXT NOT NULL REFERENCES problems,
            solver TEXT NOT NULL, code TEXT NOT NULL, seed INTEGER NOT NULL,
            seconds_limit REAL, sweeps INTEGER, threads INTEGER NOT NULL,
            settings TEXT NOT NULL, status TEXT NOT NULL, message TEXT NOT NULL,
            objective REAL, seconds REAL, timing TEXT NOT NULL, began TEXT NOT NULL,
            environment INTEGER NOT NULL REFERENCES environments)""",
        """CREATE TABLE answers (
            id INTEGER PRIMARY KEY REFERENCES runs, energies BLOB, claimed BLOB,
            states BLOB, states_form TEXT, states_rows INTEGER, states_n INTEGER,
            falls BLOB, info TEXT NOT NULL, scores TEXT NOT NULL)""",
        """CREATE TABLE facts (
            settings TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID""",
    ),
)
# Columns of runs that lists, filters and tables know, and which of them hold numbers.
COLUMNS = {
    "run_id": str,
    "problem": str,
    "solver": str,
    "code": str,
    "seed": int,
    "seconds_limit": float,
    "sweeps": float,
    "threads": int,
    "settings": str,
    "status": str,
    "message": str,
    "objective": float,
    "seconds": float,
    "began": str,
}
_OF_PROBLEMS = "digest, name, kind, rows, n, nearest, meta"
# Columns that make a run beside these; the last are not always wanted.
_OF_RUNS = (*COLUMNS, "timing", "environment")
_OF_ANSWERS = ("energies", "claimed", "info", "scores")
_OF_STATES = ("states", "states_form", "states_rows", "states_n")


class Store:
    """Problems and finished runs in a file.

    Each run is written in a transaction of its own: whatever happens afterwards, it is
    there. Several processes may write to one store; each waits for the others.

    Parameters
    ----------
    path
        The file, which is begun if it does not exist; None keeps all in memory.
    again
        Statuses of runs that are to be made again: `find` does not find them until
        they have been.

    Raises
    ------
    InputError
        The file is no store, one of a newer version, or cannot be read or written.
    """

    def __init__(self, path: Path | None, *, again: Collection[str] = ()) -> None:
        self._path = path
        self._again = frozenset(again)
        self._made: set[str] = set()
        self._environments: dict[int, dict[str, Any]] = {}
        self._lock = threading.RLock()
        if path is not None and path.exists() and not path.is_file():
            raise InputError(f"{path} is not a file")
        with self._explained():
            self._db = sqlite3.connect(
                ":memory:" if path is None else path,
                timeout=PATIENCE,
                # A transaction begins where this class begins one.
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._explained():
            self._db.close()

    def add_problem(self, problem: Problem) -> None:
        """Add a problem, if the store does not have it."""
        with self._writing():
            self._db.execute(
                "INSERT OR IGNORE INTO problems VALUES (?, ?, ?, ?, ?, ?, ?)",
                problem_line(problem),
            )

    def problem(self, digest: str) -> Problem | None:
        """The problem with the given digest; None if there is none."""
        query = f"SELECT {_OF_PROBLEMS} FROM problems WHERE digest = ?"
        return next(map(problem_of, self._rows(query, (digest,))), None)

    def problems(self) -> dict[str, Problem]:
        """All problems by digest."""
        found = map(problem_of, self._rows(f"SELECT {_OF_PROBLEMS} FROM problems"))
        return {problem.digest: problem for problem in found}

    def add(self, *runs: Run) -> None:
        """Add a run, or several at once, in place of those with the same `run_id`.

        Raises
        ------
        InputError
            A run is on a problem that the store does not have; the file cannot be
            written. None of them is added then.
        """
        with self._writing():
            for run in runs:
                environment = self._environment(text_of(run.environment))
                line = {**run_line(run), "environment": environment}
                at = self._put("runs", "run_id", line)
                self._put("answers", "id", {"id": at, **answer_line(run)})
        self._made.update(run.spec.run_id for run in runs)

    def get(self, run_id: str) -> Run | None:
        """The run with the given `run_id`; None if there is none."""
        return next(self.runs(states=True, run_id=run_id), None)

    def find(self, spec: Spec) -> Run | None:
        """The run that need not be made, for it is there; None if it must be made."""
        run = self.get(spec.run_id)
        if run is None or spec.run_id in self._made:
            return run
        if run.status in self._again:
            return None
        if run.environment.get("processor", processor()) != processor():
            warnings.warn(
                f"{self._path} has runs of another processor: their times may not "
                "compare",
                stacklevel=2,
            )
        return run

    def kept(self, spec: Spec, make: Callable[[], Run]) -> Run:
        """The run that is there, or one that is made now, and kept."""
        run = self.find(spec)
        if run is None:
            run = make()
            self.add(run)
        return run

    def runs(
        self, *, states: bool = False, falls: bool = True, **where: Any
    ) -> Iterator[Run]:
        """Runs in the order in which they were first added.

        Parameters
        ----------
        states, falls
            Whether these are wanted; the runs have None without.
        where
            Values of columns, such as ``status="ok"``, or several in a list or a tuple.
        """
        wanted = [*_OF_ANSWERS, *(_OF_STATES if states else ()), *["falls"] * falls]
        names = [*_OF_RUNS, *wanted]
        absent = dict.fromkeys({*_OF_STATES, "falls"} - {*wanted})
        for cells in self._lines(names, "runs JOIN answers USING (id)", where):
            line = {**absent, **dict(zip(names, cells, strict=True))}
            environment = self._environment_of(line["environment"])
            try:
                run = run_of(line, environment)
            except (ValueError, TypeError) as error:
                raise InputError(
                    f"{self._path}: run {line['run_id']} is damaged ({error})"
                ) from error
            yield run

    def table(self, *columns: str, **where: Any) -> dict[str, NDArray[Any]]:
        """Columns of all runs, or of some; without names, all of `COLUMNS`.

        Numbers that are missing are NaN; texts are arrays of objects.
        """
        names = columns or tuple(COLUMNS)
        for name in names:
            _require_column(name)
        shared: dict[str, str] = {}
        held: dict[str, list[Any]] = {name: [] for name in names}
        for line in self._lines(names, "runs", where):
            for name, cell in zip(names, line, strict=True):
                # Equal texts are one object.
                text = COLUMNS[name] is str
                held[name].append(shared.setdefault(cell, cell) if text else cell)
        kinds = {str: object, int: np.int64, float: np.float64}
        return {
            name: np.array(cells, kinds[COLUMNS[name]]) for name, cells in held.items()
        }

    def fact(
        self, settings: dict[str, Any], make: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """What is known under the given settings: from the file, or made now and kept.

        Facts are what commands know beside runs, such as the size of a layer, and the
        digest of its problem, for which the problem itself would have to be posed.
        """
        key = text_of(settings)
        query = "SELECT content FROM facts WHERE settings = ?"
        if found := self._rows(query, (key,)):
            content: dict[str, Any] = json.loads(found[0][0])
            return content
        content = make()
        with self._writing():
            self._db.execute(
                "INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, text_of(content))
            )
        return content

    def facts(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Settings and contents of all facts."""
        lines = self._rows("SELECT settings, content FROM facts")
        return [(json.loads(settings), json.loads(held)) for settings, held in lines]

    def damage(self) -> list[str]:
        """What SQLite finds wrong with the file, line by line."""
        check = [line[0] for line in self._rows("PRAGMA integrity_check")]
        return [] if check == ["ok"] else check

    def _open(self) -> None:
        """Make sure that the file is a store of this version."""
        self._db.execute("PRAGMA foreign_keys = ON")
        # Runs outlive a loss of power, not only of the process.
        self._db.execute("PRAGMA synchronous = FULL")
        version = self._version()
        if version == len(VERSIONS):
            return
        if version == 0:
            self._begin_log()
        with self._writing():
            # Another process may have come first.
            for statements in VERSIONS[self._version() :]:
                for statement in statements:
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {APPLICATION}")
            self._db.execute(f"PRAGMA user_version = {len(VERSIONS)}")

    def _version(self) -> int:
        """The version of the store; 0 of an empty file."""
        ((application,),) = self._rows("PRAGMA application_id")
        ((version,),) = self._rows("PRAGMA user_version")
        ((tables,),) = self._rows("SELECT count(*) FROM sqlite_master")
        if application != APPLICATION and (tables or version or application):
            raise InputError(f"{self._path} is not a store of runs; name another file")
        if version > len(VERSIONS):
            raise InputError(
                f"{self._path} is a store of version {version}; this code knows "
                f"versions up to {len(VERSIONS)}: update qubo-rounding, or name "
                "another file"
            )
        return int(version)

    def _begin_log(self) -> None:
        """Let SQLite write ahead, so that readers and a writer do not wait."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                # For this lock SQLite does not wait by itself.
                if _code(error) not in _LOCKED or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _put(self, table: str, key: str, line: dict[str, Any]) -> int:
        """Insert or replace a line of a table; return its number."""
        names = ", ".join(line)
        places = ", ".join("?" * len(line))
        changes = ", ".join(f"{name} = excluded.{name}" for name in line)
        ((at,),) = self._db.execute(
            f"INSERT INTO {table} ({names}) VALUES ({places}) "
            f"ON CONFLICT ({key}) DO UPDATE SET {changes} RETURNING id",
            tuple(line.values()),
        )
        return int(at)

    def _environment(self, content: str) -> int:
        """The number of an environment, which is kept once."""
        self._db.execute(
            "INSERT OR IGNORE INTO environments (content) VALUES (?)", (content,)
        )
        query = "SELECT id FROM environments WHERE content = ?"
        ((at,),) = self._db.execute(query, (content,))
        return int(at)

    def _environment_of(self, at: int) -> dict[str, Any]:
        if at not in self._environments:
            query = "SELECT content FROM environments WHERE id = ?"
            ((content,),) = self._rows(query, (at,))
            self._environments[at] = json.loads(content)
        return self._environments[at]

    def _lines(
        self, names: Collection[str], tables: str, where: dict[str, Any]
    ) -> Iterator[tuple[Any, ...]]:
        """Columns of the runs under a condition.

        No statement stays open between two lines: it would get into the way of those
        that write.
        """
        condition, values = _condition(where)
        query = (
            f"SELECT runs.id, {', '.join(names)} FROM {tables} "
            f"WHERE runs.id > ?{condition} ORDER BY runs.id LIMIT {CHUNK}"
        )
        last = 0
        while chunk := self._rows(query, (last, *values)):
            for _, *cells in chunk:
                yield tuple(cells)
            last = chunk[-1][0]

    def _rows(self, query: str, values: Collection[Any] = ()) -> list[Any]:
        with self._lock, self._explained():
            return self._db.execute(query, tuple(values)).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction, which leaves no trace if anything is raised."""
        with self._lock, self._explained():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some failures.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say in one line what SQLite, or the system below it, refuses."""
        try:
            yield
        # Numbers of more than 64 bits, and names that are no text.
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
            raise InputError(self._explanation(error)) from error

    def _explanation(self, error: Exception) -> str:
        code = _code(error)
        if code == sqlite3.SQLITE_NOTADB:
            return f"{self._path} is not a store of runs; name another file"
        if code == sqlite3.SQLITE_CORRUPT:
            return (
                f"{self._path} is damaged: {error}; take a copy of it from before, or "
                "name another file"
            )
        if code in _LOCKED:
            return (
                f"{self._path} is being written to by another process, for longer than "
                f"{PATIENCE:g} s"
            )
        if code == sqlite3.SQLITE_CONSTRAINT:
            return f"{self._path}: add the problem of a run before the run ({error})"
        what = "write" if code in _WRITING else "use"
        return f"cannot {what} {self._path}: {error}"


def open_store(options: argparse.Namespace) -> Store:
    """The store that ``--store`` names, with what ``--rerun`` asks for."""
    again = STATUSES if options.rerun else FAULTS if options.rerun_failed else ()
    return Store(options.store, again=again)


# Result codes of SQLite: others hold a lock, and what can go wrong in writing.
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_WRITING = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _code(error: Exception) -> int:
    """SQLite's result code, without what it says in detail."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _require_column(name: str) -> None:
    if name not in COLUMNS:
        raise UnknownNameError("column of runs", name, COLUMNS)


def _condition(where: dict[str, Any]) -> tuple[str, list[Any]]:
    """SQL that goes on with AND, and its values."""
    text, values = "", []
    for name, value in where.items():
        _require_column(name)
        several = [*value] if isinstance(value, list | tuple) else [value]
        text += f" AND {name} IN ({', '.join('?' * len(several))})"
        values += several
    return text, values
