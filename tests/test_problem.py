"""`RoundingProblem` against brute force, for every grid option and objective."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from solvers import InputError

ALL_STATES = {
    m: np.array(list(itertools.product((0, 1), repeat=m)), np.uint8)
    for m in (3, 4, 6, 8, 12)
}


def random_moment(rng: np.random.Generator, n: int, blocks: int = 1) -> np.ndarray:
    x = rng.standard_normal((blocks, n, 3 * n)) + 0.7
    return x @ x.transpose(0, 2, 1) / (3 * n)


def random_weight(rng: np.random.Generator, rows: int, n: int) -> np.ndarray:
    # Heavy tails, so that a weight-MSE scale leaves some weights saturated.
    return rng.standard_t(3, (rows, n))


def assert_energies_are_the_objective(problem: RoundingProblem) -> None:
    """E_qubo(x) = objective(decode(x)) for every x, written out by hand."""
    qubos = problem.to_qubos()
    blocks = problem.blocks
    m = blocks.shape[-1]
    weight = problem.weight.reshape(len(blocks), -1, m)
    gradient = (
        np.zeros_like(problem.weight) if problem.gradient is None else problem.gradient
    ).reshape(weight.shape)
    constant = np.zeros(problem.rows) if problem.constant is None else problem.constant
    constant = constant.reshape(*weight.shape[:2], -1).sum(axis=2)
    scale = np.broadcast_to(problem.scale, problem.weight.shape).reshape(weight.shape)
    base = problem.base.reshape(weight.shape)
    for b, qubo in enumerate(qubos):
        for r in range(qubo.rows):
            row = qubo.take([r])
            states = ALL_STATES[m]
            energies = row.energies(states[None])[0]
            for x, energy in zip(states, energies, strict=True):
                error = scale[b, r] * (base[b, r] + x) - weight[b, r]
                expected = (
                    error @ blocks[b] @ error + gradient[b, r] @ error + constant[b, r]
                )
                assert energy == pytest.approx(expected, rel=1e-9, abs=1e-9)


GRIDS = [
    Grid(bits=2),
    Grid(bits=3, restricted=True),
    Grid(bits=3, symmetric=False),
    Grid(bits=4, granularity="channel"),
    Grid(bits=2, symmetric=False, granularity="channel"),
    Grid(bits=2, granularity="group", group_size=2),
    Grid(bits=3, symmetric=False, granularity="group", group_size=3),
    Grid(bits=2, scale="minmax"),
    Grid(bits=2, scale="output-mse"),
    Grid(bits=2, scale="percentile", percentile=90),
    Grid(bits=8),
]


@pytest.mark.parametrize("saturated", ["fixed", "free"])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_energy_is_the_local_mse(grid: Grid, saturated: str) -> None:
    rng = np.random.default_rng(0)
    grid = replace(grid, saturated=saturated)
    problem = RoundingProblem.on_grid(
        random_weight(rng, 4, 6), grid, random_moment(rng, 6)[0]
    )
    assert_energies_are_the_objective(problem)


@pytest.mark.parametrize(
    "shape", ["groups", "row blocks", "whole layer", "whole layer, groups of columns"]
)
def test_energy_with_other_shapes_of_the_moment(shape: str) -> None:
    rng = np.random.default_rng(1)
    weight, gradient = random_weight(rng, 2, 4), rng.standard_normal((2, 4))
    grid = Grid(bits=2)
    if shape == "groups":
        weight, gradient = random_weight(rng, 6, 4), rng.standard_normal((6, 4))
        moment = random_moment(rng, 4, blocks=3)
    elif shape == "row blocks":
        moment = random_moment(rng, 4, blocks=2)
    else:
        moment = random_moment(rng, 8)[0]
        if "columns" in shape:
            grid = Grid(bits=2, granularity="group", group_size=2)
    problem = RoundingProblem.from_hessian(weight, grid, moment, gradient)
    np.testing.assert_allclose(problem.moment, moment / 2)
    assert_energies_are_the_objective(problem)
    qubos = problem.to_qubos()
    states = [rng.integers(0, 2, q.linear.shape, dtype=np.uint8) for q in qubos]
    claimed = np.concatenate(
        [q.energies(x) for q, x in zip(qubos, states, strict=True)]
    )
    np.testing.assert_allclose(
        problem.local_mse(problem.join(states)), claimed, rtol=1e-9
    )


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("per_weight", [False, True])
def test_a_whole_layer_of_any_shape(shape: tuple[int, int], per_weight: bool) -> None:
    rng = np.random.default_rng(3)
    rows, n = shape
    problem = RoundingProblem(
        weight=rng.standard_normal(shape),
        scale=rng.uniform(0.1, 0.4, shape if per_weight else (rows, 1)),
        lo=-4,
        hi=3,
        moment=random_moment(rng, rows * n)[0],
        constant=np.arange(rows),
    )
    (qubo,) = problem.to_qubos()
    assert qubo.linear.shape == (1, rows * n)
    states = [rng.integers(0, 2, qubo.linear.shape, np.uint8)]
    np.testing.assert_allclose(
        problem.local_mse(problem.join(states)), qubo.energies(states[0]), rtol=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
    granularity=st.sampled_from(["tensor", "channel", "group"]),
    saturated=st.sampled_from(["fixed", "free"]),
)
def test_energy_is_the_local_mse_whatever_the_grid(
    seed: int, bits: int, symmetric: bool, granularity: str, saturated: str
) -> None:
    rng = np.random.default_rng(seed)
    grid = Grid(
        bits=bits,
        symmetric=symmetric,
        granularity=granularity,  # type: ignore[arg-type]
        group_size=3 if granularity == "group" else None,
        saturated=saturated,  # type: ignore[arg-type]
    )
    weight = random_weight(rng, 3, 8) * 10 ** rng.uniform(-3, 3)
    problem = RoundingProblem.on_grid(weight, grid, random_moment(rng, 8)[0])
    (qubo,) = problem.to_qubos()
    x = rng.integers(0, 2, weight.shape, dtype=np.uint8)
    direct = problem.decode(x) - weight
    expected = np.einsum("ri,ij,rj->r", direct, problem.moment, direct)
    np.testing.assert_allclose(qubo.energies(x), expected, rtol=1e-8)
    # Every decoded value is on the grid.
    q = problem.decode(x) / problem.scale
    np.testing.assert_allclose(q, np.round(q), atol=1e-9)
    assert (np.round(q) >= problem.lo).all()
    assert (np.round(q) <= problem.hi).all()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_nearest_is_rounding_to_nearest(grid: Grid) -> None:
    rng = np.random.default_rng(2)
    weight = random_weight(rng, 5, 6)
    moment = random_moment(rng, 6)[0]
    problem = RoundingProblem.on_grid(weight, grid, moment)
    expected = grid.fit(weight, moment).nearest(weight)
    np.testing.assert_allclose(problem.decode(problem.nearest()), expected)
    (qubo,) = problem.to_qubos()
    np.testing.assert_array_equal(qubo.nearest(), problem.nearest())


def test_nearest_breaks_ties_downwards() -> None:
    """Also from odd grid points, from which rounding to even would go up."""
    halves = np.arange(-3, 3) + 0.5
    problem = RoundingProblem(0.25 * halves[None], 0.25, -4, 3, np.eye(6))
    np.testing.assert_array_equal(problem.base, np.floor(halves)[None])
    np.testing.assert_array_equal(problem.nearest(), np.zeros((1, 6)))
    (qubo,) = problem.to_qubos()
    np.testing.assert_array_equal(qubo.nearest(), np.zeros((1, 6)))


def test_saturated_weights_are_fixed_where_floor_and_ceiling_coincide() -> None:
    # 2 bits, scale 1: the grid is -2, -1, 0, 1.
    weight = np.array([[5.0, 1.0, 0.4, -2.0, -2.3, -9.0]])
    arguments = {
        "weight": weight,
        "scale": np.array(1.0),
        "lo": np.array(-2),
        "hi": np.array(1),
        "moment": np.eye(6),
    }
    fixed = RoundingProblem(**arguments)
    np.testing.assert_array_equal(fixed.fixed, [[1, 1, -1, -1, 0, 0]])
    np.testing.assert_array_equal(fixed.base, [[0, 0, 0, -2, -2, -2]])
    free = RoundingProblem(**arguments, saturated="free")
    assert free.fixed is None
    assert free.to_qubos()[0].fixed is None
    # A weight on the grid may move up, also the lowest.
    assert fixed.decode(np.ones((1, 6)))[0, 3] == -1


def test_a_free_saturated_weight_can_pay_for_another() -> None:
    # Errors count 1 and 2 fold. The first weight is above the grid: fixed it is short
    # by 0.1, which leaves -0.1 - 0.9 or -0.1 + 1.1; free it may be short by 1.1.
    problem = RoundingProblem(
        weight=np.array([[1.1, 0.45]]),
        scale=np.array(1.0),
        lo=np.array(-2),
        hi=np.array(1),
        moment=np.outer([1, 2], [1, 2]),
    )
    states = np.array([[[0, 0], [0, 1], [1, 0], [1, 1]]], np.uint8)
    (fixed,) = problem.to_qubos()
    lowest, highest = fixed.levels
    np.testing.assert_array_equal(lowest + problem.base, problem.lo + 0 * lowest)
    np.testing.assert_array_equal(highest + problem.base, problem.hi + 0 * highest)
    (free,) = replace(problem, saturated="free").to_qubos()
    expected = [[4.0, 0.0, 1.0, 1.0]]
    np.testing.assert_allclose(free.energies(states), expected, atol=1e-12)
    np.testing.assert_array_equal(fixed.fixed, [[1, -1]])
    np.testing.assert_allclose(fixed.energies(states), free.energies(states))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_save_and_load(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(5)
    problem = RoundingProblem.from_hessian(
        random_weight(rng, 3, 4),
        Grid(bits=3, symmetric=False, granularity="group", group_size=2),
        random_moment(rng, 4, blocks=3),
        rng.standard_normal((3, 4)),
        meta={"layer": "net.conv"},
    )
    path = tmp_path / f"problem{suffix}"
    problem.save(path)
    again = RoundingProblem.load(path)
    assert again.digest == problem.digest
    assert again.meta == {"bits": 3, "layer": "net.conv"}
    states = rng.integers(0, 2, (3, 4), dtype=np.uint8)
    np.testing.assert_array_equal(again.local_mse(states), problem.local_mse(states))
    assert list(tmp_path.iterdir()) == [path]
    assert RoundingProblem.load(path, saturated="free").saturated == "free"


def test_load_takes_the_plain_fields(tmp_path: Path) -> None:
    path = tmp_path / "plain.npz"
    np.savez(
        path,
        weight=np.array([[0.3, -0.8]], np.float32),
        second_moment=np.eye(2),
        scale=0.1,
        bits=4,
    )
    problem = RoundingProblem.load(path)
    assert (int(problem.lo), int(problem.hi)) == (-8, 7)
    assert problem.scale.shape == (1, 1)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    problem = RoundingProblem.on_grid([[0.3, -0.8]], Grid(), np.eye(2))
    path = tmp_path / "problem.npz"
    problem.save(path)
    with np.load(path) as file:
        fields = dict(file)
    fields["weight"] = fields["weight"] + 1e-3
    np.savez(path, **fields)
    with pytest.raises(InputError, match="do not match its digest"):
        RoundingProblem.load(path)
    del fields["second_moment"]
    np.savez(path, **fields)
    with pytest.raises(InputError, match="no 'second_moment'"):
        RoundingProblem.load(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"problem\.npz is not an \.npz file"):
        RoundingProblem.load(path)
    with pytest.raises(InputError, match="does not exist"):
        RoundingProblem.load(tmp_path / "missing.npz")
    with pytest.raises(InputError, match=r"ends in \.npz or \.safetensors"):
        problem.save(tmp_path / "problem.txt")
    with pytest.raises(InputError, match="cannot write"):
        problem.save(tmp_path / "no" / "problem.npz")


GOOD = {
    "weight": np.ones((2, 3)),
    "scale": np.ones((2, 1)),
    "lo": np.array(-8),
    "hi": np.array(7),
    "moment": np.eye(3),
}
ASYMMETRIC = np.eye(3) + np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weight", np.full((2, 3), np.nan), r"weight\[0, 0\] is nan"),
        ("weight", np.ones((0, 3)), "non-empty"),
        ("weight", np.ones(3), "non-empty"),
        ("scale", np.ones((3, 1)), r"scale must have shape \(2, 1\) or \(2, 3\)"),
        ("scale", np.zeros((2, 1)), "scale must be positive"),
        ("lo", np.zeros((5, 5)), r"lo of shape \(5, 5\) does not fit"),
        ("hi", np.array(-8), "lo must be below hi"),
        ("moment", np.eye(4), r"moment must have shape \(3, 3\)"),
        ("moment", np.ones((3, 3, 3)), "G dividing the 2 rows"),
        ("moment", np.diag([1, np.inf, 1]), r"moment\[1, 1\] is inf"),
        ("moment", ASYMMETRIC, "moment is not symmetric"),
        ("moment", np.diag([1.0, -0.1, 1.0]), "negative eigenvalue, -0.1"),
        ("gradient", np.ones((2, 2)), r"gradient must have shape \(2, 3\)"),
        ("constant", np.ones(3), r"constant must have shape \(2,\)"),
        ("saturated", "maybe", "saturated must be fixed or free"),
    ],
)
def test_bad_fields_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RoundingProblem(**(GOOD | {field: value}))


def test_a_singular_moment_with_rounding_noise_is_taken() -> None:
    x = np.random.default_rng(6).standard_normal((40, 3)).astype(np.float32)
    noisy = (x @ x.T).astype(np.float64)
    assert np.linalg.eigvalsh(noisy)[0] < 0
    RoundingProblem(**(GOOD | {"weight": np.ones((2, 40)), "moment": noisy})).to_qubos()


def test_states_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"states must have shape \(2, 3\)"):
        RoundingProblem(**GOOD).decode(np.zeros((3, 2)))


def test_the_published_problem(real_data: Path) -> None:
    """ResNet18's first layer, whose nearest rounding was measured independently."""
    problem = RoundingProblem.load(real_data / "problems" / "resnet18.conv1.npz")
    assert (problem.rows, problem.n) == (64, 147)
    assert problem.local_mse(problem.nearest()).sum() == pytest.approx(
        1.65505, rel=1e-5
    )
    (qubo,) = problem.to_qubos()
    np.testing.assert_allclose(
        qubo.energies(problem.nearest()),
        problem.local_mse(problem.nearest()),
        rtol=1e-9,
        atol=1e-12,  # some rows are all but zero
    )
