"""Libraries of moves along short vectors of the lattice with Gram matrix H.

At a good rounding every single flip costs more than the whole error that is left, but
many combinations hardly change the layer's output: those v with entries -1, 0 and 1 for
which ``v^T H v`` is small, the short vectors of the lattice whose Gram matrix is H. A
library holds the shortest ones found: pairs, then sums and differences of vectors found
before, as in a lattice sieve (Ajtai, Kumar, Sivakumar 2001; Micciancio, Voulgaris 2010)
that is restricted to vectors which a rounding can use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from solvers.kernels import moves as kernels
from solvers.qubo import Float
from solvers.threads import one_blas_thread, over_rows

# Inputs with less than this share of the mean variance are as good as dead: they and
# their combinations would be the shortest vectors of all, and change nothing.
DEAD = 1e-3
# Least number of pairs to choose from.
PAIRS = 600_000
# Number of vectors whose sums and differences are looked at: in all at least, and per
# variable.
SEEDS, SEEDS_EACH = 1000, 4
# Sums to choose from, as a multiple of those that are taken; sums of two pairs are
# found up to six times.
MORE = 3
# Number of variables from whose pairs the length of the shortest ones is estimated.
SAMPLE = 64
# Added to the diagonal to judge the spectrum, as a share of the diagonal's mean.
DAMPING = 0.02
# Above this flatness pairs do better than longer moves.
FLAT = 0.15
# Seconds to build a library, per variable and per pair of them; rough measurements.
BUILD_SECONDS = {
    "singles": (0.0, 0.0),
    "pairs": (4e-5, 4e-8),
    "quads": (6e-5, 1e-7),
    "longer": (1.5e-4, 1.4e-7),
}
KINDS = tuple(BUILD_SECONDS)


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors with entries -1, 0 and 1.

    Attributes
    ----------
    which : int32 [m, width]
        The variables of each vector, padded with -1 at the end.
    sign : int8 [m, width]
        The vector's entries at these variables, padded with 0.
    length : float64 [m]
        The values of ``v^T H v``.
    """

    which: NDArray[np.int32]
    sign: NDArray[np.int8]
    length: Float

    def __len__(self) -> int:
        return len(self.length)

    def take(self, rows: Any) -> Vectors:
        """The vectors with the given indices."""
        return Vectors(self.which[rows], self.sign[rows], self.length[rows])

    def matrix(self, n: int) -> scipy.sparse.csr_array:
        """The vectors as the rows of a sparse matrix [m, n]."""
        real = self.which >= 0
        ends = np.concatenate([[0], np.cumsum(real.sum(axis=1))])
        entries = self.sign[real].astype(np.float64)
        return scipy.sparse.csr_array(
            (entries, self.which[real], ends), shape=(len(self), n)
        )

    def shortest(self, count: int | None = None) -> Vectors:
        """The `count` shortest vectors (default: all) by length, without duplicates."""
        keys = np.random.default_rng(0).integers(
            1, 2**63, self.which.max(initial=0) + 2
        )
        # The key of -v is minus that of v, and 0 stands for no variable.
        key = (np.where(self.which < 0, 0, keys[self.which]) * self.sign).sum(axis=1)
        _, first = np.unique(np.abs(key), return_index=True)
        return self.take(first[np.argsort(self.length[first])][:count])

    def spread_out(self, count: int) -> Vectors:
        """`count` vectors among the shortest of every variable, in order of length.

        The shortest vectors of all would crowd about a few weak inputs and leave the
        other variables without moves.
        """
        depth = np.empty(len(self), np.int64)
        kernels.depths(self.which, self.which.max(initial=0) + 1, depth)
        return self.take(np.sort(np.argsort(depth, kind="stable")[:count]))

    @classmethod
    def join(cls, *parts: Vectors) -> Vectors:
        """The vectors of all parts, in order."""
        width = max(part.which.shape[1] for part in parts)

        def padded(array: NDArray[Any], value: int) -> NDArray[Any]:
            more = width - array.shape[1]
            return np.pad(array, ((0, 0), (0, more)), constant_values=value)

        return cls(
            np.concatenate([padded(part.which, -1) for part in parts]),
            np.concatenate([padded(part.sign, 0) for part in parts]),
            np.concatenate([part.length for part in parts]),
        )


def short_vectors(
    H: NDArray[np.floating[Any]],
    kinds: str = "quads",
    most: int = 20_000,
    threads: int = 1,
) -> list[Vectors]:
    """A library: singles, pairs, moves of 3 or 4 variables and moves of 5 to 8.

    Parameters
    ----------
    H : [n, n]
        If it is indefinite, lengths mean nothing: the pairs are then those with the
        strongest couplings, and there are no longer moves.
    kinds
        The last of `KINDS` to include; the parts of later kinds are empty.
    most
        Largest number of moves in all, not counting the singles.
    threads
        Number of threads; it does not change the library.
    """
    diagonal = H.diagonal().astype(np.float64)
    # A variable that is coupled to nothing is decided by its linear term, not by a
    # search.
    single = np.flatnonzero([row.any() for row in H])
    singles = Vectors(
        single[:, None].astype(np.int32),
        np.ones((len(single), 1), np.int8),
        diagonal[single],
    )
    none = Vectors(np.empty((0, 2), np.int32), np.empty((0, 2), np.int8), np.empty(0))
    if kinds == "singles" or len(single) < 2:
        return [singles, none, none, none]
    if flatness(H) is None:
        return [singles, strongest_pairs(H, most), none, none]
    live = diagonal > DEAD * diagonal.mean()
    all_pairs = _pairs(H, live, max(PAIRS, most))
    part = most // (KINDS.index(kinds) or 1)
    library = [singles, all_pairs.spread_out(part), none, none]
    if kinds != "pairs":
        alone = singles.take(live[single])
        seeds = _seeds(H, all_pairs, max(SEEDS, SEEDS_EACH * len(H)))
        quads = Vectors.join(
            _sums(H, alone, seeds, part, threads),
            _sums(H, seeds, seeds, MORE * part, threads),
        ).shortest()
        library[2] = quads.spread_out(part)
    if kinds == "longer":
        seeds, more = all_pairs.spread_out(SEEDS), quads.spread_out(SEEDS)
        longer = Vectors.join(
            _sums(H, more, seeds, MORE * part, threads),
            _sums(H, more, more, MORE * part, threads),
        )
        longer = longer.take((longer.which >= 0).sum(axis=1) > 4)
        library[3] = longer.shortest().spread_out(part)
    return library


def build_seconds(kinds: str, n: int) -> float:
    """Approximate seconds to build a library over n variables on one thread."""
    each, per_pair = BUILD_SECONDS[kinds]
    return each * n + per_pair * n * (n - 1) / 2


def flatness(H: NDArray[np.floating[Any]]) -> float | None:
    """How flat the spectrum of H [n, n] is, in (0, 1]; None if H is indefinite.

    It is the n-th root of the determinant of H, lightly damped, divided by the mean of
    its diagonal: 1 for a multiple of the identity, small if there are short vectors.
    """
    mean = float(np.abs(H.diagonal()).mean(dtype=np.float64))
    if not np.isfinite(mean) or mean == 0:
        return None
    A = np.array(H / mean, np.float32)
    A[np.diag_indices(len(A))] += DAMPING
    with one_blas_thread():
        root, failed = scipy.linalg.lapack.spotrf(A.T, lower=1, overwrite_a=1)
    if failed:
        return None
    volume = float(np.exp(2 * np.log(root.diagonal(), dtype=np.float64).mean()))
    return min(volume / (1 + DAMPING), 1.0)


def strongest_pairs(H: NDArray[np.floating[Any]], count: int) -> Vectors:
    """The `count` pairs with the strongest couplings, without those coupled by zero."""
    i, j = np.triu_indices(len(H), 1)
    size = np.abs(H[i, j])
    strongest = np.argsort(-size, kind="stable")[:count]
    strongest = strongest[size[strongest] > 0]
    i, j = i[strongest], j[strongest]
    second_sign = np.where(H[i, j] > 0, -1, 1)
    return Vectors(
        np.column_stack([i, j]).astype(np.int32),
        np.column_stack([np.ones_like(second_sign), second_sign]).astype(np.int8),
        (H[i, i] + H[j, j] - 2 * size[strongest]).astype(np.float64),
    )


def _pairs(
    H: NDArray[np.floating[Any]], live: NDArray[np.bool_], count: int
) -> Vectors:
    """About the `count` shortest pairs of live variables, in order of length."""
    n = len(H)
    rows = _sample(n)
    lengths = np.empty(len(rows) * n)
    sampled = kernels.pair_lengths(H, rows, live, lengths)
    total = int(live.sum()) * (int(live.sum()) - 1) // 2
    limit = _limit(lengths[:sampled], count, total)
    room = min(4 * count + 1000, max(total, 1))
    which, sign = np.empty((room, 2), np.int32), np.empty((room, 2), np.int8)
    length = np.empty(room)
    found = kernels.pairs_below(H, live, limit, which, sign, length)
    order = np.argsort(length[:found])[:count]
    return Vectors(which[order], sign[order], length[order])


def _seeds(H: NDArray[np.floating[Any]], pairs: Vectors, count: int) -> Vectors:
    """`count` short pairs for sums; where there is room, also with the other sign."""
    seeds = pairs.spread_out(count)
    if len(seeds) == count:
        return seeds
    i, j = pairs.which.T
    sign = pairs.sign * np.array([1, -1], np.int8)
    longer = Vectors(pairs.which, sign, pairs.length + 4 * np.abs(H[i, j]))
    longer = longer.take(np.argsort(longer.length, kind="stable"))
    return Vectors.join(seeds, longer.spread_out(count - len(seeds)))


def _sums(
    H: NDArray[np.floating[Any]],
    first: Vectors,
    second: Vectors,
    count: int,
    threads: int,
) -> Vectors:
    """Sums and differences of a vector of each set, the shortest ones of each `first`.

    They are up to `count` in all, and some are found more than once.
    """
    each = min(-(-count // max(len(first), 1)), len(second))
    shape = len(first), each
    partner, way = np.full(shape, -1, np.int32), np.zeros(shape, np.int8)
    length = np.full(shape, np.inf)
    if length.size:
        over_rows(
            kernels.shortest_sums,
            (
                H,
                np.where(second.which < 0, len(H), second.which).T.copy(),
                second.sign.T.astype(np.float64),
                second.length,
            ),
            (first.which, first.sign, first.length, partner, way, length),
            threads,
        )
    a, _ = found = np.nonzero(partner >= 0)
    other = second.take(partner[found])
    which = np.concatenate([first.which[a], other.which], axis=1)
    sign = np.concatenate([first.sign[a], way[found][:, None] * other.sign], axis=1)
    if (first.which < 0).any():
        # The padding of the first vector comes to the end.
        order = np.argsort(which < 0, axis=1, kind="stable")
        which = np.take_along_axis(which, order, axis=1)
        sign = np.take_along_axis(sign, order, axis=1)
    return Vectors(which, sign, length[found])


def _sample(count: int) -> NDArray[np.intp]:
    """At most `SAMPLE` of the first `count` whole numbers, ascending."""
    if count <= SAMPLE:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, SAMPLE, replace=False))


def _limit(lengths: Float, wanted: int, total: int) -> float:
    """A length that about `wanted` of `total` vectors are shorter than.

    It is estimated from `lengths`, those of a sample.
    """
    share = wanted / max(total, 1)
    if not len(lengths) or share >= 1:
        return np.inf
    return float(
        np.partition(lengths, int(share * len(lengths)))[int(share * len(lengths))]
    )
