"""Numbers as text, and text in columns."""

from __future__ import annotations

import math

import pytest

from benchmarks.harness import tables


@pytest.mark.parametrize(
    ("value", "text"), [(1.25, "1.250"), (None, "-"), (math.nan, "-"), (-0.5, "-0.500")]
)
def test_missing_numbers_are_dashes(value, text):
    assert tables.number(value, 3) == text


def test_no_numbers_are_a_dash():
    assert tables.median_and_range([]) == tables.mean_and_deviation([], 2) == "-"
    assert tables.median_and_range([2.0, 1.0, 3.0], 1) == "2.0 [1.0, 3.0]"
    assert tables.mean_and_deviation([1.0, 3.0], 2) == "2.00 ± 1.41"


def test_a_cell_is_one_line():
    text = tables.columns([["solver", "s"], ["a\nb.py:X\udcff", "1"]])
    assert text.splitlines() == ["solver           s", r"a\nb.py:X\udcff  1"]
