"""Numbers as text, and text in columns."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from solvers.errors import printable


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as a table: the first column aligned left, the others right."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def number(value: float | None, digits: int, missing: str = "-") -> str:
    """A number as text, or the text for a missing one: None or NaN."""
    if value is None or math.isnan(value):
        return missing
    return f"{value:.{digits}f}"


def median_and_range(values: Sequence[float], digits: int = 5) -> str:
    """The median and, of several values, the lowest and the highest; a dash of none."""
    if not values:
        return "-"
    text = f"{statistics.median(values):.{digits}f}"
    if len(values) > 1:
        text += f" [{min(values):.{digits}f}, {max(values):.{digits}f}]"
    return text


def mean_and_deviation(values: Sequence[float], digits: int) -> str:
    """The mean and, of several values, the standard deviation; a dash of none."""
    if not values:
        return "-"
    text = f"{statistics.fmean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f}"
    return text


def as_interval(interval: tuple[float, float] | None, digits: int = 1) -> str:
    """An interval to append to a figure; empty if there is none."""
    if interval is None:
        return ""
    return f" [{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]"
