"""Ways to quantize a whole network, through `python -m benchmarks networks`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import main as benchmarks
from benchmarks.harness.store import Store
from benchmarks.studies import networks

SMALL = ("--model", "resnet20", "--weights", "embedded", "--calibration", "8")


def command(path: Path, *arguments: str) -> int:
    given = [*SMALL, "--evaluation", "20", "--solver", "nearest", "--widths", "3"]
    given += ["--store", str(path), "--lines", "1", *arguments]
    return benchmarks(["networks", *given])


def test_runs_are_kept_with_what_a_network_gets_right(tmp_path, capsys, monkeypatch):
    path = tmp_path / "runs.db"
    assert command(path) == 0
    out = capsys.readouterr().out
    with Store(path) as store:
        (run,) = store.runs()
        problem = store.problem(run.spec.problem)
    assert (problem.name, problem.kind, run.status) == ("resnet20", "network", "ok")
    assert (run.spec.solver, run.states, len(run.scores["layers"])) == (
        *("nearest", None, 20),
    )
    right = networks._correct(run)
    assert right.shape == (20,)
    assert f"{100 * right.mean():.2f}" in out
    # Nothing is quantized again.
    monkeypatch.setattr(networks, "quantized", None)
    assert command(path) == 0
    assert capsys.readouterr().out == out
    assert benchmarks(["store", "verify", str(path)]) == 0


def test_a_solver_that_fails_is_told_and_kept(tmp_path, capsys, monkeypatch):
    def fail(*_: object) -> None:
        raise networks.SolverFailure("solver nearest: not today")

    path = tmp_path / "runs.db"
    with monkeypatch.context() as patched:
        patched.setattr(networks, "quantized", fail)
        assert command(path) == 1
    assert "error: solver nearest: not today\n" in capsys.readouterr().err
    monkeypatch.setattr(networks, "quantized", pytest.fail)
    assert command(path) == 1
    assert "error: solver nearest: not today\n" in capsys.readouterr().err
