"""The regression suite: its problems, what it calls a regression, and how it ends."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.regression import __main__ as command
from benchmarks.regression import baseline, calibration
from benchmarks.regression.baseline import Baseline, Entry, compare, platform
from benchmarks.regression.problems import problem
from solvers import InputError, parse_solver
from solvers.testing import example_batch, reference_energies

ROOT = Path(__file__).resolve().parent.parent
ONE = Entry(energy=2.0, tolerance=0.01, time=10.0, counts={"flips": 1000, "sweeps": 5})
HERE = Baseline(platform(), {"one": ONE})


def wrong(now: Entry, stored: Baseline = HERE, slower: float = 1.5) -> list[str]:
    return compare({"one": now}, stored, slower)["one"]


def test_what_is_as_it_was_is_fine():
    assert wrong(ONE) == []
    assert wrong(replace(ONE, energy=1.0, time=1.0)) == []


def test_a_worse_energy_is_wrong_beyond_its_tolerance():
    assert wrong(replace(ONE, energy=2.019)) == []
    assert wrong(replace(ONE, energy=2.021)) == ["energy 2.021, was 2"]
    assert wrong(replace(ONE, energy=2.019, tolerance=1e-9)) != []
    below = Baseline(platform(), {"one": replace(ONE, energy=-2.0)})
    assert wrong(replace(ONE, energy=-1.99), below) == []
    assert wrong(replace(ONE, energy=-1.97), below) == ["energy -1.97, was -2"]


def test_a_better_energy_is_told_apart():
    assert replace(ONE, energy=1.97).beats(ONE)
    assert not replace(ONE, energy=1.99).beats(ONE)


def test_a_changed_count_is_wrong():
    for flips in (999, 1001):
        now = replace(ONE, counts={"flips": flips, "sweeps": 5})
        assert wrong(now) == [f"flips {flips}, was 1000"]
    assert wrong(replace(ONE, counts={"sweeps": 5})) == ["flips None, was 1000"]
    assert wrong(replace(ONE, counts=ONE.counts | {"runs": 7})) == ["runs 7, was None"]


def test_elsewhere_counts_may_be_off_a_little():
    elsewhere = Baseline(platform() | {"processor": "another"}, HERE.entries)
    assert wrong(replace(ONE, counts={"flips": 1100, "sweeps": 5}), elsewhere) == []
    assert wrong(replace(ONE, counts={"flips": 1101, "sweeps": 5}), elsewhere) == [
        "flips 1101, was 1000"
    ]


def test_a_slower_time_is_wrong_beyond_the_tolerance():
    assert wrong(replace(ONE, time=15.0)) == []
    assert wrong(replace(ONE, time=15.1)) == ["1.51 times as long"]
    assert wrong(replace(ONE, time=15.1), slower=1.6) == []


def test_missing_and_new_entries_are_wrong():
    found = compare({"two": ONE}, HERE, 1.5)
    assert found == {"two": ["new"], "one": ["missing"]}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[" * 100_000,
        "[]",
        "{}",
        '{"made_with": {}, "entries": []}',
        '{"made_with": {}, "entries": {"one": {"energy": 1.0}}}',
        json.dumps({"made_with": {}, "entries": {"one": asdict(ONE) | {"time": "1"}}}),
        '{"made_with": {}, "entries": {"one": '
        '{"energy": NaN, "tolerance": 0.0, "time": 1.0, "counts": {}}}}',
        '{"made_with": {}, "entries": {"one": '
        '{"energy": 1.0, "tolerance": 0.0, "time": 1.0, "counts": {"flips": true}}}}',
    ],
)
def test_a_broken_baseline_is_one_line(tmp_path, capsys, content):
    file = tmp_path / "broken.json"
    file.write_text(content)
    assert command.main(["--baseline", str(file)]) == 2
    out, said = capsys.readouterr()
    assert (out, said.count("\n")) == ("", 1)
    assert f"{file} is not a baseline of this suite" in said


def test_no_baseline_is_one_line(tmp_path, capsys):
    assert command.main(["--baseline", str(tmp_path / "none.json")]) == 2
    assert "none.json: No such file" in capsys.readouterr().err


def test_a_place_for_a_baseline_is_checked_before_measuring(tmp_path, capsys):
    place = tmp_path / "missing" / "new.json"
    assert command.main(["--update", "--baseline", str(place)]) == 2
    assert "new.json: its folder does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0.9", "nan", "inf"])
def test_a_tolerance_below_one_is_refused(capsys, value):
    assert command.main(["--tolerance", value]) == 2
    assert "--tolerance must be at least 1" in capsys.readouterr().err


def test_without_pytest_benchmark_it_says_what_to_install(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert command.main(["--update", "--baseline", str(tmp_path / "new.json")]) == 2
    assert capsys.readouterr().err == (
        "error: the regression suite needs pytest and pytest-benchmark: "
        "pip install 'qubo-rounding[test]'\n"
    )


@pytest.fixture
def suite(monkeypatch):
    """Stands in for the suite: what its runs measure, one after the other."""
    runs: list[tuple[dict[str, Entry], str]] = []
    asked: list[list[str]] = []

    def measure(names=()):
        asked.append(list(names))
        return runs.pop(0)

    monkeypatch.setattr(command, "measure", measure)
    return runs, asked


@pytest.fixture
def stored(tmp_path, suite, capsys) -> list[str]:
    """Arguments that name a baseline of `ONE`, made by the command itself."""
    arguments = ["--baseline", str(tmp_path / "baseline.json")]
    suite[0].append(({"one": ONE}, ""))
    assert command.main(["--update", *arguments]) == 0
    assert baseline.read(tmp_path / "baseline.json") == HERE
    suite[1].clear()
    capsys.readouterr()
    return arguments


def test_the_command_fails_on_a_regression_alone(suite, stored, capsys):
    for energy, code, verdict in ((2.0, 0, "ok"), (1.0, 0, "better"), (3.0, 1, "was")):
        suite[0].append(({"one": replace(ONE, energy=energy)}, ""))
        assert command.main(stored) == code
        line = capsys.readouterr().out.splitlines()[1]
        assert "flips 1000 sweeps 5" in line
        assert verdict in line


def test_what_seems_slower_is_measured_again(suite, stored, capsys):
    slow, quick = (replace(ONE, time=time) for time in (20.0, 11.0))
    suite[0].extend([({"one": slow}, ""), ({"one": slow}, ""), ({"one": quick}, "")])
    assert command.main(stored) == 0
    assert suite[1] == [[], ["one"], ["one"]]
    suite[0].extend([({"one": slow}, "")] * 3)
    assert command.main(stored) == 1
    assert "2.00 times as long" in capsys.readouterr().out


def test_a_case_that_fails_is_a_regression_and_never_stored(
    suite, stored, capsys, tmp_path
):
    suite[0].append(({}, "1 failed"))
    assert command.main(stored) == 1
    out, said = capsys.readouterr()
    assert "missing" in out
    assert said == "1 failed\n"
    suite[0].append(({}, "1 failed"))
    assert command.main(["--update", *stored]) == 1
    assert baseline.read(tmp_path / "baseline.json") == HERE


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("conv27", "83358e236b0d"),
        ("conv147", "38c2da00811c"),
        ("conv576", "67a9e627cfb1"),
        ("flat", "5e937785b9d4"),
        ("flat20", "8d3db2c43168"),
    ],
)
def test_problems_are_the_same_bits_everywhere(name, digest):
    qubo = problem(name)
    arrays = (qubo.H, qubo.linear, qubo.offset, qubo.prior, qubo.levels)
    content = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    assert hashlib.sha256(content).hexdigest()[:12] == digest


@pytest.mark.parametrize("name", ["conv27", "conv576"])
def test_problems_are_those_of_rounding(name):
    qubo = problem(name)
    values = np.linalg.eigvalsh(qubo.H.astype(np.float64))
    assert values[0] > 0
    assert values[-1] > 1e5 * values[0]
    # The energy is (x - t)^T H (x - t), and t the prior.
    d = qubo.nearest() - qubo.prior
    expected = ((d @ qubo.H.astype(np.float64)) * d).sum(axis=1)
    np.testing.assert_allclose(reference_energies(qubo, qubo.nearest()), expected, 1e-7)
    assert (qubo.levels[0] <= 0).all()
    assert (qubo.levels[1] >= 1).all()


def test_counts_are_whole_numbers_and_sums_over_rows():
    from benchmarks.regression.test_solvers import counts

    found = parse_solver("nearest").solve(example_batch(2, 3))
    found.info.update(flips=3, nodes=[4, 5], proved=[True, True], gap=[0.5], note="no")
    found.info.update(rows=[], some=True)
    assert counts(found) == {"flips": 3, "nodes": 9}


def test_the_calibration_takes_long_enough_to_be_measured():
    resolution = time.get_clock_info("process_time").resolution
    assert min(calibration.seconds() for _ in range(3)) > 100 * resolution


def test_pytest_alone_does_not_collect_the_suite(request):
    assert request.config.getini("testpaths") == ["tests"]


def test_a_case_that_pytest_does_not_know_is_said_in_one_line():
    with pytest.raises(InputError, match="cannot run the suite: ERROR: not found: "):
        command.measure(["test_kernel[no such case]"])


@pytest.mark.slow
def test_the_command_runs_against_its_baseline():
    # Not a test of speed: other tests may run beside it.
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.regression", "--tolerance", "20"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 of them wrong" in done.stdout


@pytest.mark.slow
def test_pytest_runs_it_and_asserts_the_stored_energies(tmp_path):
    package = tmp_path / "benchmarks"
    shutil.copytree(ROOT / "benchmarks", package)
    file = package / "regression" / "baseline.json"
    content = json.loads(file.read_text())
    content["entries"]["test_solver[babai conv147]"]["energy"] *= 0.99
    file.write_text(json.dumps(content))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", package / "regression", "--benchmark-disable"]
        + ["-q", "-k", "babai or nearest"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "test_solver[babai conv147] - As" in done.stdout
    assert "energy" in done.stdout
