"""The machine, the versions and the commit that a record was made with."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "qubo-rounding",
    "numpy",
    "scipy",
    "numba",
    "torch",
    "torchvision",
    "dimod",
    "dwave-samplers",
    "pillow",
    "openjij",
    "simulated-bifurcation",
    "qubolite",
)


@cache
def environment(threads: int) -> dict[str, Any]:
    """The machine, the versions of `PACKAGES` and the commit."""
    return {
        "machine": platform.machine(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in PACKAGES},
        "commit": _commit(),
    }


def installed(name: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def _commit() -> str | None:
    """Commit of the checkout that holds this file, with ``+`` if it is changed."""
    folder = Path(__file__).resolve().parent
    try:
        outputs = [
            subprocess.run(
                ["git", *arguments],
                cwd=folder,
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for arguments in (
                ["rev-parse", "--short", "HEAD"],
                ["ls-files", "--error-unmatch", Path(__file__).name],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    commit, _, changes = outputs
    return commit + ("+" if changes else "")
