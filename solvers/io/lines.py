"""The lines of a text file that holds a problem, and what is wrong with them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from solvers.errors import InputError

Entry = tuple[int, int, float]


class Lines:
    """The lines of a text file but for comments and blanks, read one by one.

    Parameters
    ----------
    path
        The file, which error messages name.
    content
        What is in it.
    comments
        Prefixes of lines that are comments.
    """

    def __init__(
        self, path: Path, content: bytes, comments: tuple[str, ...] = ()
    ) -> None:
        self.path = path
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
            if line.lstrip().startswith(comments):
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
            self.fail(
                f"expected {' and '.join(names)}, not {shown_words(words)}", number
            )
        return self.whole_numbers(words, number)

    def whole_numbers(self, words: Sequence[str], number: int) -> list[int]:
        """Words of a line as whole numbers from 0."""
        for word in words:
            # int() also takes underscores and signs.
            if not re.fullmatch("[0-9]{1,18}", word):
                self.fail(f"{shown_words([word])} is not a whole number from 0", number)
        return [int(word) for word in words]

    def variable(self, word: str, n: int | None, first: int, number: int) -> int:
        """A word of a line as the index of a variable, counted from 0."""
        (index,) = self.whole_numbers([word], number)
        if index < first or (n is not None and index >= n + first):
            last = "" if n is None else f" to {n + first - 1}"
            self.fail(f"variable {index} is not in {first}{last}", number)
        return index - first

    def weight(self, word: str, number: int, what: str = "weight") -> float:
        """A word of a line as a finite number."""
        try:
            # float() also takes underscores, and the digits of other scripts.
            weight = float(word) if word.isascii() and "_" not in word else None
        except ValueError:
            weight = None
        if weight is None:
            self.fail(f"{what} {shown_words([word])} is not a number", number)
        if not math.isfinite(weight):
            self.fail(f"{what} is {word}; it must be finite", number)
        return weight

    def skip(self, count: int) -> None:
        """Pass over `count` lines unread."""
        if self._at + count > len(self._lines):
            self._at = len(self._lines)
            self.next(f"{count} entries")
        self._at += count

    def entries(
        self, n: int | None, count: int | None, first: int, remarks: bool = False
    ) -> list[Entry]:
        """The next `count` lines ``i j weight``, or all, with indices from 0.

        Refused: indices outside n, pairs given twice (in either order), weights that
        are no finite numbers. `first` is the file's first index; with `remarks`,
        whatever follows in a line is left out.
        """
        entries: list[Entry] = []
        seen: dict[tuple[int, int], int] = {}
        left = len(self._lines) - self._at
        for k in range(left if count is None else count):
            number, words = self.next(f"entry {k + 1} of {count}")
            if len(words) < 3 or (len(words) > 3 and not remarks):
                self.fail(f"expected 'i j weight', not {shown_words(words)}", number)
            i, j = (self.variable(word, n, first, number) for word in words[:2])
            pair = (min(i, j), max(i, j))
            if seen.setdefault(pair, number) != number:
                given = f"{words[0]} {words[1]} is given in line {seen[pair]} already"
                self.fail(given, number)
            entries.append((*pair, self.weight(words[2], number)))
        return entries

    def comments(self, pattern: str) -> Iterator[tuple[int, re.Match[str]]]:
        """Matches of a pattern in the comments, with the numbers of their lines."""
        for number, comment in self._comments:
            if match := re.search(pattern, comment):
                yield number, match


def shown_words(words: Sequence[str]) -> str:
    """Words of a line for a message, cut where they are many."""
    text = " ".join(words)
    return repr(text if len(text) <= 40 else text[:37] + "…")
