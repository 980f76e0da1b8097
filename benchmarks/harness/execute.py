"""Runs made wherever there is room, each in a process of its own.

One process hands out jobs and takes runs, and it alone writes to the store. A job is
done in that process, in others of its machine (loky), or on a cluster (dask), whose
machines must see the folder of the problems.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.harness.digests import code_digest_of
from benchmarks.harness.failures import refusal
from benchmarks.harness.judged import MAKER
from benchmarks.harness.limits import Limits
from benchmarks.harness.runs import Run, Spec
from benchmarks.harness.trials import isolated, started
from benchmarks.harness.worker import Workers
from qubo_rounding.problem import RoundingProblem
from solvers import InputError, QuboBatch, Solver, label, parse_solver
from solvers.io.files import read_qubo


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
    """Make a run, in a child of whatever process this is."""
    spec = job.spec
    problem, qubos = _loaded(job.path)
    solver = parse_solver(spec.solver)
    if (why := refusal(solver, qubos[0])) is not None:
        return Run(spec=spec, status="skipped", message=why, **started(spec.threads))
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
        The scheduler cannot be reached.
    """
    from joblib import Parallel, delayed

    with _backend(scheduler):
        parallel = Parallel(
            n_jobs=-1 if scheduler else at_once,
            return_as="generator_unordered",
            batch_size=1,
            pre_dispatch="2*n_jobs" if at_once > 1 or scheduler else 1,
        )
        yield from parallel(delayed(make_run)(job) for job in jobs)


def _backend(scheduler: str | None) -> AbstractContextManager[Any]:
    if scheduler is None:
        return nullcontext()
    if find_spec("distributed") is None:
        raise InputError(
            '--scheduler needs dask: pip install "qubo-rounding[cluster]" installs it'
        )
    import joblib
    from distributed import Client

    try:
        client = Client(scheduler, timeout=30)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"cannot reach the scheduler {scheduler}: {error}") from error
    return joblib.parallel_config("dask", client=client)  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=2)
def _loaded(path: Path) -> tuple[RoundingProblem | QuboBatch, list[QuboBatch]]:
    """A problem and its batches, which stay the same objects for all its runs."""
    problem = load(path)
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


@functools.lru_cache(maxsize=1)
def _workers(limits: Limits) -> Workers:
    """Workers of the process that asks for them, who end with it."""
    workers = Workers(limits)
    atexit.register(workers.close)
    return workers


def _pinned(limits: Limits, threads: int) -> Limits:
    """Limits with cores of their own, where this is one of several processes here."""
    number = re.fullmatch(r"LokyProcess-(\d+)", multiprocessing.current_process().name)
    if number is None:
        return limits
    cores = sorted(os.sched_getaffinity(0))
    first = (int(number[1]) - 1) * threads % len(cores)
    chosen = tuple(cores[(first + k) % len(cores)] for k in range(threads))
    return replace(limits, cores=tuple(sorted({*chosen})))
