"""Runs are kept as they finish, and taken up again."""

from __future__ import annotations

import argparse
import json
import re
import signal
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.harness import environment
from benchmarks.harness import log as module
from benchmarks.harness.log import RunLog, open_log, solver_key
from solvers import parse_solver
from solvers.errors import InputError
from tests.misbehaving import Honest


class Work:
    """Counts how often a run is really made."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, name: str) -> dict[str, object]:
        self.made.append(name)
        return {"name": name, "value": len(self.made)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.jsonl"


def test_finished_runs_are_not_made_again(path):
    work = Work()
    log = RunLog(path, {"seed": 0}, {"environment": {"cpus": 2}})
    first = log.run("a", lambda: work("a"))
    assert log.run("a", lambda: work("a")) == first
    again = RunLog(path, {"seed": 0}, {"environment": {"cpus": 64}})
    assert again.run("a", lambda: work("a")) == first
    assert again.run("b", lambda: work("b"))["value"] == 2
    assert work.made == ["a", "b"]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"settings": {"seed": 0}, "environment": {"cpus": 2}}
    assert [line["key"] for line in lines[1:]] == ["a", "b"]


def test_an_interrupted_run_leaves_the_finished_ones(path):
    work, log = Work(), RunLog(path, {}, {})

    def interrupted() -> dict[str, object]:
        raise KeyboardInterrupt

    log.run("a", lambda: work("a"))
    with pytest.raises(KeyboardInterrupt):
        log.run("b", interrupted)
    # Killed while it wrote.
    with path.open("a") as file:
        file.write('{"key": "c", "run": {"va')
    resumed = RunLog(path, {}, {})
    for key in "abc":
        resumed.run(key, lambda key=key: work(key))
    assert work.made == ["a", "b", "c"]
    assert RunLog(path, {}, {}).run("c", lambda: work("c"))["name"] == "c"


def test_without_a_file_nothing_is_kept(tmp_path):
    assert RunLog(None, {}, {}).run("a", dict) == {}
    assert list(tmp_path.iterdir()) == []


def test_other_settings_are_refused(path):
    RunLog(path, {"seed": 0, "file": Path("x")}, {})
    RunLog(path, {"seed": 0, "file": Path("x")}, {})
    with pytest.raises(InputError, match=r"begun with seed = 0, not 1; name another"):
        RunLog(path, {"seed": 1, "file": Path("x")}, {})


@pytest.mark.parametrize(
    "content",
    [
        *("{}\n", "[1]\n", "solver,ratio\n", "\x00\n", '{"settings": []}\n'),
        *("solver,ratio\nsa", "one line", "{'settings'", "[" * 100_000 + "\n"),
    ],
)
def test_other_files_are_refused_and_kept(path, content):
    path.write_text(content)
    with pytest.raises(InputError, match="is not a log of runs"):
        RunLog(path, {}, {})
    assert path.read_text() == content


def test_a_place_that_cannot_be_written_to(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        RunLog(tmp_path / "missing" / "runs.jsonl", {}, {})
    with pytest.raises(InputError, match="is not a file"):
        RunLog(tmp_path, {}, {})


def test_a_log_of_another_processor_is_taken_up_with_a_warning(path):
    RunLog(path, {}, {"environment": {"processor": "abc", "cpus": 2}})
    with pytest.warns(UserWarning, match="begun on another processor: its times may"):
        RunLog(path, {}, {"environment": {"processor": "def", "cpus": 64}})


@pytest.mark.parametrize("torn", ["", "{", '{"settings"', '{"settings": {"seed": 0}'])
def test_a_log_that_ended_before_its_first_line_is_begun_anew(path, torn):
    path.write_text(torn)
    work = Work()
    RunLog(path, {"seed": 0}, {}).run("a", lambda: work("a"))
    RunLog(path, {"seed": 0}, {}).run("a", lambda: work("a"))
    assert work.made == ["a"]
    assert path.read_text().startswith('{"settings": {"seed": 0}}\n')


@pytest.mark.parametrize(
    "line", ["garbage", "{}", '{"key": 1, "run": {}}', '{"key": "a", "run": 3}', ""]
)
def test_a_line_that_is_no_run_is_named(path, line):
    log = RunLog(path, {}, {})
    log.run("a", dict)
    with path.open("a") as file:
        file.write(line + "\n")
    log.run("b", dict)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"runs\.jsonl:3: not a run"):
        RunLog(path, {}, {})
    assert path.read_bytes() == before


def test_runs_of_other_code_are_made_again_and_stay(path, monkeypatch):
    work = Work()
    log = RunLog(path, {}, {})
    log.run("a", lambda: work("a"))
    log.run("b", lambda: work("b"))
    before = path.read_text()
    with monkeypatch.context() as patched:
        patched.setattr(module, "code_digest", lambda: "another")
        with pytest.warns(UserWarning, match=r"2 runs of other code are left aside"):
            other = RunLog(path, {}, {})
        assert other.run("a", lambda: work("a"))["value"] == 3
    assert path.read_text().startswith(before)
    with pytest.warns(UserWarning, match=r"1 runs of other code are left aside"):
        again = RunLog(path, {}, {})
    assert again.run("a", lambda: work("a"))["value"] == 1


def test_a_full_disk_leaves_whole_lines(path):
    """The kernel refuses to let the file grow, as a full disk does."""
    resource = pytest.importorskip("resource")
    log = RunLog(path, {}, {})
    log.run("a", lambda: {"value": 1})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
        with pytest.raises(InputError, match=r"cannot write .*runs\.jsonl: File too"):
            log.run("b", lambda: {"value": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, kept)
    assert path.read_bytes() == before
    log.run("c", lambda: {"value": 3})
    assert RunLog(path, {}, {}).run("c", dict) == {"value": 3}


def test_reading_writes_nothing(path):
    RunLog(path, {}, {}).run("a", lambda: {"value": 1})
    before = path.stat().st_mtime_ns
    assert RunLog(path, {}, {}).run("a", dict) == {"value": 1}
    assert path.stat().st_mtime_ns == before


def test_places_that_are_no_files(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*: File name too long"):
        RunLog(tmp_path / ("x" * 300), {}, {})
    with pytest.raises(InputError, match="is not a file"):
        RunLog(Path("/dev/null"), {}, {})


def test_keys_of_solvers_hold_what_makes_their_runs(tmp_path, install):
    assert solver_key(parse_solver("sa[num_sweeps=3]")) == "sa[num_sweeps=3]"
    peer = parse_solver("dwave-tabu")
    assert solver_key(peer) == f"dwave-tabu dwave.samplers {version('dwave-samplers')}"
    (tmp_path / "mine.py").write_text(
        "from solvers.sampling.nearest import Nearest\n"
        "class Mine(Nearest):\n    name = 'mine'\n"
    )
    text = f"{tmp_path}/mine.py:Mine"
    assert re.fullmatch(rf"{re.escape(text)} \w{{16}}", solver_key(parse_solver(text)))
    inside = solver_key(parse_solver(f"window[solver={text}]"))
    assert inside == f"window[solver={text}] {solver_key(parse_solver(text))}"
    # A class of another package, here of the tests.
    assert re.fullmatch(r"honest \w{16}", solver_key(Honest()))


def test_the_code_of_every_package_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    names = tuple(f"package_{i}_of_a_test" for i in range(2))
    for name in names:
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "__init__.py").touch()
    monkeypatch.setattr(environment, "OWN", names)
    digest = environment.code_digest.__wrapped__
    found = [digest()]
    (tmp_path / names[1] / "sub" / "new.py").write_text("x = 1")
    found.append(digest())
    (tmp_path / names[1] / "sub" / "new.py").write_text("x = 2")
    found.append(digest())
    (tmp_path / names[0] / "notes.txt").write_text("no code")
    assert digest() == found[-1]
    monkeypatch.setattr(environment, "installed", lambda name: "9.9")
    found.append(digest())
    assert len(set(found)) == 4
    assert environment.code_digest() == environment.code_digest()


def test_logs_of_older_forms_are_refused(path):
    options = argparse.Namespace(log=path, seed=1)
    path.write_text('{"settings": {"command": "anytime", "seed": 1}}\n')
    with pytest.raises(
        InputError, match="begun with format = None, not 3; name another"
    ):
        open_log("anytime", options, "seed")
