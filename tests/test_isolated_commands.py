"""Commands with `--isolate`: what a run does to its process costs its own line."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main as benchmarks
from benchmarks.harness import worker
from benchmarks.harness.limits import Limits
from benchmarks.harness.store import Store
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from solvers import QuboBatch, write_qubo

FILE = Path(__file__).with_name("unruly.py")
BEFORE, AFTER = "stochastic[samples=5]", "sa[num_sweeps=20]"


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(12, 40)) + 1
    path = tmp_path_factory.mktemp("isolated") / "small.npz"
    RoundingProblem.on_grid(rng.normal(size=(3, 12)), Grid(bits=3), x @ x.T).save(path)
    return path


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "Limits", partial(Limits, grace=0.3))


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("Sleeps", "timeout", "killed after 0."),
        ("Faults", "crash", "SIGSEGV while solving"),
        ("CrashesInCompileFor", "crash", "SIGSEGV while compiling"),
        ("Raises", "error", "ValueError: first line second line"),
    ],
)
def test_an_unruly_solver_costs_its_own_line(problem, capsys, name, status, message):
    solvers = f"{BEFORE},{FILE}:{name}@0.1,{AFTER}"
    assert (
        benchmarks(
            [
                *("compare", "--problem", str(problem), "--isolate"),
                *("--solver", solvers, "--threads", "2"),
            ]
        )
        == 1
    )
    out, err = capsys.readouterr()
    lines = out.splitlines()[2:]
    assert [line.split()[-1] for line in lines] == ["done", status, "done"]
    assert err.startswith(f"error: solver {FILE}:{name}")
    assert message in err
    assert err.count("\n") == 1


def test_instances_that_hang_and_crash(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for k in range(2):
        matrix = np.triu(rng.integers(-50, 51, (8, 8))).astype(float)
        write_qubo(tmp_path / f"p_{k}.qubo", QuboBatch.from_matrix(matrix))
    solvers = f"tabu,{FILE}:Spins,{FILE}:KillsItself,floor"
    arguments = ["instances", str(tmp_path), "--solver", solvers, "--isolate"]
    arguments += ["--seconds", "0.1", "--store", str(tmp_path / "runs.db")]
    assert benchmarks(arguments) == 1
    out, err = capsys.readouterr()
    reached = {line.split()[2]: line.split()[3] for line in out.splitlines()[1:]}
    assert list(reached) == solvers.split(",")
    assert reached["tabu"] == "2/2"
    assert err.count("\n") == 4
    with Store(tmp_path / "runs.db") as store:
        statuses = store.table("status")["status"].tolist()
    assert statuses == ["ok", "timeout", "crash", "ok"] * 2


@pytest.mark.parametrize("first", [(), ("--isolate",)])
def test_a_run_is_the_same_in_a_process_of_its_own(problem, tmp_path, capsys, first):
    """And is taken over, whichever way it was made."""
    solver = f"{BEFORE},{AFTER},babai,gptq"
    common = ["compare", "--problem", str(problem), "--solver", solver, "--store"]
    other = ("--isolate",) if not first else ()
    paths = [tmp_path / "one.db", tmp_path / "two.db"]
    for path, way in zip(paths, (first, other), strict=True):
        assert benchmarks([*common, str(path), *way, "--threads", "2"]) == 0
    with Store(paths[0]) as one, Store(paths[1]) as two:
        pairs = list(zip(one.runs(states=True), two.runs(states=True), strict=True))
    for a, b in pairs:
        assert (a.spec, a.status, a.objective) == (b.spec, b.status, b.objective)
        np.testing.assert_array_equal(a.states, b.states)
        np.testing.assert_array_equal(a.claimed, b.claimed)
    kept = paths[0].read_bytes()
    assert benchmarks([*common, str(paths[0]), *other, "--threads", "2"]) == 0
    assert paths[0].read_bytes() == kept
    capsys.readouterr()


def test_layers_with_data_of_their_own(capsys):
    """Solvers that look at a layer's data are given them in their processes."""
    arguments = ["layers", "--model", "resnet20", "--layers", "layer1.0.conv1"]
    arguments += ["--weights", "embedded", "--calibration", "8"]
    ratios = []
    for solvers in ("ste[steps=2]", f"{FILE}:Faults,ste[steps=2]"):
        isolated = ["--isolate"] if "Faults" in solvers else []
        code = benchmarks([*arguments, "--solver", solvers, *isolated])
        assert code == len(isolated)
        out, err = capsys.readouterr()
        heading, line = (line.split() for line in out.splitlines()[:2])
        ratios.append(line[heading.index("ste[steps=2]") + len(isolated)])
    assert ratios[0] == ratios[1]
    assert f"solver {FILE}:Faults: SIGSEGV while solving" in err
