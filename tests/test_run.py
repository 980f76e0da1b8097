"""The command line, on the embedded networks and on bad input."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main as benchmarks
from benchmarks.harness import trials
from benchmarks.harness.race import run_solver
from benchmarks.harness.readers import split_layer
from benchmarks.harness.subject import Subject
from qubo_rounding.problem import RoundingProblem
from solvers import Budget, InputError, Solution, Solver, Task, parse_solver
from solvers.qubo import States
from tests.clocks import Clock

SMALL = ["--weights", "embedded", "--calibration", "24", "--evaluation", "40"]


def command(*arguments: object) -> int:
    return benchmarks(["run", *map(str, arguments)])


@pytest.fixture
def problem_file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 400)) + 2
    path = tmp_path / "problem.npz"
    np.savez(
        path,
        weight=rng.standard_normal((5, 12)),
        second_moment=x @ x.T / 400,
        scale=0.3,
        bits=4,
    )
    return path


def test_the_main_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_file, saved = tmp_path / "record.json", tmp_path / "rounded.npz"
    code = command(
        *("--layer", "resnet20.layer1.0.conv1", *SMALL),
        *("--solver", "stochastic,cem[iterations=20],sa,neal[num_sweeps=50]"),
        *("--json", record_file, "--save", saved),
    )
    out, err = capsys.readouterr()
    assert code == 0
    assert "full precision" in out
    assert "cem[iterations=20]" in out
    assert "weights embedded" in err

    record = json.loads(record_file.read_text())
    assert set(record) >= {
        *("spec", "environment", "problem", "full_precision", "results"),
    }
    problem = record["problem"]
    assert (problem["rows"], problem["n"], problem["bits"]) == (16, 144, 4)
    assert problem["layer"] == "resnet20.layer1.0.conv1"
    assert problem["images"] == "embedded"
    assert len(problem["weights_hash"]) == 64
    assert record["full_precision"]["top1"] > 80
    results = record["results"]
    assert [r["solver"] for r in results] == [
        *("nearest", "stochastic", "cem", "sa", "neal"),
    ]
    assert results[0]["ratio_to_nearest"] == 1
    assert results[3]["local_mse"] < results[0]["local_mse"] / 2
    for result in results:
        assert set(result) >= {
            *("options", "seed", "local_mse", "heldout_mse", "top1", "top5"),
            *("agreement", "seconds", "status", "timing", "sqnr_db"),
        }
        assert result["status"] == "done"

    # Anyone can score the roundings from the file alone.
    with np.load(saved) as file:
        weight, base, scale = file["weight"], file["base"], file["scale"]
        for result in results:
            rounded = file[f"weights_{result['solver']}"]
            states = file[f"states_{result['solver']}"]
            assert rounded.shape == (16, 16, 3, 3)
            np.testing.assert_allclose(
                rounded.reshape(16, 144), scale * (base + states)
            )
            assert np.abs(rounded.reshape(16, 144) - weight).max() > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["record.json", "rounded.npz"]


def test_same_seed_same_record_with_any_threads(
    problem_file: Path, tmp_path: Path
) -> None:
    found = []
    for name, threads in (("a", 1), ("b", 2), ("c", 1)):
        out = tmp_path / f"{name}.npz"
        arguments = ["--problem", problem_file, "--solver", "cem,sa,stochastic,neal"]
        assert command(*arguments, "--threads", threads, "--save", out) == 0
        with np.load(out) as file:
            found.append({k: file[k] for k in file.files})
    for other in found[1:]:
        for key, value in found[0].items():
            np.testing.assert_array_equal(value, other[key])


class TestStores:
    LAYER: ClassVar = ["--layer", "resnet20.layer1.0.conv1", *SMALL]

    def table(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> list:
        assert command(*arguments) == 0
        return capsys.readouterr().out.splitlines()

    def test_finished_runs_are_kept(self, tmp_path, monkeypatch, capsys):
        """With their scores; what is new is compared with nearest as without."""
        solvers, store = "babai,ste[steps=3]", ["--store", tmp_path / "runs.db"]
        first = self.table(capsys, *self.LAYER, "--solver", solvers, *store)
        whole = self.table(capsys, *self.LAYER, "--solver", "kbest[paths=4]")
        made = []
        solve = trials.solve

        def counted(solver: Solver, *arguments: Any) -> Any:
            made.append(solver.name)
            return solve(solver, *arguments)

        monkeypatch.setattr(trials, "solve", counted)
        assert self.table(capsys, *self.LAYER, "--solver", solvers, *store) == first
        assert made == []
        more = self.table(capsys, *self.LAYER, "--solver", "kbest[paths=4]", *store)
        assert made == ["kbest"]
        kbest = [line.split() for line in (whole[3], more[3])]
        assert kbest[0][0] == "kbest[paths=4]"
        # All but the seconds.
        assert kbest[0][:-2] == kbest[1][:-2]
        self.table(capsys, *self.LAYER, "--solver", "babai", *store, "--rerun")
        assert made == ["kbest", "nearest", "babai"]

    def test_an_isolated_run_is_the_same(self, problem_file, tmp_path, capsys):
        store, records = (
            tmp_path / "runs.db",
            [tmp_path / "a.json", tmp_path / "b.json"],
        )
        common = ["--problem", problem_file, "--solver", "sa,babai"]
        self.table(capsys, *common, "--json", records[0], "--store", store)
        self.table(capsys, *common, "--json", records[1], "--isolate")
        ours, others = (json.loads(p.read_text())["results"] for p in records)
        for mine, other in zip(ours, others, strict=True):
            for key in ("label", "objective", "local_mse", "status", "flipped"):
                assert mine[key] == other[key]

    @pytest.mark.parametrize("way", [["--isolate"], ["--store", "runs.db"]])
    @pytest.mark.parametrize(
        ("what", "message"),
        [
            (["--layer", "resnet20"], "are for a single layer"),
            ([*LAYER, "--grid", "in-turn:2"], "leave in-turn out of --grid"),
        ],
    )
    def test_refused(self, way, what, message, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert command(*what, *way) == 2
        assert message in capsys.readouterr().err
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        ["--grid", "in-turn:3"],
        ["--grid", "minmax,asymmetric,in-turn:2", "--granularity", "channel"],
        ["--grid", "in-turn:2,restricted", "--granularity", "group:50"],
        ["--grid", "in-turn:2", "--objective", "fisher"],
    ],
)
def test_scale_and_codes_in_turn(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_file, saved = tmp_path / "record.json", tmp_path / "rounded.npz"
    code = command(
        *("--layer", "resnet20.layer1.0.conv1", *SMALL, "--bits", "2", *options),
        *("--solver", "kbest,window[solver=kbest[paths=4],rounds=2],ste[steps=50]"),
        *("--json", record_file, "--save", saved),
    )
    assert code == 0
    out, err = capsys.readouterr()
    assert "before: " in out
    assert "in turn, ste[steps=50] sees the quadratic form alone" in err
    record = json.loads(record_file.read_text())
    nearest, *others = record["results"]
    rounds = int(options[1].partition("in-turn:")[2][0])
    assert record["problem"]["turns"] == rounds
    assert "objective_by_round" not in nearest
    with np.load(saved) as file:
        arrays = {name: file[name] for name in file.files}
    weight, scale, base = arrays["weight"], arrays["scale"], arrays["base"]
    states = arrays["states_nearest"]
    np.testing.assert_array_equal(
        arrays["weights_nearest"].reshape(weight.shape), scale * (base + states)
    )
    for result in others:
        errors = result["objective_by_round"]
        # Rounds that gain hardly anything are the last.
        assert 2 <= len(errors) <= rounds + 1
        assert errors == sorted(errors, reverse=True)
        # What descends blindly may find nothing better.
        assert errors[-1] < errors[0] or result["solver"] == "ste"
        assert result["objective"] == errors[-1]
        assert f"{errors[0]:.6g}" in out
        assert result["status"] == "done"
        assert len(result["info"]) % len(errors) == 0
        name = result["solver"]
        own_scale, own_base = arrays[f"scale_{name}"], arrays[f"base_{name}"]
        rounded = arrays[f"weights_{name}"].reshape(weight.shape)
        np.testing.assert_array_equal(
            rounded, own_scale * (own_base + arrays[f"states_{name}"])
        )
        np.testing.assert_array_equal(own_scale, np.float32(own_scale))
        lowest = result["scale"]
        if isinstance(lowest, dict):
            lowest = lowest["min"]
        assert np.min(lowest) == own_scale.min()
        expected = result["local_mse"] / nearest["local_mse"]
        assert result["ratio_to_nearest"] == pytest.approx(expected)
    assert [result["out_of_set"] for result in others] == [False, True, True]


def test_turns_share_the_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The command first warms up, and then has 0.3 seconds: 60 readings of its clock.
    clock = Clock(tick=5e-3, last=1.5)
    clock.for_all(monkeypatch)
    out = tmp_path / "record.json"
    arguments = ["--layer", "resnet20.conv1", *SMALL, "--grid", "in-turn:2"]
    many = ["--solver", "sa[num_sweeps=100000000]", "--seconds", "0.3", "--json", out]
    assert command(*arguments, *many) == 0
    (_, result) = json.loads(out.read_text())["results"]
    assert 0.25 < result["seconds"] < 0.6
    assert result["status"] == "time"
    assert len(result["objective_by_round"]) == 3


def test_a_saved_problem_is_the_same_problem(tmp_path: Path) -> None:
    records = []
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    saved = tmp_path / "layer.npz"
    common = ["--solver", "sa", "--seed", "3"]
    layer = ["--layer", "resnet20.conv1", *SMALL, "--granularity", "channel"]
    assert command(*layer, *common, "--json", first, "--save-problem", saved) == 0
    assert command("--problem", saved, *common, "--json", second) == 0
    records = [json.loads(p.read_text()) for p in (first, second)]
    for a, b in zip(records[0]["results"], records[1]["results"], strict=True):
        assert a["local_mse"] == pytest.approx(b["local_mse"], rel=1e-12)
    assert records[1]["problem"]["layer"] == "resnet20.conv1"
    assert records[1]["full_precision"] is None


@pytest.mark.parametrize(
    "options",
    [
        ["--bits", "2", "--grid", "output-mse,asymmetric", "--granularity", "channel"],
        ["--granularity", "group:10", "--saturated", "free"],
        ["--grid", "percentile:99,restricted"],
        ["--objective", "fisher", "--grid", "minmax"],
    ],
    ids=" ".join,
)
def test_other_grids_and_objectives(options: list[str], tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    layer = ["--layer", "resnet20.conv1", *SMALL]
    assert command(*layer, *options, "--solver", "sa", "--json", out) == 0
    results = json.loads(out.read_text())["results"]
    assert results[1]["objective"] < results[0]["objective"]


def test_fisher_problems_are_not_called_local_mse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, out = tmp_path / "fisher.npz", tmp_path / "record.json"
    layer = ["--layer", "resnet20.conv1", *SMALL, "--objective", "fisher"]
    assert command(*layer, "--solver", "sa", "--save-problem", saved) == 0
    first = capsys.readouterr().out.splitlines()[0].split()
    assert first[:5] == ["solver", "fisher", "ratio", "local", "MSE"]
    assert command("--problem", saved, "--solver", "sa", "--json", out) == 0
    first = capsys.readouterr().out.splitlines()[0].split()
    assert first[:4] == ["solver", "fisher", "ratio", "seconds"]
    assert json.loads(out.read_text())["problem"]["objective"] == "fisher"


def test_a_network_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_nets.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(\n"
        "        nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8), nn.ReLU(),\n"
        "        nn.Conv2d(8, 8, 3, groups=8), nn.AdaptiveAvgPool2d(1),\n"
        "        nn.Flatten(), nn.Linear(8, 4))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for layer, rows, n in (("3", 8, 9), ("6", 4, 8)):
        out = tmp_path / "record.json"
        arguments = ["--layer", f"their_nets:make.{layer}", "--calibration", "8"]
        more = ["--evaluation", "8", "--solver", "sa", "--json", out]
        assert command(*arguments, *more) == 0
        record = json.loads(out.read_text())
        assert (record["problem"]["rows"], record["problem"]["n"]) == (rows, n)
        assert record["full_precision"] == {"top1": None, "top5": None}
        assert record["results"][1]["ratio_to_nearest"] <= 1


def test_a_folder_of_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part in range(10):
        folder = tmp_path / "pictures" / f"digit{part}"
        folder.mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    out = tmp_path / "record.json"
    arguments = ["--layer", "resnet20.conv1", "--weights", "embedded"]
    more = ["--images", tmp_path / "pictures", "--calibration", "10", "--json", out]
    assert command(*arguments, *more, "--solver", "nearest") == 0
    problem = json.loads(out.read_text())["problem"]
    assert problem["calibration_images"] == 10
    assert problem["evaluation_images"] == 30


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--list", "solvers") == 0
    assert {"cem", "sa", "neal", "nearest"} <= set(capsys.readouterr().out.split())
    assert command("--list", "models") == 0
    assert {"resnet18", "resnet20"} <= set(capsys.readouterr().out.split())
    assert command("--list", "layers", "--layer", "mobilenet_v2.features.0.0") == 0
    assert "mobilenet_v2.features.0.0" in capsys.readouterr().out.split()


@dataclass(frozen=True, kw_only=True)
class _Liar(Solver):
    name: ClassVar[str] = "liar"

    def search(self, task: Task) -> States:
        return task.start

    def solve(self, *arguments: Any, **options: Any) -> Solution:
        found = super().solve(*arguments, **options)
        return Solution(
            found.states,
            found.energies * (1 - 1e-4),
            found.status,
            found.timing,
            found.trace,
        )


def test_a_false_claim_is_invalid(problem_file: Path) -> None:
    problem = RoundingProblem.load(problem_file)
    _, lie = run_solver(_Liar(), problem, 0, Budget())
    assert lie["status"] == "invalid"
    _, truth = run_solver(parse_solver("sa"), problem, 0, Budget())
    assert truth["status"] == "done"


def test_interrupted_runs_keep_what_is_finished(
    problem_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from solvers.flips.annealing import SimulatedAnnealing

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SimulatedAnnealing, "search", stop)
    out = tmp_path / "record.json"
    arguments = ["--problem", problem_file, "--solver", "stochastic,sa,cem"]
    assert command(*arguments, "--json", out) == 130
    record = json.loads(out.read_text())
    assert [r["solver"] for r in record["results"]] == ["nearest", "stochastic"]
    assert record["interrupted"]
    assert "stochastic" in capsys.readouterr().out


def test_a_lack_of_memory_keeps_what_is_finished(
    problem_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scored = []

    def local_mse(self: Subject, states: States) -> float:
        scored.append(1)
        if len(scored) > 2:
            raise MemoryError("8 GiB for the network")
        return 1.0

    monkeypatch.setattr(Subject, "local_mse", local_mse)
    out = tmp_path / "record.json"
    arguments = ["--problem", problem_file, "--solver", "stochastic,sa"]
    assert command(*arguments, "--json", out) == 2
    record = json.loads(out.read_text())
    assert [r["solver"] for r in record["results"]] == ["nearest", "stochastic"]
    assert record["interrupted"]
    shown = capsys.readouterr()
    assert "stochastic" in shown.out
    assert shown.err == "error: out of memory: 8 GiB for the network\n"


def test_seconds_limit_the_solving(
    problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The command first warms up, and then has 0.3 seconds: 60 readings of its clock.
    clock = Clock(tick=5e-3, last=1.5)
    clock.for_all(monkeypatch)
    out = tmp_path / "record.json"
    arguments = ["--problem", problem_file, "--solver", "sa[num_sweeps=100000000]"]
    assert command(*arguments, "--seconds", "0.3", "--json", out) == 0
    (_, result) = json.loads(out.read_text())["results"]
    assert 0.25 < result["seconds"] < 0.6
    assert result["ratio_to_nearest"] < 1


def test_split_layer() -> None:
    assert split_layer("resnet18.layer1.0.conv1") == ("resnet18", "layer1.0.conv1")
    assert split_layer("a.b:make.c.d") == ("a.b:make", "c.d")
    with pytest.raises(InputError, match=r"write MODEL\.LAYER"):
        split_layer("resnet18.")


@pytest.mark.slow
def test_real_resnet18(real_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    checkpoint = real_data / "checkpoints" / "resnet18_layer4_reconstructed.pth"
    arguments = ["--layer", "resnet18.conv1", "--weights", checkpoint]
    more = ["--images", real_data / "imagenet-sample", "--solver", "cem,sa"]
    assert command(*arguments, *more, "--json", out) == 0
    nearest, cem, sa = json.loads(out.read_text())["results"]
    assert cem["ratio_to_nearest"] <= 0.03
    assert sa["ratio_to_nearest"] <= 0.045
    assert min(cem["top1"], sa["top1"]) > nearest["top1"] + 5
