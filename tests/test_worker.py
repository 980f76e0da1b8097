"""Runs in processes of their own: whatever one does, the others are as without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks.harness.judged import judged
from benchmarks.harness.limits import Limits
from benchmarks.harness.race import solve
from benchmarks.harness.runs import STATUSES, Run, Spec
from benchmarks.harness.worker import Outcome, Workers
from solvers import Budget, InputError, QuboBatch, parse_solver
from solvers.testing import example_batch

FILE = Path(__file__).with_name("unruly.py")
LIMITS = Limits(memory=2**27, grace=0.3, hard=2.0, compiling=20.0)
SHORT = Budget(seconds=0.1)
HONEST = "sa[num_sweeps=20]"
# The class in the file, the run's status, and what its one line says.
CASES = [
    ("Sleeps", "timeout", "killed after 0."),
    ("Spins", "timeout", "killed after 0."),
    ("IgnoresSignals", "timeout", "killed after 0."),
    ("Stops", "timeout", "killed after 0."),
    ("IgnoresTheBudget", "timeout", "killed after 0."),
    ("PrintsWithoutEnd", "timeout", "killed after 0."),
    ("ReportsALie", "invalid", "the states do not have the energies"),
    ("Faults", "crash", "SIGSEGV while solving"),
    ("Aborts", "crash", "SIGABRT while solving"),
    ("Exits", "crash", "exit code 3 while solving"),
    ("ExitsAsIfWell", "crash", "exit code 0 while solving"),
    ("KillsItself", "crash", "SIGKILL while solving"),
    ("KillsItsParent", "crash", "SIGKILL while solving"),
    ("Raises", "error", "ValueError: first line second line"),
    ("Refuses", "skipped", "not on a Sunday"),
    ("GivesNaN", "invalid", "search gives"),
    ("GivesNone", "invalid", "not None"),
    ("Lies", "invalid", "the states do not have the energies"),
    ("SolvesToNone", "error", "NoneType"),
    ("SolvesToAnotherShape", "invalid", "must have shape"),
    ("EatsMemory", "oom", "MemoryError"),
    ("EatsMemoryAtOnce", "oom", "MemoryError"),
    ("EatsMemoryWithTorch", "oom", "llocat"),
    ("Prints", "ok", ""),
    ("ChangesItsInput", "invalid", "the states do not have the energies"),
    ("ForksAndEnds", "ok", ""),
    ("ForksAndHangs", "timeout", "killed after 0."),
    ("CrashesInCompileFor", "crash", "SIGSEGV while compiling"),
    ("RaisesInCompileFor", "error", "no licence"),
]
# Those that have reported states of ones before.
KILLED = [
    ("Sleeps", "timeout"),
    ("Spins", "timeout"),
    ("Stops", "timeout"),
    ("Faults", "crash"),
    ("Exits", "crash"),
    ("KillsItsParent", "crash"),
    ("EatsMemory", "oom"),
    ("EatsMemoryAtOnce", "oom"),
]


@pytest.fixture(scope="module")
def qubos() -> list[QuboBatch]:
    return [example_batch(3, 12, seed=1), example_batch(2, 12, seed=2)]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(LIMITS) as workers:
        yield workers


def run(workers: Workers, qubos: list[QuboBatch], name: str, budget=SHORT) -> Outcome:
    return workers.run(qubos, parse_solver(name), seed=5, budget=budget)


def judge(qubos: list[QuboBatch], name: str, outcome: Outcome) -> Run:
    spec = Spec(problem="p", solver=name, code="c")
    return judged(outcome, spec, parse_solver(name), qubos[0], qubos)


def same(outcome: Outcome, qubos: list[QuboBatch], name: str, budget: Budget) -> bool:
    """Whether an outcome has the bits that the solver gives in this process."""
    expected = solve(parse_solver(name), qubos, 5, budget)
    return outcome.status == "ok" and all(
        np.array_equal(found.states, wanted.states)
        and np.array_equal(found.energies, wanted.energies)
        for found, wanted in zip(outcome.solutions, expected, strict=True)
    )


def living(output: str) -> list[int]:
    """The processes that have said their id, and are there."""
    said = [int(line.split()[1]) for line in output.splitlines() if "process" in line]
    assert len(said) >= 4
    return [pid for pid in said if psutil.pid_exists(pid)]


@pytest.mark.parametrize(("name", "status", "message"), CASES)
def test_an_unruly_solver_harms_itself_alone(workers, qubos, name, status, message):
    outcome = run(workers, qubos, f"{FILE}:{name}")
    found = judge(qubos, f"{FILE}:{name}", outcome)
    assert found.status == status, found.message
    assert message in found.message
    assert found.status in STATUSES
    assert len((found.message + " ").splitlines()) == 1
    assert len(outcome.output) <= 2000
    # The next run is as without it, with states that it knows nothing of.
    sweeps = Budget(sweeps=5)
    assert same(run(workers, qubos, HONEST, sweeps), qubos, HONEST, sweeps)


@pytest.mark.parametrize("name", ["HangsInCompileFor", "CrashesInCompileFor"])
def test_a_solver_that_does_not_compile(workers, qubos, monkeypatch, name):
    monkeypatch.setattr(workers, "limits", Limits(compiling=0.5))
    status = "timeout" if name.startswith("Hangs") else "crash"
    first = run(workers, qubos, f"{FILE}:{name}")
    assert first.status == status
    assert "compiling" in first.message
    assert not first.solutions
    # It is not asked again.
    assert run(workers, qubos, f"{FILE}:{name}") is first
    monkeypatch.undo()
    assert run(workers, qubos, HONEST).status == "ok"


@pytest.mark.parametrize(("name", "status"), KILLED)
def test_what_was_reported_is_kept_and_verified(workers, qubos, name, status):
    outcome = run(workers, qubos[:1], f"{FILE}:{name}")
    found = judge(qubos[:1], f"{FILE}:{name}", outcome)
    assert found.status == status
    ones = np.ones((qubos[0].rows, qubos[0].n), np.uint8)
    np.testing.assert_array_equal(found.states, ones)
    np.testing.assert_allclose(found.energies, qubos[0].energies(ones))
    assert found.objective == pytest.approx(found.energies.sum())
    assert found.falls[-1, 1] == pytest.approx(found.objective)
    assert found.seconds > 0


def test_rows_without_a_report_have_their_start(workers, qubos):
    """The second batch was not begun."""
    name = f"{FILE}:IgnoresTheBudget"
    found = judge(qubos, name, run(workers, qubos, name))
    start = np.concatenate([qubo.energies(qubo.nearest()) for qubo in qubos])
    assert found.status == "timeout"
    assert (found.energies <= start * (1 + 1e-9)).all()
    np.testing.assert_array_equal(found.states[3:], qubos[1].nearest())
    # A solver that may be worse than its start has none for these rows.
    assert not run(workers, qubos, f"{FILE}:Sleeps").solutions


@pytest.mark.parametrize("name", ["ForksAndEnds", "ForksAndHangs"])
def test_children_end_with_the_run(workers, qubos, name):
    outcome = run(workers, qubos[:1], f"{FILE}:{name}")
    assert not living(outcome.output)


def test_a_run_leaves_nothing_in_its_process(workers, qubos):
    for _ in range(2):
        outcome = run(workers, qubos[:1], f"{FILE}:RemembersRuns")
        assert outcome.solutions[0].info == {"seen": [5]}


def test_the_end_of_the_output_is_kept(workers, qubos):
    assert run(workers, qubos[:1], f"{FILE}:Prints").output.endswith("the end\n")
    assert run(workers, qubos[:1], HONEST).output == ""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["nearest", "sa[num_sweeps=20]", "tabu", "babai"])
def test_answers_are_those_of_this_process(workers, qubos, name, threads):
    budget = Budget(sweeps=10, threads=threads)
    outcome = run(workers, qubos, name, budget)
    assert same(outcome, qubos, name, budget)
    found = judge(qubos, name, outcome)
    assert found.timing.keys() == {"compile", "prepare", "solve", "finish"}
    parts = sum(found.timing[part] for part in ("prepare", "solve", "finish"))
    assert found.seconds == pytest.approx(parts)


def test_a_run_has_the_threads_and_cores_it_is_given(qubos):
    cores = tuple(sorted(os.sched_getaffinity(0))[:2])
    with Workers(Limits(cores=cores)) as workers:
        for threads in (2, 1):
            budget = Budget(threads=threads)
            outcome = run(workers, qubos[:1], f"{FILE}:CountsItsThreads", budget)
            info = outcome.solutions[0].info
            assert info["cores"] == list(cores)
            assert info["threads"]
            assert {*info["threads"]} == {threads}


def test_files_end_with_the_problem(workers):
    folder = workers._folder
    before = {*folder.iterdir()}
    own = [example_batch(1, 10)]
    assert run(workers, own, "nearest").status == "ok"
    assert {*folder.iterdir()} > before
    del own
    other = [example_batch(1, 11)]
    assert run(workers, other, "nearest").status == "ok"
    assert len({*folder.iterdir()} - before) == 1


def test_a_server_that_was_killed_between_two_runs(workers, qubos):
    assert run(workers, qubos, HONEST).status == "ok"
    server = psutil.Process(workers._popen.pid)
    templates = server.children()
    server.kill()
    psutil.wait_procs(templates, 5)
    assert run(workers, qubos, HONEST).status == "ok"


PARENT = """
import sys
from benchmarks.harness.limits import Limits
from benchmarks.harness.worker import Workers
from solvers import Budget, parse_solver
from solvers.testing import example_batch
with Workers(Limits(hard=100.0)) as workers:
    print(workers._folder, workers._popen.pid, flush=True)
    workers.run([example_batch(2, 10)], parse_solver("{solver}"))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_goes_on_without_the_parent(number):
    code = PARENT.format(solver=f"{FILE}:ForksAndHangs")
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=FILE.parent.parent,
    ) as parent:
        folder, server = parent.stdout.readline().split()
        tree: set[psutil.Process] = set()
        ends = time.monotonic() + 30
        # The server, the template, the run, and the four it has forked.
        while len(tree) < 7 and time.monotonic() < ends:
            tree = {psutil.Process(int(server))}
            tree |= {*psutil.Process(int(server)).children(recursive=True)}
            time.sleep(0.02)
        assert len(tree) == 7
        parent.send_signal(number)
        _, alive = psutil.wait_procs(tree, 5)
        assert not [process for process in alive if process.is_running()]
        parent.wait(5)
        said = parent.stderr.read()
    assert "KeyboardInterrupt" in said or number != signal.SIGINT
    assert not Path(folder).exists()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"memory": 0}, "memory must be at least 1 byte"),
        ({"grace": 0.0}, "grace must be positive"),
        ({"cores": (10_000,)}, "cores must be some of"),
        ({"cores": ()}, "cores must be some of"),
    ],
)
def test_limits_that_are_none(limits, message):
    with pytest.raises(InputError, match=message):
        Limits(**limits)
