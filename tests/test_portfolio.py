"""`python -m benchmarks portfolio` and the problems that it generates."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.harness.generated import CLASSES, generate
from benchmarks.harness.store import Store
from benchmarks.studies.portfolio import PARTS, Runs, table
from solvers import InputError, QuboBatch, write_qubo
from solvers.composed.auto import Auto
from solvers.flips.annealing import SimulatedAnnealing
from solvers.flips.tabu import Tabu
from solvers.lattice.solver import Lattice
from solvers.testing import brute_force


@pytest.mark.parametrize("name", ["random", "signed", "torus", "planar"])
def test_maximum_cuts(name):
    qubo = generate(f"{name}:24")
    weights = qubo.H[np.triu_indices(24, 1)]
    assert set(weights) <= {-1.0, 0.0, 1.0}
    assert not qubo.H.diagonal().any()
    states = np.random.default_rng(0).integers(0, 2, (1, 24))
    both = states[0][:, None] != states[0]
    expected = -(np.triu(qubo.H, 1) * both).sum()
    np.testing.assert_allclose(qubo.energies(states), expected)


def test_neighbours():
    """A torus has four neighbours each; a union of planar graphs less than twelve."""
    assert ((generate("torus:30").H != 0).sum(axis=1) == 4).all()
    degree = (generate("planar:100").H != 0).sum(axis=1)
    assert 6 < degree.mean() < 12
    assert (generate("random:100").H != 0).sum() == 100 * 20


def test_dense_and_wishart():
    dense = generate("dense:200")
    assert 0.08 < (dense.H != 0).mean() < 0.12
    assert np.abs(dense.H).max() <= 50
    rounding = generate("wishart:30")
    np.testing.assert_allclose(rounding.energies(rounding.nearest()) > 0, True)
    low = np.linalg.eigvalsh(rounding.H)[0]
    assert low > 0


@pytest.mark.parametrize("name", CLASSES)
def test_the_seed_decides(name):
    first, again, other = (
        generate(f"{name}:24"),
        generate(f"{name}:24"),
        generate(f"{name}:24", seed=1),
    )
    np.testing.assert_array_equal(first.linear, again.linear)
    assert not np.array_equal(first.linear, other.linear)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("planer:30", "did you mean planar"),
        ("planar", "give a size from 21 to 20000, as in planar:2000"),
        ("planar:1e3", "give a size"),
        ("planar:٣٠", "give a size"),
        ("planar:20", "give a size"),
        ("planar:" + "9" * 5000, "give a size"),
    ],
)
def test_names_that_are_none(text, message):
    with pytest.raises(InputError, match=message):
        generate(text)


def test_a_misspelt_class_is_no_file(capsys):
    assert main(["portfolio", "--problems", "planer:300"]) == 2
    assert "did you mean planar" in capsys.readouterr().err


def test_the_command(tmp_path, capsys):
    """Generated problems, files and saved runs; energies bear out a brute force."""
    qubo = QuboBatch.from_matrix(np.random.default_rng(0).normal(size=(12, 12)))
    path, log = tmp_path / "small.coo", tmp_path / "runs.db"
    write_qubo(path, qubo)
    arguments = ["portfolio", "--problems", f"planar:24,{path}", "--seeds", "2"]
    arguments += ["--seconds", "0.01,0.02", "--store", str(log)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "planar:24: 1 rows, n = 24" in out
    runs = list(Store(log).runs())
    # Two problems, limits and seeds each; `auto`, annealing and tabu, and `lattice`.
    assert len(runs) == 2 * 2 * 2 * 4
    lowest = min(run.objective for run in runs[16:])
    assert lowest == pytest.approx(float(brute_force(qubo)[1][0]))
    kept = log.read_bytes()
    assert main(arguments) == 0
    assert capsys.readouterr().out == out
    assert log.read_bytes() == kept


def test_differences_are_to_the_part_with_the_lowest_mean():
    energies = {"auto": [-96.0, -98.0], "bad": [-90.0, -90.0], "good": [-100.0, -98.0]}
    solvers = [Auto(), Tabu(), SimulatedAnnealing()]
    found = [
        Runs(solver, 1.0, np.array(values))
        for solver, values in zip(solvers, energies.values(), strict=True)
    ]
    auto, bad, good = (line.split() for line in table(found).splitlines()[1:])
    assert auto[1:5] == ["1", "3.0000", "1.4142", "+2.0000"]
    # Welch's interval: 2 ± 4.3027 * sqrt(2), with two degrees of freedom.
    low, high = (float(part.strip("[],")) for part in auto[5:])
    np.testing.assert_allclose([low, high], [2 - 6.0849, 2 + 6.0849], atol=1e-3)
    assert bad[2:] == ["10.0000", "0.0000"]
    assert good[2:] == ["1.0000", "1.4142"]


def test_a_part_that_fails(monkeypatch, capsys):
    """It is told in one line for each run; the others are in the table."""

    def search(self, task):
        raise MemoryError("enough")

    monkeypatch.setattr(Lattice, "search", search)
    arguments = ["--problems", "wishart:60", "--seconds", "0.05", "--seeds", "2"]
    assert main(["portfolio", *arguments]) == 1
    out, err = capsys.readouterr()
    solvers = [line.split()[0] for line in out.splitlines()[3:]]
    assert solvers == ["auto", *(text for text in PARTS if text != "lattice")]
    assert err.count("error: solver lattice: MemoryError") == 2
