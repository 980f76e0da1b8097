"""QPLIB's format, as far as it holds binary problems without constraints.

Furini et al., *QPLIB: a library of quadratic programming instances*, Mathematical
Programming Computation 11, 2019, appendix B: minimise or maximise
``x^T Q x / 2 + b.x + q``, of which the file lists the lower triangle of Q.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from solvers.errors import InputError
from solvers.io.lines import Lines, shown_words
from solvers.io.text import plain_form
from solvers.memory import require_dense
from solvers.qubo import QuboBatch

COMMENTS = ("!", "%", "#")
# The letters of a problem's type: objective, variables, constraints.
TYPE = "[LDCQ][CBMIG][NBLDCQ]"
BINARY, UNCONSTRAINED = "B", ("N", "B")


def parse_qplib(path: Path, content: bytes) -> tuple[QuboBatch, bool]:
    """The problem as the file states it, and whether it is to be maximised.

    What follows the objective (starting points, names) is not read.

    Raises
    ------
    InputError
        ``path:line: what is wrong``; problems of another type are refused by name.
    """
    lines = Lines(path, content, COMMENTS)
    lines.next("the problem's name")
    kind = _type(lines)
    maximises = _maximises(lines)
    n = _count(lines, "the number of variables")
    require_dense(n, f"{path}: ")
    Q, squares = np.zeros((n, n)), np.zeros(n)
    if kind[0] != "L":
        count = _count(lines, "the number of entries of Q")
        for i, j, weight in lines.entries(n, count, first=1, remarks=True):
            if i == j:
                squares[i] = weight / 2
            else:
                Q[i, j] = weight
    linear = np.full(n, _value(lines, "the default linear coefficient"))
    for index, weight in _linear(lines, n):
        linear[index] = weight
    offset = _value(lines, "the objective's constant")
    try:
        return QuboBatch.from_matrix(Q, linear + squares, offset), maximises
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def format_qplib(qubo: QuboBatch, maximises: bool) -> Iterator[str]:
    """Lines for the one row of `qubo`, written as it is: nothing is negated."""
    Q, linear = plain_form(qubo)
    i, j = np.nonzero(np.triu(Q, 1))
    listed = np.flatnonzero(linear)
    yield f"QUBO\nQBN\n{'maximize' if maximises else 'minimize'}\n"
    yield f"{qubo.n} # variables\n{len(i)} # entries of Q\n"
    for u, v in zip(i, j, strict=True):
        yield f"{v + 1} {u + 1} {float(Q[u, v])!r}\n"
    yield f"0 # default linear coefficient\n{len(listed)} # other ones\n"
    for v in listed:
        yield f"{v + 1} {float(linear[v])!r}\n"
    yield f"{float(qubo.offset[0])!r} # constant\n1e+308 # infinity\n"
    for part in ("of the starting point", "of the dual starting point"):
        yield f"0 # default value {part}\n0 # other ones\n"
    yield "0 # names of variables\n0 # names of constraints\n"


def _type(lines: Lines) -> str:
    number, words = lines.next("the problem's type")
    kind = words[0].upper()
    if not re.fullmatch(TYPE, kind):
        lines.fail(
            f"{shown_words(words[:1])} is no type of problem, such as QBN", number
        )
    if kind[1] != BINARY or kind[2] not in UNCONSTRAINED:
        what = "constraints" if kind[1] == BINARY else "variables that are not binary"
        lines.fail(f"a problem of type {kind} has {what}; QBN has none", number)
    return kind


def _maximises(lines: Lines) -> bool:
    number, words = lines.next("the sense")
    sense = words[0].lower()
    if sense not in ("minimize", "maximize"):
        lines.fail(f"{shown_words(words[:1])} is not minimize or maximize", number)
    return sense == "maximize"


def _count(lines: Lines, what: str) -> int:
    number, words = lines.next(what)
    return lines.whole_numbers(words[:1], number)[0]


def _value(lines: Lines, what: str) -> float:
    number, words = lines.next(what)
    return lines.weight(words[0], number, what)


def _linear(lines: Lines, n: int) -> Iterator[tuple[int, float]]:
    """Indices and values of the linear coefficients that are not the default one."""
    seen: dict[int, int] = {}
    count = _count(lines, "the number of other linear coefficients")
    for k in range(count):
        number, words = lines.next(f"linear coefficient {k + 1} of {count}")
        if len(words) < 2:
            lines.fail(f"expected 'i value', not {shown_words(words)}", number)
        index = lines.variable(words[0], n, 1, number)
        if seen.setdefault(index, number) != number:
            lines.fail(f"{words[0]} is given in line {seen[index]} already", number)
        yield index, lines.weight(words[1], number)
