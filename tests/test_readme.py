"""The README's examples run and print what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from benchmarks.__main__ import COMMANDS, STUDIES
from benchmarks.__main__ import main as benchmarks
from solvers import available

README = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_examples() -> None:
    namespace: dict[str, object] = {}
    examples = blocks("python")
    assert len(examples) == 4
    for example in examples:
        exec(example, namespace)


def test_the_main_job_prints_the_readmes_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (block,) = blocks("console")
    command, *expected = block.strip().splitlines()
    program, arguments = command.split("benchmarks.run")
    assert program == "$ python -m "
    assert benchmarks(["run", *shlex.split(arguments)]) == 0
    out, err = capsys.readouterr()
    printed = (err + out).splitlines()
    assert len(printed) == len(expected)
    for line, promised in zip(printed, expected, strict=True):
        words, promises = line.split(), promised.split()
        assert words[0] == promises[0]
        if words[0] in available():
            # Another processor sums in another order, and a search may then part ways.
            tolerance = 0.001 if words[0] == "nearest" else 0.25
            ratio, promise = float(words[2]), float(promises[2])
            assert ratio == pytest.approx(promise, rel=tolerance)
            accuracy = float(words[5]), float(promises[5])
            assert accuracy[0] == pytest.approx(accuracy[1], abs=1.0)
        else:
            assert line == promised


def test_every_option_of_the_readme_exists(
    capsys: pytest.CaptureFixture[str],
) -> None:
    actions = [
        *(("suite", action) for action in ("run", "list")),
        *(("store", a) for a in ("list", "show", "export", "merge", "verify")),
        *(("best", action) for action in ("show", "verify", "update")),
        *(("library", action) for action in ("export", "import")),
    ]
    for command in (*((name,) for name in (*COMMANDS, *STUDIES)), *actions):
        with pytest.raises(SystemExit):
            benchmarks([*command, "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    named = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", " ".join(blocks("sh")) + README))
    assert named <= known


def test_every_command_of_the_readme_exists() -> None:
    named = set(re.findall(r"python -m benchmarks[ .]([a-z][a-z-]*)", README))
    assert named <= COMMANDS.keys() | STUDIES.keys()
    assert len(named) >= 13


def test_every_solver_of_the_table_exists() -> None:
    table = README.split("## Solvers")[1].split("All take")[0]
    named = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    assert named <= set(available())
    assert len(named) >= 7
