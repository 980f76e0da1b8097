"""Solvers that misbehave harm nobody: the others' results, the record, the exit code.

Each runs between honest ones, as a user's file.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import main as benchmarks
from benchmarks.harness.command import Terminated
from benchmarks.harness.failures import contained
from benchmarks.harness.store import Store
from benchmarks.studies import paper
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from solvers import QuboBatch, parse_solver, write_qubo
from solvers.flips.tabu import Tabu
from solvers.lattice.solver import Lattice
from solvers.sampling.nearest import Floor

FILE = Path(__file__).with_name("misbehaving.py")
BEFORE, AFTER = "stochastic[samples=5]", "sa[num_sweeps=20]"
HONEST = f"{BEFORE},{AFTER}"
# The class in the file, the status it gets, and what the one line says.
CASES = [
    ("Raises", "error", "ValueError: first line second line"),
    ("RaisesWithoutAWord", "error", "RuntimeError"),
    ("RaisesTheUnprintable", "error", "Unprintable"),
    ("RefusesTooLate", "error", f"solver {FILE}:RefusesTooLate: not\\nthis one"),
    ("RaisesAnEssay", "error", "ValueError: word word"),
    ("Exits", "error", "SystemExit: 0"),
    ("ExitsInCompileFor", "error", "SystemExit: enough"),
    ("RaisesInSupports", "error", "LookupError: what is a batch?"),
    ("RunsOutOfMemory", "error", "MemoryError"),
    ("NeverReturns", "error", "RecursionError"),
    ("GivesNone", "error", "not None"),
    ("GivesOneRow", "error", "search gives must have shape"),
    ("GivesRagged", "error", "inhomogeneous"),
    ("GivesTexts", "error", ""),
    ("Gives257", "error", ""),
    ("GivesMinusOne", "error", ""),
    ("GivesHalf", "error", ""),
    ("GivesNaN", "error", ""),
    ("SolvesToNone", "error", "AttributeError"),
    ("ClaimsTooMuch", "invalid", ""),
    ("ClaimsNaN", "invalid", ""),
    ("ClaimsForAnotherShape", "error", ""),
    ("Claims257", "error", ""),
    ("TakesNoTime", "error", "not JSON compliant"),
    ("HasNoInfo", "error", "AttributeError"),
    ("HasAnotherStatus", "done", ""),
    ("RemarksNoJson", "done", ""),
    ("RemarksOnItself", "error", "RecursionError"),
    ("RemarksAtLength", "done", ""),
    ("RemarksFields", "done", ""),
    ("RemarksOtherwise", "done", ""),
    ("Prints", "done", ""),
    ("Warns", "done", ""),
    ("TurnsWarningsIntoErrors", "done", ""),
    ("RaisesFloatingPoint", "done", ""),
    ("SeedsTheWorld", "done", ""),
    ("DeletesItsName", "error", "AttributeError"),
    ("RenamesItself", "error", ""),
    ("GivesTheStart", "done", ""),
    ("ChangesH", "error", "read-only"),
    ("ChangesLinear", "error", "read-only"),
    ("ChangesOffset", "error", "read-only"),
    ("ChangesScale", "error", "read-only"),
    ("ChangesPrior", "error", "read-only"),
    ("ChangesPins", "error", "read-only"),
    ("ChangesLevels", "error", "read-only"),
    ("ChangesStart", "error", "read-only"),
]

NAMES = [case[0] for case in CASES]


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved problem with a pinned weight."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(8, 50)) + 1
    weight = rng.normal(size=(4, 8))
    weight[0, 0] = 9.0
    path = tmp_path_factory.mktemp("problem") / "small.npz"
    RoundingProblem.on_grid(weight, Grid(bits=3), x @ x.T / 50).save(path)
    assert RoundingProblem.load(path).fixed is not None
    return path


class Job:
    """The main job on the problem, with its record and its states."""

    def __init__(self, problem: Path, folder: Path) -> None:
        self.problem, self.folder = problem, folder

    def __call__(
        self, solvers: str
    ) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
        record, saved = self.folder / "record.json", self.folder / "rounded.npz"
        arguments = ["run", "--problem", self.problem, "--solver", solvers]
        arguments += ["--json", record, "--save", saved]
        code = benchmarks([*map(str, arguments)])
        with np.load(saved) as file:
            states = {k: file[k] for k in file.files if k.startswith("states")}
        return code, json.loads(record.read_text())["results"], states


@pytest.fixture(scope="module")
def honest(problem: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return Job(problem, tmp_path_factory.mktemp("honest"))(HONEST)


@pytest.mark.parametrize(("name", "status", "said"), CASES, ids=NAMES)
def test_others_are_not_harmed(name, status, said, problem, tmp_path, honest, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code, results, states = Job(problem, tmp_path)(
            f"{BEFORE},{FILE}:{name},{AFTER}"
        )
    assert code == int(status != "done")
    bad = results.pop(2)
    assert bad["label"] == f"{FILE}:{name}"
    assert bad["status"] == status
    # Others: the same bits, and the same figures.
    _, expected, honest_states = honest
    for mine, theirs in zip(results, expected, strict=True):
        for key in ("solver", "objective", "local_mse", "status", "info", "flipped"):
            assert mine[key] == theirs[key]
    for key, value in honest_states.items():
        np.testing.assert_array_equal(states[key], value)
    out, err = capfd.readouterr()
    assert [line.split()[-1] for line in out.splitlines() if str(FILE) in line] == [
        status
    ]
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    if status == "error":
        assert said in bad["error"]
        assert errors == [f"error: {bad['error']}"]
        assert len(errors[0]) < 1000
    else:
        assert errors == []
        assert len(json.dumps(bad)) < 10_000


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [pytest.param(*c, id=c[0]) for c in CASES if not c[0].startswith("Changes")],
)
def test_a_store_keeps_failures_too(name, status, said, problem, tmp_path, capsys):
    """`compare`: the table, the exit code, and what the store keeps."""
    kept = tmp_path / "runs.db"
    solvers = f"{BEFORE},{FILE}:{name},{AFTER}"
    arguments = ["compare", "--problem", problem, "--solver", solvers, "--store", kept]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = benchmarks([*map(str, arguments)])
    assert code == int(status != "done")
    lines = [
        line for line in capsys.readouterr().out.splitlines() if line != "look at me"
    ]
    assert [line.split()[-1] for line in lines[2:]] == ["done", status, "done"]
    runs = list(Store(kept).runs(states=True))
    well = {"done": "ok"}.get(status, status)
    assert [run.status for run in runs] == ["ok", well, "ok"]
    assert [bool(run.message) for run in runs] == [False, status == "error", False]
    assert (runs[1].states is None) == (status == "error")
    assert verify(kept) == 0


def run(*arguments: object) -> int:
    return benchmarks([*map(str, arguments)])


def verify(path: Path) -> int:
    return run("store", "verify", path)


def test_anytime(problem, capsys):
    solvers = f"{FILE}:Raises,{FILE}:RemarksOtherwise,nearest"
    common = ["anytime", "--problem", problem, "--solver", solvers]
    common += ["--seconds", "0.01", "--seeds", "2"]
    assert run(*common) == 1
    rows = capsys.readouterr().out.splitlines()[-3:]
    assert rows[0].split()[1:] == ["error", "0.000"]
    assert rows[1].split()[1] == rows[2].split()[1] == "1.00000"
    assert run(*common, "--target", "1", "--baseline", f"{FILE}:Raises") == 1
    rows = capsys.readouterr().out.splitlines()[-3:]
    assert rows[0].split()[1:3] == ["0/2", ">0.01"]
    assert rows[2].split()[1] == "2/2"
    assert run(*common, "--target", f"{FILE}:Raises@0.01") == 2
    assert "there is no target: " in capsys.readouterr().err.splitlines()[-1]


def test_instances(tmp_path, capsys):
    write_qubo(tmp_path / "a.qubo", QuboBatch.from_matrix(np.diag([1.0, -2.0, 3.0])))
    bad = f"{FILE}:Raises,{FILE}:GivesNone,{FILE}:Claims257"
    kept = tmp_path / "runs.db"
    solvers = f"floor,{bad},ceil"
    assert run("instances", tmp_path, "--solver", solvers, "--store", kept) == 1
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()[1:6]]
    assert [row[3] for row in rows] == ["1/1", "0/1", "0/1", "0/1", "0/1"]
    assert [row[4] for row in rows[1:4]] == ["-", "-", "-"]
    assert err.count("error: ") == 3
    statuses = Store(kept).table("status")["status"].tolist()
    assert statuses == ["ok", *["error"] * 3, "ok"]
    assert run("instances", tmp_path, "--solver", f"{FILE}:Raises") == 1


def test_proofs(problem, capsys):
    common = ["proofs", "--problem", problem, "--sizes", "4", "--rows", "2"]
    assert run(*common, "--reference", f"{FILE}:Raises,tabu") == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].split()[:2] == ["4", "2/2"]
    assert err.count("error: ") == 1
    assert run(*common, "--reference", f"{FILE}:Raises") == 2
    assert "no solver of --reference has an answer" in capsys.readouterr().err


def test_first_solve(capsys):
    assert run("first-solve", "--solver", f"{FILE}:Exits,{FILE}:Dies") == 1
    out, err = capsys.readouterr()
    assert [line.split()[1:] for line in out.splitlines()[1:]] == [["-"] * 5] * 2
    assert err.splitlines() == [
        f"error: solver {FILE}:Exits: SystemExit: 0",
        f"error: solver {FILE}:Dies: exit code 3",
    ]


def test_warm(capsys):
    assert run("warm", "--solver", f"{FILE}:Exits,nearest") == 1
    out, err = capsys.readouterr()
    assert "kernels of 1 solvers" in out
    assert err == f"error: solver {FILE}:Exits: SystemExit: 0\n"


ENDS = [(KeyboardInterrupt, 130), (Terminated, 143)]


@pytest.mark.parametrize("command", ["compare", "anytime"])
@pytest.mark.parametrize(("error", "code"), ENDS)
def test_interrupted_tables_show_what_is_finished(
    command, error, code, problem, capsys, monkeypatch
):
    def stop(self, task):
        raise error

    monkeypatch.setattr(Tabu, "search", stop)
    assert run(command, "--problem", problem, "--solver", "nearest,tabu") == code
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == "nearest"


@pytest.mark.parametrize(("error", "code"), ENDS)
def test_interrupted_instances_are_those_that_are_finished(
    error, code, tmp_path, capsys, monkeypatch
):
    def stop(self, task):
        if task.qubo.n > 3:
            raise error
        return search(self, task)

    search = Floor.search
    monkeypatch.setattr(Floor, "search", stop)
    write_qubo(tmp_path / "a.qubo", QuboBatch.from_matrix(np.diag([1.0, -2.0, 3.0])))
    write_qubo(tmp_path / "b.qubo", QuboBatch.from_matrix(np.eye(9)))
    assert run("instances", tmp_path, "--solver", "floor") == code
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:4] for line in lines[1:]] == [
        ["a", "3", "floor", "1/1"],
        ["all", "3", "floor", "1/1"],
    ]


@pytest.fixture
def network(tmp_path, monkeypatch):
    """A network of two layers, whose classes are not those of the images."""
    (tmp_path / "unlabelled.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Conv2d(3, 4, 2),\n"
        "        nn.ReLU(), nn.Flatten(), nn.Linear(4, 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "unlabelled:make"


def test_layers(network, capsys):
    solvers = f"{FILE}:Raises,nearest"
    common = ["--calibration", 4, "--solver", solvers]
    assert run("layers", "--model", network, *common) == 1
    out, err = capsys.readouterr()
    each, totals = (part.splitlines() for part in out.split("\n\n"))
    assert [line.split()[4:8] for line in each[1:]] == [
        ["-", "-", "error", "1.00000"]
    ] * 2
    assert f"s of {FILE}:Raises  -" in " ".join(totals).replace("   ", "")
    assert err.count("error: ") == 2


def test_paper(network, capsys, monkeypatch):
    """A method that fails, and accuracies that nobody knows."""
    bad = paper.Method("bad", f"{FILE}:Raises", "50.00")
    good = paper.Method("nearest", "nearest", "52.29")
    monkeypatch.setattr(paper, "TABLES", {"Table": (bad, good)})
    common = ["--layer", f"{network}.1", "--calibration", 4, "--evaluation", 4]
    assert run("paper", *common, "--seeds", 2) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert "full precision: top-1 -" in lines
    row = next(line.split() for line in lines if line.startswith("bad"))
    assert row[2:] == ["-", "-", "50.00", "-"]
    row = next(line.split() for line in lines if line.startswith("nearest"))
    assert row[2:7] == ["1.0000", "±", "0.0000", "-", "52.29"]
    assert lines[-2:] == [
        "best to worst by local MSE: nearest",
        "best to worst by the paper's top-1: nearest, bad",
    ]
    assert err.count("error: ") == 2


def test_ablation(problem, tmp_path, capsys, monkeypatch):
    """Variants that fail are not in the figure, which the others have."""
    pytest.importorskip("matplotlib")

    def fail(self, task):
        if not some or self.moves == "pairs":
            raise MemoryError("too many moves")
        return search(self, task)

    search = Lattice.search
    monkeypatch.setattr(Lattice, "search", fail)
    common = ["ablation", "--problem", problem, "--sweeps", "2", "--seconds", "0.01"]
    for some in (True, False):
        path = tmp_path / f"{some}.svg"
        assert run(*common, "--figure", path) == 1
        assert path.exists() == some
        rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
        assert rows[1][:6] == ["moves:", "+", "pairs", "0", "0.000", "error"]
        assert (rows[0][4] != "error") == some


def test_an_interrupted_paper_shows_what_is_finished(network, capsys, monkeypatch):
    def stop(self, task):
        raise Terminated

    monkeypatch.setattr(Floor, "search", stop)
    methods = [paper.Method(name, name, "50.00") for name in ("nearest", "floor")]
    monkeypatch.setattr(paper, "TABLES", {"one": methods, "other": methods[1:]})
    common = ["--layer", f"{network}.1", "--calibration", 4, "--evaluation", 4]
    assert run("paper", *common, "--seeds", 2) == 143
    out = capsys.readouterr().out
    assert "other" not in out
    assert "floor" not in out
    assert out.splitlines()[-1] == "best to worst by the paper's top-1: nearest"


def test_what_a_solver_sets_is_undone():
    before = np.geterr(), list(warnings.filters)
    with contained(parse_solver("nearest")):
        np.seterr(all="raise")
        warnings.simplefilter("error")
    assert (np.geterr(), list(warnings.filters)) == before


def test_a_warning_is_shown_once_in_many_runs(recwarn):
    warnings.simplefilter("default")
    for _ in range(3):
        with contained(parse_solver("nearest")):
            warnings.warn("the same place", stacklevel=1)
    assert len(recwarn) == 1


def test_only_ctrl_c_passes(problem, monkeypatch):
    def stop(self, qubo):
        raise KeyboardInterrupt

    monkeypatch.setattr("solvers.sampling.nearest.Nearest.compile_for", stop)
    assert run("compare", "--problem", problem, "--solver", "nearest") == 130


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CannotBeMade", "OSError: no licence"),
        ("HasOptionsOfNoKind", "NameError: name 'Unknown' is not defined"),
        ("DoesNotKnow", "out_of_set must be True or False"),
        ("HasANameOfTwoLines", "its name must be of letters, digits, '.', '-' and '_'"),
    ],
)
def test_a_solver_that_is_none_is_refused_before_the_work(name, said, problem, capsys):
    assert run("run", "--problem", problem, "--solver", f"nearest,{FILE}:{name}") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"error: solver {FILE}:{name}: {said}")
