"""Suites run: every run once, isolated, kept, in the same order each time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.harness import execute
from benchmarks.harness.runs import Run
from benchmarks.harness.store import Store
from solvers.io.files import write_qubo
from solvers.testing import example_batch
from tests.report_cases import rounding

UNRULY = Path(__file__).with_name("unruly.py")
SMALL = """
seeds = 2
seconds = [0.02, 0.01]
solvers = ["sa[num_sweeps=20]"]
untimed = ["nearest", "babai"]
[[problems]]
file = "small.npz"
"""
# Of each solver, limit and seed.
RUNS = 2 * (2 + 2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with problems, in which the test works."""
    monkeypatch.chdir(tmp_path)
    rounding(1, 3).save(tmp_path / "small.npz")
    write_qubo(tmp_path / "qubo.npz", example_batch(2, 8, seed=1))
    (tmp_path / "beasley.bqp").write_text("1\n3 3\n1 1 5\n1 2 -3\n2 3 4\n")
    return tmp_path


@pytest.fixture
def suite(folder: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Runs a suite of the given text; the result is the lines about its runs."""

    def run(text: str, *options: str, code: int = 0) -> list[str]:
        (folder / "mine.toml").write_text(text)
        assert main(["suite", "run", "mine.toml", *options]) == code
        run.out, told = capfd.readouterr()
        if code == 2:
            return told.splitlines()
        return [line for line in told.splitlines() if re.match(r"\d+/\d+ ", line)]

    run.out = ""
    return run


def kept(path: str = "mine.db") -> list[Run]:
    with Store(Path(path)) as store:
        return list(store.runs(states=True))


def labels(lines: list[str]) -> list[str]:
    """Problem, solver, limit and seed of the runs, in their order."""
    return [line.partition(" ")[2].rpartition(": ")[0] for line in lines]


def test_runs_are_made_once(suite, folder):
    lines = suite(SMALL)
    assert len(lines) == RUNS
    assert lines[-1].startswith(f"{RUNS}/{RUNS} small.npz ")
    assert suite.out.split() == ["status", "runs", "ok", str(RUNS)]
    first = kept()
    assert {run.status for run in first} == {"ok"}
    # Nothing is posed or made again.
    (folder / "mine.db.problems").rename(folder / "elsewhere")
    assert suite(SMALL) == []
    assert suite.out.split() == ["status", "runs", "ok", str(RUNS)]
    assert [run.began for run in kept()] == [run.began for run in first]
    # What is added to a suite is made alone.
    assert len(suite(SMALL.replace("seeds = 2", "seeds = 3"))) == RUNS // 2


def test_seeds_are_paired_and_the_order_is_shuffled_and_stays(suite):
    lines = suite(SMALL)
    seeds: dict[tuple[str, float | None], set[int]] = {}
    for run in kept():
        seeds.setdefault((run.spec.solver, run.spec.seconds), set()).add(run.spec.seed)
    assert seeds == {
        ("sa[num_sweeps=20]", 0.02): {0, 1},
        ("sa[num_sweeps=20]", 0.01): {0, 1},
        ("nearest", None): {0, 1},
        ("babai", None): {0, 1},
    }
    assert labels(suite(SMALL, "--rerun")) == labels(lines)
    assert labels(suite(SMALL, "--store", "other.db")) == labels(lines)
    solvers = [label.split()[1] for label in labels(lines)]
    assert solvers != [*Counter(solvers).elements()]


def test_what_is_left_is_made_in_the_same_order(suite):
    whole = labels(suite(SMALL, "--store", "other.db"))
    suite(SMALL.replace('"babai"', ""))
    left = labels(suite(SMALL))
    assert left == [label for label in whole if "babai" in label]


def test_rerun(suite):
    suite(SMALL)
    assert len(suite(SMALL, "--rerun")) == RUNS
    assert len(kept()) == RUNS
    assert suite(SMALL, "--rerun-failed") == []


def test_what_is_named_twice_is_made_once(suite):
    problem = '[[problems]]\nfile = "small.npz"\n'
    text = SMALL.replace("0.02, 0.01", "0.02, 0.02").replace("babai", "nearest")
    assert len(suite(text + problem)) == 4
    assert suite(text + problem) == []


@pytest.mark.parametrize(
    ("name", "n"), [("qubo.npz", 8), ("beasley.bqp", 3), ("small.npz", 9)]
)
def test_problems_of_files(suite, name, n):
    assert len(suite(SMALL.replace("small.npz", name))) == RUNS
    with Store(Path("mine.db")) as store:
        (problem,) = store.problems().values()
    assert (problem.name, problem.n) == (name, n)
    assert {run.states.shape for run in kept()} == {(problem.rows, n)}
    # Files of problems are there for runs elsewhere, and for reports.
    kind = "qubos/*.npz" if problem.kind == "qubo" else "*.npz"
    assert len([*Path("mine.db.problems").glob(kind)]) == 1


def test_rows_apart(suite):
    assert len(suite(SMALL + 'track = "row"')) == 3 * RUNS
    with Store(Path("mine.db")) as store:
        names = {problem.name: problem.rows for problem in store.problems().values()}
    assert names == {f"small.npz[{r}]": 1 for r in range(3)}
    assert len(suite(SMALL + "rows = 2")) == RUNS
    assert {run.states.shape for run in kept()} == {(1, 9), (2, 9)}
    # The first rows are the same problems.
    assert suite(SMALL + 'track = "row"\nrows = 2') == []


@pytest.mark.parametrize("setting", ["rows = 1", 'track = "row"'])
def test_a_qubo_file_has_no_rows(suite, setting):
    (line,) = suite(SMALL.replace("small", "qubo") + setting, code=2)
    assert line == "error: qubo.npz: rows and track are for rounding problems"


def test_a_dry_run_makes_none(suite):
    assert suite(SMALL, "--dry-run") == []
    assert kept() == []
    *table, last = suite.out.splitlines()
    assert sorted(line.split() for line in table[1:]) == [
        ["small.npz", "babai", "2"],
        ["small.npz", "nearest", "2"],
        ["small.npz", "sa[num_sweeps=20]@0.01", "2"],
        ["small.npz", "sa[num_sweeps=20]@0.02", "2"],
    ]
    # The expected seconds: 0.3 s beside limits, and 2 s without a limit.
    assert last == f"{RUNS} of {RUNS} runs are to be made: about 0.2 min, 1 MiB"
    suite(SMALL.replace("babai", "nearest"))
    suite(SMALL, "--dry-run")
    assert suite.out.splitlines()[-1].startswith(f"2 of {RUNS} runs")
    suite(SMALL)
    suite(SMALL, "--dry-run")
    assert suite.out.splitlines()[-1].startswith(f"0 of {RUNS} runs")


def test_unruly_solvers_cost_their_own_runs_alone(suite):
    names = (
        "Raises",
        "Faults",
        "Sleeps",
        "Lies",
        "EatsMemory",
        "Refuses",
        "CrashesInSupports",
    )
    unruly = ", ".join(f'"{UNRULY}:{name}"' for name in names)
    text = SMALL.replace('"nearest", ', "").replace('["sa', f'[{unruly}, "sa')
    text = "grace = 0.1\nmemory = 0.1\n" + text
    text = text.replace("[0.02, 0.01]", "0.02")
    lines = suite(text, code=1)
    assert len(lines) == 2 * len(names) + 4
    found = {run.spec.solver.rpartition(":")[2]: run for run in kept()}
    assert {name: run.status for name, run in found.items()} == {
        "Raises": "error",
        "Faults": "crash",
        "Sleeps": "timeout",
        "Lies": "invalid",
        "EatsMemory": "oom",
        "Refuses": "skipped",
        "CrashesInSupports": "crash",
        "sa[num_sweeps=20]": "ok",
        "babai": "ok",
    }
    # What they had reported is kept, and verified.
    for name in ("Sleeps", "Faults"):
        run = found[name]
        np.testing.assert_array_equal(run.states, np.ones((3, 9)))
        problem = rounding(1, 3)
        assert run.objective == pytest.approx(problem.local_mse(run.states).sum())
    counts = dict(line.split() for line in suite.out.splitlines()[1:])
    failures = ("error", "timeout", "invalid", "oom", "skipped")
    assert counts == {"ok": "4", "crash": "4", **dict.fromkeys(failures, "2")}
    # They still have failed the next time, without being made again.
    assert suite(text, code=1) == []
    again = suite(text, "--rerun-failed", code=1)
    assert len(again) == 12
    assert not any("Refuses" in line or "babai" in line for line in again)


def test_answers_are_scored_on_the_network(suite):
    text = """
        untimed = ["nearest", "babai"]
        [[problems]]
        model = "resnet20"
        layers = ["conv1"]
        weights = "embedded"
        calibration = 4
        evaluation = 6
        accuracy = true
        bits = 2
    """
    assert len(suite(text)) == 2
    scores = {run.spec.solver: run.scores for run in kept()}
    for found in scores.values():
        assert 0 <= found["top1"] <= 100
        assert found["heldout_mse"] > 0
    assert scores["nearest"] != scores["babai"]
    # The network need not be looked at to know that there is nothing to do.
    assert suite(text) == []


def test_the_reports_path_is_the_last_line(suite):
    suite(SMALL, "--report", "report")
    assert suite.out.splitlines()[-1] == "report/index.html"
    page = Path("report/index.html").read_text()
    assert "sa[num_sweeps=20]" in page
    # It is written anew when there is nothing to do.
    Path("report/index.html").unlink()
    assert suite(SMALL, "--report", "report") == []
    assert Path("report/index.html").is_file()


def test_the_folder_of_problems_is_a_file(suite):
    Path("mine.db.problems").write_text("")
    (line,) = suite(SMALL, code=2)
    assert line == "error: cannot make folder mine.db.problems: File exists"


def test_a_folder_of_problems_without_room(suite, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "mine.db.problems/x.npz")

    monkeypatch.setattr("numpy.savez", full)
    *_, line = suite(SMALL, code=2)
    assert line.startswith("error: ")
    assert "No space left on device" in line


@pytest.mark.parametrize("damage", ["torn", "another"])
def test_a_damaged_problem_is_not_solved(suite, damage):
    suite(SMALL, "--dry-run")
    (path,) = Path("mine.db.problems").glob("*.npz")
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:100])
    else:
        rounding(2, 3).save(path)
    *_, line = suite(SMALL, code=2)
    assert line.startswith("error: ")
    assert path.name in line
    assert kept() == []


def test_no_two_runs_share_a_core(suite, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3, 5})
    said = []
    for name in ("LokyProcess-1", "LokyProcess-2", "LokyProcess-3", "MainProcess"):
        process = type("Process", (), {"name": name})
        monkeypatch.setattr("multiprocessing.current_process", lambda p=process: p)
        said.append(execute._pinned(execute.Limits(), 1).cores)
    assert said == [(3,), (5,), (3,), None]
