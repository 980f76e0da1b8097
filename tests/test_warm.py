"""Kernels compiled ahead by `warm`, timed by `first-solve`, announced on terminals."""

from __future__ import annotations

import gc
import io
import sys
from types import SimpleNamespace

import pytest

from benchmarks.__main__ import main
from solvers.kernels import descent, flips
from solvers.kernels.compile import Compilation, cache_folder


def test_says_where_kernels_are(capsys):
    assert main(["warm", "--solver", "nearest,descent"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("kernels of 2 solvers in ")
    assert out.endswith(f" s; kept in {cache_folder()}\n")
    assert main(["warm", "--solver", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


def test_first_solve(capsys):
    """A cold start compiles, a warm one does not; the whole grid is known, too."""
    assert main(["first-solve", "--solver", "descent,gptq"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[0] == "solver"
    assert [line.split()[0] for line in lines] == ["descent", "gptq"]
    for line in lines:
        _, cold, _, warm, *_ = line.split()
        assert float(cold) > float(warm)


def test_first_solve_refuses_before_any_work(capsys):
    assert main(["first-solve", "--solver", "descent,tabu[pool=0]"]) == 2
    assert "pool must be at least 1" in capsys.readouterr().err


def compiling(kernel):
    return SimpleNamespace(data={"dispatcher": kernel})


FOREIGN = SimpleNamespace(py_func=compiling)


@pytest.mark.parametrize("terminal", [False, True])
def test_says_that_it_compiles(terminal, monkeypatch):
    """One line on a terminal, however much is compiled; elsewhere nothing."""
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    listener = Compilation()
    for kernel in (FOREIGN, flips.anneal, descent.pairs):
        listener.on_start(compiling(kernel))
        listener.on_end(compiling(kernel))
    assert stderr.getvalue().count("compiling kernels") == terminal
    assert stderr.getvalue().count("\n") == terminal


@pytest.mark.parametrize("collects", [False, True])
def test_no_garbage_is_collected_while_kernels_compile(collects, monkeypatch):
    """Before and after it is as it was; what others compile is their own affair."""
    state = [collects]
    monkeypatch.setattr(gc, "isenabled", lambda: state[0])
    monkeypatch.setattr(gc, "disable", lambda: state.append(state.pop() and False))
    monkeypatch.setattr(gc, "enable", lambda: state.append(state.pop() or True))
    listener = Compilation()
    listener.on_start(compiling(FOREIGN))
    assert state == [collects]
    listener.on_end(compiling(FOREIGN))
    # What a kernel calls is compiled while it is.
    for kernel in (flips.anneal, FOREIGN):
        listener.on_start(compiling(kernel))
        assert state == [False]
    listener.on_end(compiling(FOREIGN))
    assert state == [False]
    listener.on_end(compiling(flips.anneal))
    assert state == [collects]
