"""How far walks are from the machine's limits, through `benchmarks.studies.limits`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.__main__ import main as benchmarks
from benchmarks.harness import rates
from benchmarks.harness.problems import CORRELATION, synthetic
from benchmarks.studies import limits
from benchmarks.studies.limits import Measured
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from solvers.lattice.lanes import LANES


def command(*arguments: object) -> int:
    return benchmarks(["limits", *map(str, arguments)])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(rates, "ENOUGH", 2e-3)
    monkeypatch.setattr(rates, "WORK", 1 << 22)
    monkeypatch.setattr(rates, "ORDER", 256)
    monkeypatch.setattr(limits, "LARGE", 1 << 24)


def cells(table: str) -> list[dict[str, str]]:
    heading, *lines = (
        [cell.strip() for cell in line.split("  ") if cell.strip()]
        for line in table.splitlines()
    )
    return [dict(zip(heading, line, strict=True)) for line in lines]


def number(cell: str) -> float:
    return float(cell.removesuffix(" %")) / (100 if cell.endswith(" %") else 1)


def test_tables(capsys):
    assert command("--sizes", "64,300", "--rows", "20", "--repeats", "2") == 0
    whole, kernel, sentences = capsys.readouterr().out.split("\n\n")
    machine, _, whole = whole.partition("\n")
    assert machine.startswith("20 rows, 1 thread: ")
    lines = cells(whole)
    assert [(line["n"], line["at"]) for line in lines] == [
        *(("64", "hot"), ("64", "cold"), ("300", "hot"), ("300", "cold"))
    ]
    for line in lines:
        figures = {name: number(cell) for name, cell in line.items() if name != "at"}
        assert all(np.isfinite(figure) for figure in figures.values())
        shares = ("of BLAS", "of copy")
        rates = ("sweep ms", "proposed M/s", "Mflop", "MB", "GFlop/s", "GB/s")
        for name in (*rates, *shares):
            assert figures[name] > 0, name
    for hot, cold in (lines[:2], lines[2:]):
        # Of a sweep: a count, whatever the seconds are.
        accepted = [
            number(line["accepted M/s"]) * number(line["sweep ms"])
            for line in (hot, cold)
        ]
        assert accepted[0] > accepted[1]
        assert number(hot["Mflop"]) > number(cold["Mflop"])
        assert number(hot["moves"]) == number(cold["moves"])
    for line in cells(kernel):
        assert all(number(cell) > 0 for cell in line.values())
    assert [line[:7] for line in sentences.splitlines()] == ["n = 64:", "n = 300"]


def test_problems_and_scales_that_vary(tmp_path, capsys):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, 60)) + 1
    path = tmp_path / "groups.npz"
    grid = Grid(bits=3, granularity="group", group_size=5)
    RoundingProblem.on_grid(rng.normal(size=(3, 20)), grid, x @ x.T / 60).save(path)
    arguments = ["--problem", str(path), "--rows", "2", "--repeats", "1"]
    assert command(*arguments, "--moves", "pairs") == 0
    table = capsys.readouterr().out.split("\n\n")[0].partition("\n")[2]
    assert [line["n"] for line in cells(table)] == ["20 (groups)"] * 2
    # Singles and all pairs.
    assert cells(table)[0]["moves"] == str(20 + 20 * 19 // 2)


def test_the_synthetic_moment():
    qubo = synthetic(147, 2)
    assert qubo.H.dtype == np.float32
    assert np.linalg.eigvalsh(qubo.H.astype(float)).min() > 0
    # Neighbours of a channel's patch, against the variance.
    assert qubo.H[0, 1] / qubo.H[0, 0] == pytest.approx(CORRELATION)
    # The error is that of x against the weights, so none is below zero.
    at = qubo.prior
    error = np.einsum("ri,ij,rj->r", at, qubo.H, at) + (qubo.linear * at).sum(1)
    np.testing.assert_allclose(error + qubo.offset, 0, atol=1e-4 * qubo.offset.max())
    assert (qubo.energies(qubo.nearest()) > 0).all()
    # Cut to n, where n is no whole number of channels.
    assert synthetic(100, 1).H.shape == (100, 100)


def test_what_a_sweep_needs():
    one = Measured.of("64", synthetic(64, 20), "quads", 1, 1e9)
    pairs, quads, longer = one.lanes.ends[-1]
    assert longer == 0
    # Two tiles, the second padded.
    assert one.tests() == 2 * LANES * (pairs * 10 + quads * 14)
    sweep = rates.Sweep(seconds=1.0, accepted=30.0, products=10.0)
    one = replace(one, sweeps={"hot": sweep}, size=3.0, kernel={4: 1e6})
    width = 64
    flops = 10 * 3 * 2 * LANES * width
    assert one.products("hot") == (flops, pytest.approx(flops / 1e6))
    assert one.flops("hot") == one.tests() + flops
    moves = sum(part.nbytes for part in one.lanes.moves)
    fields = 2 * 4 * LANES * width
    assert one.bytes("hot") == 2 * (fields + moves) + 10 * 3 * 4 * width


def test_what_a_sweep_in_blocks_needs(monkeypatch):
    monkeypatch.setattr("solvers.lattice.lanes.WHOLE", 256)
    monkeypatch.setattr("solvers.lattice.lanes.BLOCK", 256)
    monkeypatch.setattr("benchmarks.studies.limits.BLOCK", 256)
    one = Measured.of("300", synthetic(300, 20), "pairs", 1, 1e9)
    width, blocks = len(one.lanes.H), len(one.lanes.blocks.near)
    assert width == 304
    sweep = rates.Sweep(seconds=1.0, accepted=30.0, products=100.0 * 2 * blocks)
    kernel = {4: 1e6, 16: 2e6, 64: 4e6}
    one = replace(one, sweeps={"hot": sweep}, size=2.0, kernel=kernel)
    near = 30 * 2 * 2 * LANES * 256
    far = sweep.products * 2 * LANES * width
    # A product takes 100 rows together: closest to the kernel's rate with 64.
    assert one.products("hot") == (near + far, pytest.approx(near / 1e9 + far / 4e6))
    moves = sum(part.nbytes for part in one.lanes.moves)
    fields = 2 * 4 * LANES * width * (1 + blocks)
    assert one.bytes("hot") == 2 * (fields + moves) + 4 * width * sweep.products


def test_nothing_is_accepted_where_walks_stand_still():
    one = Measured.of("64", synthetic(64, 16), "quads", 2, 1e9)
    assert one.sweeps["still"].accepted == 0
    assert one.sweeps["hot"].products > 0
    assert one.sweeps["hot"].accepted >= one.sweeps["hot"].products


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "many"], "cannot read --sizes 'many'; write 147,576,"),
        (["--sizes", "64,3"], "--sizes must be at least 16, not 3"),
        (["--rows", "0"], "--rows must be at least 1, not 0"),
        (["--repeats", "0"], "--repeats must be at least 1, not 0"),
        (["--problem", "nothing.npz"], "nothing.npz"),
    ],
)
def test_bad_input(capsys, arguments, message):
    assert command(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_problem_without_moves(tmp_path, capsys):
    path = tmp_path / "nothing.npz"
    RoundingProblem.on_grid(np.eye(3), Grid(bits=3), np.zeros((3, 3))).save(path)
    assert command("--problem", str(path), "--repeats", "1") == 2
    assert capsys.readouterr().err == "error: 3 (nothing): there are no moves\n"
