"""Libraries of short vectors against brute force."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.kernels.moves import depths, partition
from solvers.lattice.moves import (
    DEAD,
    KINDS,
    Vectors,
    flatness,
    short_vectors,
    strongest_pairs,
)
from solvers.testing import example_batch

DTYPES = (np.float64, np.float32)


def gram(n: int, seed: int = 0, inner: int = 3) -> np.ndarray:
    """A definite H whose inputs are correlated, and of different variance."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(4 * n, n)) + 2 * rng.normal(size=(4 * n, inner)) @ rng.normal(
        size=(inner, n)
    )
    X *= rng.uniform(0.3, 2, n)
    return X.T @ X / len(X)


def dense(vectors: Vectors, n: int) -> np.ndarray:
    """The vectors as dense rows [m, n]."""
    V = np.zeros((len(vectors), n))
    for row, which, sign in zip(V, vectors.which, vectors.sign, strict=True):
        used = which >= 0
        assert (sign[~used] == 0).all()
        np.add.at(row, which[used], sign[used])
    return V


def keys(vectors: Vectors, n: int) -> list[tuple[int, ...]]:
    """Keys of the vectors; a vector and its negative have the same key."""
    V = dense(vectors, n).astype(int)
    return [max(tuple(v), tuple(-v)) for v in V]


def every(n: int, size: int) -> np.ndarray:
    """All vectors [m, n] with the given number of entries, each or its negative."""
    rows = []
    for variables in combinations(range(n), size):
        for signs in product((1, -1), repeat=size - 1):
            v = np.zeros(n)
            v[list(variables)] = (1, *signs)
            rows.append(v)
    return np.array(rows)


def lengths(H: np.ndarray, V: np.ndarray) -> np.ndarray:
    return ((V @ H.astype(np.float64)) * V).sum(axis=1)


def in_two_short_parts(H: np.ndarray, v: np.ndarray) -> bool:
    """Whether a triple or quad is a pair beside a single or another such pair."""
    i = np.flatnonzero(v)
    bound = (H * np.outer(v, v))[np.ix_(i, i)] < 0
    if len(i) == 3:
        return bool(bound[np.triu_indices(3, 1)].any())
    halves = (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))
    return any(bound[one] and bound[other] for one, other in halves)


def check(H: np.ndarray, library: list[Vectors], most: int) -> None:
    """Check what must hold of any library."""
    n, sizes = len(H), ((1, 1), (2, 2), (3, 4), (5, 8))
    assert sum(map(len, library[1:])) <= most
    # float32 sums of entries as large as the diagonal.
    noise = 1e-12 if H.dtype == np.float64 else 1e-5
    noise *= np.abs(H.astype(float)).max(initial=0)
    seen: list[tuple[int, ...]] = []
    for part, (low, high) in zip(library, sizes, strict=True):
        V = dense(part, n)
        assert np.isin(V, (-1, 0, 1)).all()
        count = (part.which >= 0).sum(axis=1)
        # Supports without repetition, unused places last.
        np.testing.assert_array_equal((V != 0).sum(axis=1), count)
        assert ((count >= low) & (count <= high)).all()
        assert (np.diff(part.which < 0, axis=1) >= 0).all()
        np.testing.assert_allclose(part.length, lengths(H, V), atol=noise, rtol=1e-6)
        if low > 1:
            assert (np.diff(part.length) >= 0).all()
        seen += keys(part, n)
    assert len(set(seen)) == len(seen)


class TestLibrary:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("n", [2, 3, 5, 9, 40])
    def test_longer(self, n, dtype):
        H = gram(n).astype(dtype)
        library = short_vectors(H, "longer", 900)
        check(H, library, 900)
        assert len(library[0]) == n
        assert len(library[1]) == min(n * (n - 1) // 2, 300)
        assert (len(library[2]) > 0) == (n > 2)
        assert (len(library[3]) > 0) == (n > 4)

    @given(st.integers(2, 12), st.integers(0, 10**6), st.integers(1, 200))
    @settings(max_examples=30, deadline=None)
    def test_any(self, n, seed, most):
        H = gram(n, seed)
        for kinds in KINDS:
            check(H, short_vectors(H, kinds, most), most)

    def test_kinds_say_what_there_is(self):
        H = gram(12)
        for k, kinds in enumerate(KINDS):
            sizes = [len(part) for part in short_vectors(H, kinds, 300)]
            assert all(sizes[: k + 1])
            assert not any(sizes[k + 1 :])
            if k:
                assert sum(sizes[1:]) <= 300

    @pytest.mark.parametrize("n", [4, 7, 10])
    @pytest.mark.parametrize("seed", range(4))
    def test_the_shortest_pair_comes_first(self, n, seed):
        H = gram(n, seed)
        V = every(n, 2)
        best = V[lengths(H, V).argmin()]
        for most in (4, 40):
            pairs = short_vectors(H, "quads", most)[1]
            assert keys(pairs, n)[0] == max(tuple(best), tuple(-best))

    @pytest.mark.parametrize("n", [4, 7, 10])
    def test_of_every_pair_the_shorter_sign(self, n):
        H = gram(n)
        pairs = short_vectors(H, "pairs", 10**4)[1]
        assert len(pairs) == n * (n - 1) // 2
        V = every(n, 2)
        shorter = np.minimum(*lengths(H, V).reshape(-1, 2).T)
        np.testing.assert_allclose(pairs.length, np.sort(shorter), rtol=1e-9)

    @pytest.mark.parametrize("n", [5, 8, 10])
    @pytest.mark.parametrize("seed", range(6))
    def test_shortest_triple_and_quad(self, n, seed):
        """A quad must fall into two pairs that are shorter than with other signs."""
        H = gram(n, seed)
        found = set(keys(short_vectors(H, "quads", 10**5)[2], n))
        for size in (3, 4):
            V = every(n, size)
            V = V[[in_two_short_parts(H, v) for v in V]]
            best = V[lengths(H, V).argmin()].astype(int)
            assert max(tuple(best), tuple(-best)) in found

    def test_a_quad_of_one_against_three(self):
        """The first input is nearly the sum of three that are like each other."""
        rng = np.random.default_rng(0)
        X = rng.normal(size=(4000, 3)) + 0.5 * rng.normal(size=(4000, 1))
        X = np.column_stack([X.sum(axis=1) + 0.01 * rng.normal(size=4000), X])
        quads = short_vectors(X.T @ X / len(X), "quads", 1000)[2]
        assert (1, -1, -1, -1) in keys(quads, 4)

    def test_deterministic(self):
        H = gram(30)
        one, other = (short_vectors(H, "longer", 500) for _ in range(2))
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a.which, b.which)
            np.testing.assert_array_equal(a.sign, b.sign)
            np.testing.assert_array_equal(a.length, b.length)


class TestDeadInputs:
    @pytest.mark.parametrize("kinds", ["pairs", "quads", "longer"])
    @pytest.mark.parametrize("weak", [0.0, 0.01 * DEAD, 0.4 * DEAD])
    def test_take_no_part(self, kinds, weak):
        """A nearly dead input has only a single; one without couplings has none."""
        n, dead = 12, [0, 5, 11]
        H = gram(n)
        size = np.ones(n)
        size[dead] = np.sqrt(weak * H.diagonal().mean() / H.diagonal()[dead])
        H *= np.outer(size, size)
        assert (H.diagonal()[dead] <= DEAD * H.diagonal().mean()).all()
        library = short_vectors(H, kinds, 500)
        check(H, library, 500)
        alive = np.setdiff1d(np.arange(n), dead)
        expected = np.arange(n) if weak else alive
        np.testing.assert_array_equal(library[0].which[:, 0], expected)
        for part in library[1:]:
            assert np.isin(part.which, [-1, *alive]).all()
        assert len(library[1])

    def test_all_but_one(self):
        H = np.diag([1.0, 0.0, 0.0])
        assert [len(part) for part in short_vectors(H)] == [1, 0, 0, 0]


class TestSpread:
    @pytest.mark.parametrize(
        ("H", "kinds"),
        [
            (example_batch(1, 60).H, "longer"),
            (gram(60), "pairs"),
            (gram(60), "quads"),
            (gram(60), "longer"),
        ],
    )
    def test_every_live_variable_has_moves(self, H, kinds):
        """This holds even if some inputs are much weaker than others."""
        assert (H.diagonal() > DEAD * H.diagonal().mean()).all()
        for part in short_vectors(H, kinds, 60 * 60)[1 : KINDS.index(kinds) + 1]:
            moves = np.bincount(part.which[part.which >= 0], minlength=60)
            assert moves.min() >= 1

    def test_shortest_of_each_variable(self):
        """Depths are compared with their definition."""
        vectors = short_vectors(gram(9), "pairs", 10**4)[1]
        earlier = np.zeros(9, int)
        depth = []
        for which in vectors.which:
            depth.append(earlier[which].min())
            earlier[which] += 1
        found = np.empty(len(vectors), np.int64)
        depths(vectors.which, 9, found)
        np.testing.assert_array_equal(found, depth)
        for count in (1, 9, 20):
            chosen = np.sort(np.argsort(depth, kind="stable")[:count])
            spread = vectors.spread_out(count)
            np.testing.assert_array_equal(spread.which, vectors.which[chosen])

    def test_shortest(self):
        which = np.array([[0, 1], [1, 2], [0, 1], [2, -1]], np.int32)
        sign = np.array([[1, -1], [1, 1], [-1, 1], [1, 0]], np.int8)
        length = np.array([3.0, 1.0, 3.0, 2.0])
        vectors = Vectors(which, sign, length)
        assert vectors.shortest().length.tolist() == [1, 2, 3]
        assert vectors.shortest(2).length.tolist() == [1, 2]
        assert len(vectors.take([]).shortest()) == 0

    def test_join_keeps_the_order(self):
        singles, pairs, quads, _ = short_vectors(gram(6), "quads", 40)
        joined = Vectors.join(singles, pairs, quads)
        expected = keys(singles, 6) + keys(pairs, 6) + keys(quads, 6)
        assert keys(joined, 6) == expected


class TestOtherMatrices:
    def test_indefinite(self):
        H = example_batch(1, 30, definite=False).H
        for kinds in KINDS:
            singles, pairs, *more = library = short_vectors(H, kinds, 100)
            check(H, [singles, pairs.shortest(), *more], 100)
            assert [len(part) for part in library] == [
                *(30, 0 if kinds == "singles" else 100),
                *(0, 0),
            ]
        size = np.sort(np.abs(H[np.triu_indices(30, 1)]))[::-1]
        i, j = pairs.which.T
        np.testing.assert_allclose(np.abs(H[i, j]), size[:100])
        V = dense(pairs, 30)
        np.testing.assert_allclose(pairs.length, lengths(H, V), atol=1e-12)

    def test_strongest_pairs_leave_out_what_is_not_coupled(self):
        H = np.zeros((4, 4))
        H[0, 3] = H[3, 0] = -2.0
        pairs = strongest_pairs(H, 10)
        assert pairs.which.tolist() == [[0, 3]]
        assert pairs.sign.tolist() == [[1, 1]]
        assert pairs.length.tolist() == [-4.0]

    @pytest.mark.parametrize("kinds", KINDS)
    @pytest.mark.parametrize("n", [0, 1, 2, 3])
    def test_tiny_and_zero(self, n, kinds, recwarn):
        zero = short_vectors(np.zeros((n, n)), kinds, 10)
        assert [len(part) for part in zero] == [0] * 4
        library = short_vectors(np.eye(n) + 0.5, kinds, 10)
        check(np.eye(n) + 0.5, library, 10)
        assert len(library[0]) == n
        pairs = 0 if kinds == "singles" else n * (n - 1) // 2
        assert len(library[1]) == pairs
        assert not len(recwarn)

    @pytest.mark.parametrize("most", [1, 2, 3])
    def test_hardly_any(self, most):
        for kinds in KINDS:
            check(gram(9), short_vectors(gram(9), kinds, most), most)

    def test_no_coupling(self):
        """All pairs are equally long, and every variable is in one at least."""
        library = short_vectors(np.eye(50), "quads", 400)
        check(np.eye(50), library, 400)
        for part in library[1:3]:
            assert np.bincount(part.which[part.which >= 0], minlength=50).min() > 0


class TestFlatness:
    @pytest.mark.parametrize("n", [1, 2, 30])
    @pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
    def test_of_the_identity(self, n, size):
        assert flatness(size * np.eye(n)) == pytest.approx(1, abs=1e-5)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_is_the_geometric_mean_of_the_spectrum(self, dtype):
        H = gram(20)
        spectrum = np.linalg.eigvalsh(H) / H.diagonal().mean()
        expected = np.exp(np.log(spectrum + 0.02).mean()) / 1.02
        assert flatness(H.astype(dtype)) == pytest.approx(expected, rel=1e-3)

    @given(st.integers(1, 15), st.integers(0, 10**6))
    @settings(max_examples=30, deadline=None)
    def test_within_bounds(self, n, seed):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(rng.integers(1, 2 * n + 1), n))
        X *= np.exp(rng.normal(size=n))
        flat = flatness(X.T @ X)
        assert flat is not None
        assert 0 < flat <= 1

    def test_correlated_inputs_are_less_flat(self):
        X = np.random.default_rng(0).normal(size=(200, 30))
        flat = [flatness(X.T @ X + c * 200) for c in (0, 1, 10, 100)]
        assert flat == sorted(flat, reverse=True)

    @pytest.mark.parametrize(
        "H", [example_batch(1, 9, definite=False).H, np.zeros((3, 3)), -np.eye(2)]
    )
    def test_none_where_it_says_nothing(self, H):
        assert flatness(H) is None


class TestPartition:
    @pytest.mark.parametrize("most", [8, 12, 30])
    def test_blocks_hold_few_variables(self, most):
        library = Vectors.join(*short_vectors(gram(40), "longer", 600))
        rng = np.random.default_rng(0)
        order = rng.permutation(len(library))
        block = np.full(len(library), -1)
        count = partition(library.which, order, most, 40, block)
        assert sorted(set(block)) == list(range(count))
        # In the order given, and no two neighbours would fit into one.
        assert (np.diff(block[order]) >= 0).all()
        sizes = []
        for g in range(count):
            variables = np.unique(library.which[block == g])
            sizes.append((variables >= 0).sum())
        assert max(sizes) <= most
        assert all(size > most - 8 for size in sizes[:-1])
