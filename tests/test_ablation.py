"""What each part of `lattice` gains, through `benchmarks.studies.ablation`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main as benchmarks
from benchmarks.harness import readers
from benchmarks.harness.runs import Run, Spec
from benchmarks.harness.store import Store
from benchmarks.harness.trials import Trial
from benchmarks.studies import ablation
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid

VARIANTS = [f"{part}: {name}" for part, name, _ in ablation.VARIANTS]


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, 60)) + 1
    path = tmp_path_factory.mktemp("ablation") / "small.npz"
    weight = rng.normal(size=(3, 20))
    RoundingProblem.on_grid(weight, Grid(bits=3), x @ x.T / 60).save(path)
    return path


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """Run only some variants, two of them the same; return how many differ."""
    names = "singles", "one anneal", "+ recombination", "kbest"
    some = [variant for variant in ablation.VARIANTS if variant[1] in names]
    monkeypatch.setattr(ablation, "VARIANTS", some)
    return len(names) - 1


def run(problem: Path, *arguments: str) -> int:
    short = ["--sweeps", "2,8", "--seconds", "0.02"]
    return benchmarks(["ablation", "--problem", str(problem), *short, *arguments])


def table(out: str) -> dict[str, list[str]]:
    """The table's cells by variant."""
    first = next(i for i, line in enumerate(out.splitlines()) if "variant" in line)
    lines = ([c for c in s.split("  ") if c] for s in out.splitlines()[first + 1 :])
    return {cells[0]: [cell.strip() for cell in cells[1:]] for cells in lines}


def test_table(problem, capsys):
    assert run(problem) == 0
    out = capsys.readouterr().out
    assert out.startswith("small: 3 rows, n = 20\n")
    assert out.splitlines()[1].split("  ")[0] == "variant"
    lines = table(out)
    assert list(lines) == VARIANTS
    for moves, library, *pairs in lines.values():
        assert int(moves) >= 20
        assert float(library) >= 0
        assert len(pairs) == 6
        assert all(0 < float(ratio) <= 1 for ratio in pairs[::2]), pairs
        assert all(float(seconds) > 0 for seconds in pairs[1::2])
    # Singles alone; then all pairs as well.
    assert [lines[name][0] for name in VARIANTS[:2]] == ["20", str(20 + 190)]
    # What more is done from the same start cannot do worse.
    assert float(lines["pool: + restarts"][2]) <= float(lines["pool: one anneal"][2])
    assert lines["pool: one anneal"] == lines["start: kbest"]


def test_seeds_and_the_first_rows(problem, few, capsys):
    assert run(problem, "--seeds", "3", "--rows", "2") == 0
    out = capsys.readouterr().out
    assert "2 rows" in out
    assert "median [lowest, highest] of 3 seeds\n" in out
    for _, _, cell, *_ in table(out).values():
        middle, low, high = map(
            float, cell.replace("[", "").replace("]", "").replace(",", "").split()
        )
        assert low <= middle <= high


def test_sweeps_give_the_same_ratios_again(problem, few, capsys):
    ratios = []
    for _ in range(2):
        assert run(problem, "--seed", "5") == 0
        ratios.append([line[2:6:2] for line in table(capsys.readouterr().out).values()])
    assert ratios[0] == ratios[1]


def test_runs_are_taken_up_again(problem, few, tmp_path, capsys):
    path = tmp_path / "runs.db"
    assert run(problem, "--store", str(path)) == 0
    first, before = capsys.readouterr().out, path.read_bytes()
    # One anneal from kbest is in two parts, and run once.
    assert len(Store(path).table("seed")["seed"]) == 3 * few
    assert run(problem, "--store", str(path)) == 0
    assert capsys.readouterr().out == first
    assert path.read_bytes() == before
    assert run(problem, "--store", str(path), "--seeds", "2") == 0
    assert Store(path).table("seed")["seed"].tolist().count(1) == 3 * few


def falling(*steps: tuple[float, float]) -> Trial:
    spec = Spec(problem="", solver="", code="")
    return Trial(run=Run(spec=spec, status="ok", falls=np.array(steps)), nearest=1.0)


def test_a_curve_is_the_best_of_all_lengths():
    short = [falling((0.1, 1.0), (0.2, 0.5))]
    long = [falling((0.1, 1.0), (0.15, 0.7), (0.3, 0.6), (1.0, 0.2))]
    at = np.array([0.05, 0.1, 0.16, 0.25, 0.4, 1.0, 9.0])
    np.testing.assert_array_equal(
        ablation.curve([short, long], at), [np.inf, 1, 0.7, 0.5, 0.5, 0.2, 0.2]
    )


def test_a_curve_is_the_median_of_the_seeds():
    seeds = [falling((0.1, ratio)) for ratio in (0.3, 0.9, 0.4)]
    np.testing.assert_array_equal(ablation.curve([seeds], np.array([1.0])), [0.4])


@pytest.mark.parametrize("ends", [[0.0, 0.0], [0.0, 5.0], [0.0, 1e-9]])
def test_the_axis_holds_where_curves_end(ends):
    above = [np.array([7000.0, end]) for end in ends]
    low, high = ablation.span(above)
    assert 0 < low < high / 10
    assert max(ends) < high < 7000


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_figure(problem, few, tmp_path, capsys, suffix):
    pytest.importorskip("matplotlib")
    path, kept = tmp_path / f"figure{suffix}", tmp_path / "runs.db"
    arguments = ["--store", str(kept), "--figure", str(path)]
    assert run(problem, *arguments) == 0
    drawn = path.read_bytes()
    start = b"\x89PNG" if suffix == ".png" else b"<?xml"
    assert drawn.startswith(start)
    # The same runs are drawn the same.
    path.unlink()
    assert run(problem, *arguments) == 0
    assert path.read_bytes() == drawn
    assert {p.name for p in tmp_path.iterdir()} == {path.name, kept.name}


def test_a_figure_without_matplotlib(problem, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(readers, "find_spec", lambda name: None)
    assert run(problem, "--figure", str(tmp_path / "figure.svg")) == 2
    captured = capsys.readouterr()
    assert captured.err == (
        "error: --figure: matplotlib is not installed; "
        'pip install "qubo-rounding[report]" installs it\n'
    )
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweeps", "soon"], "cannot read --sweeps 'soon'; write 30,300"),
        (["--sweeps", "30,0"], "--sweeps must be at least 1, not 0"),
        (["--seconds", "soon"], "cannot read --seconds 'soon'"),
        (["--seconds", "nan"], "seconds must be positive, not nan"),
        (["--seeds", "0"], "--seeds must be at least 1, not 0"),
        (["--seed", "-1"], "--seed must be at least 0, not -1"),
        (["--threads", "0"], "threads must be at least 1, not 0"),
        (["--rows", "4"], "--rows must be 1 to 3, not 4"),
        (["--figure", "figure.pdf"], "--figure must end in .svg or .png, not 'figure."),
        (["--figure", "no/figure.svg"], "cannot write no/figure.svg: its folder does"),
        (["--problem", "no.npz"], "no.npz"),
    ],
)
def test_bad_input(problem, capsys, arguments, message):
    assert run(problem, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_no_error_to_nearest(tmp_path, capsys):
    path = tmp_path / "exact.npz"
    RoundingProblem.on_grid(np.eye(3), Grid(bits=3), np.zeros((3, 3))).save(path)
    assert run(path) == 2
    assert "rounding to nearest has no error" in capsys.readouterr().err
