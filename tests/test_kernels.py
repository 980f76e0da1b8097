"""The kernels against plain numpy."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest

from solvers.kernels import compile as compiling
from solvers.kernels import flips, streams
from solvers.qubo import QuboBatch
from solvers.testing import brute_force, example_batch, reference_energies
from solvers.threads import over_rows
from solvers.walk import Walk
from tests.cases import DTYPES, SIZES, flip_costs, make, rounding, some_states

pytestmark = pytest.mark.arithmetic


def anneal(
    qubo: QuboBatch,
    states: np.ndarray,
    beta: np.ndarray,
    seed: int = 0,
    dtype: type = np.float64,
) -> tuple[Walk, np.ndarray, np.ndarray]:
    """The walk after the sweeps, the best states, and the energies kept for them."""
    walk = Walk.at(qubo, states, dtype=dtype)
    best, best_energy = walk.z.copy(), walk.energy.copy()
    rng = np.random.default_rng(seed).integers(0, 2**64, qubo.rows, np.uint64)
    beta = np.ascontiguousarray(np.broadcast_to(beta, (qubo.rows, len(beta))), float)
    state = (walk.z, walk.u, walk.q, walk.energy, best, best_energy)
    flips.anneal(walk.H, *state, beta, rng, walk.flips)
    return walk, (best[:, : qubo.n] < 0).astype(np.uint8), best_energy


class TestRandom:
    def test_splitmix64(self):
        """The first numbers of stream 0, in Python's unbounded integers."""

        def twin(x: int) -> float:
            mask = 2**64 - 1
            x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
            x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
            return ((x ^ (x >> 31)) >> 11) / 2**53

        rng = np.array([0, 2**64 - 5], np.uint64)
        for k in range(1, 20):
            for r, start in enumerate((0, 2**64 - 5)):
                expected = twin((start + k * 0x9E3779B97F4A7C15) % 2**64)
                assert streams.next_uniform(rng, r) == expected

    def test_uniform(self):
        rng = np.array([12345], np.uint64)
        draws = np.array([streams.next_uniform(rng, 0) for _ in range(40000)])
        assert draws.min() >= 0
        assert draws.max() < 1
        sigma = 1 / np.sqrt(12 * len(draws))
        assert abs(draws.mean() - 0.5) < 5 * sigma
        assert draws.var() == pytest.approx(1 / 12, rel=0.03)
        counts = np.histogram(draws, 20, (0, 1))[0]
        assert ((counts - 2000) ** 2 / 2000).sum() < 60  # 19 degrees of freedom
        assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 5 / np.sqrt(len(draws))

    def test_streams_differ(self):
        rng = np.array([1, 2, 3], np.uint64)
        p = np.full((3, 2000), 0.5)
        samples = np.empty((3, 1, 2000), np.uint8)
        streams.bernoulli(p, rng, samples)
        agreement = (samples[:, None, 0] == samples[None, :, 0]).mean(axis=2)
        assert np.abs(agreement - 0.5)[~np.eye(3, dtype=bool)].max() < 5 * 0.5 / 44
        assert (rng != [1, 2, 3]).all()

    def test_bernoulli(self):
        p = np.tile([0.0, 0.1, 0.5, 0.9, 1.0], (2, 1))
        samples = np.empty((2, 20000, 5), np.uint8)
        streams.bernoulli(p, np.array([5, 6], np.uint64), samples)
        means = samples.mean(axis=1)
        assert (means[:, 0] == 0).all()
        assert (means[:, 4] == 1).all()
        np.testing.assert_allclose(means, p, atol=5 * 0.5 / np.sqrt(20000))


class TestEnergies:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("n", SIZES)
    def test_energies(self, n, dtype):
        qubo = make(3, n, seed=n, dtype=dtype)
        # 131: more states than the kernel takes at a time, no multiple of a tile.
        for count in (1, 2, 6, 131):
            rng = np.random.default_rng(count)
            states = rng.integers(0, 2, (3, count, n), np.uint8)
            expected = reference_energies(qubo, states)
            found = qubo.energies(states)
            atol = 1e-12 * np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=atol)
            # A state's energy cannot depend on its neighbours in the batch.
            alone = qubo.energies(states[:, count - 1])
            np.testing.assert_array_equal(found[:, -1], alone)

    @pytest.mark.parametrize("threads", [1, 2, 5])
    def test_threads_change_no_bit(self, threads):
        qubo = example_batch(3, 33)
        rng = np.random.default_rng(0)
        states = rng.integers(0, 2, (3, 9, 33), np.uint8)
        found = qubo.energies(states, threads)
        np.testing.assert_array_equal(found, qubo.energies(states))


class TestAnneal:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("n", SIZES)
    def test_bookkeeping(self, n, dtype):
        """Carried fields and energies are those of the states reached."""
        qubo = make(5, n, seed=n, dtype=dtype)
        start = some_states(qubo)
        beta = np.geomspace(0.05, 2, 20) / np.median(np.abs(flip_costs(qubo, start)))
        walk, best, best_energy = anneal(qubo, start, beta, dtype=dtype)
        reached = walk.states()
        size = np.abs(qubo.H).sum() * 4 + np.abs(qubo.linear).sum()
        tolerance = size * (1e-5 if dtype == np.float32 else 1e-12)
        exact = reference_energies(qubo, reached)
        np.testing.assert_allclose(walk.energy, exact, rtol=0, atol=tolerance)
        held = reference_energies(qubo, best)
        np.testing.assert_allclose(best_energy, held, rtol=0, atol=tolerance)
        fresh = Walk.at(qubo, reached, dtype=dtype)
        np.testing.assert_allclose(walk.u, fresh.u, rtol=0, atol=tolerance)
        np.testing.assert_array_equal(walk.z, fresh.z)
        assert (best_energy <= walk.energy).all()
        assert (best_energy <= reference_energies(qubo, start) + tolerance).all()
        free = (qubo.fixed < 0).any(axis=1)
        assert (walk.flips[free] > 0).all()

    def test_matches_a_plain_metropolis_twin(self):
        """Flip by flip: the same draws, whole energies instead of fields."""
        qubo = make(3, 70, seed=3)
        start = some_states(qubo)
        beta = np.geomspace(0.05, 5, 8) / np.median(np.abs(flip_costs(qubo, start)))
        walk, best, _ = anneal(qubo, start, beta, seed=9)
        rng = np.random.default_rng(9).integers(0, 2**64, 3, np.uint64)
        width = walk.z.shape[1]
        held, lowest = start.copy(), reference_energies(qubo, start)
        x, flips = start.copy(), np.zeros(3, int)
        for b in beta:
            for r in range(3):
                row = qubo.take([r])
                for i in range(width):
                    draw = streams.next_uniform(rng, r)
                    if i >= qubo.n or qubo.fixed[r, i] >= 0:
                        continue
                    other = x[[r]].copy()
                    other[0, i] ^= 1
                    cost = np.diff(
                        reference_energies(row, np.stack([x[[r]], other], axis=1))
                    )[0, 0]
                    if draw < np.exp(-b * min(max(cost, 0), 700 / b)):
                        x[r], flips[r] = other, flips[r] + 1
            energy = reference_energies(qubo, x)
            held = np.where((energy < lowest)[:, None], x, held)
            lowest = np.minimum(energy, lowest)
        np.testing.assert_array_equal(walk.states(), x)
        np.testing.assert_array_equal(walk.flips, flips)
        np.testing.assert_array_equal(best, held)

    @pytest.mark.parametrize("beta", [1e-300, 1e-3, 1.0, 1e300])
    def test_pinned_and_padding_never_flip(self, beta):
        qubo = make(4, 33)
        start = some_states(qubo)
        before = Walk.at(qubo, start)
        walk, best, _ = anneal(qubo, start, np.full(10, beta))
        still = np.isinf(before.q)
        np.testing.assert_array_equal(walk.z[still], before.z[still])
        np.testing.assert_array_equal(qubo.pin(best), best)
        assert np.isfinite(walk.energy).all()

    def test_rows_in_slices(self):
        """More rows than a tile: any cut gives the same answer."""
        qubo = make(37, 33)
        start = some_states(qubo)
        beta = np.geomspace(0.01, 1, 10)
        whole, _, _ = anneal(qubo, start, beta)
        rng = np.random.default_rng(0).integers(0, 2**64, 37, np.uint64)
        betas = np.ascontiguousarray(np.broadcast_to(beta, (37, 10)))
        walk = Walk.at(qubo, start)
        best, best_energy = walk.z.copy(), walk.energy.copy()
        state = (walk.z, walk.u, walk.q, walk.energy, best, best_energy)
        over_rows(flips.anneal, (walk.H,), (*state, betas, rng, walk.flips), 5)
        np.testing.assert_array_equal(walk.z, whole.z)
        np.testing.assert_array_equal(walk.energy, whole.energy)

    @pytest.mark.parametrize("beta", [1e12, np.inf])
    def test_frozen_never_climbs(self, beta):
        qubo = make(6, 65)
        states = some_states(qubo)
        energy = reference_energies(qubo, states)
        for seed in range(5):
            walk, _, _ = anneal(qubo, states, np.array([beta]), seed)
            after = reference_energies(qubo, walk.states())
            assert (after <= energy + rounding(qubo)).all()
            states, energy = walk.states(), after

    @pytest.mark.parametrize("beta", [5.0, 1e12, np.inf])
    def test_downhill_is_always_taken(self, beta):
        """However steep: independent variables all fall in one sweep."""
        qubo = QuboBatch.from_matrix(np.diag(-np.geomspace(0.5, 1e6, 40)))
        walk, _, _ = anneal(qubo, np.zeros((1, 40), np.uint8), np.array([beta]))
        np.testing.assert_array_equal(walk.states(), 1)
        assert walk.flips == 40
        # The steep one alone in its block.
        qubo = QuboBatch.from_matrix([[-50.0]])
        walk, _, _ = anneal(qubo, np.zeros((1, 1), np.uint8), np.array([beta]))
        np.testing.assert_array_equal(walk.states(), 1)

    def test_everything_flips_at_infinite_temperature(self):
        qubo = make(3, 33)
        start = some_states(qubo)
        walk, _, _ = anneal(qubo, start, np.array([0.0]))
        np.testing.assert_array_equal(walk.states(), qubo.pin(1 - start))
        np.testing.assert_array_equal(walk.flips, (qubo.fixed < 0).sum(axis=1))
        assert np.isfinite(walk.energy).all()

    @pytest.mark.parametrize("beta", [1.0, 2.5])
    def test_samples_boltzmann(self, beta):
        rng = np.random.default_rng(2)
        A = rng.normal(size=(3, 3))
        one = QuboBatch.from_matrix(A + A.T, rng.normal(size=3))
        rows = 20000
        qubo = one.take(np.zeros(rows, int))
        # The rows are independent chains, so the counts are multinomial.
        walk, _, _ = anneal(qubo, some_states(qubo), np.full(60, beta), seed=4)
        every = (np.arange(8)[:, None] >> np.arange(3) & 1).astype(np.uint8)
        weights = np.exp(-beta * reference_energies(one, every[None])[0])
        p = weights / weights.sum()
        counts = np.bincount(walk.states() @ [1, 2, 4], minlength=8)
        assert (np.abs(counts - rows * p) < 5 * np.sqrt(rows * p * (1 - p)) + 1).all()
        expected = rows * p[p * rows > 5]
        chi = ((counts[p * rows > 5] - expected) ** 2 / expected).sum()
        assert chi < 40  # at most 7 degrees of freedom

    def test_cools_to_the_optimum(self):
        qubo = make(6, 10, seed=2)
        beta = np.geomspace(0.05, 50, 400)
        _, best, _ = anneal(qubo, some_states(qubo), beta)
        _, lowest = brute_force(qubo)
        np.testing.assert_allclose(reference_energies(qubo, best), lowest, atol=1e-9)


class TestCache:
    """Compiled kernels of several files are never older than any of the files."""

    kernel = "from package.compile import jit\n{}\n@jit\ndef {}(x):\n    return {}\n"

    def test_a_changed_callee_in_another_file_counts(self, tmp_path, monkeypatch):
        monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
        package = tmp_path / "package"
        package.mkdir()
        (package / "__init__.py").touch()
        shutil.copy(compiling.__file__, package)
        use = "from package.callee import inner"
        caller = self.kernel.format(use, "outer", "inner(x)")
        (package / "caller.py").write_text(caller)

        def answer(inner: str) -> float:
            (package / "callee.py").write_text(self.kernel.format("", "inner", inner))
            code = "from package.caller import outer; print(outer(2.0))"
            command = [sys.executable, "-B", "-c", code]
            return float(subprocess.check_output(command, cwd=tmp_path))

        assert answer("x + 1.0") == 3.0
        kept = list((package / "__pycache__").glob("kernels-*/**/*.nbc"))
        assert {path.name.split("-")[0] for path in kept} >= {"caller.outer"}
        assert answer("x + 5.0") == 7.0

    def test_where_the_package_cannot_be_written_to(self, monkeypatch, tmp_path):
        monkeypatch.setattr(compiling.config, "CACHE_DIR", "")
        monkeypatch.setattr(compiling, "HERE", tmp_path / "file" / "kernels")
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
        folder = compiling.cache_folder()
        assert folder.parent == tmp_path / "user" / "qubo-rounding"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "user"))
        assert compiling.cache_folder() is None
