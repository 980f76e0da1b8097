"""Suites as files: what reads well, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.harness.suite import Entry, Suite, named_suites, read_suite
from solvers import label

PROBLEMS = '[[problems]]\nfile = "p.npz"\n'
UNTIMED = 'untimed = ["nearest"]\n'
LAYER = '[[problems]]\nmodel = "resnet20"\nlayers = ["conv1"]\n'
# The file's text, and what the one line says.
BAD = [
    ("solvers = [", "is no TOML"),
    ("\x00", "is no TOML"),
    ("", "needs [[problems]]"),
    (UNTIMED + "problems = 3", "needs [[problems]]"),
    (UNTIMED + "problems = []", "needs [[problems]]"),
    (UNTIMED + "problems = [3]", "problem 1 is not a table"),
    ("seed = 3\n" + PROBLEMS, "'seed'; did you mean seeds"),
    ('entries = "x"\n' + PROBLEMS, "unknown setting"),
    ('name = "x"\n' + PROBLEMS, "unknown setting"),
    (PROBLEMS + 'layer = "conv1"', "problem 1 'layer'; did you mean layers"),
    (PROBLEMS + "rows = 1\n" + PROBLEMS + "row = 2", "problem 2 'row'"),
    ("seeds = 2.5\n" + PROBLEMS, "seeds must be of kind int, not 2.5"),
    ("seeds = true\n" + PROBLEMS, "seeds must be of kind int, not True"),
    ('seconds = ["1"]\n' + PROBLEMS, "seconds must be of kind float, not '1'"),
    ("seconds = inf\n" + PROBLEMS, "seconds must be of kind float, not inf"),
    ("memory = nan\n" + PROBLEMS, "memory must be of kind float, not nan"),
    ("solvers = [1]\n" + PROBLEMS, "solvers must be of kind str, not 1"),
    ("hard = 2020-01-01\n" + PROBLEMS, "hard must be of kind float"),
    ("[seconds]\nx = 1\n" + PROBLEMS, "seconds must be of kind float"),
    (LAYER + "bits = [[4]]", "problem 1: bits must be of kind int, not [4]"),
    (LAYER + 'accuracy = "yes"', "problem 1: accuracy must be of kind bool"),
    (PROBLEMS, "needs solvers, or untimed ones"),
    ('solvers = ["tabu"]\n' + PROBLEMS, "solvers need seconds"),
    ('untimed = ["tabo"]\n' + PROBLEMS, "unknown solver 'tabo'"),
    ('untimed = ["sa[sweeps=3]"]\n' + PROBLEMS, "sweeps"),
    ('untimed = ["/no/file.py:Mine"]\n' + PROBLEMS, "/no/file.py"),
    (UNTIMED + "seeds = 0\n" + PROBLEMS, "seeds must be at least 1"),
    (UNTIMED + "threads = 0\n" + PROBLEMS, "threads must be at least 1"),
    (UNTIMED + "seconds = [1, 0]\n" + PROBLEMS, "must be positive"),
    (UNTIMED + "memory = 0\n" + PROBLEMS, "must be positive"),
    (UNTIMED + "grace = -1\n" + PROBLEMS, "must be positive"),
    (UNTIMED + "[[problems]]\nrows = 3", "give one of model and file"),
    (UNTIMED + LAYER + 'file = "p.npz"', "give one of model and file"),
    (UNTIMED + '[[problems]]\nmodel = "resnet20"', "a model needs layers"),
    (UNTIMED + LAYER + 'track = "rows"', "unknown track of"),
    (UNTIMED + LAYER + "bits = [4, 1]", "bits must be 2 to 8"),
    (UNTIMED + LAYER + "bits = 9", "bits must be 2 to 8"),
    (UNTIMED + LAYER + "bits = []", "bits must be 2 to 8"),
    (UNTIMED + LAYER + "rows = 0", "rows must be at least 1"),
    (UNTIMED + LAYER + "calibration = 0", "calibration must be at least 1"),
    (UNTIMED + LAYER + "evaluation = -1", "evaluation must be at least 1"),
    (UNTIMED + LAYER + 'accuracy = true\ntrack = "row"', "of whole layers"),
    (UNTIMED + LAYER + "accuracy = true\nrows = 3", "of whole layers"),
    (UNTIMED + PROBLEMS + "accuracy = true", "accuracy is for models"),
    (UNTIMED + PROBLEMS + "bits = 3", "bits is for models, not files"),
    # What is found out when problems are posed.
    (UNTIMED + PROBLEMS, "p.npz"),
    (UNTIMED + LAYER.replace("resnet20", "resnet21"), "unknown model 'resnet21'"),
    (UNTIMED + LAYER.replace("conv1", "conv9"), "conv9"),
    (UNTIMED + LAYER + 'weights = "w.pth"', "w.pth"),
    (UNTIMED + LAYER + 'weights = "embedded"\nimages = "no"', "no"),
    (UNTIMED + LAYER + 'weights = "embedded"\ngrid = "mean"', "mean"),
]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mine.toml"


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that the command says."""
    assert main(["suite", "run", *map(str, arguments)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    *_, line = told.err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(("text", "said"), BAD)
def test_what_is_no_suite_is_refused_in_a_line(file, capsys, text, said):
    file.write_text(text)
    assert said in refused(capsys, file)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("quik", "unknown suite (or FILE.toml) 'quik'; did you mean quick?"),
        ("no.toml", "cannot read no.toml: No such file or directory"),
        (".toml", "unknown suite"),
        ("folder.toml", "cannot read folder.toml: Is a directory"),
        ("latin.toml", "latin.toml is no TOML: 'utf-8' codec"),
    ],
)
def test_what_cannot_be_read(file, capsys, name, said):
    (file.parent / "folder.toml").mkdir()
    (file.parent / "latin.toml").write_bytes(b'description = "\xe9"')
    assert said in refused(capsys, name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quick", "--jobs", "0"], "--jobs"),
        (["quick", "--jobs", "9999"], "--jobs 9999 of threads = 1 need 9999 cores"),
        (["quick", "--store", "no/x.db"], "no"),
        (["quick", "--report", "mine.toml"], "mine.toml"),
    ],
)
def test_bad_options(file, capsys, arguments, said):
    file.write_text("")
    assert said in refused(capsys, *arguments)


def test_a_suite_is_read(file):
    file.write_text(
        'description = "two"\nsolvers = "tabu"\nuntimed = ["nearest"]\n'
        "seconds = [1, 0.5]\nseeds = 2\nmemory = 1\n"
        + LAYER
        + "bits = [3, 4]\n"
        + PROBLEMS
    )
    assert read_suite(str(file)) == Suite(
        name="mine",
        description="two",
        entries=(
            Entry(model="resnet20", layers=("conv1",), bits=(3, 4)),
            Entry(file="p.npz"),
        ),
        solvers=("tabu",),
        untimed=("nearest",),
        seconds=(1.0, 0.5),
        seeds=2,
        memory=1.0,
    )


def test_every_combination_is_a_run():
    suite = Suite(
        name="x",
        entries=(),
        solvers=("tabu", "sa[num_sweeps=3]"),
        untimed=("nearest",),
        seconds=(0.1, 1.0),
        seeds=2,
    )
    runs = [(label(solver), seconds, seed) for solver, seconds, seed in suite.runs()]
    assert sorted(runs, key=repr) == sorted(
        [
            *[(s, t, k) for s in suite.solvers for t in (0.1, 1.0) for k in (0, 1)],
            *[("nearest", None, k) for k in (0, 1)],
        ],
        key=repr,
    )


@pytest.mark.parametrize("name", named_suites())
def test_the_suites_that_come_with_the_project(name):
    suite = read_suite(name)
    assert suite.name == name
    assert suite.description
    assert suite.runs()


def test_list(capsys):
    assert main(["suite", "list"]) == 0
    told = capsys.readouterr().out
    for name in named_suites():
        assert f"{name} " in told
        assert read_suite(name).description in told
