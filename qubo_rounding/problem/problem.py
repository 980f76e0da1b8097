"""`RoundingProblem`: weights on a grid and a quadratic error, as binary models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qubo_rounding.problem import file
from qubo_rounding.problem.fields import ARRAYS, checked, checked_grid
from qubo_rounding.problem.grid import Encoding, Grid
from qubo_rounding.problem.moments import Moments
from solvers.checks import (
    as_path,
    finite,
    is_whole,
    read_only,
    real,
    require_kind,
    restore,
    whole,
)
from solvers.errors import InputError, shown
from solvers.io.files import naming
from solvers.memory import allocating
from solvers.qubo import QuboBatch

Array = NDArray[np.float64]
States = NDArray[np.uint8]

# What a network's problem can be about: a layer's output, or the task loss.
OBJECTIVES = ("second-moment", "fisher")


@dataclass(frozen=True, eq=False)
class RoundingProblem:
    """Round every weight to the grid point below (0) or above (1) it.

    With the error ``D = s (base + x) - w`` of a row, minimise

        E(x) = D^T M D + g.D + k

    which for M = E[x x^T] and nothing else is the mean squared error that rounding adds
    to the row's output (AdaRound, Nagel et al. 2020, eq. 19-20).

    The arrays are read-only. All but the moment, which is large, are copied: whoever
    goes on to change the moment that was given here changes the problem.

    Parameters
    ----------
    weight : float64 [R, n]
        The weights w to be rounded.
    scale : float64 [R, 1] or [R, n]
        Grid step; also accepted as one number.
    lo, hi : int32, broadcastable to [R, n]
        The grid is ``scale * q`` for the integers q from lo to hi.
    moment : float64
        M: ``[n, n]`` for all rows; ``[G, n, n]`` where each of G equal blocks of rows
        has one of its own (grouped convolutions; G = R for a Hessian block per row); or
        ``[R n, R n]`` for the whole layer. Symmetric, positive semi-definite, undamped.
    gradient : float64 [R, n], optional
        The vectors g.
    constant : float64 [R], optional
        The constants k.
    saturated
        ``"fixed"``: a weight outside [lo, hi] is fixed to the outermost grid point, as
        the floor and the ceiling of the paper's eq. (9)-(10) coincide there.
        ``"free"``: it chooses between the two outermost. A weight exactly on the grid
        may move up in both, as in AIMET and BRECQ (the paper would fix it).
    meta
        Anything that should be stored with the problem and can be written as JSON.

    Raises
    ------
    InputError
        NaN or inf, shapes that do not fit, no rows, an asymmetric or indefinite M.
    """

    weight: Array
    scale: Array
    lo: NDArray[np.int32]
    hi: NDArray[np.int32]
    moment: Array
    gradient: Array | None = None
    constant: Array | None = None
    saturated: str = "fixed"
    meta: Mapping[str, Any] = field(default_factory=dict)

    @allocating("a rounding problem")
    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ARRAYS}
        for name, array in checked(given).items():
            own = array if name == "moment" else array.copy()
            object.__setattr__(self, name, read_only(own))
        require_kind("saturated", self.saturated, str)
        if self.saturated not in ("fixed", "free"):
            raise InputError(
                f"saturated must be fixed or free, not {shown(self.saturated)}"
            )
        if not isinstance(self.meta, Mapping):
            raise InputError(f"meta must be a mapping, not {shown(self.meta)}")
        if not is_whole(bits := self.meta.get("bits", 0)):
            raise InputError(f"bits in meta must be a whole number, not {shown(bits)}")

    __setstate__ = restore

    @classmethod
    def on_grid(
        cls,
        weight: ArrayLike,
        grid: Grid,
        moment: ArrayLike,
        *,
        gradient: ArrayLike | None = None,
        constant: ArrayLike | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> RoundingProblem:
        """Problem on `grid`, fitted to the weights and the inputs' second moment."""
        weight, moment = finite("weight", weight), finite("moment", moment)
        encoding = grid.fit(weight, moment)
        return cls._on(weight, grid, encoding, moment, gradient, constant, meta)

    @classmethod
    def _on(
        cls,
        weight: Array,
        grid: Grid,
        encoding: Encoding,
        moment: Array,
        gradient: ArrayLike | None,
        constant: ArrayLike | None,
        meta: Mapping[str, Any] | None,
    ) -> RoundingProblem:
        return cls(
            weight=weight,
            scale=encoding.scale,
            lo=encoding.lo,
            hi=encoding.hi,
            moment=moment,
            gradient=None if gradient is None else finite("gradient", gradient),
            constant=None if constant is None else finite("constant", constant),
            saturated=grid.saturated,
            meta={"bits": grid.bits, **(meta or {})},
        )

    @classmethod
    def from_moments(
        cls,
        weight: ArrayLike,
        grid: Grid,
        moments: Moments,
        meta: Mapping[str, Any] | None = None,
    ) -> RoundingProblem:
        """Problem from the moments of a layer's inputs."""
        H = moments.second_moment
        return cls.on_grid(
            weight,
            grid,
            H[0] if len(H) == 1 else H,
            meta={"count": moments.count, **(meta or {})},
        )

    @classmethod
    def from_hessian(
        cls,
        weight: ArrayLike,
        grid: Grid,
        hessian: ArrayLike,
        gradient: ArrayLike | None = None,
        second_moment: ArrayLike | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> RoundingProblem:
        """Problem of the task loss's second-order change ``g.D + D^T H D / 2``.

        These are eq. (12)-(13) of AdaRound.

        Parameters
        ----------
        hessian
            ``[R, n, n]``, a block per row, or ``[R n, R n]``, the whole layer.
        gradient
            ``[R, n]``; zero at a trained network.
        second_moment
            Second moment of the inputs, for a grid whose scale is by output MSE.
        """
        weight, hessian = finite("weight", weight), finite("hessian", hessian)
        inputs = None if second_moment is None else finite("moment", second_moment)
        encoding = grid.fit(weight, inputs)
        return cls._on(weight, grid, encoding, hessian / 2, gradient, None, meta)

    def on_encoding(self, encoding: Encoding, **meta: Any) -> RoundingProblem:
        """The same weights and error on another grid; `meta` is added to the meta.

        Looking through a large moment for every grid that is tried would cost more than
        many a solver: only what is new is checked.

        Raises
        ------
        InputError
            The grid is no grid of this problem's weights.
        """
        new = copy(self)
        for name in ("base", "fixed", "digest"):
            vars(new).pop(name, None)
        for name, array in checked_grid(self.weight, **vars(encoding)).items():
            object.__setattr__(new, name, read_only(array.copy()))
        object.__setattr__(new, "meta", {**self.meta, **meta})
        return new

    @property
    def rows(self) -> int:
        """Number of rows R."""
        return len(self.weight)

    @property
    def n(self) -> int:
        """Number of weights per row."""
        return int(self.weight.shape[1])

    @cached_property
    def base(self) -> NDArray[np.int32]:
        """Lower grid index [R, n], at most hi - 1: base + 1 is on the grid too."""
        below = np.floor(self.weight / self.scale)
        return read_only(np.clip(below, self.lo, self.hi - 1).astype(np.int32))

    @cached_property
    def fixed(self) -> NDArray[np.int8] | None:
        """-1 where a weight is free, else its state [R, n]; None if all are free."""
        if self.saturated == "free":
            return None
        position = self.weight / self.scale
        fixed = np.full(self.weight.shape, -1, np.int8)
        fixed[position < self.lo] = 0
        fixed[position >= self.hi] = 1
        return read_only(fixed) if (fixed >= 0).any() else None

    @property
    def blocks(self) -> Array:
        """M as blocks [B, m, m]; block b belongs to ``weight.reshape(B, -1, m)[b]``."""
        return self.moment.reshape(-1, *self.moment.shape[-2:])

    @allocating("the binary problems of a rounding problem")
    def to_qubos(self) -> list[QuboBatch]:
        """One batch per block of M; `join` puts their states together again."""
        blocks = self.blocks
        count, m = len(blocks), blocks.shape[-1]
        whole_layer = m != self.n
        scale = (
            np.broadcast_to(self.scale, self.weight.shape)
            if whole_layer
            else self.scale
        )
        scales = scale.reshape(count, -1, m if whole_layer else scale.shape[1])
        # The error of rounding everything down is -y.
        y = (self.weight - self.scale * self.base).reshape(count, -1, m)
        prior = np.clip(y / scales, 0.0, 1.0)
        g = None if self.gradient is None else self.gradient.reshape(count, -1, m)
        k = np.zeros(self.rows) if self.constant is None else self.constant
        # A layer taken as one row adds up the constants of its rows.
        offsets = k.reshape(*y.shape[:2], -1).sum(axis=2)
        fixed = None if self.fixed is None else self.fixed.reshape(y.shape)
        # Of a grid of all 32 bits the differences take one more.
        base = self.base.astype(np.int64)
        levels = np.stack([self.lo - base, self.hi - base])
        qubos = []
        for b, M in enumerate(blocks):
            pull = y[b] @ M
            slope = -2 * pull if g is None else g[b] - 2 * pull
            pull_less_gradient = pull if g is None else pull - g[b]
            qubos.append(
                QuboBatch(
                    H=M,
                    linear=scales[b] * slope,
                    offset=offsets[b] + np.einsum("ri,ri->r", pull_less_gradient, y[b]),
                    scale=scales[b],
                    prior=prior[b],
                    fixed=None if fixed is None else fixed[b],
                    levels=levels.reshape(2, *y.shape)[:, b],
                )
            )
        return qubos

    def join(self, states: Sequence[States]) -> States:
        """States [R, n] from the states of each batch of `to_qubos`, in order.

        Raises
        ------
        InputError
            Another number of batches, or states that `decode` refuses.
        """
        blocks = self.blocks
        shape = self.weight.reshape(len(blocks), -1, blocks.shape[-1]).shape
        require_kind("states", states, Sequence)
        parts = [real(f"states of batch {b}", x) for b, x in enumerate(states)]
        found = [part.shape for part in parts]
        if found != [shape[1:]] * shape[0]:
            raise InputError(
                f"states must be {shape[0]} of shape {shape[1:]}, one for each batch, "
                f"not of the shapes {shown(found)}"
            )
        joined: States = np.concatenate(parts).reshape(self.weight.shape)
        self._steps(joined)
        return joined

    def decode(self, states: ArrayLike) -> Array:
        """Rounded weights [R, n] of states [R, n].

        Raises
        ------
        InputError
            States of another shape, or that are no whole steps on the grid.
        """
        return np.asarray(self.scale * self._steps(states), np.float64)

    def _steps(self, states: ArrayLike) -> NDArray[np.int64]:
        """Grid indices [R, n] of states [R, n]; those beyond the grid are refused."""
        x = whole("states", states, np.int32)
        if x.shape != self.weight.shape:
            raise InputError(
                f"states must have shape {self.weight.shape}, not {x.shape}"
            )
        steps: NDArray[np.int64] = x.astype(np.int64) + self.base
        if ((steps < self.lo) | (steps > self.hi)).any():
            raise InputError("states must lie on the grid, from lo - base to hi - base")
        return steps

    def nearest(self) -> States:
        """States [R, n] of rounding to nearest, ties down."""
        x = self.weight / self.scale - self.base > 0.5
        return x.astype(np.uint8)

    def local_mse(self, states: ArrayLike) -> Array:
        """E of each row [R], from the rounded weights themselves, in float64.

        Shares no code with `to_qubos` or the solvers. A layer posed as one row
        (M ``[R n, R n]``) has one E, [1].
        """
        blocks = self.blocks
        error = (self.decode(states) - self.weight).reshape(
            len(blocks), -1, blocks.shape[-1]
        )
        value: Array = np.einsum("bri,bri->br", error @ blocks, error)
        if self.gradient is not None:
            value += np.einsum("bri,bri->br", self.gradient.reshape(error.shape), error)
        if self.constant is not None:
            value += self.constant.reshape(*value.shape, -1).sum(axis=2)
        return value.ravel()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that defines the problem, under the names that its files use."""
        arrays: dict[str, NDArray[Any] | None] = {
            "weight": self.weight,
            "second_moment": self.moment,
            "scale": self.scale,
            "lo": self.lo,
            "hi": self.hi,
            "gradient": self.gradient,
            "constant": self.constant,
        }
        if "bits" in self.meta:
            arrays["bits"] = np.array(self.meta["bits"], np.int64)
        return {
            name: np.array(array, order="C", copy=None)
            for name, array in arrays.items()
            if array is not None
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all that defines the problem; of `meta`, only the bits."""
        return file.digest(self.arrays(), self.saturated)

    def save(self, path: str | Path) -> None:
        """Write ``.npz`` or ``.safetensors``, whole or not at all.

        Raises
        ------
        InputError
            The path has another suffix or cannot be written; `meta` is no JSON.
        """
        try:
            meta = json.dumps(dict(self.meta), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"meta cannot be written as JSON: {error}") from error
        text = {"saturated": self.saturated, "digest": self.digest, "meta": meta}
        file.write(as_path(path), self.arrays(), text)

    @classmethod
    def load(cls, path: str | Path, saturated: str | None = None) -> RoundingProblem:
        """Read what `save` wrote, or any file with the same fields.

        Parameters
        ----------
        path
            See `qubo_rounding.problem.file.load` for the fields that are needed.
        saturated
            ``"fixed"`` or ``"free"``, to override what the file says (``"fixed"`` if
            it says nothing).

        Raises
        ------
        InputError
            The file does not exist, fields are missing, or the contents do not match
            the digest.
        """
        path = as_path(path)
        parameters, written = file.load(path)
        problem = naming(path, lambda: cls(**parameters))
        if written is not None and written != problem.digest:
            raise InputError(f"{path} is damaged: its contents do not match its digest")
        return problem if saturated is None else replace(problem, saturated=saturated)
