"""`QuboBatch`: binary quadratic models that share one matrix."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.checks import (
    binary,
    finite,
    read_only,
    real,
    require_count,
    require_finite,
    require_symmetric,
    restore,
    whole,
)
from solvers.errors import InputError, shown
from solvers.memory import allocating

if TYPE_CHECKING:
    import dimod

Float = NDArray[np.float64]
States = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class QuboBatch:
    """Minimise ``(s_r*x)^T H (s_r*x) + c_r.x + k_r`` over x in {0,1}^n, for each row r.

    All rows share H, so a solver reads and factorises it once. A scale that is constant
    within a row only multiplies the quadratic part of that row.

    The arrays are read-only: many solvers are given the same batch.

    Parameters
    ----------
    H : float32 or float64 [n, n]
        Symmetric; stored C-contiguous. The one array that is not copied: whoever goes
        on to change what was given here changes the batch.
    linear : float64 [R, n]
        The linear coefficients c.
    offset : float64 [R]
        The constants k.
    scale : float64 [R, 1] or [R, n]
        The scales s, positive.
    prior : float64 [R, n]
        Where a relaxation starts, in [0, 1]; 0.5 where nothing is known. For pinned
        variables it is replaced by their values.
    fixed : int8 [R, n], optional
        -1 for a free variable, 0 or 1 for one that is pinned to that value. Pinned
        variables stay in the arrays so that all rows keep one H.
    levels : int32 [2, R, n], optional
        The lowest (at most 0) and the highest (at least 1) grid step that a rounding
        could take, for solvers that are not restricted to 0 and 1.

    Raises
    ------
    InputError
        Shapes that do not fit, NaN or inf, H not symmetric, a scale that is not
        positive, a prior outside [0, 1], values other than -1, 0 and 1 in `fixed`,
        `levels` that exclude 0 or 1.
    """

    H: NDArray[np.floating[Any]]
    linear: Float
    offset: Float
    scale: Float
    prior: Float
    fixed: NDArray[np.int8] | None = None
    levels: NDArray[np.int32] | None = None

    @allocating("a batch of binary problems")
    def __post_init__(self) -> None:
        H = real("H", self.H)
        kept = H.dtype in (np.float32, np.float64)
        H = np.array(H, H.dtype if kept else np.float64, order="C", copy=None)
        if H.ndim != 2 or H.shape[0] != H.shape[1]:
            raise InputError(f"H must be a square matrix, not of shape {H.shape}")
        n = len(H)
        linear = finite("linear", self.linear)
        if linear.ndim != 2 or linear.shape[1] != n or len(linear) == 0:
            raise InputError(
                f"linear must have shape [R, {n}] with R >= 1 for H {H.shape}, "
                f"not {linear.shape}"
            )
        rows = len(linear)
        offset = _of_shape("offset", self.offset, [(rows,)])
        scale = _of_shape("scale", self.scale, [(rows, 1), (rows, n)])
        prior = _of_shape("prior", self.prior, [(rows, n)])
        require_finite("H", H)
        require_symmetric("H", H)
        if not np.array_equal(H, H.T):
            # Kernels read one triangle or the other.
            H = (H + H.T) / 2
        if not (scale > 0).all():
            raise InputError(f"scale must be positive; its minimum is {scale.min()}")
        if prior.size and not (prior.min() >= 0 and prior.max() <= 1):
            raise InputError(
                f"prior must lie in [0, 1]; it spans [{prior.min()}, {prior.max()}]"
            )
        fixed = self.fixed
        if fixed is not None:
            fixed = whole("fixed", fixed, np.int8, -1, 1)
            if fixed.shape != (rows, n):
                raise InputError(
                    f"fixed must have shape {(rows, n)}, not {fixed.shape}"
                )
            prior = np.where(fixed < 0, prior, fixed)
        levels = self.levels
        if levels is not None:
            levels = whole("levels", levels, np.int32)
            if levels.shape != (2, rows, n):
                raise InputError(
                    f"levels must have shape {(2, rows, n)}, not {levels.shape}"
                )
            if (levels[0] > 0).any() or (levels[1] < 1).any():
                raise InputError("levels must include 0 and 1")
        object.__setattr__(self, "H", read_only(H))
        for name, value in (
            ("linear", linear),
            ("offset", offset),
            ("scale", scale),
            ("prior", prior),
            ("fixed", fixed),
            ("levels", levels),
        ):
            own = None if value is None else read_only(value.copy())
            object.__setattr__(self, name, own)

    __setstate__ = restore

    @property
    def n(self) -> int:
        """Number of variables per row."""
        return len(self.H)

    @property
    def rows(self) -> int:
        """Number of rows R."""
        return len(self.linear)

    @classmethod
    @allocating("a batch from a dense matrix")
    def from_matrix(
        cls,
        Q: ArrayLike,
        linear: ArrayLike | None = None,
        offset: float | ArrayLike = 0.0,
    ) -> QuboBatch:
        """Batch of ``x^T Q x + c_r.x + k_r`` from a dense square matrix Q.

        Parameters
        ----------
        Q
            Square [n, n]; upper-triangular and other asymmetric forms are symmetrised.
        linear
            c, [n] for one row or [R, n] for R rows that share Q; default zero.
        offset
            k, one number or [R].

        Examples
        --------
        >>> QuboBatch.from_matrix([[1.0, -4.0], [0.0, 2.0]]).energies([[1, 1]])
        array([-1.])
        """
        Q = real("Q", Q)
        Q = Q if Q.dtype == np.float32 else finite("Q", Q)
        if Q.ndim != 2 or Q.shape[0] != Q.shape[1]:
            raise InputError(f"Q must be a square matrix, not of shape {Q.shape}")
        n = len(Q)
        c = np.atleast_2d(np.zeros(n) if linear is None else finite("linear", linear))
        rows, k = len(c), finite("offset", offset)
        return cls(
            H=(Q + Q.T) / 2,
            linear=c,
            offset=k if k.ndim else np.full(rows, k),
            scale=np.ones((rows, 1)),
            prior=np.full((rows, n), 0.5),
        )

    @classmethod
    def from_bqm(cls, bqm: dimod.BinaryQuadraticModel) -> QuboBatch:
        """Batch of one row from a dimod model, BINARY or SPIN.

        Variable i is ``list(bqm.variables)[i]``. A SPIN model is read with
        ``spin = 2 x - 1``, so its energies are kept.
        """
        import dimod

        binary_bqm = bqm.change_vartype(dimod.BINARY, inplace=False)
        vectors = binary_bqm.to_numpy_vectors(variable_order=list(bqm.variables))
        Q = np.zeros((bqm.num_variables, bqm.num_variables))
        i, j, w = vectors.quadratic
        np.add.at(Q, (i, j), w)
        return cls.from_matrix(Q, linear=vectors.linear_biases, offset=vectors.offset)

    def to_bqm(self, row: int = 0) -> dimod.BinaryQuadraticModel:
        """The given row as a BINARY dimod model over its free variables.

        Variables keep their indices; pinned variables are folded into the linear terms
        and the offset.
        """
        import dimod

        s = np.broadcast_to(self.scale[row], (self.n,))
        free, pinned = self.free(row), np.zeros(self.n)
        if self.fixed is not None:
            pinned = np.where(free, 0.0, self.fixed[row])
        H = self.H.astype(np.float64, copy=False)
        pull = s * (H @ (s * pinned))
        variables = np.flatnonzero(free)
        c = self.linear[row] + 2 * pull + s**2 * H.diagonal()
        k = self.offset[row] + self.linear[row] @ pinned + pinned @ pull
        i, j = np.triu_indices(len(variables), 1)
        w = 2 * s[variables[i]] * s[variables[j]] * H[variables[i], variables[j]]
        present = w != 0
        return dimod.BinaryQuadraticModel.from_numpy_vectors(
            c[variables],
            (i[present], j[present], w[present]),
            float(k),
            dimod.BINARY,
            variable_order=variables.tolist(),
        )

    def energies(self, states: ArrayLike, threads: int = 1) -> Float:
        """Energies in float64: [R] of states [R, n], or [R, K] of states [R, K, n].

        States are 0 and 1 or, where the batch has `levels`, signed integers.

        Raises
        ------
        InputError
            States of another shape or with other values.
        """
        from solvers.kernels import energy
        from solvers.threads import over_rows

        require_count("threads", threads)
        x = self._steps_or_states(states)
        if x.ndim not in (2, 3) or x.shape[0] != self.rows or x.shape[-1] != self.n:
            raise InputError(
                f"states must have shape {(self.rows, self.n)} or "
                f"[{self.rows}, K, {self.n}], not {x.shape}"
            )
        single = x.ndim == 2
        x = x[:, None] if single else x
        energies = np.empty(x.shape[:2])
        over_rows(
            energy.energies,
            (self.H,),
            (self.full_scale(), self.linear, self.offset, x, energies),
            threads,
        )
        return energies[:, 0] if single else energies

    def slopes(self, states: ArrayLike, threads: int = 1) -> Float:
        """Derivative of the energy by every variable [R, n], at states [R, n].

        States are those that `energies` takes.

        Raises
        ------
        InputError
            States of another shape or with other values.
        """
        from solvers.kernels import energy
        from solvers.threads import over_rows

        require_count("threads", threads)
        x = self._in_shape("states", self._steps_or_states(states))
        scale, on = self.full_scale(), x != 0
        pull = np.empty_like(scale)
        # The kernel adds up rows of H times the scale where a state is on: it is given
        # s * x as the scale.
        over_rows(
            energy.fields,
            (self.H,),
            (np.where(on, scale * x, 1.0), np.zeros_like(scale), on.view("u1"), pull),
            threads,
        )
        return np.asarray(2 * scale * pull + self.linear)

    def _steps_or_states(self, states: ArrayLike) -> NDArray[Any]:
        """0 and 1 or, where the batch has levels, signed integers; others refused."""
        x = real("states", states)
        return (
            x
            if self.levels is not None and x.dtype.kind == "i"
            else binary("states", x)
        )

    def nearest(self) -> States:
        """The states nearest to the prior, [R, n]; 0.5 goes to 0."""
        return (self.prior > 0.5).astype(np.uint8)

    def pin(self, states: ArrayLike) -> States:
        """`states` with pinned variables set to their values (a copy where needed).

        Raises
        ------
        InputError
            States other than 0 and 1.
        """
        x = binary("states", states)
        if self.fixed is None:
            return x
        return np.where(self.fixed < 0, x, self.fixed).astype(np.uint8)

    def require_states(self, name: str, states: ArrayLike) -> States:
        """`states` with every pin, refused unless they are 0 and 1 in shape [R, n].

        Raises
        ------
        InputError
            Naming what `name` is, and what would be right.
        """
        return self.pin(self._in_shape(name, binary(name, states)))

    def require_steps(self, name: str, states: ArrayLike) -> NDArray[np.int16]:
        """Grid steps of a solver out of the set, [R, n], refused beyond the levels.

        A batch without `levels` has the steps 0 and 1.

        Raises
        ------
        InputError
            Naming what `name` is, and what would be right.
        """
        x = self._in_shape(name, whole(name, states, np.int16))
        low, high = (0, 1) if self.levels is None else self.levels
        if ((x < low) | (x > high)).any():
            raise InputError(f"{name} must lie within the levels of the batch")
        return x

    def lacks_steps(self) -> str | None:
        """Why the batch is nothing for solvers out of the set; None if it is."""
        if self.levels is None:
            return "the batch has no levels: its variables stand on no grid"
        steps = np.iinfo(np.int16)
        lowest, highest = self.levels.min(initial=0), self.levels.max(initial=0)
        if lowest < steps.min or highest > steps.max:
            return "levels must fit in 16 bits"
        return None

    def _in_shape(self, name: str, x: NDArray[Any]) -> NDArray[Any]:
        if x.shape != (self.rows, self.n):
            raise InputError(
                f"{name} must have shape {(self.rows, self.n)}, not {x.shape}"
            )
        return x

    def free(self, row: int | slice = slice(None)) -> NDArray[np.bool_]:
        """Mask of the free variables, of one row [n] or of all rows [R, n]."""
        if self.fixed is None:
            return np.ones(self.linear[row].shape, bool)
        return np.asarray(self.fixed[row] < 0)

    def full_scale(self) -> Float:
        """The scale of every variable, contiguous [R, n]."""
        return np.ascontiguousarray(
            np.broadcast_to(self.scale, (self.rows, self.n)), np.float64
        )

    def seen_from(self, steps: ArrayLike, threads: int = 1) -> QuboBatch:
        """The batch in which a state x stands for the grid steps ``steps + x`` of this.

        Energies are the same. Nothing is pinned, since pins are states of this batch.
        Only linear terms and offsets differ: H is not checked again.

        Parameters
        ----------
        steps : int [R, n]
            At least the lowest level and below the highest.

        Raises
        ------
        InputError
            The batch has no levels, or the steps are of another shape or leave them.
        """
        if self.levels is None:
            raise InputError("the batch has no levels: its variables stand on no grid")
        k = self._in_shape("steps", whole("steps", steps, np.int32))
        if ((k < self.levels[0]) | (k >= self.levels[1])).any():
            raise InputError("steps must lie within the levels, and below the highest")
        moved = copy(self)
        for name, values in (
            ("linear", self.slopes(k, threads)),
            ("offset", self.energies(k, threads)),
            ("prior", np.clip(self.prior - k, 0.0, 1.0)),
            ("fixed", None),
            ("levels", self.levels - k),
        ):
            own = None if values is None else read_only(values)
            object.__setattr__(moved, name, own)
        return moved

    def take(self, rows: slice | Sequence[int] | NDArray[np.intp]) -> QuboBatch:
        """Batch of the given rows, over the same H.

        What has been checked once is not checked again: looking through a large H for
        every row that is taken would cost more than many a search of that row.

        Raises
        ------
        InputError
            No row is given, or one that does not exist.
        """
        try:
            picked: NDArray[Any] = np.arange(self.rows)[rows]
        # The array's own complaints, and those of what cannot become one.
        except (IndexError, TypeError, ValueError, OverflowError, RuntimeError):
            picked = np.empty(())
        if picked.ndim != 1:
            raise InputError(
                f"take needs a slice or a list of rows from 0 to {self.rows - 1}, not "
                f"{shown(rows)}"
            )
        if not len(picked):
            raise InputError("take needs at least one row")
        taken = copy(self)
        for name in ("linear", "offset", "scale", "prior", "fixed", "levels"):
            values = getattr(self, name)
            if values is not None:
                values = values[:, rows] if name == "levels" else values[rows]
                object.__setattr__(taken, name, read_only(np.ascontiguousarray(values)))
        return taken


def _of_shape(name: str, values: ArrayLike, shapes: list[tuple[int, ...]]) -> Float:
    array = finite(name, values)
    if array.shape not in shapes:
        wanted = " or ".join(map(str, dict.fromkeys(shapes)))
        raise InputError(f"{name} must have shape {wanted}, not {array.shape}")
    return array
