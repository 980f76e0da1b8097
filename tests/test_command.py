"""One command: how it lists, parses and ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from benchmarks import options
from benchmarks.__main__ import COMMANDS, STUDIES, command, listing, main
from benchmarks.harness.command import Parser, Terminated, execute, exit_code
from solvers import InputError

ROOT = Path(__file__).resolve().parent.parent
NAMES = [*COMMANDS, *STUDIES]


SURROGATES = "error: cannot read a\\nb\\udcff\\x1b\n"
DENIED = "error: a\\nb: Permission denied\n"
FULL = "error: No space left on device\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("no such layer"), 2, "error: no such layer\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (Terminated(), 143, "terminated\n"),
        (MemoryError("8 GiB"), 2, "error: out of memory: 8 GiB\n"),
        (InputError("cannot read a\nb\udcff\x1b"), 2, SURROGATES),
        (PermissionError(13, "Permission denied", "a\nb"), 2, DENIED),
        (OSError(28, "No space left on device"), 2, FULL),
    ],
)
def test_what_goes_wrong_is_one_line(capsys, error, code, said):
    def work() -> int:
        raise error

    assert exit_code(work) == code
    assert capsys.readouterr() == ("", said)


def test_memory_that_nobody_names_is_named_by_its_place(capsys):
    def hoard() -> int:
        raise MemoryError

    assert exit_code(hoard) == 2
    said = r"error: out of memory: test_command\.py:\d+, in hoard\n"
    assert re.fullmatch(said, capsys.readouterr().err)


def a_command(run: Callable[[], int]) -> ModuleType:
    module = ModuleType("a_command", "A command.")
    module.declare = lambda parser: None
    module.run = lambda options: run()
    return module


def test_a_request_to_end_is_like_ctrl_c(capsys):
    """What is finished is kept, and the handler before is there again."""
    before, kept = signal.getsignal(signal.SIGTERM), []

    def run() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except KeyboardInterrupt:
            kept.append("finished")
            raise
        return 0

    assert execute(a_command(run), "a command", []) == 143
    assert (kept, capsys.readouterr().err) == (["finished"], "terminated\n")
    assert signal.getsignal(signal.SIGTERM) is before


def test_commands_run_in_other_threads_too():
    """Only the main thread can have signals handled."""
    codes = []
    run = a_command(lambda: 5)
    thread = threading.Thread(target=lambda: codes.append(execute(run, "x", [])))
    thread.start()
    thread.join()
    assert codes == [5]


def test_warnings_are_one_line():
    assert execute(a_command(lambda: 0), "a command", []) == 0
    said = warnings.formatwarning("two\nlines", UserWarning, "file.py", 3)
    assert said == "warning: two\\nlines\n"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--list", "solvers"]])
def test_output_that_nobody_reads(arguments):
    """As before `| head`: no traceback, and the exit code that shells give."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_problem_whose_name_is_no_text(tmp_path, capsys):
    """It is read, named in the table, and refused in one line like any other."""
    name = os.fsdecode(b"one\ntwo\xff.npz")
    arguments = ["--problem", str(tmp_path / name), "--solver", "nearest"]
    assert main(["compare", *arguments]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(r"error: [^\n]*one\\ntwo\\udcff\.npz[^\n]*\n", err)
    np.savez(tmp_path / "p.npz", weight=np.full((1, 2), 0.3), scale=0.5, bits=3)
    x = np.load(tmp_path / "p.npz")
    np.savez(tmp_path / "p.npz", second_moment=np.eye(2), **x)
    (tmp_path / "p.npz").rename(tmp_path / name)
    assert main(["compare", *arguments]) == 0
    assert capsys.readouterr().out.startswith("one\\ntwo\\udcff: 1 rows, n = 2\n")


STORING = (
    *("layers", "compare", "anytime", "instances"),
    *("paper", "proofs", "ablation", "portfolio", "networks"),
)


@pytest.mark.parametrize("name", STORING)
def test_places_for_stores_are_checked_before_the_work(name, capsys, tmp_path):
    parser = Parser(prog=name)
    command(name).declare(parser)
    for place, message in (
        (tmp_path, "it is a folder"),
        (tmp_path / "no" / "runs.db", "its folder does not exist"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(InputError, match=message):
            parser.parse_args(["--store", str(place)])


def test_a_store_in_a_place_that_cannot_be_searched(monkeypatch, tmp_path):
    def denied(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", denied)
    parser = Parser()
    options.add(parser, "store")
    with pytest.raises(InputError, match=r"cannot read .*x: Permission denied"):
        parser.parse_args(["--store", str(tmp_path / "x")])


def test_otherwise_the_code_is_the_works():
    assert exit_code(lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: 1 // 0)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_commands_are_listed(capsys, arguments):
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    listed = re.findall(r"^  ([\w-]+) +(\S.*\.)$", out, re.MULTILINE)
    assert [name for name, _ in listed] == NAMES


def test_listing_imports_no_command():
    code = "import benchmarks.__main__ as m, sys; m.listing(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert not {*COMMANDS.values(), *STUDIES.values()} & set(done.stdout.split())
    assert "benchmarks.__main__" in done.stdout.split()


def test_an_unknown_command(capsys):
    assert main(["anytim", "--help"]) == 2
    said = "error: unknown command 'anytim'; did you mean anytime?\n"
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize("name", NAMES)
def test_help_is_the_modules_docstring(capsys, name):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: python -m benchmarks {name}")
    description = command(name).__doc__
    assert description is not None
    assert description.strip() in out
    assert description.splitlines()[0] in listing()


@pytest.mark.parametrize("name", NAMES)
def test_errors_of_arguments_are_one_line(capsys, name):
    assert main([name, "--no-such-option", "3"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: [^\n]+\n", err)


@pytest.mark.parametrize("name", NAMES)
def test_options_have_one_meaning_and_one_check(capsys, name):
    """Values that no command can use, of every option that it has."""
    parser = Parser(prog=name)
    command(name).declare(parser)
    flags = {flag for action in parser._actions for flag in action.option_strings}
    known = {option.flag or f"--{key}" for key, option in options.OPTIONS.items()}
    assert flags - {"-h", "--help"} <= known
    bad = {
        "--seed": ("-1", "--seed must be at least 0, not -1"),
        "--seeds": ("0", "--seeds must be at least 1, not 0"),
        "--threads": ("0", "--threads must be at least 1, not 0"),
        "--rows": ("0", "--rows must be at least 1, not 0"),
        "--repeats": ("0", "--repeats must be at least 1, not 0"),
        "--seconds": ("nan", "--seconds must be positive, not nan"),
        "--calibration": ("0", "--calibration must be at least 1, not 0"),
        "--largest": ("0", "--largest must be at least 1, not 0"),
        "--tolerance": ("0.5", "--tolerance must be at least 1, not 0.5"),
        "--figure": ("a.pdf", "--figure must end in .svg or .png, not 'a.pdf'"),
        "--bits": ("four", "argument --bits: invalid int value: 'four'"),
    }
    for flag in flags & bad.keys():
        value, message = bad[flag]
        with pytest.raises(InputError, match=re.escape(message)):
            parser.parse_args([flag, value])


def test_options_are_what_readers_make_of_them():
    parser = Parser()
    options.add(parser, "budgets", default="0.5,0.05")
    options.add(parser, "sweeps", default="30,300")
    options.add(parser, "rows", "update", "seed")
    found = parser.parse_args([])
    assert (found.seconds, found.sweeps) == ([0.05, 0.5], [30, 300])
    assert (found.rows, found.update, found.seed) == (None, False, 0)
    found = parser.parse_args(["--seconds", "2,1,2", "--rows", "3", "--update"])
    assert (found.seconds, found.rows, found.update) == ([1.0, 2.0], 3, True)


def test_a_required_option_is_asked_for(capsys):
    for name in ("compare", "anytime", "proofs", "ablation"):
        assert main([name]) == 2
        said = "error: the following arguments are required: --problem\n"
        assert capsys.readouterr().err == said


def test_the_command_everyone_knows(capsys):
    """By its own name, and as one of the commands."""
    outputs = []
    for words in (["benchmarks.run"], ["benchmarks", "run"]):
        done = subprocess.run(
            [sys.executable, "-m", *words, "--list", "models"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert "resnet18" in outputs[0].split()
