"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "QUBO_ROUNDING_REAL_DATA"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real networks, images and problems; skips where there is none."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"real data: {VARIABLE} is not set")
    return Path(folder)
