"""Solvers that no process should share, read as a file by `--solver FILE:Class`."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from dataclasses import replace
from typing import Any

import numba
import numpy as np

from solvers import InputError
from tests.misbehaving import Honest


def report_ones(task: Any) -> None:
    """States that are no start, reported before worse is done."""
    ones = task.qubo.pin(np.ones((task.qubo.rows, task.qubo.n), np.uint8))
    task.monitor.report(task.qubo.energies(ones), ones)


class Unruly(Honest):
    """There is nothing to compile: it is in its runs that it goes wrong."""

    def compile_for(self, qubo):
        pass


class Ones(Unruly):
    """The energies of the start are infinite: anything is better."""

    @property
    def keeps_start(self):
        return False

    def search(self, task):
        report_ones(task)
        return self.then(task)

    def then(self, task):
        return np.ones_like(task.start)


class Sleeps(Ones):
    def then(self, task):
        time.sleep(1000)


class Spins(Ones):
    """In code that looks at no signals."""

    def compile_for(self, qubo):
        spin(0, 0)

    def then(self, task):
        spin(3, 0)


@numba.njit
def spin(x, end):
    """For ever, since the odd numbers do not come round to an even one."""
    while x != end:
        x = x * x | 1
        x += 2 * (x >> 33)
    return x


class IgnoresSignals(Ones):
    def then(self, task):
        for number in {*signal.Signals} - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        time.sleep(1000)


class Stops(Ones):
    def then(self, task):
        os.kill(os.getpid(), signal.SIGSTOP)


class ReportsALie(Unruly):
    def search(self, task):
        ones = task.qubo.pin(np.ones((task.qubo.rows, task.qubo.n), np.uint8))
        task.monitor.report(task.qubo.energies(ones) - 1e6, ones)
        time.sleep(1000)


class Faults(Ones):
    def then(self, task):
        ctypes.string_at(0)


class Aborts(Ones):
    def then(self, task):
        os.abort()


class Exits(Ones):
    def then(self, task):
        os._exit(3)


class ExitsAsIfWell(Ones):
    def then(self, task):
        os._exit(0)


class KillsItself(Ones):
    def then(self, task):
        os.kill(os.getpid(), signal.SIGKILL)


class KillsItsParent(Ones):
    def then(self, task):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)


class Raises(Ones):
    def then(self, task):
        raise ValueError("first line\nsecond line")


class Refuses(Unruly):
    def supports(self, qubo):
        return "not on a Sunday"


class CrashesInSupports(Unruly):
    def supports(self, qubo):
        ctypes.string_at(0)


class GivesNaN(Unruly):
    def search(self, task):
        return np.full(task.start.shape, np.nan)


class GivesNone(Unruly):
    def search(self, task):
        return None


class Lies(Unruly):
    def solve(self, *arguments, **named):
        found = super().solve(*arguments, **named)
        return replace(found, energies=found.energies - 1000)


class SolvesToNone(Unruly):
    def solve(self, *arguments, **named):
        return None


class SolvesToAnotherShape(Unruly):
    def solve(self, *arguments, **named):
        found = super().solve(*arguments, **named)
        return replace(found, states=found.states[:, :-1])


class IgnoresTheBudget(Unruly):
    def search(self, task):
        while True:
            report_ones(task)
            time.sleep(0.01)


class EatsMemory(Ones):
    def then(self, task):
        eaten = []
        while True:
            eaten.append(np.zeros(2**21))


class EatsMemoryAtOnce(Ones):
    def then(self, task):
        np.zeros(2**40)


class EatsMemoryWithTorch(Ones):
    def compile_for(self, qubo):
        import torch  # noqa: F401

    def then(self, task):
        import torch

        torch.zeros(2**40)


class Prints(Unruly):
    """10 MB on each stream, the descriptor's included."""

    def search(self, task):
        for _ in range(100):
            print("x" * 100_000)
            print("y" * 100_000, file=sys.stderr)
        os.write(1, b"z" * 1_000_000)
        print("the end")
        return task.start


class PrintsWithoutEnd(Unruly):
    def search(self, task):
        while True:
            os.write(2, b"z" * 100_000)


class ChangesItsInput(Unruly):
    """Past the flag that arrays are read-only."""

    def search(self, task):
        for array in (task.qubo.H, task.qubo.linear, task.qubo.offset):
            ctypes.memset(array.ctypes.data, 0, array.nbytes)
        return task.start


class ForksAndEnds(Unruly):
    """Leaves processes behind, in sessions of their own, and says which."""

    def search(self, task):
        fork_sleepers()
        return task.start


class ForksAndHangs(Unruly):
    """So do its children."""

    def search(self, task):
        fork_sleepers()
        time.sleep(1000)


def fork_sleepers() -> None:
    """Four processes, of which three were forked by others that sleep, too."""
    said, say = os.pipe()
    if os.fork() == 0:
        os.setsid()
        for _ in range(2):
            os.fork()
        os.write(1, b"process %d\n" % os.getpid())
        os.write(say, b".")
        time.sleep(1000)
    for _ in range(4):
        os.read(said, 1)


class HangsInCompileFor(Unruly):
    def compile_for(self, qubo):
        time.sleep(1000)


class CrashesInCompileFor(Unruly):
    def compile_for(self, qubo):
        ctypes.string_at(0)


class RaisesInCompileFor(Unruly):
    def compile_for(self, qubo):
        raise InputError("no licence")


class RemembersRuns(Unruly):
    """What a run leaves in its process is not there for the next."""

    seen: list[int] = []  # noqa: RUF012

    def search(self, task):
        self.seen.append(task.seed)
        task.info["seen"] = list(self.seen)
        return task.start


class CountsItsThreads(Unruly):
    def search(self, task):
        import threadpoolctl

        pools = threadpoolctl.threadpool_info()
        task.info["threads"] = [pool["num_threads"] for pool in pools]
        task.info["cores"] = sorted(os.sched_getaffinity(0))
        np.linalg.qr(np.ones((200, 200)))
        return task.start
