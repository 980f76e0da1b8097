"""Reading and writing of the text formats that `solvers.io.files` explains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from solvers.checks import require_finite
from solvers.errors import InputError
from solvers.io.lines import Entry, Lines
from solvers.memory import require_dense
from solvers.qubo import Float, QuboBatch


@dataclass(frozen=True)
class TextFormat:
    """A text format of lines ``i j weight``.

    Attributes
    ----------
    suffixes
        Suffixes of its files.
    comment
        Prefix of comment lines; empty if there are none.
    first
        The index of the first variable.
    counted
        How many times a listed coupling counts: once or twice.
    maximises
        Whether its problems are to be maximised.
    offset
        Whether it holds the problem's constant, in a comment ``ObjectiveOffset``.
    """

    suffixes: tuple[str, ...]
    comment: str
    first: int
    counted: int
    maximises: bool = False
    offset: bool = False


FORMATS = {
    "qbsolv": TextFormat((".qubo",), "c", 0, 1),
    "biqmac": TextFormat((".sparse",), "#", 1, 2),
    "or-library": TextFormat((".bqp", ".txt"), "", 1, 2, maximises=True),
    "coo": TextFormat((".coo",), "#", 0, 1),
    "qoblib": TextFormat((".qs",), "#", 1, 2, offset=True),
}


def parse_text(
    path: Path, content: bytes, format: str, problem: int | None
) -> QuboBatch:
    """The problem as the file states it: nothing is negated.

    Raises
    ------
    InputError
        ``path:line: what is wrong``.
    """
    form = FORMATS[format]
    lines = Lines(path, content, (form.comment,) if form.comment else ())
    if format == "qbsolv":
        n, entries = _parse_qbsolv(lines)
    elif format in ("biqmac", "qoblib"):
        n, count = lines.counts("number of variables", "number of entries")
        entries = lines.entries(n, count, form.first)
    elif format == "or-library":
        n, entries = _parse_or_library(lines, problem)
    else:
        entries = lines.entries(None, None, form.first)
        n = 1 + max((max(i, j) for i, j, _ in entries), default=-1)
    lines.require_end()
    require_dense(n, f"{path}: ")
    Q, linear = np.zeros((n, n)), np.zeros(n)
    for i, j, weight in entries:
        if i == j:
            linear[i] = weight
        else:
            Q[i, j] = form.counted * weight
    offset = _offset(lines) if form.offset else 0.0
    try:
        if format == "coo" and _vartype(lines) == "SPIN":
            return _from_spins(Q, linear)
        return QuboBatch.from_matrix(Q, linear, offset)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def format_text(qubo: QuboBatch, format: str) -> Iterator[str]:
    """Lines for the one row of `qubo`, written as it is: nothing is negated."""
    form = FORMATS[format]
    Q, linear = plain_form(qubo)
    if form.counted == 2:
        Q /= 2
    i, j = np.nonzero(np.triu(Q, 1))
    # All variables are listed where nothing else tells how many there are, or where a
    # coupling needs its nodes listed.
    listed = np.flatnonzero(linear) if form.counted == 2 else np.arange(qubo.n)
    if format == "qbsolv":
        yield f"p qubo 0 {qubo.n} {len(listed)} {len(i)}\n"
    elif format == "coo":
        yield "# vartype=BINARY\n"
    else:
        count = "1\n" if format == "or-library" else ""
        if form.offset:
            yield f"# ObjectiveOffset {_number(qubo.offset[0])}\n"
        yield f"{count}{qubo.n} {len(listed) + len(i)}\n"
    for v in listed + form.first:
        yield f"{v} {v} {_number(linear[v - form.first])}\n"
    for u, v, weight in zip(i + form.first, j + form.first, Q[i, j], strict=True):
        yield f"{u} {v} {_number(weight)}\n"


def plain_form(qubo: QuboBatch) -> tuple[Float, Float]:
    """Of one row, coefficients of products [n, n], i before j, and of variables [n].

    Raises
    ------
    InputError
        A coefficient is beyond float64.
    """
    s = qubo.full_scale()[0]
    Q = s[:, None] * qubo.H * s
    linear = qubo.linear[0] + Q.diagonal()
    Q *= 2
    require_finite("Q", Q)
    require_finite("linear", linear)
    return Q, linear


def _number(value: float) -> str:
    # Reads back exactly. Without an exponent: dimod's reader of .coo skips such lines.
    return np.format_float_positional(value, trim="-")


def _vartype(lines: Lines) -> str:
    """The vartype that a comment states, as dimod writes it; else BINARY."""
    for number, match in lines.comments(r"vartype[:=]\s*([-\w.]+)"):
        if match[1] not in ("BINARY", "SPIN"):
            lines.fail(f"vartype {match[1]} is not BINARY or SPIN", number)
        return match[1]
    return "BINARY"


def _offset(lines: Lines) -> float:
    """The constant that a comment states; else 0."""
    found = list(lines.comments(r"^\s*#\s*ObjectiveOffset\b\s*(\S*)"))
    if len(found) > 1:
        first, second = (number for number, _ in found[:2])
        lines.fail(f"ObjectiveOffset is given in line {first} already", second)
    for number, match in found:
        return lines.weight(match[1], number, "ObjectiveOffset")
    return 0.0


def _from_spins(J: Float, h: Float) -> QuboBatch:
    import dimod

    i, j = np.nonzero(J)
    vectors = (h, (i, j, J[i, j]), 0.0)
    bqm = dimod.BinaryQuadraticModel.from_numpy_vectors(*vectors, dimod.SPIN)
    return QuboBatch.from_bqm(bqm)


def _parse_qbsolv(lines: Lines) -> tuple[int, list[Entry]]:
    number, words = lines.next("the line 'p qubo 0 maxNodes nNodes nCouplers'")
    if words[:2] != ["p", "qubo"] or len(words) != 6:
        lines.fail("expected 'p qubo 0 maxNodes nNodes nCouplers'", number)
    if words[2] not in ("0", "unconstrained"):
        lines.fail(f"topology must be 0 or unconstrained, not {words[2]!r}", number)
    n, nodes, couplers = lines.whole_numbers(words[3:], number)
    entries = lines.entries(n, nodes + couplers, FORMATS["qbsolv"].first)
    diagonal = sum(i == j for i, j, _ in entries)
    if diagonal != nodes:
        lines.fail(
            f"{nodes} nodes and {couplers} couplers are announced, but there are "
            f"{diagonal} and {len(entries) - diagonal}",
            number,
        )
    return n, entries


def _parse_or_library(lines: Lines, problem: int | None) -> tuple[int, list[Entry]]:
    (problems,) = lines.counts("number of problems")
    if problem is None and problems == 1:
        problem = 1
    if problem is None or not 1 <= problem <= problems:
        raise InputError(
            f"{lines.path} holds {problems} problems: choose with problem=1 to "
            f"{problems}" + ("" if problem is None else f", not {problem}")
        )
    chosen: tuple[int, list[Entry]] = (0, [])
    for k in range(1, problems + 1):
        n, count = lines.counts("number of variables", "number of entries")
        if k == problem:
            chosen = n, lines.entries(n, count, FORMATS["or-library"].first)
        else:
            lines.skip(count)
    return chosen
