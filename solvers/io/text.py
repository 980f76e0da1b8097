"""Reading and writing of the text formats that `solvers.io.files` explains."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from solvers.checks import require_finite
from solvers.errors import InputError
from solvers.memory import require_dense
from solvers.qubo import Float, QuboBatch

Entry = tuple[int, int, float]


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
    """

    suffixes: tuple[str, ...]
    comment: str
    first: int
    counted: int
    maximises: bool = False


FORMATS = {
    "qbsolv": TextFormat((".qubo",), "c", 0, 1),
    "biqmac": TextFormat((".sparse",), "#", 1, 2),
    "or-library": TextFormat((".bqp", ".txt"), "", 1, 2, maximises=True),
    "coo": TextFormat((".coo",), "#", 0, 1),
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
    lines = _Lines(path, content, FORMATS[format])
    if format == "qbsolv":
        n, entries = _parse_qbsolv(lines)
    elif format == "biqmac":
        n, count = lines.counts("number of variables", "number of entries")
        entries = lines.entries(n, count)
    elif format == "or-library":
        n, entries = _parse_or_library(lines, problem)
    else:
        entries = lines.entries(None, None)
        n = 1 + max((max(i, j) for i, j, _ in entries), default=-1)
    lines.require_end()
    require_dense(n, f"{path}: ")
    Q, linear = np.zeros((n, n)), np.zeros(n)
    for i, j, weight in entries:
        if i == j:
            linear[i] = weight
        else:
            Q[i, j] = FORMATS[format].counted * weight
    try:
        if format == "coo" and lines.vartype() == "SPIN":
            return _from_spins(Q, linear)
        return QuboBatch.from_matrix(Q, linear)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def format_text(qubo: QuboBatch, format: str) -> Iterator[str]:
    """Lines for the one row of `qubo`, written as it is: nothing is negated."""
    form = FORMATS[format]
    s = qubo.full_scale()[0]
    Q = s[:, None] * qubo.H * s
    linear = qubo.linear[0] + Q.diagonal()
    if form.counted == 1:
        Q *= 2
    require_finite("Q", Q)
    require_finite("linear", linear)
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
        yield f"{count}{qubo.n} {len(listed) + len(i)}\n"
    for v in listed + form.first:
        yield f"{v} {v} {_number(linear[v - form.first])}\n"
    for u, v, weight in zip(i + form.first, j + form.first, Q[i, j], strict=True):
        yield f"{u} {v} {_number(weight)}\n"


def _number(value: float) -> str:
    # Reads back exactly. Without an exponent: dimod's reader of .coo skips such lines.
    return np.format_float_positional(value, trim="-")


def _from_spins(J: Float, h: Float) -> QuboBatch:
    import dimod

    i, j = np.nonzero(J)
    vectors = (h, (i, j, J[i, j]), 0.0)
    bqm = dimod.BinaryQuadraticModel.from_numpy_vectors(*vectors, dimod.SPIN)
    return QuboBatch.from_bqm(bqm)


def _parse_qbsolv(lines: _Lines) -> tuple[int, list[Entry]]:
    number, words = lines.next("the line 'p qubo 0 maxNodes nNodes nCouplers'")
    if words[:2] != ["p", "qubo"] or len(words) != 6:
        lines.fail("expected 'p qubo 0 maxNodes nNodes nCouplers'", number)
    if words[2] not in ("0", "unconstrained"):
        lines.fail(f"topology must be 0 or unconstrained, not {words[2]!r}", number)
    n, nodes, couplers = lines.whole_numbers(words[3:], number)
    entries = lines.entries(n, nodes + couplers)
    diagonal = sum(i == j for i, j, _ in entries)
    if diagonal != nodes:
        lines.fail(
            f"{nodes} nodes and {couplers} couplers are announced, but there are "
            f"{diagonal} and {len(entries) - diagonal}",
            number,
        )
    return n, entries


def _parse_or_library(lines: _Lines, problem: int | None) -> tuple[int, list[Entry]]:
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
            chosen = n, lines.entries(n, count)
        else:
            lines.skip(count)
    return chosen


class _Lines:
    """The lines of a text file but for comments and blanks, read one by one."""

    def __init__(self, path: Path, content: bytes, form: TextFormat) -> None:
        self.path = path
        self._form = form
        self._comments: list[tuple[int, str]] = []
        self._lines: list[tuple[int, list[str]]] = []
        self._at = 0
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            self.fail("this is not text", 1 + content[: error.start].count(b"\n"))
        if "\0" in text:
            self.fail("this is not text", 1 + text[: text.index("\0")].count("\n"))
        for number, line in enumerate(text.split("\n"), 1):
            words = line.split()
            if form.comment and line.lstrip().startswith(form.comment):
                self._comments.append((number, line))
            elif words:
                self._lines.append((number, words))
        if not (self._lines or self._comments):
            raise InputError(f"{path}: the file is empty")

    def fail(self, message: str, number: int) -> NoReturn:
        """Raise `InputError` for the line of that number."""
        raise InputError(f"{self.path}:{number}: {message}")

    def next(self, wanted: str) -> tuple[int, list[str]]:
        """The next line: its number, counted from 1, and its words."""
        if self._at == len(self._lines):
            last = self._lines[-1][0] if self._lines else 1
            self.fail(f"the file ends where {wanted} should follow", last)
        self._at += 1
        return self._lines[self._at - 1]

    def require_end(self) -> None:
        """Refuse lines beyond those that were announced."""
        if self._at < len(self._lines):
            self.fail("nothing more was announced", self._lines[self._at][0])

    def counts(self, *names: str) -> list[int]:
        """The whole numbers of a header line, one for each name."""
        number, words = self.next(" and ".join(names))
        if len(words) != len(names):
            self.fail(f"expected {' and '.join(names)}, not {_shown(words)}", number)
        return self.whole_numbers(words, number)

    def whole_numbers(self, words: Sequence[str], number: int) -> list[int]:
        """Words of a line as whole numbers from 0."""
        for word in words:
            # int() also takes underscores and signs.
            if not re.fullmatch("[0-9]{1,18}", word):
                self.fail(f"{_shown([word])} is not a whole number from 0", number)
        return [int(word) for word in words]

    def weight(self, word: str, number: int) -> float:
        """A word of a line as a finite number."""
        try:
            # float() also takes underscores, and the digits of other scripts.
            weight = float(word) if word.isascii() and "_" not in word else None
        except ValueError:
            weight = None
        if weight is None:
            self.fail(f"weight {_shown([word])} is not a number", number)
        if not math.isfinite(weight):
            self.fail(f"weight is {word}; it must be finite", number)
        return weight

    def skip(self, count: int) -> None:
        """Pass over `count` lines unread."""
        if self._at + count > len(self._lines):
            self._at = len(self._lines)
            self.next(f"{count} entries")
        self._at += count

    def entries(self, n: int | None, count: int | None) -> list[Entry]:
        """The next `count` lines ``i j weight``, or all, with indices from 0.

        Refused: indices outside n, pairs given twice (in either order), weights that
        are no finite numbers.
        """
        first = self._form.first
        entries: list[Entry] = []
        seen: dict[tuple[int, int], int] = {}
        left = len(self._lines) - self._at
        for k in range(left if count is None else count):
            number, words = self.next(f"entry {k + 1} of {count}")
            if len(words) != 3:
                self.fail(f"expected 'i j weight', not {_shown(words)}", number)
            i, j = self.whole_numbers(words[:2], number)
            for index in (i, j):
                if index < first or (n is not None and index >= n + first):
                    last = "" if n is None else f" to {n + first - 1}"
                    self.fail(f"variable {index} is not in {first}{last}", number)
            pair = (min(i, j) - first, max(i, j) - first)
            if seen.setdefault(pair, number) != number:
                self.fail(f"{i} {j} is given in line {seen[pair]} already", number)
            entries.append((*pair, self.weight(words[2], number)))
        return entries

    def vartype(self) -> str:
        """The vartype that a comment states, as dimod writes it; else BINARY."""
        for number, comment in self._comments:
            if match := re.search(r"vartype[:=]\s*([-\w.]+)", comment):
                if match[1] not in ("BINARY", "SPIN"):
                    self.fail(f"vartype {match[1]} is not BINARY or SPIN", number)
                return match[1]
        return "BINARY"


def _shown(words: Sequence[str]) -> str:
    text = " ".join(words)
    return repr(text if len(text) <= 40 else text[:37] + "…")
