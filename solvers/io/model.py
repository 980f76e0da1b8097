"""`Model`: a binary quadratic model in any of the accepted forms, as a batch."""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.checks import finite, real
from solvers.errors import InputError, shown
from solvers.memory import require_dense
from solvers.qubo import QuboBatch


@dataclass(frozen=True, eq=False)
class Model:
    """A batch, with the caller's labels and values of its variables.

    Attributes
    ----------
    qubo
        The batch.
    variables
        Labels; None: 0 to n - 1.
    vartype
        ``"BINARY"`` or ``"SPIN"``, with ``spin = 2 x - 1``.
    """

    qubo: QuboBatch
    variables: tuple[Hashable, ...] | None = None
    vartype: str = "BINARY"

    def states(self, values: ArrayLike | Mapping[Hashable, int]) -> NDArray[Any]:
        """States [R, n] for the caller's values, given as [n], [R, n] or by label.

        Raises
        ------
        InputError
            Labels missing or unknown, values that are no numbers or no spins. The
            solver checks binary values and the shape.
        """
        if isinstance(values, Mapping):
            labels = self.variables or range(self.qubo.n)
            for label in labels:
                if label not in values:
                    raise InputError(
                        f"initial has no value for variable {shown(label)}"
                    )
            if unknown := values.keys() - set(labels):
                extra = shown(unknown.pop())
                raise InputError(
                    f"initial has a value for {extra}, which is no variable"
                )
            values = [values[label] for label in labels]
        x = real("initial", values)
        if self.vartype == "SPIN":
            if not ((x == -1) | (x == 1)).all():
                raise InputError("initial may hold only -1 and +1 for a SPIN model")
            x = x > 0
        return np.broadcast_to(x, (self.qubo.rows, len(x))) if x.ndim == 1 else x


def as_model(
    Q: Any,
    linear: ArrayLike | Mapping[Hashable, float] | None = None,
    offset: float | ArrayLike = 0.0,
) -> Model:
    """Read a problem in any form that `solve` takes.

    Raises
    ------
    InputError
        On all that `solve` refuses.
    """
    # A caller with a dimod model or a sparse matrix has imported its package.
    dimod, sparse = (sys.modules.get(name) for name in ("dimod", "scipy.sparse"))
    is_bqm = dimod is not None and isinstance(Q, dimod.BinaryQuadraticModel)
    if isinstance(Q, QuboBatch) or is_bqm:
        if linear is not None or finite("offset", offset).any():
            kind = type(Q).__name__
            raise InputError(f"a {kind} has linear terms and an offset of its own")
        if isinstance(Q, QuboBatch):
            return Model(Q)
        require_dense(Q.num_variables)
        return Model(QuboBatch.from_bqm(Q), tuple(Q.variables), Q.vartype.name)
    is_sparse = sparse is not None and sparse.issparse(Q)
    # One kind of sparse matrix is a dict too.
    if isinstance(Q, Mapping) and not is_sparse:
        return _from_mapping(Q, linear, offset)
    if isinstance(linear, Mapping):
        raise InputError("linear may be a dict only where Q is one")
    if is_sparse:
        if Q.ndim == 2:
            require_dense(max(Q.shape))
        Q = Q.toarray()
    elif hasattr(Q, "to_qubos"):
        raise InputError(
            f"a {type(Q).__name__} is solved batch by batch: take them from to_qubos()"
        )
    elif not (isinstance(Q, Sequence) or hasattr(Q, "__array__")):
        raise InputError(
            f"cannot read a problem from {type(Q).__name__}; give a matrix, a dict "
            "{(i, j): weight}, a dimod BinaryQuadraticModel or a QuboBatch"
        )
    return Model(QuboBatch.from_matrix(Q, linear, offset))


def _from_mapping(
    Q: Mapping[Any, Any],
    linear: ArrayLike | Mapping[Hashable, float] | None,
    offset: float | ArrayLike,
) -> Model:
    for key in Q:
        if not (isinstance(key, tuple) and len(key) == 2):
            raise InputError(f"the keys of Q must be pairs (i, j), not {shown(key)}")
    named = linear if isinstance(linear, Mapping) else {}
    labels = [*(label for key in Q for label in key), *named]
    index = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    require_dense(len(index))
    if isinstance(linear, Mapping):
        c = np.zeros(len(index))
        c[[index[label] for label in linear]] = _numbers("linear", linear.items())
        linear = c
    dense = np.zeros((len(index), len(index)))
    pairs = np.array([(index[i], index[j]) for i, j in Q], np.intp).reshape(-1, 2)
    np.add.at(dense, (pairs[:, 0], pairs[:, 1]), _numbers("Q", Q.items()))
    return Model(QuboBatch.from_matrix(dense, linear, offset), tuple(index))


def _numbers(name: str, items: Iterable[tuple[Any, Any]]) -> list[float]:
    return [_number(name, key, value) for key, value in items]


def _number(name: str, key: Any, value: Any) -> float:
    if isinstance(value, Real):
        # A whole number can be too large for a float.
        with suppress(OverflowError):
            number = float(value)
            if math.isfinite(number):
                return number
    raise InputError(
        f"{name}[{shown(key)}] is {shown(value)}; it must be a finite real number"
    )
