"""Suites of several processes, and those that are killed: nothing lost, none left."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.__main__ import main
from benchmarks.harness.store import Store
from tests.report_cases import rounding

UNRULY = Path(__file__).with_name("unruly.py")
ROOT = Path(__file__).parent.parent
# Solvers whose answers do not depend on time.
TEXT = """
seeds = {seeds}
untimed = ["sa[num_sweeps=300]", "stochastic", "{unruly}:CountsItsThreads"]
[[problems]]
file = "small.npz"
"""
# Forks a suite whenever it is told to, having imported everything.
FORKS = """
import os, sys
from benchmarks.__main__ import main
import benchmarks.commands.suite, joblib, numba, scipy.linalg
for arguments in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os._exit(main(["suite", "run", *arguments.split()]))
    os.write(2, f"{pid}\\n".encode())
    _, status = os.waitpid(pid, 0)
    # In one piece: what is left of the suite may be writing, too.
    os.write(2, f"ended {os.waitstatus_to_exitcode(status)}\\n".encode())
"""
several = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="the machine has one core"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rounding(1, 3).save(tmp_path / "small.npz")
    (tmp_path / "tmp").mkdir()
    return tmp_path


class Forked:
    """Suites in processes that can be killed.

    Everything that comes of them has a mark in its environment.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._mark = folder, str(folder)
        environment = {
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(folder / "tmp"),
            "MARK": self._mark,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORKS],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
            text=True,
        )
        self.printed: list[str] = []
        self.pid = 0

    def start(self, *arguments: str) -> None:
        assert self._process.stdin is not None
        print(*arguments, file=self._process.stdin, flush=True)
        self.printed = []
        # What has watched over a killed suite may complain first.
        while not (line := self._line()).isdigit():
            assert line, "the process that forks suites has ended"
        self.pid = int(line)

    def wait_for_runs(self, count: int) -> None:
        """Until so many runs have been reported."""
        while sum(" seed " in line for line in self.printed) < count:
            self.printed.append(self._line())
            assert not self.printed[-1].startswith("ended"), self.printed

    def ended(self) -> int:
        """The exit code."""
        while (match := re.search(r"ended (-?\d+)$", line := self._line())) is None:
            assert line, "the process that forks suites has ended"
            self.printed.append(line)
        return int(match[1])

    def runs(self) -> set[tuple[str, int]]:
        """Solver and seed of the runs whose end was printed."""
        pattern = re.compile(r"\d+/\d+ small.npz (\S+) seed (\d+): ok, .* s$")
        found = map(pattern.match, self.printed)
        return {(match[1], int(match[2])) for match in found if match}

    def others(self) -> list[psutil.Process]:
        """What is alive of the suite, without its first process."""
        return [
            process
            for process in psutil.process_iter()
            if process.pid not in (self.pid, self._process.pid) and self._own(process)
        ]

    def require_none_left(self) -> None:
        until = time.monotonic() + 10
        while left := self.others():
            assert time.monotonic() < until, [each.cmdline() for each in left]
            time.sleep(0.02)
        assert [*(self._folder / "tmp").iterdir()] == []

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        for process in self.others():
            process.kill()

    def _line(self) -> str:
        assert self._process.stderr is not None
        return self._process.stderr.readline().rstrip("\n")

    def _own(self, process: psutil.Process) -> bool:
        try:
            alive = process.status() != psutil.STATUS_ZOMBIE
            return alive and process.environ().get("MARK") == self._mark
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False


@pytest.fixture
def forked(folder: Path) -> Iterator[Forked]:
    forked = Forked(folder)
    yield forked
    forked.close()


@pytest.fixture
def write(folder: Path) -> Callable[..., None]:
    def write(seeds: int) -> None:
        text = TEXT.format(seeds=seeds, unruly=UNRULY)
        (folder / "mine.toml").write_text(text)

    return write


def table(path: str) -> list[tuple[object, ...]]:
    """Runs with their answers."""
    with Store(Path(path)) as store:
        assert store.damage() == []
        return sorted(
            (
                run.spec.run_id,
                run.spec.solver,
                run.spec.seed,
                run.status,
                run.objective,
                run.states.tobytes(),
            )
            for run in store.runs(states=True)
        )


def run(*options: str) -> int:
    return main(["suite", "run", "mine.toml", *options])


@pytest.mark.parametrize(
    ("turns", "jobs"),
    [
        (4, 1),
        pytest.param(50, 1, marks=pytest.mark.slow),
        pytest.param(20, 2, marks=[pytest.mark.slow, several]),
    ],
)
def test_no_run_is_lost_when_a_suite_is_killed(forked, write, turns, jobs):
    seeds = 8 + 2 * turns
    write(seeds)
    rng = random.Random(turns)
    reported: set[tuple[str, int]] = set()
    for turn in range(turns):
        forked.start("mine.toml", "--store", "killed.db", "--jobs", str(jobs))
        if turn % 4:
            forked.wait_for_runs(1)
            time.sleep(0.15 * rng.random())
        else:
            time.sleep(1.5 * rng.random())
        os.kill(forked.pid, signal.SIGKILL)
        assert forked.ended() == -signal.SIGKILL
        forked.require_none_left()
        reported |= forked.runs()
        if Path("killed.db").exists():
            found = {(solver, seed) for _, solver, seed, *_ in table("killed.db")}
            assert reported <= found
    assert len(reported) >= turns // 2
    assert run("--store", "killed.db") == 0
    assert run("--store", "whole.db") == 0
    assert table("killed.db") == table("whole.db")
    assert len(table("whole.db")) == 3 * seeds


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=several)])
def test_ctrl_c_ends_cleanly(forked, write, capfd, jobs):
    write(seeds=20)
    forked.start("mine.toml", "--jobs", str(jobs))
    forked.wait_for_runs(3)
    # A terminal tells all processes of the group.
    os.killpg(forked.pid, signal.SIGINT)
    assert forked.ended() == 130
    forked.require_none_left()
    assert "interrupted" in forked.printed
    reported = forked.runs()
    assert not any("Traceback" in line for line in forked.printed)
    assert run() == 0
    left = len(re.findall(r"^\d+/\d+ ", capfd.readouterr().err, re.MULTILINE))
    assert 3 <= len(reported) <= 60 - left
    assert len(table("mine.db")) == 60


@several
def test_a_process_of_several_is_killed(forked, write):
    write(seeds=20)
    forked.start("mine.toml", "--jobs", "2")
    forked.wait_for_runs(3)
    loky = [each for each in forked.others() if "LokyProcess" in str(each.cmdline())]
    loky[0].kill()
    assert forked.ended() == 2
    (said,) = [line for line in forked.printed if line.startswith("error: ")]
    assert said.startswith("error: what makes the runs has ended (")
    assert not any(line.startswith("Traceback") for line in forked.printed)
    forked.require_none_left()


@several
def test_two_at_a_time_give_the_same_answers(folder, write):
    write(seeds=4)
    assert run("--store", "one.db") == 0
    assert run("--store", "two.db", "--jobs", "2") == 0
    assert table("one.db") == table("two.db")
    with Store(Path("two.db")) as store:
        infos = [run.info[0] for run in store.runs() if "Counts" in run.spec.solver]
    assert {len(info["cores"]) for info in infos} == {1}
    assert len({info["cores"][0] for info in infos}) == 2


def test_two_suites_at_once_on_one_store(forked, write, capfd):
    write(seeds=10)
    forked.start("mine.toml")
    assert run() == 0
    assert forked.ended() == 0
    assert len(table("mine.db")) == 30
    assert {line[3] for line in table("mine.db")} == {"ok"}
