"""Limits of a run, and how a process of Linux is held to them."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from solvers.errors import InputError

# Of <sys/prctl.h>.
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
# Libraries read their number of threads from these when they are loaded.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run may use; beyond that it is killed.

    Parameters
    ----------
    memory
        Bytes that a run may take on top of what it is given: the problem, and the
        solver ready to run. None: no limit.
    grace
        Seconds beyond the budget's seconds that a run may take to end.
    hard
        Seconds of a run without a budget in seconds. None: no limit.
    compiling
        Seconds that a solver may take to get ready for a problem.
    cores
        The processor cores that runs are pinned to. None: those of the caller.
    """

    memory: int | None = None
    grace: float = 10.0
    hard: float | None = None
    compiling: float = 600.0
    cores: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not sys.platform.startswith("linux"):
            raise InputError(
                f"runs in processes of their own need Linux, not {sys.platform}"
            )
        if self.memory is not None and self.memory < 1:
            raise InputError(f"memory must be at least 1 byte, not {self.memory}")
        for name in ("grace", "hard", "compiling"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise InputError(f"{name} must be positive, not {seconds}")
        allowed = os.sched_getaffinity(0)
        if self.cores is not None and not (self.cores and {*self.cores} <= allowed):
            raise InputError(
                f"cores must be some of {sorted(allowed)}, not {list(self.cores)}"
            )

    def seconds(self, budget: float | None) -> float | None:
        """Seconds after which a run with such a budget is killed; None: never."""
        return self.hard if budget is None else budget + self.grace


class MemoryLimit:
    """A limit on what this process takes on top of what it has now.

    It counts memory that the process alone can write to, as it is allocated; what is
    mapped from files or only reserved does not count.

    Parameters
    ----------
    allowed
        Bytes; None: no limit.
    """

    def __init__(self, allowed: int | None) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_DATA)
        if allowed is not None:
            status = Path("/proc/self/status").read_text("ascii").splitlines()
            held = next(line for line in status if line.startswith("VmData"))
            most = 1024 * int(held.split()[1]) + allowed
            hard = self._before[1]
            if hard != resource.RLIM_INFINITY:
                most = min(most, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))

    def lift(self) -> None:
        """Allow what was allowed before."""
        resource.setrlimit(resource.RLIMIT_DATA, self._before)


def die_with(parent: int) -> None:
    """Have this process killed when its parent ends; end it if that has happened."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose parents end."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def kill_children(spared: set[int]) -> None:
    """Kill this process's children, and theirs, until only the spared ones are left.

    It must have adopted orphans.
    """
    while True:
        try:
            # Seen, and not yet forgotten: nothing is taken from others who wait.
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        children = {child.pid for child in psutil.Process().children()} - spared
        if not children:
            return
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
