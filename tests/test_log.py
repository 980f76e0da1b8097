"""Runs are kept as they finish, and taken up again."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.harness.log import RunLog, open_log
from solvers.errors import InputError


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


@pytest.mark.parametrize("content", ["", "{}\n", "[1]\n", "solver,ratio\n", "\x00\n"])
def test_other_files_are_refused_and_kept(path, content):
    path.write_text(content)
    with pytest.raises(InputError, match="is not a log of runs"):
        RunLog(path, {}, {})
    assert path.read_text() == content


def test_a_place_that_cannot_be_written_to(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        RunLog(tmp_path / "missing" / "runs.jsonl", {}, {})
    with pytest.raises(InputError, match="cannot read"):
        RunLog(tmp_path, {}, {})


def test_a_log_of_another_commit_is_taken_up_with_a_warning(path):
    RunLog(path, {}, {"environment": {"commit": "abc", "cpus": 2}})
    with pytest.warns(UserWarning, match="begun with another commit: its runs may not"):
        RunLog(path, {}, {"environment": {"commit": "def", "cpus": 64}})


def test_logs_of_older_forms_are_refused(path):
    options = argparse.Namespace(log=path, seed=1)
    path.write_text('{"settings": {"command": "anytime", "seed": 1}}\n')
    with pytest.raises(
        InputError, match="begun with format = None, not 2; name another"
    ):
        open_log("anytime", options, "seed")
