"""The machine, the versions and the commit that a record was made with."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Installed packages that any run may depend on, and those of one peer alone.
SHARED = (
    "numpy",
    "scipy",
    "numba",
    "torch",
    "torchvision",
    "dimod",
    "dwave-samplers",
    "pillow",
)
PEERS = ("openjij", "simulated-bifurcation", "qubolite")
PACKAGES = ("qubo-rounding", *SHARED, *PEERS)
# The packages of this project, whose code makes a run.
OWN = ("solvers", "qubo_rounding", "benchmarks")


def environment(threads: int) -> dict[str, Any]:
    """The machine, the versions of `PACKAGES` and the commit."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in PACKAGES},
        "commit": _commit(),
    }


@cache
def code_digest() -> str:
    """A hash of the code that makes runs: this project's, and versions of others'."""
    sha = hashlib.sha256(repr([installed(name) for name in SHARED]).encode())
    for package in OWN:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder.parent).as_posix()
            content = path.read_bytes()
            sha.update(f"{name} {len(content)} ".encode() + content)
    return sha.hexdigest()[:16]


def installed(name: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
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
