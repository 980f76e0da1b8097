"""All layers of a network, through `python -m benchmarks layers`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main as benchmarks
from benchmarks.harness import judged, trials
from benchmarks.harness.store import Store
from qubo_rounding.problem import RoundingProblem
from solvers.decoders.babai import Babai
from solvers.sampling.stochastic import Stochastic
from tests.clocks import Clock

NETWORK = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 6, 3, groups=2), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(6, 4))

def on_the_grid():
    network = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2), nn.ReLU())
    nn.init.constant_(network[2].weight, 7.0)
    return network

class Same(nn.Conv2d):
    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))

class Centred(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)

def of_own_classes():
    return nn.Sequential(
        Same(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), Centred(4, 4, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))

def without_weights():
    return nn.Sequential(nn.ReLU())
"""
SMALL = ("--model", "tiny:make", "--calibration", 4)


@pytest.fixture(autouse=True)
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)


def command(*arguments: object) -> int:
    return benchmarks(["layers", *map(str, arguments)])


def table(out: str) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The table's cells by layer, and its totals by name."""
    each, totals = out.split("\n\n")
    cells = (line.split() for line in each.splitlines()[1:])
    pairs = (line.rsplit(maxsplit=1) for line in totals.splitlines())
    return {name: rest for name, *rest in cells}, {k.strip(): v for k, v in pairs}


def never(*_: object, **__: object) -> None:
    raise AssertionError("work that nobody asked for")


def test_every_layer(capsys):
    assert command(*SMALL, "--solver", "nearest,babai") == 0
    found, totals = table(capsys.readouterr().out)
    assert {name: cells[:3] for name, cells in found.items()} == {
        "0": ["8", "27", "1"],
        "3": ["6", "36", "2"],
        "6": ["4", "6", "1"],
    }
    for cells in found.values():
        nearest, babai = float(cells[3]), float(cells[5])
        assert babai < nearest == 1
    assert totals["layers"] == "3"
    assert totals["binary variables"] == str(8 * 27 + 6 * 36 + 4 * 6)
    parts = ("moments", "grids", "nearest", "babai")
    for name, column in zip(parts, (7, 8, 4, 6), strict=True):
        added = sum(float(cells[column]) for cells in found.values())
        assert float(totals[f"s of {name}"]) == pytest.approx(added, abs=0.02)
    together = sum(float(totals[f"s of {name}"]) for name in parts)
    assert float(totals["s in all"]) == pytest.approx(together, abs=0.02)


def test_layers_of_own_classes(capsys):
    """Taken where the loaded network proves what they are, else left with a reason."""
    arguments = ["--model", "tiny:of_own_classes", *SMALL[2:], "--solver", "babai"]
    assert command(*arguments) == 0
    captured = capsys.readouterr()
    layers, _ = table(captured.out)
    assert [*layers] == ["0", "6"]
    assert layers["0"][:3] == ["4", "27", "1"]
    assert "left as it is: layer '3' is a Centred that cannot be taken" in captured.err
    assert command(*arguments, "--layers", "3") == 2
    assert "layer '3' is a Centred that cannot be taken" in capsys.readouterr().err


def test_problems_and_ratios_are_those_of_the_run_command(tmp_path, capsys):
    folder, record = tmp_path / "new" / "problems", tmp_path / "record.json"
    grid = ("--bits", 3, "--granularity", "channel", "--saturated", "free")
    kept = tmp_path / "runs.db"
    chosen = ("--layers", "3,6,3", "--solver", "babai", "--store", kept)
    assert command(*SMALL, *grid, *chosen, "--save-problems", folder) == 0
    found, totals = table(capsys.readouterr().out)
    assert list(found) == ["3", "6"]
    assert "of them fixed" not in totals
    names = ["tiny:make.3.npz", "tiny:make.6.npz"]
    assert sorted(path.name for path in folder.iterdir()) == names
    other = tmp_path / "other.npz"
    arguments = ["--layer", "tiny:make.3", "--calibration", 4, "--evaluation", 2, *grid]
    arguments += ["--solver", "babai", "--save-problem", other, "--json", record]
    assert benchmarks(["run", *map(str, arguments)]) == 0
    (_, babai) = json.loads(record.read_text())["results"]
    assert float(found["3"][3]) == pytest.approx(babai["ratio_to_nearest"], abs=1e-5)
    saved, whole = (RoundingProblem.load(p) for p in (folder / names[0], other))
    assert saved.digest == whole.digest
    assert saved.meta == whole.meta
    # A file that is gone is saved again.
    (folder / names[0]).unlink()
    assert command(*SMALL, *grid, *chosen, "--save-problems", folder) == 0
    assert RoundingProblem.load(folder / names[0]).digest == whole.digest
    # Saving is asked for anew.
    again = tmp_path / "again"
    assert command(*SMALL, *grid, *chosen, "--save-problems", again) == 0
    assert RoundingProblem.load(again / names[0]).digest == whole.digest


def test_finished_layers_outlive_an_interruption(tmp_path, capsys, monkeypatch):
    path = tmp_path / "runs.db"
    arguments = (*SMALL, "--solver", "stochastic,babai", "--store", path)
    search, calls = Babai.search, []

    def stop(self, task):
        calls.append(task.qubo.n)
        if task.qubo.n == 36:
            raise KeyboardInterrupt
        return search(self, task)

    with monkeypatch.context() as patched:
        patched.setattr(Babai, "search", stop)
        assert command(*arguments) == 130
    shown = capsys.readouterr()
    assert list(table(shown.out)[0]) == ["0"]
    assert shown.err.endswith("interrupted\n")
    with Store(path) as store:
        names = {p.digest: p.name for p in store.problems().values()}
        before = [(names[r.spec.problem], r.spec.solver) for r in store.runs()]
    assert before == [
        *(("tiny:make.0", "stochastic"), ("tiny:make.0", "babai")),
        ("tiny:make.3", "stochastic"),
    ]

    with monkeypatch.context() as patched:
        # The layer at which it stopped is posed again, but not solved again by what
        # was through with it.
        refuse = Stochastic.search
        patched.setattr(
            Stochastic,
            "search",
            lambda self, task: never() if task.qubo.n > 6 else refuse(self, task),
        )
        assert command(*arguments) == 0
    assert len(Store(path).table("seed")["seed"]) == 6
    whole = capsys.readouterr().out
    assert list(table(whole)[0]) == ["0", "3", "6"]

    monkeypatch.setattr("qubo_rounding.network.pose.layer_moments", never)
    assert command(*arguments) == 0
    assert capsys.readouterr().out == whole


def test_another_network_has_other_runs(tmp_path, capsys, monkeypatch):
    """By its layers, and by its forward pass: the same weights are not enough."""
    monkeypatch.delitem(sys.modules, "tiny", raising=False)
    kept = tmp_path / "runs.db"
    arguments = ("--solver", "nearest", "--store", kept, *SMALL[2:])
    facts = []

    def known(model: str) -> int:
        assert command("--model", model, *arguments) == 0
        with Store(kept) as store:
            facts.append(len(store.facts()))
        return facts[-1]

    # Three layers each: what they are, and which problem is theirs.
    assert known("tiny:make") == known("tiny:make") == 6
    edited = NETWORK.replace("return network", "return network.append(nn.ReLU())")
    (tmp_path / "tinier.py").write_text(edited.replace("6, 4)", "6, 5)"))
    assert known("tinier:make") == 12
    monkeypatch.delitem(sys.modules, "tiny")
    (tmp_path / "tiny.py").write_text(f"{NETWORK}\nmore = 1\n")
    assert known("tiny:make") == 18


def test_other_images_of_the_same_size_have_other_runs(tmp_path, capsys):
    rng = np.random.default_rng(0)
    folder = tmp_path / "images" / "class"
    folder.mkdir(parents=True)

    def draw():
        for i in range(6):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.bmp")

    draw()
    arguments = (*SMALL, "--images", tmp_path / "images", "--layers", "6")
    arguments += ("--solver", "nearest", "--store", tmp_path / "runs.db")
    for runs in (1, 1, 2):
        if runs == 2:
            draw()
        assert command(*arguments) == 0
        assert len(Store(tmp_path / "runs.db").table("seed")["seed"]) == runs


def test_a_layer_that_is_on_the_grid_has_no_ratio(capsys):
    model = ("--model", "tiny:on_the_grid", "--calibration", 2, "--grid", "minmax")
    assert command(*model, "--solver", "nearest") == 0
    assert table(capsys.readouterr().out)[0]["2"][:4] == ["2", "3", "1", "-"]


def test_seconds_limit_each_solver_in_each_layer(capsys, monkeypatch):
    Clock(tick=2e-3).for_all(monkeypatch)
    solver = ("--solver", "sa[num_sweeps=100000000]", "--seconds", 0.1)
    assert command(*SMALL, *solver, "--layers", "0,6") == 0
    for cells in table(capsys.readouterr().out)[0].values():
        assert 0.08 < float(cells[4]) < 0.3


def test_a_false_claim_is_an_error(capsys, monkeypatch):
    def lie(*arguments):
        return replace(honest(*arguments), honest=False)

    honest = judged.check
    monkeypatch.setattr(judged, "check", lie)
    assert command(*SMALL, "--solver", "nearest", "--layers", "6") == 1
    assert "invalid" in capsys.readouterr().out


def test_solvers_of_the_layers_data_are_given_it(monkeypatch):
    given = []

    def look(solver, qubos, seed, budget, data):
        given.append(None if data is None else len(data))
        return honest(solver, qubos, seed, budget, data)

    honest = trials.solve
    monkeypatch.setattr(trials, "solve", look)
    solvers = "nearest,adaround[steps=2]"
    assert command(*SMALL, "--solver", solvers, "--layers", "3") == 0
    assert given == [None, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "0,33"], "unknown layer '33'; did you mean 3?"),
        (["--layers", "2"], "layer '2' is a ReLU"),
        (["--model", "resnet19"], "unknown model 'resnet19'; did you mean resnet18"),
        (["--model", "tiny:without_weights"], "has no layer that can be rounded"),
        (["--solver", "babay"], "unknown solver 'babay'; did you mean babai?"),
        (["--seed", "-1"], "--seed must be at least 0, not -1"),
        (["--seconds", "nan"], "seconds must be positive, not nan"),
        (["--threads", "0"], "threads must be at least 1, not 0"),
        (["--grid", "in-turn:3"], "only python -m benchmarks.run takes it"),
        (["--grid", "minmax,odd"], "range must be symmetric, restricted or asymmetric"),
        (["--bits", "9"], "bits"),
        (["--images", "nosuch"], "--images: folder nosuch does not exist"),
        (["--save-problems", "tiny.py"], "cannot make folder"),
    ],
)
def test_bad_input(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    # All of it is found before weights are loaded, or downloaded.
    monkeypatch.setattr("qubo_rounding.network.source.load_network", never)
    assert command("--model", "tiny:make", "--solver", "nearest", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_exactly_the_images_it_needs(tmp_path, capsys):
    """Nothing is evaluated: no image is asked for beyond those of calibration."""
    (tmp_path / "images" / "class").mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (64, 64), (i, 0, 9)).save(tmp_path / f"images/class/{i}.png")
    images = ("--images", tmp_path / "images", "--layers", "6", "--solver", "nearest")
    assert command(*SMALL, *images) == 0
    assert "calibration: 4 images of" in capsys.readouterr().err
    assert command(*SMALL, *images, "--calibration", 5) == 2
    assert "4 readable images: too few for 5 calibration" in capsys.readouterr().err


def test_too_many_images(capsys):
    assert command(*SMALL, "--solver", "nearest", "--calibration", 10**6) == 2
    assert "images asked for" in capsys.readouterr().err
