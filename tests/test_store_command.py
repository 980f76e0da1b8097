"""Stores listed, shown, exported, merged and verified on the command line."""

from __future__ import annotations

import csv
import json
import math
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.harness.runs import Problem, Run
from benchmarks.harness.store import Store
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from tests.test_store import PROBLEM, run_of

OTHER = replace(PROBLEM, digest="e" * 64, name="net.conv2")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def store(path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command; the result is what it prints."""

    def command(*arguments: object, code: int = 0) -> str:
        assert main(["store", *map(str, arguments)]) == code
        printed = capsys.readouterr()
        return printed.err if code == 2 else printed.out

    return command


def filled(path: Path, *runs: Run) -> Path:
    with Store(path) as held:
        held.add_problem(PROBLEM)
        held.add_problem(OTHER)
        held.add(*runs)
    return path


def on_other(seed: int, **changes: object) -> Run:
    spec = replace(run_of(seed).spec, problem=OTHER.digest, solver="tabu")
    return run_of(spec=spec, **changes)


def test_list(path, store):
    failed = run_of(1, status="error", objective=math.nan, seconds=math.nan)
    filled(path, run_of(0), failed, on_other(2))
    lines = store("list", path).splitlines()
    assert lines[0].split() == (
        ["run", "problem", "solver", "seed", "limit", "status", "objective", "s"]
    )
    assert lines[1].split() == [
        *(run_of(0).spec.run_id, "net.conv1", "sa[num_sweeps=3]", "0", "0.5", "s"),
        *("ok", "1.5", "0.250"),
    ]
    assert lines[2].split()[-3:] == ["error", "-", "-"]
    assert lines[-1] == "3 runs, 2 ok, 1 error"


@pytest.mark.parametrize(
    ("filters", "seeds"),
    [
        (("--status", "error"), [1]),
        (("--status", "error,ok"), [0, 1, 2]),
        (("--problem", "net.conv2"), [2]),
        (("--problem", "ddd"), [0, 1]),
        (("--problem", "nothing"), []),
        (("--solver", "sa"), [0, 1]),
        (("--solver", "sa[num_sweeps=3]"), [0, 1]),
        (("--solver", "s"), []),
        (("--solver", "sa", "--status", "ok"), [0]),
    ],
)
def test_filters(path, store, tmp_path, filters, seeds):
    filled(path, run_of(0), run_of(1, status="error"), on_other(2))
    assert store("list", path, *filters).splitlines()[-1].startswith(f"{len(seeds)} ")
    table = tmp_path / "table.csv"
    store("export", path, *filters, "--csv", table)
    found = list(csv.DictReader(table.read_text().splitlines()))
    assert [int(line["seed"]) for line in found] == seeds


def test_export(path, store, tmp_path):
    filled(path, run_of(0), run_of(1, status="error", objective=math.nan))
    table = tmp_path / "table.csv"
    store("export", path, "--csv", table)
    first, second = csv.DictReader(table.read_text().splitlines())
    assert first["name"] == PROBLEM.name
    assert first["run_id"] == run_of(0).spec.run_id
    assert (float(first["objective"]), second["objective"]) == (1.5, "")
    assert (first["sweeps"], first["nearest"], first["rows"]) == ("", "4.5", "2")
    assert "needs --csv" in store("export", path, code=2)


def test_parquet(path, store, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    filled(path, run_of(0), run_of(1, status="error", objective=math.nan))
    table = tmp_path / "table.parquet"
    store("export", path, "--parquet", table)
    held = parquet.read_table(table).to_pydict()
    assert held["status"] == ["ok", "error"]
    assert held["objective"][0] == 1.5
    assert held["name"] == ["net.conv1"] * 2


def test_parquet_without_its_package(path, store, monkeypatch):
    monkeypatch.setattr("benchmarks.harness.readers.find_spec", lambda name: None)
    assert "pyarrow is not installed" in store(
        "export", path, "--parquet", "x.parquet", code=2
    )


def test_show(path, store):
    filled(path, run_of(0), run_of(1, states=np.array([[-2, 3]], np.int16)))
    run_id = run_of(0).spec.run_id
    shown = json.loads(store("show", path, run_id))
    assert json.loads(store("show", path, run_id[:12])) == shown
    assert shown["run_id"] == run_id
    assert shown["problem"]["name"] == PROBLEM.name
    assert shown["spec"]["settings"] == {"target": -1.5}
    assert shown["states"] == ["101", "001"]
    assert shown["falls"] == [[0.1, 3.0], [0.2, 1.5]]
    whole = json.loads(store("show", path, run_of(1).spec.run_id))
    assert whole["states"] == ["-2 3"]
    assert "has no runs whose ids begin with 'xyz'" in store(
        "show", path, "xyz", code=2
    )
    assert "has 2 runs whose ids begin with ''" in store("show", path, "", code=2)


def test_show_a_run_without_an_answer(path, store):
    nothing = dict.fromkeys(("energies", "claimed", "states", "falls"))
    run = run_of(status="crash", objective=math.nan, seconds=math.nan, **nothing)
    filled(path, run)
    shown = json.loads(store("show", path, run.spec.run_id))
    assert (shown["objective"], shown["states"]) == (None, None)


def test_merge(path, store, tmp_path):
    failed = {"status": "error", "states": None}
    filled(path, run_of(0), run_of(1, **failed), run_of(2), run_of(3, **failed))
    other = filled(
        tmp_path / "other.db",
        run_of(0, objective=9.0),
        run_of(1),
        run_of(2, **failed),
        run_of(3, status="oom"),
        on_other(4),
    )
    with Store(other) as held:
        held.fact({"layer": 1}, lambda: {"rows": 2})
    (line,) = store("merge", path, other).splitlines()
    assert line == f"{other}: 1 runs added, 1 in place of failed ones, 3 known"
    with Store(path) as held:
        found = {run.spec.seed: run for run in held.runs(states=True)}
        assert held.fact({"layer": 1}, dict) == {"rows": 2}
    assert [run.status for run in found.values()] == ["ok", "ok", "ok", "error", "ok"]
    assert found[0].objective == 1.5
    assert found[1].states is not None
    assert "0 runs added, 0 in place of failed ones, 5 known" in store(
        "merge", path, other
    )


def test_merge_begins_a_store(path, store, tmp_path):
    first = filled(tmp_path / "a.db", *(run_of(seed) for seed in range(1100)))
    second = filled(tmp_path / "b.db", on_other(0))
    lines = store("merge", path, first, second).splitlines()
    assert [line.split(": ")[1][:9] for line in lines] == ["1100 runs", "1 runs ad"]
    with Store(path) as held:
        assert len(held.table("seed")["seed"]) == 1101


@pytest.mark.parametrize("action", ["list", "verify", "export", "show", "merge"])
def test_a_store_that_is_not_there(path, store, tmp_path, action):
    more = {"show": ["a"], "merge": [tmp_path / "no.db"], "export": ["--csv", "x"]}
    assert "there is no store" in store(action, path, *more.get(action, []), code=2)
    assert action == "merge" or not path.exists()


def posed(path: Path) -> tuple[RoundingProblem, Problem, Run]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(5, 9))
    posed = RoundingProblem.on_grid(rng.normal(size=(2, 5)), Grid(bits=3), x @ x.T)
    posed.save(path)
    problem = Problem(digest=posed.digest, name="p", rows=2, n=5)
    states = posed.nearest()
    energies = posed.local_mse(states)
    run = run_of(
        spec=replace(run_of().spec, problem=posed.digest),
        states=states,
        energies=energies,
        claimed=energies,
        objective=float(energies.sum()),
    )
    return posed, problem, run


def test_verify(path, store, tmp_path):
    file = tmp_path / "p.npz"
    _, problem, run = posed(file)
    with Store(path) as held:
        held.add_problem(problem)
        held.add(run)
    assert store("verify", path) == "1 runs verified: 0 faults\n"
    told = "1 runs verified, 1 of them by their states: 0 faults\n"
    assert store("verify", path, "--problem", file) == told
    filled(tmp_path / "other.db", run_of())
    assert "is on " in store("verify", tmp_path / "other.db", "--problem", file, code=2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE runs SET seed = 7", "what was asked for has the id "),
        ("UPDATE runs SET objective = objective + 1", "the energies sum to"),
        ("UPDATE runs SET objective = NULL", "the energies sum to"),
        ("UPDATE answers SET claimed = x'0000000000000000'", "of which 1 are claimed"),
        ("UPDATE answers SET states = x'00'", "is damaged"),
        ("UPDATE answers SET energies = x'00'", "is damaged"),
        ("UPDATE answers SET info = '{'", "is damaged"),
        ("UPDATE answers SET states_n = 8", "states of shape (2, 8), of a problem"),
        ("UPDATE answers SET states = x'ffff'", "its states have the error"),
    ],
)
def test_verify_finds_what_cannot_be(path, store, tmp_path, change, said):
    file = tmp_path / "p.npz"
    _, problem, run = posed(file)
    with Store(path) as held:
        held.add_problem(problem)
        held.add(run)
    db = sqlite3.connect(path)
    with db:
        db.execute(change)
    db.close()
    out = store("verify", path, "--problem", file, code=1)
    assert said in out
    assert out.splitlines()[-1].endswith("1 faults")


def test_an_action_is_needed(path, store):
    assert "required: ACTION" in store(code=2)
    assert "invalid choice: 'lsit'" in store("lsit", path, code=2)
    assert "unknown status 'okay'; did you mean ok?" in store(
        "list", path, "--status", "okay", code=2
    )
