"""Runs of solvers in processes of their own, held to limits from outside.

A run that hangs, crashes or takes too much ends alone: what it has reported until then
is kept, and the next run is made as if it had not been.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.harness.answers import read_answer
from benchmarks.harness.forks import Ended, Go, Prepare, Ready, Reap
from benchmarks.harness.kept import Kept, kept_as, solutions_of
from benchmarks.harness.limits import THREADS, Limits
from benchmarks.harness.mapped import dump
from solvers import Budget, InputError, QuboBatch, Solution, Solver, label
from solvers.layer_data import LayerData

# Templates that are held ready, beside the first one of each solver.
TEMPLATES = 16
# Seconds that a process may take to reply when it has nothing to do but that.
REPLY = 60.0
# Bytes of a run's output that are kept, the last ones.
OUTPUT = 2000
# A process that is killed above this share of its memory has been killed for it.
NEAR = 0.8
SERVER = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from benchmarks.harness.forks import serve; "
    "serve(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])"
)
_Reply = TypeVar("_Reply", int, Ended)


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What has become of a run.

    Attributes
    ----------
    status
        One of `benchmarks.harness.runs.STATUSES`.
    message
        Why there is no answer, in one line.
    solutions
        A solution for each of the problem's batches: the solver's claims, not checked.
        Of a run that was killed they are the best states that it had reported.
    seconds
        Seconds of solving; of a run that was killed, those until then; NaN of a run
        that was not begun.
    compiling
        Seconds of loading the solver and compiling, which belong to no run.
    output
        The end of what the run has printed.
    """

    status: str
    message: str = ""
    solutions: tuple[Solution, ...] = ()
    seconds: float = math.nan
    compiling: float = 0.0
    output: str = ""


@dataclass(eq=False)
class _Process:
    """A server or a template, as the process sees it that has started the server.

    Attributes
    ----------
    parent
        Whom it was forked by; None of the server.
    seconds
        Seconds that it took to get ready.
    failure
        The outcome of all its runs, if it did not get ready.
    """

    pid: int
    orders: Connection
    parent: _Process | None = None
    seconds: float = 0.0
    failure: Outcome | None = None


class _LostError(Exception):
    """A server or a template is gone."""


class Workers:
    """Makes runs, one at a time, each in a process of its own.

    Processes are ready for a solver and a problem before its runs are forked, so that a
    run costs little beside its seconds. All processes end with the ``with`` statement,
    or with the process that has begun it. This needs Linux.

    Parameters
    ----------
    limits
        What each run may use.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = Limits() if limits is None else limits
        self._folder = Path(tempfile.mkdtemp(prefix="runs-"))
        self._files: dict[tuple[int, ...], Path] = {}
        self._unused: list[tuple[int, ...]] = []
        # By solver, file of the problem and file of the layer's data.
        self._templates: dict[tuple[str, Path, Path | None], _Process] = {}
        self._first: dict[str, _Process] = {}
        self._count = 0
        self._output = b""
        self._start()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, and remove all files."""
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(
        self,
        qubos: Sequence[QuboBatch],
        solver: Solver,
        *,
        seed: int = 0,
        budget: Budget | None = None,
        data: Sequence[LayerData] | None = None,
    ) -> Outcome:
        """Run a solver on a problem's batches, as `benchmarks.harness.race.solve` does.

        The batches are in a file for as long as they live: give the same ones for all
        runs on a problem.

        Raises
        ------
        InputError
            There is no room for the files.
        """
        budget = Budget() if budget is None else budget
        try:
            problem = self._file(qubos)
            given = self._file(data) if data is not None and solver.uses_data else None
            for _ in range(2):
                # What has ended between two runs is no fault of the next one.
                with contextlib.suppress(_LostError):
                    template = self._template(label(solver), problem, given)
                    if template.failure is not None:
                        return template.failure
                    return self._run(template, solver, qubos, seed, budget)
                self._restart()
        except OSError as error:
            raise InputError(f"cannot write to {self._folder}: {error}") from error
        except BaseException:
            # What is under way ends with the server.
            self._restart()
            raise
        return Outcome(
            status="crash", message="the processes that fork runs have ended"
        )

    def _file(self, parts: Sequence[QuboBatch] | Sequence[LayerData]) -> Path:
        """The file of a problem's batches, or of the layer's data for each of them."""
        while self._unused:
            self._forget(self._unused.pop())
        key = tuple(map(id, parts))
        if key not in self._files:
            self._count += 1
            path = self._folder / f"problem{self._count}"
            dump(path, list(parts))
            self._files[key] = path
            for part in parts:
                # Called whenever the part is let go, even in the midst of a run.
                weakref.finalize(part, self._unused.append, key)
        return self._files[key]

    def _forget(self, key: tuple[int, ...]) -> None:
        """Remove a file that nothing can ask for any more, and its templates."""
        if (path := self._files.pop(key, None)) is not None:
            for files in [files for files in self._templates if path in files]:
                self._end(files)
            path.unlink()

    def _start(self) -> None:
        """Start the server, which gets ready in the background."""
        orders, there = Pipe()
        self._popen = subprocess.Popen(
            [
                *(sys.executable, "-c", SERVER, json.dumps(sys.path)),
                *(str(there.fileno()), str(os.getpid()), str(self._folder)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[there.fileno()],
            # A process that forks has one thread; each run sets its own number.
            env={**os.environ, **dict.fromkeys(THREADS, "1")},
            # Ctrl-C is for this process, which ends runs in its own way.
            start_new_session=True,
        )
        there.close()
        if self.limits.cores is not None:
            os.sched_setaffinity(self._popen.pid, self.limits.cores)
        self._server = _Process(self._popen.pid, orders)

    def _stop(self) -> None:
        """End the server, and with it all templates and runs."""
        for process in (*self._templates.values(), self._server):
            process.orders.close()
        self._templates.clear()
        self._first.clear()
        try:
            self._popen.wait(REPLY)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        assert self._popen.stdout is not None
        self._popen.stdout.close()

    def _restart(self) -> None:
        self._stop()
        self._start()

    def _template(self, name: str, problem: Path, data: Path | None) -> _Process:
        """What forks runs of a solver on a problem: at hand, or made ready now."""
        key = (name, problem, data)
        if (template := self._templates.pop(key, None)) is None:
            template = self._make(name, problem, data)
            if template.failure is None:
                self._first.setdefault(name, template)
        # The last one is that used last.
        self._templates[key] = template
        while len(self._templates) - len(self._first) > TEMPLATES:
            firsts = self._first.values()
            self._end(next(k for k, t in self._templates.items() if t not in firsts))
        return template

    def _make(self, name: str, problem: Path, data: Path | None) -> _Process:
        """Fork a template, of the solver's first one or of the server."""
        parent = self._first.get(name, self._server)
        orders, there = Pipe()
        self._send(
            parent,
            Prepare(solver=name, problem=problem, data=data, memory=self.limits.memory),
        )
        try:
            send_handle(parent.orders, there.fileno(), parent.pid)
        except OSError as error:
            raise _LostError from error
        finally:
            there.close()
        template = _Process(self._receive(parent, int), orders, parent)
        begun = time.perf_counter()
        ready = None
        if in_time := self._await(orders, self.limits.compiling):
            with contextlib.suppress(EOFError, OSError):
                ready = orders.recv()
        if isinstance(ready, Ready) and ready.status == "ok":
            template.seconds = ready.seconds
            return template
        if not in_time:
            _kill(template.pid)
        self._send(parent, Reap(pid=template.pid))
        ended = self._receive(parent, Ended)
        seconds = time.perf_counter() - begun
        if isinstance(ready, Ready):
            status, message = ready.status, ready.message
        elif not in_time:
            status = "timeout"
            message = f"killed when compiling had taken {seconds:.3g} s"
        else:
            status, message = self._cause(ended, "compiling")
        template.failure = Outcome(
            status=status, message=message, compiling=seconds, output=self._printed()
        )
        return template

    def _run(
        self,
        template: _Process,
        solver: Solver,
        qubos: Sequence[QuboBatch],
        seed: int,
        budget: Budget,
    ) -> Outcome:
        """Have a run forked, and see to its end."""
        self._count += 1
        folder = self._folder / f"run{self._count}"
        folder.mkdir()
        try:
            kept = [
                Kept(*kept_as(folder, i, qubo, solver), create=True)
                for i, qubo in enumerate(qubos)
            ]
            self._printed()
            killed_before = _killed_by_kernel()
            order = Go(
                folder=folder, seed=seed, budget=budget, memory=self.limits.memory
            )
            self._send(template, order)
            pid = self._receive(template, int)
            begun = time.perf_counter()
            in_time = self._await(template.orders, self.limits.seconds(budget.seconds))
            if not in_time:
                _kill(pid)
            try:
                ended = self._receive(template, Ended)
            except _LostError:
                # It takes no orders while it waits for the run: the run has ended it.
                ended = Ended(-signal.SIGKILL, 0)
                self._restart()
            seconds = time.perf_counter() - begun
            answer = read_answer(folder)
            if answer is not None:
                status, message, solutions = answer
            elif not in_time:
                status, message = "timeout", f"killed after {seconds:.3g} s"
            else:
                status, message = self._cause(ended, "solving")
                if _killed_by_kernel() > killed_before:
                    status = "oom"
            if status == "ok":
                seconds = sum(solution.seconds for solution in solutions)
            elif status in ("timeout", "crash", "oom"):
                solutions = solutions_of(kept, qubos, solver)
            else:
                solutions = []
            return Outcome(
                status=status,
                message=message,
                solutions=tuple(solutions),
                seconds=seconds,
                compiling=template.seconds,
                output=self._printed(),
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _cause(self, ended: Ended, doing: str) -> tuple[str, str]:
        """The status, and a line, for a process that has ended without a reply."""
        if ended.code >= 0:
            return "crash", f"exit code {ended.code} while {doing}"
        name = signal.Signals(-ended.code).name
        memory = self.limits.memory
        if memory is not None and ended.grown > NEAR * memory:
            return "oom", f"{name} while {doing}, at the limit of memory"
        return "crash", f"{name} while {doing}"

    def _end(self, key: tuple[str, Path, Path | None]) -> None:
        """End a template, unless others are forked of it."""
        template = self._templates[key]
        if template in self._first.values():
            return
        del self._templates[key]
        template.orders.close()
        if template.failure is None and template.parent is not None:
            with contextlib.suppress(_LostError):
                self._send(template.parent, Reap(pid=template.pid))
                self._receive(template.parent, Ended)

    def _send(self, process: _Process, order: Prepare | Go | Reap) -> None:
        try:
            process.orders.send(order)
        except OSError as error:
            raise _LostError from error

    def _receive(self, process: _Process, kind: type[_Reply]) -> _Reply:
        """The reply of a process that has nothing else to do."""
        try:
            if self._await(process.orders, REPLY):
                reply = process.orders.recv()
                if isinstance(reply, kind):
                    return reply
        except (EOFError, OSError) as error:
            raise _LostError from error
        raise _LostError

    def _await(self, orders: Connection, seconds: float | None) -> bool:
        """Wait for a reply, for so long at most; read what is printed meanwhile."""
        ends = math.inf if seconds is None else time.monotonic() + seconds
        sources: list[Any] = [orders, self._popen.stdout]
        while True:
            left = ends - time.monotonic()
            ready = wait(sources, None if math.isinf(left) else max(left, 0.0))
            if orders in ready or left <= 0:
                return orders in ready
            if ready and not self._read():
                sources = [orders]

    def _read(self) -> bool:
        """Read a part of what has been printed; false if nobody is left to print."""
        assert self._popen.stdout is not None
        part = os.read(self._popen.stdout.fileno(), 2**16)
        self._output = (self._output + part)[-OUTPUT:]
        return bool(part)

    def _printed(self) -> str:
        """The end of what has been printed since this was asked last."""
        while wait([self._popen.stdout], 0.0) and self._read():  # type: ignore[list-item]
            pass
        text, self._output = self._output.decode(errors="replace"), b""
        return text


def open_workers(
    options: argparse.Namespace,
) -> contextlib.AbstractContextManager[Workers | None]:
    """Workers, if ``--isolate`` asks for them."""
    return Workers() if options.isolate else contextlib.nullcontext()


def _kill(pid: int) -> None:
    # It may have ended just now.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _killed_by_kernel() -> int:
    """How many processes the kernel has killed for want of memory since it started."""
    lines = Path("/proc/vmstat").read_text("ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
