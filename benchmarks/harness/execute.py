"""Runs made wherever there is room, each in a process of its own.

One process hands out jobs and takes runs, and it alone writes to the store. A job is
done in that process, in others of its machine (loky), or on a cluster (dask), whose
machines must see the folder of the problems.
"""

from __future__ import annotations

import atexit
import functools
import logging
import multiprocessing
import os
import re
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.harness.digests import code_digest_of, problem_digest
from benchmarks.harness.judged import MAKER
from benchmarks.harness.limits import Limits
from benchmarks.harness.runs import Run, Spec
from benchmarks.harness.trials import isolated
from benchmarks.harness.worker import Workers
from qubo_rounding.problem import RoundingProblem
from solvers import InputError, QuboBatch, Solver, label, parse_solver
from solvers.io.files import read_qubo
from solvers.registry import reason

# Seconds in which a scheduler must answer, and between two looks at one's parent.
PATIENCE, WATCH = 30.0, 0.2
# Each thread has workers of its own, which make one run at a time.
_own = threading.local()


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run to be made, as a process elsewhere can be told.

    Attributes
    ----------
    spec
        What is asked for.
    path
        The file of the problem.
    limits
        What the run may use.
    """

    spec: Spec
    path: Path
    limits: Limits


def spec_of(
    problem: str, solver: Solver, seconds: float | None, seed: int, threads: int
) -> Spec:
    """What is asked for of a run in a process of its own."""
    return Spec(
        problem=problem,
        solver=label(solver),
        code=code_digest_of(solver, MAKER),
        seed=seed,
        seconds=seconds,
        threads=threads,
    )


def make_run(job: Job) -> Run:
    """Make a run, in a child of whatever process this is.

    Raises
    ------
    InputError
        The job's file is not that of its problem.
    """
    spec = job.spec
    problem, qubos = _loaded(job.path, spec.problem)
    solver = parse_solver(spec.solver)
    workers = _workers(_pinned(job.limits, spec.threads))
    return isolated(workers, spec, solver, problem, qubos)


def made(jobs: Sequence[Job], at_once: int, scheduler: str | None) -> Iterator[Run]:
    """Runs in the order in which they end.

    Parameters
    ----------
    at_once
        Number of runs at a time on this machine.
    scheduler
        Address of a dask scheduler, in place of this machine.

    Raises
    ------
    InputError
        The scheduler cannot be reached or is lost, or a process that hands out runs
        was killed.
    """
    from joblib import Parallel, delayed

    with warnings.catch_warnings(), _backend(at_once, scheduler) as settings:
        # Whoever interrupts runs knows that they do not end.
        warnings.filterwarnings("ignore", r"\d+ tasks which", module="joblib")
        parallel = Parallel(return_as="generator_unordered", batch_size=1, **settings)
        try:
            yield from parallel(delayed(make_run)(job) for job in jobs)
        except (BrokenExecutor, CancelledError) as error:
            raise _lost(error) from error


@contextmanager
def _backend(at_once: int, scheduler: str | None) -> Iterator[dict[str, Any]]:
    """Where joblib makes runs, as settings of its `Parallel`."""
    if scheduler is not None:
        with _dask(scheduler):
            # Workers may join while others are at work.
            yield {"n_jobs": -1, "pre_dispatch": "all"}
    elif at_once == 1:
        yield {"n_jobs": 1}
    else:
        # Processes of loky that are killed leave their files.
        with tempfile.TemporaryDirectory(prefix="suite-") as folder:
            yield {
                "n_jobs": at_once,
                "backend": "loky",
                "initializer": _be_one_of_several,
                "initargs": (os.getpid(), folder),
            }


@contextmanager
def _dask(scheduler: str) -> Iterator[None]:
    if find_spec("distributed") is None:
        raise InputError(
            '--scheduler needs dask: pip install "qubo-rounding[cluster]" installs it'
        )
    import joblib
    from distributed import Client, KilledWorker

    # What it says of lost connections at length is said here in a line.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = Client(scheduler, timeout=PATIENCE)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"cannot reach the scheduler {scheduler}: {reason(error)}"
        ) from error
    with client, joblib.parallel_config("dask", client=client):
        if not client.scheduler_info()["workers"]:
            warnings.warn(f"{scheduler} has no workers yet", stacklevel=2)
            client.wait_for_workers(1)
        try:
            yield
        except KilledWorker as error:
            raise _lost(error) from error


def _lost(error: Exception) -> InputError:
    return InputError(
        f"what makes the runs has ended ({reason(error)}); finished runs are in the "
        "store, and the same command goes on"
    )


def _be_one_of_several(parent: int, folder: str) -> None:
    """Begin a process of loky, which by itself would outlive its parent's death."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    tempfile.tempdir = folder
    # Ctrl-C is for the parent, which ends its processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


@functools.lru_cache(maxsize=2)
def _loaded(
    path: Path, digest: str
) -> tuple[RoundingProblem | QuboBatch, list[QuboBatch]]:
    """A problem and its batches, which stay the same objects for all its runs."""
    problem = load(path)
    if problem_digest(problem) != digest:
        raise InputError(f"{path} is not the problem that it is named for; remove it")
    if isinstance(problem, QuboBatch):
        return problem, [problem]
    return problem, problem.to_qubos()


def load(path: Path) -> RoundingProblem | QuboBatch:
    """A rounding problem or a QUBO, whichever the file holds.

    Raises
    ------
    InputError
        It holds neither.
    """
    try:
        return RoundingProblem.load(path)
    except InputError:
        return read_qubo(path)


def _workers(limits: Limits) -> Workers:
    """Workers of the thread that asks for them, who end with the process."""
    held: Workers | None = getattr(_own, "workers", None)
    if held is not None and held.limits != limits:
        held.close()
        atexit.unregister(held.close)
        held = None
    if held is None:
        held = _own.workers = Workers(limits)
        atexit.register(held.close)
    return held


def _pinned(limits: Limits, threads: int) -> Limits:
    """Limits with cores of their own, where this is one of several processes here."""
    number = re.fullmatch(r"LokyProcess-(\d+)", multiprocessing.current_process().name)
    if number is None:
        return limits
    cores = sorted(os.sched_getaffinity(0))
    first = (int(number[1]) - 1) * threads % len(cores)
    chosen = tuple(cores[(first + k) % len(cores)] for k in range(threads))
    return replace(limits, cores=tuple(sorted({*chosen})))
