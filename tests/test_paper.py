"""The paper's comparisons, through `python -m benchmarks paper`."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.__main__ import main as benchmarks
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
    log = tmp_path / "log.jsonl"
    arguments = ["--layer", "resnet20.conv1", "--weights", "embedded", "--seeds", "2"]
    arguments += ["--calibration", "32", "--evaluation", "50", "--log", str(log)]
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
    runs = [json.loads(line) for line in log.read_text().splitlines()[1:]]
    assert len(runs) == 6
    assert runs[0]["key"] == "nearest seed 0"
    assert runs[0]["run"]["ratio"] == pytest.approx(1)
    # Nothing is run again.
    assert command(*arguments) == 0
    assert capsys.readouterr().out == out
    assert len(log.read_text().splitlines()) == 7


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
