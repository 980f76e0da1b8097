"""Kernels and solvers at fixed seeds and sweeps, against a stored baseline.

Wrong is an energy or a count that differs from the stored one, or a time that is so
many times as long, in units of a calibration measured beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib.util import find_spec
from pathlib import Path

from benchmarks.harness.command import execute
from benchmarks.harness.readers import writable
from benchmarks.harness.report import write_json
from benchmarks.harness.tables import columns
from benchmarks.options import add
from benchmarks.regression.baseline import (
    STORED,
    Baseline,
    Entry,
    compare,
    platform,
    read,
)
from solvers import InputError

# Times that a case which seems slower is measured again.
AGAIN = 2
# pytest's exit codes for tests that ran: all passed, some failed.
PASSED, FAILED = 0, 1


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "update")
    add(parser, "tolerance", default=1.5)
    add(parser, "stored", default=STORED, note="the one in the package")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line of ``benchmarks.regression``; return the exit code."""
    command = sys.modules[__name__]
    return execute(command, "python -m benchmarks.regression", arguments)


def run(options: argparse.Namespace) -> int:
    """Measure, then store or compare; return the exit code."""
    if options.update:
        writable("--baseline", options.baseline)
    stored = None if options.update else read(options.baseline)
    measured, complaints = measure()
    if complaints:
        print(complaints, file=sys.stderr)
    if stored is None:
        if complaints:
            print(f"{options.baseline} stays as it is: not all cases ran")
            return 1
        write_json(options.baseline, asdict(Baseline(platform(), measured)))
        print(f"{options.baseline}: {len(measured)} cases")
        return 0
    for _ in range(AGAIN):
        slow = [
            name
            for name in measured.keys() & stored.entries.keys()
            if measured[name].time > options.tolerance * stored.entries[name].time
        ]
        if not slow:
            break
        for name, entry in measure(slow)[0].items():
            measured[name] = min(measured[name], entry, key=lambda entry: entry.time)
    faults = compare(measured, stored, options.tolerance)
    print(table(measured, stored, faults))
    wrong = sum(map(bool, faults.values()))
    print(f"{len(faults)} cases, {wrong} of them wrong")
    return 1 if wrong or complaints else 0


def measure(names: Sequence[str] = ()) -> tuple[dict[str, Entry], str]:
    """Run the suite, or the cases with the given names.

    Returns
    -------
    measured
        Entries by the name of the case.
    complaints
        Output of pytest if a case failed; else empty.

    Raises
    ------
    InputError
        pytest or pytest-benchmark is missing, or cannot run the suite.
    """
    if not (find_spec("pytest") and find_spec("pytest_benchmark")):
        raise InputError(
            "the regression suite needs pytest and pytest-benchmark: "
            "pip install 'qubo-rounding[test]'"
        )
    folder = Path(__file__).parent
    # Neither the user's options nor other plug-ins may change what is measured, nor the
    # pytest that this may run in: workers of pytest-xdist are told apart by variables.
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "benchmark.json"
        # test_kernel[…] is in test_kernels.py.
        cases = [f"{folder / name.partition('[')[0]}s.py::{name}" for name in names]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                *(cases or [str(folder)]),
                "-p",
                "pytest_benchmark.plugin",
                "-p",
                "no:cacheprovider",
                "-o",
                "addopts=",
                "-q",
                "--benchmark-quiet",
                "--no-baseline",
                f"--benchmark-json={file}",
            ],
            env=env,
            capture_output=True,
            text=True,
        )
        if done.returncode not in (PASSED, FAILED) or not file.exists():
            output = (done.stderr + done.stdout).strip().splitlines()
            output = output or ["nothing said"]
            reason = next((s for s in output if s.startswith("ERROR")), output[-1])
            raise InputError(f"pytest cannot run the suite: {reason}")
        content = json.loads(file.read_text("utf-8"))
    keys = [field.name for field in fields(Entry)]
    # A case that failed while it was measured has left no information.
    measured = {
        case["name"]: Entry(**{key: case["extra_info"][key] for key in keys})
        for case in content["benchmarks"]
        if case["extra_info"]
    }
    return measured, done.stdout if done.returncode == FAILED else ""


def table(
    measured: Mapping[str, Entry],
    stored: Baseline,
    faults: Mapping[str, Sequence[str]],
) -> str:
    """A line for each case: energy, counts, time in calibrations, and the verdict."""
    lines = [["case", "energy", "stored", "time", "stored", "times", "counts", ""]]
    for name, wrong in faults.items():
        now, before = measured.get(name), stored.entries.get(name)
        known = now or before
        assert known is not None
        fine = "better" if now and before and now.beats(before) else "ok"
        lines.append(
            [name]
            + [f"{entry.energy:.6g}" if entry else "-" for entry in (now, before)]
            + [f"{entry.time:.3g}" if entry else "-" for entry in (now, before)]
            + [f"{now.time / before.time:.2f}" if now and before else "-"]
            + [" ".join(f"{k} {n}" for k, n in known.counts.items()) or "-"]
            + ["; ".join(wrong) or fine]
        )
    return columns(lines)


if __name__ == "__main__":
    sys.exit(main())
