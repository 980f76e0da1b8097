"""The paper's comparisons, through `python -m benchmarks paper`."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main as benchmarks
from benchmarks.harness.store import Store
from benchmarks.studies import paper
from benchmarks.studies.paper import Method
from solvers import parse_solver


def command(*arguments: object) -> int:
    return benchmarks(["paper", *map(str, arguments)])


SHORT = {
    "Table 10, general solvers": (
        Method("nearest", "nearest", "52.29"),
        Method("qbsolv, random start", "qbsolv[repeats=2,initial=random]", "41.98"),
        Method("(more)", "sa[num_sweeps=20]", "-"),
    )
}


def test_methods_exist():
    for table in paper.TABLES.values():
        for method in table:
            assert re.fullmatch(r"-|\d\d\.\d\d( ± \d\.\d\d)?", method.top1)
            parse_solver(method.solver)


def test_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(paper, "TABLES", SHORT)
    path = tmp_path / "runs.db"
    arguments = ["--layer", "resnet20.conv1", "--weights", "embedded", "--seeds", "2"]
    arguments += ["--calibration", "32", "--evaluation", "50", "--store", str(path)]
    assert command(*arguments) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    at = lines.index("Table 10, general solvers")
    table = {line.split("  ")[0]: line.split("  ") for line in lines[at + 2 : at + 5]}
    assert list(table) == ["nearest", "qbsolv, random start", "(more)"]
    # Rounding to nearest does not depend on the images, other solvers' answers do.
    assert "1.0000 ± 0.0000" in lines[at + 2]
    assert "± 0.0000" not in lines[at + 3]
    assert "52.29" in lines[at + 2]
    paper_order = "best to worst by the paper's top-1: nearest, qbsolv, random start"
    assert lines[-1] == paper_order
    with Store(path) as store:
        runs, problems = list(store.runs()), store.problems()
    assert len(runs) == 6
    first = problems[runs[0].spec.problem]
    assert (runs[0].spec.solver, first.name) == ("nearest", "resnet20.conv1, half 0")
    assert runs[0].objective == pytest.approx(first.nearest)
    # Nothing is run again.
    assert command(*arguments) == 0
    assert capsys.readouterr().out == out
    assert len(Store(path).table("seed")["seed"]) == 6
    # Other images to score on: the answers stay, and are scored.
    arguments[arguments.index("50")] = "40"
    assert command(*arguments) == 0
    (run, *_) = Store(path).runs()
    assert len(run.scores) == 2
    assert len(Store(path).table("seed")["seed"]) == 6


def test_labels_that_do_not_fit(monkeypatch, tmp_path, capsys):
    """Accuracy is a dash; errors are there all the same."""
    monkeypatch.setattr(paper, "TABLES", SHORT)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(5):
            pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    arguments = ["--layer", "resnet20.conv1", "--weights", "embedded", "--seeds", "2"]
    assert command(*arguments, "--images", tmp_path, "--calibration", "8") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "full precision: top-1 -" in lines
    at = lines.index("Table 10, general solvers")
    for line in lines[at + 2 : at + 5]:
        assert re.search(r"  \d\.\d{4} ± \d\.\d{4}        -  ", line)
    orders = [line.split(":")[0] for line in lines[at + 5 :]]
    assert orders == [
        f"best to worst by {key}" for key in ("local MSE", "the paper's top-1")
    ]


def test_a_layer_that_is_on_the_grid(monkeypatch, capsys):
    """There is no ratio to nearest: it is said before anything is run."""
    monkeypatch.setattr(paper, "TABLES", SHORT)
    monkeypatch.setattr("benchmarks.harness.subject.Subject.local_mse", lambda *_: 0.0)
    monkeypatch.setattr("benchmarks.harness.trials.Trials.run", None)
    arguments = ["--layer", "resnet20.conv1", "--calibration", "8"]
    assert command(*arguments, "--evaluation", "8") == 2
    assert "there is no ratio to nearest" in capsys.readouterr().err


def test_nothing_is_run_where_nothing_is_asked_for(capsys):
    assert command() == 2
    error = capsys.readouterr().err
    assert error == "error: the following arguments are required: --layer\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds must be at least 1, not 0"),
        (["--layer", "resnet20.conv9"], "unknown layer 'conv9'"),
        (["--bits", "1"], "bits must be"),
    ],
)
def test_bad_input(capsys, arguments, message):
    assert command("--layer", "resnet20.conv1", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
