"""Processes that fork: ready for a solver and a problem, they are forked for each run.

A *server* has imported what solvers need. It forks a *template* for each solver and
problem, which loads the problem and compiles, and which forks a process for each run. A
further problem's template of a solver is forked from the first one, where the kernels
are loaded already. Servers and templates have one thread, or they could not be forked
safely; they wait for orders on a connection of their own to whoever started the server.

Whatever a run leaves behind becomes a child of its template, and ends with the run.
What a template leaves becomes the server's. The server ends everything when the
process that started it ends, however that happens.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path

import numpy as np

from benchmarks.harness.answers import write_answer, write_failure
from benchmarks.harness.failures import refusal
from benchmarks.harness.kept import KeepingMonitor, Kept, kept_as
from benchmarks.harness.limits import (
    THREADS,
    MemoryLimit,
    adopt_orphans,
    die_with,
    kill_children,
)
from benchmarks.harness.mapped import load
from benchmarks.harness.race import compile_for, solve
from solvers import Budget, QuboBatch, Solver, parse_solver
from solvers.errors import AnswerError
from solvers.layer_data import LayerData
from solvers.registry import reason

# Seconds between two looks at whether the process that started the server is there.
WATCH = 1.0
NO_MEMORY = os.strerror(errno.ENOMEM)


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Order to fork a template, whose connection follows; its process id is the reply.

    Attributes
    ----------
    solver
        The solver's label.
    problem
        File of the batches.
    data
        File of the layer's data for each batch.
    memory
        Bytes that compiling may take.
    """

    solver: str
    problem: Path
    data: Path | None
    memory: int | None


@dataclass(frozen=True, kw_only=True)
class Go:
    """Order to fork a run; the replies are its process id, and then how it has ended.

    Attributes
    ----------
    folder
        Where the answer goes, and where there is a file for each batch to keep what is
        reported.
    seed, budget
        As in `solvers.Solver.solve`.
    memory
        Bytes that the run may take.
    """

    folder: Path
    seed: int
    budget: Budget
    memory: int | None


@dataclass(frozen=True, kw_only=True)
class Reap:
    """Order to wait for a template to end; the reply is how it has ended."""

    pid: int


@dataclass(frozen=True)
class Ended:
    """How a process has ended.

    Attributes
    ----------
    code
        As `os.waitstatus_to_exitcode` gives it: the signal's number, negative, of a
        process that was killed.
    grown
        Bytes of memory in use at most, beyond those at its start.
    """

    code: int
    grown: int


@dataclass(frozen=True)
class Ready:
    """A template's first reply: whether runs can be forked.

    Attributes
    ----------
    seconds
        Seconds of loading and compiling.
    status, message
        Why runs cannot be forked; the status is ``ok`` if they can.
    """

    seconds: float
    status: str = "ok"
    message: str = ""


def serve(descriptor: int, parent: int, folder: str) -> None:
    """Be a server; return when the process that started it ends.

    Parameters
    ----------
    descriptor
        Of the connection to that process.
    parent
        The id of that process.
    folder
        What is removed if that process cannot do it any more.
    """
    orders = Connection(descriptor)
    adopt_orphans()
    try:
        _import()
        _Node(orders).obey(lambda: os.getppid() == parent)
    finally:
        kill_children(set())
        if os.getppid() != parent:
            shutil.rmtree(folder, ignore_errors=True)


def _import() -> None:
    """What every solver needs: libraries, and the kernels that energies take."""
    import scipy.linalg  # noqa: F401
    import threadpoolctl  # noqa: F401

    for dtype in (np.float32, np.float64):
        qubo = QuboBatch.from_matrix(np.eye(2, dtype=dtype))
        qubo.energies(qubo.nearest())


class _Node:
    """A process that forks: a server or a template."""

    def __init__(
        self, orders: Connection, run: Callable[[Go], None] | None = None
    ) -> None:
        self._orders, self._run = orders, run
        self._templates: set[int] = set()

    def obey(self, wanted: Callable[[], bool]) -> None:
        """Carry out orders until there can be no more."""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                if not self._orders.poll(WATCH):
                    if wanted():
                        continue
                    return
                match self._orders.recv():
                    case Prepare() as order:
                        self._prepare(order)
                    case Go() as order:
                        self._go(order)
                    case Reap(pid=pid):
                        self._orders.send(self._ended(pid))

    def _prepare(self, order: Prepare) -> None:
        own = recv_handle(self._orders)
        pid = self._fork(lambda: _be_template(order, Connection(own)))
        os.close(own)
        self._templates.add(pid)
        self._orders.send(pid)

    def _go(self, order: Go) -> None:
        assert self._run is not None
        run = self._run
        pid = self._fork(lambda: run(order))
        self._orders.send(pid)
        self._orders.send(self._ended(pid))

    def _ended(self, pid: int) -> Ended:
        _, status, usage = os.wait4(pid, 0)
        self._templates.discard(pid)
        kill_children(self._templates)
        # What a process has when it is forked counts from its first moment.
        grown = 1024 * usage.ru_maxrss - _resident()
        return Ended(os.waitstatus_to_exitcode(status), grown)

    def _fork(self, work: Callable[[], None]) -> int:
        parent = os.getpid()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        with warnings.catch_warnings():
            # Threads that a solver has started, and of which it takes care.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            die_with(parent)
            self._orders.close()
            work()
            code = 0
        except BaseException as error:
            # Not of the solver's making, whose errors are caught where they are raised.
            sys.stderr.write(f"{reason(error)}\n")
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def _resident() -> int:
    """Bytes of memory of this process."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _be_template(order: Prepare, orders: Connection) -> None:
    """Make ready for runs, and fork them on order."""
    adopt_orphans()
    os.setsid()
    begun = time.perf_counter()
    try:
        solver, qubos, data = _ready(order)
    except _NotReadyError as error:
        seconds = time.perf_counter() - begun
        orders.send(Ready(seconds, error.status, error.message))
        return
    orders.send(Ready(time.perf_counter() - begun))
    # Objects that stay are not looked through, and so not copied, by every run.
    gc.collect()
    gc.freeze()
    _Node(orders, lambda go: _be_run(go, solver, qubos, data)).obey(lambda: True)
    kill_children(set())


class _NotReadyError(Exception):
    """A template cannot be forked for runs."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def _ready(
    order: Prepare,
) -> tuple[Solver, list[QuboBatch], Sequence[LayerData] | None]:
    """The solver, compiled, and its problem; refused is what it does not support."""
    limit = MemoryLimit(order.memory)
    try:
        solver = parse_solver(order.solver)
        qubos: list[QuboBatch] = load(order.problem)
        data = None if order.data is None else load(order.data)
        if (why := refusal(solver, qubos[0])) is not None:
            raise _NotReadyError("skipped", f"solver {order.solver}: {why}")
        compile_for(solver, qubos[0])
        return solver, qubos, data
    except _NotReadyError:
        raise
    except BaseException as error:
        raise _NotReadyError(*failure(error)) from error
    finally:
        limit.lift()


def failure(error: BaseException) -> tuple[str, str]:
    """The status that an exception of a solver stands for, and what it says."""
    if isinstance(error, AnswerError):
        return "invalid", reason(error)
    found: BaseException | None = error
    while found is not None:
        # Libraries say it in exceptions of their own.
        if isinstance(found, MemoryError) or NO_MEMORY in reason(found):
            return "oom", reason(error)
        found = found.__cause__ or found.__context__
    return "error", reason(error)


def _be_run(
    order: Go,
    solver: Solver,
    qubos: list[QuboBatch],
    data: Sequence[LayerData] | None,
) -> None:
    """Solve within limits, and write the answer."""
    os.setsid()
    _limit_threads(order.budget.threads)

    def monitor(i: int) -> KeepingMonitor:
        return KeepingMonitor(Kept(*kept_as(order.folder, i, qubos[i], solver)))

    limit = MemoryLimit(order.memory)
    try:
        with np.errstate():
            solutions = solve(solver, qubos, order.seed, order.budget, data, monitor)
    except BaseException as error:
        limit.lift()
        write_failure(order.folder, *failure(error))
    else:
        limit.lift()
        write_answer(order.folder, solutions)


def _limit_threads(threads: int) -> None:
    """Let libraries use so many threads: those that are loaded, and those to come."""
    from threadpoolctl import threadpool_limits

    for name in THREADS:
        os.environ[name] = str(threads)
    threadpool_limits(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
