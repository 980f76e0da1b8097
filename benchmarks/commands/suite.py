"""Suites of runs: every solver on every problem, isolated, kept and reported.

    python -m benchmarks suite run quick --store runs.db --report report/
    python -m benchmarks suite list

Runs that the store has are not made again, so that a suite which was interrupted goes
on, and one that is finished only shows what is there. Each run has a process, cores,
memory and time of its own. The order of runs is shuffled, the same each time; seeds are
the same for all solvers. Problems lie beside the store in STORE.problems, so that runs
find them, also on other machines.

docs/cluster.md says how to use several machines.

Exit code 0: done; 1: runs have failed; 2: unusable input, reported in one line; 130:
interrupted (finished runs are in the store).
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.commands.report import best_known
from benchmarks.harness.execute import Job, made, spec_of
from benchmarks.harness.failures import FAULTS, plain
from benchmarks.harness.limits import Limits
from benchmarks.harness.packing import text_of
from benchmarks.harness.posing import Posed, pose_all, settled
from benchmarks.harness.progress import Progress
from benchmarks.harness.runs import Problem, Spec
from benchmarks.harness.store import Store, open_store
from benchmarks.harness.suite import (
    Suite,
    named_suites,
    read_suite,
    with_inputs,
)
from benchmarks.harness.tables import columns
from benchmarks.options import add
from benchmarks.report.write import require_packages, write_report
from solvers import InputError, Solver

# Seconds that a run is expected to take beside its limit, and one without a limit that
# has never been made.
BESIDE, UNKNOWN = 0.3, 2.0
# Copies of a problem's matrix that a run may hold at once.
COPIES = 8
MIB, GIB = 2**20, 2**30


@dataclass(frozen=True, eq=False)
class Plan:
    """A suite's runs, and what is needed to make those that are missing.

    Attributes
    ----------
    specs
        All runs of the suite, in the order in which they are made.
    missing
        Those that the store does not have.
    problems
        The problems by digest.
    posed
        Their files and scores; empty if nothing is missing.
    """

    specs: list[Spec]
    missing: list[Spec]
    problems: dict[str, Problem]
    posed: dict[str, Posed]


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options to the parser."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="the suites that come with the project")
    run = actions.add_parser("run", help="make a suite's runs")
    add(run, "suite")
    add(run, "weights", note="the suite's", help="weights of all networks")
    add(run, "images", note="the suite's")
    add(run, "store", note="SUITE.db")
    add(run, "rerun", "rerun-failed", "dry-run", "at-once", "scheduler")
    add(run, "output", help="write a report to DIR", flag="--report")
    add(run, "best", "registry")


def run(options: argparse.Namespace) -> int:
    """List the suites, or make the runs of one; return the exit code."""
    if options.action == "list":
        suites = [read_suite(name) for name in named_suites()]
        print(columns([[suite.name, suite.description] for suite in suites]))
        return 0
    suite = with_inputs(read_suite(options.suite), options.weights, options.images)
    needed, cores = options.jobs * suite.threads, len(os.sched_getaffinity(0))
    if options.jobs > 1 and needed > cores:
        raise InputError(
            f"--jobs {options.jobs} of threads = {suite.threads} need {needed} cores; "
            f"there are {cores}"
        )
    if options.report is not None:
        require_packages()
    elif options.best or options.registry is not None:
        raise InputError("--best and --registry go with --report DIR")
    options.store = options.store or Path(f"{suite.name}.db")
    folder = options.store.with_name(f"{options.store.name}.problems")
    with open_store(options) as store:
        plan = _plan(suite, store, folder)
        if options.dry_run:
            print(_estimate(plan, suite, store, options.jobs))
            return 0
        try:
            _make(plan, suite, store, options)
        finally:
            statuses = _statuses(plan, store)
            print(columns([["status", "runs"], *statuses.items()]))
    if options.report is not None:
        best = best_known(options, folder)
        print(write_report(options.store, options.report, folder, best))
    return int(any(status in FAULTS for status in statuses))


def _plan(suite: Suite, store: Store, folder: Path) -> Plan:
    """The runs of a suite; problems are posed only if one is missing."""
    runs = suite.runs()
    known = {text_of(settings): content for settings, content in store.facts()}
    settings = [settled(entry) for entry in suite.entries]
    facts = [known.get(text_of(each)) if each else None for each in settings]
    if all(fact is not None for fact in facts):
        digests = [digest for fact in facts if fact for digest in fact["problems"]]
        plan = _of(digests, store.problems(), {}, runs, suite, store)
        if not plan.missing:
            return plan
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make folder {folder}: {error.strerror}") from error
    posed: dict[str, Posed] = {}
    for entry, each in zip(suite.entries, settings, strict=True):
        found = list(pose_all(entry, folder, _say))
        posed |= {one.known.digest: one for one in found}
        for one in found:
            store.add_problem(one.known)
        if each:
            content = {"problems": [one.known.digest for one in found]}
            store.fact(each, content.copy)
    problems = {digest: one.known for digest, one in posed.items()}
    return _of(list(posed), problems, posed, runs, suite, store)


def _of(
    digests: Sequence[str],
    problems: dict[str, Problem],
    posed: dict[str, Posed],
    runs: Sequence[tuple[Solver, float | None, int]],
    suite: Suite,
    store: Store,
) -> Plan:
    # What is named twice is there once.
    digests = [*dict.fromkeys(digests)]
    named = {
        spec.run_id: spec
        for digest in digests
        for solver, seconds, seed in runs
        for spec in [spec_of(digest, solver, seconds, seed, suite.threads)]
    }
    # Whatever changes in the machine meanwhile should touch all solvers alike; runs on
    # one problem stay together, so that it is loaded once.
    rng = np.random.default_rng(0)
    order = {digest: rank for rank, digest in enumerate(rng.permutation(digests))}
    specs = [*named.values()]
    specs = [specs[i] for i in rng.permutation(len(specs))]
    specs.sort(key=lambda spec: order[spec.problem])
    missing = [spec for spec in specs if store.find(spec) is None]
    return Plan(specs, missing, problems, posed)


def _make(plan: Plan, suite: Suite, store: Store, options: argparse.Namespace) -> None:
    """Make the missing runs, each kept as soon as it has ended."""
    memory = math.ceil(suite.memory * GIB)
    limits = Limits(memory=memory, grace=suite.grace, hard=suite.hard)
    jobs = [
        Job(spec=spec, path=plan.posed[spec.problem].path.resolve(), limits=limits)
        for spec in plan.missing
    ]
    expected = {spec.run_id: s for spec, s in _expected(plan, store)}
    names = {digest: problem.name for digest, problem in plan.problems.items()}
    total = sum(expected.values()) / options.jobs
    at_once = None if options.scheduler else options.jobs
    with Progress(len(jobs), total, names, at_once) as progress:
        for run in made(jobs, options.jobs, options.scheduler) if jobs else ():
            score = plan.posed[run.spec.problem].score
            if score is not None and run.states is not None:
                run = replace(run, scores=plain(score(run)))
            store.add(run)
            progress.ended(run, expected[run.spec.run_id] / options.jobs)


def _expected(plan: Plan, store: Store) -> list[tuple[Spec, float]]:
    """The seconds that each missing run is expected to take."""
    table = store.table("solver", "seconds")
    taken: dict[str, list[float]] = {}
    for solver, seconds in zip(table["solver"], table["seconds"], strict=True):
        if np.isfinite(seconds):
            taken.setdefault(solver, []).append(seconds)
    usual = {solver: float(np.median(seconds)) for solver, seconds in taken.items()}
    return [
        (spec, BESIDE + (spec.seconds or usual.get(spec.solver, UNKNOWN)))
        for spec in plan.missing
    ]


def _estimate(plan: Plan, suite: Suite, store: Store, at_once: int) -> str:
    """What there is to do, and about how much time and memory it takes."""
    counts: Counter[tuple[str, str]] = Counter()
    for spec in plan.missing:
        limit = "" if spec.seconds is None else f"@{spec.seconds:g}"
        counts[plan.problems[spec.problem].name, spec.solver + limit] += 1
    lines = [["problem", "solver", "runs"]]
    lines += [[*pair, str(count)] for pair, count in counts.items()]
    seconds = sum(expected for _, expected in _expected(plan, store)) / at_once
    largest = max((p.n**2 + p.rows * p.n) * 8 for p in plan.problems.values())
    memory = math.ceil(at_once * COPIES * largest / MIB)
    return (
        f"{columns(lines)}\n{len(plan.missing)} of {len(plan.specs)} runs are to be "
        f"made: about {seconds / 60:.1f} min, {memory} MiB"
    )


def _statuses(plan: Plan, store: Store) -> dict[str, str]:
    """How many of the suite's runs have ended how."""
    wanted = {spec.run_id for spec in plan.specs}
    table = store.table("run_id", "status")
    pairs = zip(table["run_id"], table["status"], strict=True)
    counts = Counter(status for run_id, status in pairs if run_id in wanted)
    counts["missing"] = len(wanted) - counts.total()
    return {status: str(count) for status, count in counts.items() if count}


def _say(line: str) -> None:
    print(line, file=sys.stderr)
