"""Fixtures for all tests."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

# Where tests are shared out over the cores, threads of BLAS and torch in each worker
# would only wait for one another. Read when these libraries are loaded.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

VARIABLE = "QUBO_ROUNDING_REAL_DATA"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real networks, images and problems; skips where there is none."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"real data: {VARIABLE} is not set")
    return Path(folder)


@pytest.fixture
def install(monkeypatch):
    """Entry points as if a package had brought them."""
    # Here, since it loads numpy, which reads the environment set above.
    from solvers import registry

    def install(package: str = "", **points: str) -> None:
        found = [EntryPoint(n, v, registry.GROUP) for n, v in points.items()]
        if package:
            found.append(EntryPoint("theirs", package, registry.PACKAGES))

        def entry_points(*, group: str) -> list[EntryPoint]:
            return [point for point in found if point.group == group]

        monkeypatch.setattr(registry, "entry_points", entry_points)

    return install
