"""The registry of best known states: what it takes, refuses, keeps and finds again."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.harness.problems import first_rows, some_rows
from benchmarks.harness.runs import Run, Spec
from benchmarks.library.registry import SHIPPED, Registry, identity, proofs
from qubo_rounding.network.paths import data_path
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from solvers import InputError, parse_solver
from solvers.testing import brute_force

ORIGIN = {
    "layer": "net.conv",
    "objective": "second-moment",
    "weights": "own",
    "weights_hash": "12ab",
    "images": "own",
    "calibration_digest": "34cd",
    "count": 99,
    "grid": {"scale": "minmax", "granularity": "tensor"},
}


def pose(rows: int = 3, n: int = 6, seed: int = 0, **meta) -> RoundingProblem:
    rng = np.random.default_rng(seed)
    x = rng.normal(0.5, 1, (50, n)) @ rng.normal(size=(n, n))
    grid = Grid(bits=3, scale="minmax")
    weight = rng.normal(size=(rows, n))
    return RoundingProblem.on_grid(weight, grid, x.T @ x / 50, meta=meta)


def optimal(problem: RoundingProblem) -> np.ndarray:
    return problem.join([brute_force(qubo)[0] for qubo in problem.to_qubos()])


@pytest.fixture
def problem() -> RoundingProblem:
    return pose()


class TestTaking:
    def test_better_states_are_taken_row_by_row(self, problem):
        registry, best = Registry(), optimal(problem)
        first = registry.take(problem, problem.nearest(), solver="nearest", when="1")
        assert first.better == (0, 1, 2)
        mixed = problem.nearest()
        mixed[1] = best[1]
        found = registry.take(problem, mixed, solver="other", when="2")
        known = registry.find(problem)
        assert found.better == (1,)
        assert [known[row].solver for row in range(3)] == [
            "nearest",
            "other",
            "nearest",
        ]
        np.testing.assert_array_equal(known[1].states, best[1])
        assert known[1].energy == problem.local_mse(best)[1]
        assert (known[0].when, known[1].when) == ("1", "2")

    def test_worse_and_equal_ones_are_not(self, problem):
        registry, best = Registry(), optimal(problem)
        registry.take(problem, best, solver="first")
        for states in (best, problem.nearest()):
            assert registry.take(problem, states, solver="second").better == ()
        assert {b.solver for b in registry.find(problem).values()} == {"first"}

    def test_what_is_better_by_rounding_alone_is_not(self, problem):
        """As of a problem whose moment another processor has summed."""
        posed = pose(**ORIGIN)
        other = replace(posed, moment=posed.moment * (1 - 1e-13))
        registry = Registry()
        registry.take(posed, optimal(posed), solver="first")
        assert registry.take(other, optimal(posed), solver="second").better == ()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda x: x[:2], r"states must have shape \(3, 6\), not \(2, 6\)"),
            (lambda x: x + 2.0, r"states may hold only 0 and 1"),
            (lambda x: x.astype(np.int16) - 3, r"states may hold only 0 and 1"),
            (lambda x: x * np.nan, r"states"),
        ],
    )
    def test_no_states_of_the_problem(self, problem, change, message):
        registry = Registry()
        with pytest.raises(InputError, match=message):
            registry.take(problem, change(problem.nearest()), solver="x")
        assert registry.entries == {}

    def test_pinned_weights_stay(self, problem):
        narrow = replace(problem, scale=problem.scale / 4)
        row, column = np.argwhere(narrow.fixed >= 0)[0]
        states = narrow.to_qubos()[0].pin(narrow.nearest())
        states[row, column] ^= 1
        with pytest.raises(InputError, match=rf"\[{row}, {column}\] is .* is pinned"):
            Registry().take(narrow, states, solver="x")


class TestProofs:
    def test_only_exact_proves(self):
        info = [{"proved": [True, False]}, {"proved": [True]}]
        assert proofs(parse_solver("exact[enumerate=5]"), info) == [True, False, True]
        assert proofs(parse_solver("tabu"), info) is None

    def test_a_proof_marks_the_state_that_is_there(self, problem):
        registry, best = Registry(), optimal(problem)
        registry.take(problem, best, solver="lattice")
        proved = [True, False, True]
        found = registry.take(problem, best, solver="exact", proved=proved)
        assert (found.better, found.proved, found.contradictions) == ((), (0, 2), ())
        known = registry.find(problem)
        assert [known[row].proved for row in range(3)] == proved
        assert known[0].solver == "lattice"

    def test_a_false_proof_is_refused(self, problem):
        registry = Registry()
        registry.take(problem, optimal(problem), solver="lattice")
        bad = optimal(problem) ^ 1
        bad = problem.to_qubos()[0].pin(bad)
        found = registry.take(problem, bad, solver="exact", proved=[True] * 3)
        assert found.proved == ()
        assert len(found.contradictions) == 3
        assert not any(best.proved for best in registry.find(problem).values())

    def test_a_better_state_takes_the_proof_away(self, problem):
        registry = Registry()
        registry.take(problem, problem.nearest(), solver="exact", proved=[True] * 3)
        found = registry.take(problem, optimal(problem), solver="lattice")
        assert found.better
        assert len(found.contradictions) == len(found.better)
        known = registry.find(problem)
        assert not any(known[row].proved for row in found.better)


class TestRuns:
    def run(self, problem, **fields):
        spec = Spec(problem=problem.digest, solver="exact", code="c")
        info = ({"proved": [True] * 3},)
        given = {"states": optimal(problem), "info": info, "began": "2026-01-02T03:04"}
        return Run(spec=spec, status="ok", **{**given, **fields})

    def test_a_run_is_taken_by_its_states(self, problem):
        registry = Registry()
        run = self.run(problem, claimed=np.full(3, -1e9), energies=np.full(3, -1e9))
        assert registry.take_run(problem, run).proved == (0, 1, 2)
        known = registry.find(problem)
        assert known[0].energy == problem.local_mse(run.states)[0]
        assert known[0].when == "2026-01-02"

    def test_a_claim_without_states_is_refused(self, problem):
        run = self.run(problem, states=None, claimed=np.zeros(3))
        with pytest.raises(InputError, match=r"has no states .* is not taken"):
            Registry().take_run(problem, run)

    def test_a_run_of_another_problem(self, problem):
        with pytest.raises(InputError, match="is of another problem"):
            Registry().take_run(pose(seed=1), self.run(problem))


class TestIdentity:
    def test_the_last_bits_of_a_posed_problem_do_not_matter(self):
        posed = pose(**ORIGIN)
        other = replace(posed, moment=posed.moment * (1 + 1e-14))
        assert identity(other) == identity(posed)
        registry = Registry()
        registry.take(posed, optimal(posed), solver="x")
        assert len(registry.find(other)) == 3

    @pytest.mark.parametrize(
        "change",
        [
            {"weights_hash": "other"},
            {"calibration_digest": "other"},
            {"layer": "net.conv2"},
            {"bits": 4},
            {"grid": {"scale": "minmax", "granularity": "channel"}},
            {"turns": 2},
            {"objective": "fisher"},
        ],
    )
    def test_another_origin_is_another_problem(self, change):
        assert identity(pose(**ORIGIN | change)) != identity(pose(**ORIGIN))

    def test_without_an_origin_the_arrays_decide(self, problem):
        assert identity(problem) == problem.digest[:16]
        assert identity(pose(seed=1)) != identity(problem)

    def test_fewer_rows_are_recognised(self):
        posed = pose(**ORIGIN)
        registry = Registry()
        registry.take(posed, optimal(posed), solver="x")
        few = first_rows(posed, 2)
        assert sorted(registry.find(few)) == [0, 1]
        registry.take(few, posed.nearest()[:2], solver="y")
        assert sorted(registry.find(posed)) == [0, 1, 2]

    def test_other_rows_than_the_first_are_problems_of_their_own(self):
        posed = pose(**ORIGIN)
        registry = Registry()
        registry.take(posed, optimal(posed), solver="x")
        last = some_rows(posed, slice(2, 3))
        assert registry.find(last) == {}
        registry.take(last, last.nearest(), solver="y")
        assert registry.mismatches(posed) == []
        assert [best.solver for best in registry.find(posed).values()] == ["x"] * 3

    def test_energies_of_what_is_known(self):
        posed = pose(**ORIGIN)
        registry = Registry()
        assert np.isposinf(registry.energies(posed)).all()
        registry.take(first_rows(posed, 2), optimal(posed)[:2], solver="x")
        best = posed.local_mse(optimal(posed))
        np.testing.assert_allclose(registry.energies(posed), [*best[:2], np.inf])

    def test_what_only_seems_the_same_is_not_found(self):
        posed = pose(**ORIGIN)
        registry = Registry()
        registry.take(posed, optimal(posed), solver="x")
        other = replace(posed, moment=posed.moment * 1.01)
        assert registry.find(other) == {}
        assert len(registry.mismatches(other)) == 3

    def test_blocks_with_moments_of_their_own(self):
        problem = pose(rows=4)
        blocks = np.stack([problem.moment, 2 * problem.moment])
        grouped = replace(problem, moment=blocks)
        registry = Registry()
        registry.take(grouped, optimal(grouped), solver="x")
        energies = [registry.find(grouped)[row].energy for row in range(4)]
        assert energies == grouped.local_mse(optimal(grouped)).tolist()


class TestFile:
    def test_round_trip(self, problem, tmp_path):
        registry = Registry()
        registry.take(problem, optimal(problem), solver="x", proved=[True] * 3)
        registry.take(posed := pose(n=9, **ORIGIN), optimal(posed), solver="y")
        registry.save(path := tmp_path / "a.json")
        again = Registry.load(path)
        again.save(tmp_path / "b.json")
        assert path.read_bytes() == (tmp_path / "b.json").read_bytes()
        for each in (problem, posed):
            for row, best in registry.find(each).items():
                found = again.find(each)[row]
                np.testing.assert_array_equal(found.states, best.states)
                assert replace(found, states=best.states).__dict__ == best.__dict__
        # A line for each row: changes are seen.
        assert path.read_text().count('"row"') == 6
        assert max(line.count('"row"') for line in path.read_text().split("\n")) == 1

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "x")])
    def test_an_interrupted_write_leaves_the_old_file(
        self, problem, tmp_path, error, monkeypatch
    ):
        registry = Registry()
        registry.save(path := tmp_path / "a.json")
        before = path.read_bytes()
        registry.take(problem, optimal(problem), solver="x")
        write = Path.write_text

        def torn(self, text, *arguments):
            write(self, text[:50], *arguments)
            raise error

        monkeypatch.setattr(Path, "write_text", torn)
        with pytest.raises((KeyboardInterrupt, InputError)):
            registry.save(path)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(
        ("break_it", "message"),
        [
            (lambda text: text[:40], "is no registry, or damaged"),
            (lambda text: "[" * 100_000, "is no registry, or damaged"),
            (lambda text: "[]", "this is not a registry"),
            (
                lambda text: text.replace('"format": 1', '"format": 2'),
                "format 2, not 1",
            ),
            (lambda text: text.replace('"about"', '"a"'), "says nothing about itself"),
            (lambda text: text.replace('"n": 6', '"n": 0'), "needs n and rows"),
            (lambda text: text.replace('"n": 6', '"n": 60'), "states must be 60 bits"),
            (lambda text: text.replace('"row": 1', '"row": 0'), "number of its own"),
            (lambda text: text.replace('"states": "', '"states": "?'), "not base64"),
            (lambda text: text.replace('"states"', '"s"'), "states must be a str"),
            (lambda text: text.replace('"proved": false', '"proved": 1'), "be a bool"),
            (
                lambda text: text.replace('"energy": ', '"energy": 1e999, "x": '),
                "finite numb",
            ),
        ],
    )
    def test_damaged(self, problem, tmp_path, break_it, message):
        registry = Registry()
        registry.take(problem, problem.nearest(), solver="x")
        registry.save(path := tmp_path / "a.json")
        path.write_text(break_it(path.read_text()))
        with pytest.raises(InputError, match=message) as caught:
            Registry.load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


class TestCommand:
    @pytest.fixture
    def saved(self, problem, tmp_path):
        problem.save(path := tmp_path / "p.npz")
        return ["--problem", str(path), "--registry", str(tmp_path / "r.json")]

    def test_states_of_a_run(self, problem, tmp_path, saved, capsys):
        states = tmp_path / "s.npz"
        run = ["run", "--problem", saved[1], "--solver", "nearest", "--save"]
        assert main([*run, str(states)]) == 0
        assert main(["best", "update", *saved, "--states", str(states)]) == 0
        assert "nearest is better in 3 of 3 rows" in capsys.readouterr().out
        assert main(["best", "verify", *saved]) == 0
        assert capsys.readouterr().out == "p: 3 of 3 rows are as stored\n"
        assert main(["best", "show", *saved[2:]]) == 0
        assert "nearest" in capsys.readouterr().out

    def test_runs_of_a_store(self, problem, tmp_path, saved, capsys):
        """The rows of all runs are taken, each from the best, out of the set none."""
        path = str(tmp_path / "runs.db")
        run = ["compare", "--problem", saved[1], "--store", path]
        assert main([*run, "--solver", "nearest,gptq,exact"]) == 0
        capsys.readouterr()
        assert main(["best", "update", *saved, "--store", path]) == 0
        out = capsys.readouterr().out
        assert out == "p: exact is better in 3 of 3 rows, 3 newly proved\n"
        known = Registry.load(tmp_path / "r.json").find(problem)
        best = problem.local_mse(optimal(problem))
        np.testing.assert_allclose([known[row].energy for row in range(3)], best)
        other = pose(seed=1)
        other.save(tmp_path / "other.npz")
        arguments = ["--problem", str(tmp_path / "other.npz"), "--store", path]
        assert main(["best", "update", *arguments, *saved[2:]]) == 2
        assert "has no answer to this problem" in capsys.readouterr().err

    def test_a_proof(self, problem, tmp_path, saved, capsys):
        assert main(["best", "update", *saved, "--solver", "nearest,exact"]) == 0
        assert "3 newly proved" in capsys.readouterr().out
        known = Registry.load(tmp_path / "r.json").find(problem)
        assert all(best.proved for best in known.values())

    def test_a_registry_that_lies(self, tmp_path, saved, capsys):
        assert main(["best", "update", *saved, "--solver", "nearest"]) == 0
        path = tmp_path / "r.json"
        content = json.loads(path.read_text())
        (entry,) = content["problems"].values()
        entry["rows"][1]["energy"] /= 2
        path.write_text(json.dumps(content))
        assert main(["best", "verify", *saved]) == 1
        assert "row 1: its state does not have the energy" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "give one of --states FILE, --solver NAME and --store STORE: a claim"),
            (["--states", "a.npz", "--solver", "sa"], "give one of --states FILE"),
            (["--store", "none.db"], "none.db does not exist"),
            (["--solver", "sa", "--bits", "3"], "--bits does not go with --problem"),
            (["--solver", "gptq"], "solver gptq is out of the set"),
            (["--states", "OTHER"], "holds no states of this problem"),
        ],
    )
    def test_refused(self, tmp_path, saved, capsys, arguments, message):
        np.savez(tmp_path / "o.npz", base=np.zeros((3, 6), int), states_x=np.ones(3))
        given = [str(tmp_path / "o.npz") if a == "OTHER" else a for a in arguments]
        assert main(["best", "update", *saved, *given]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "r.json").exists()


def test_the_registry_that_ships_is_whole():
    registry = Registry.load(data_path(SHIPPED))
    layers = {(e.about["layer"], e.about["bits"]) for e in registry.entries.values()}
    for model in ("resnet18", "resnet20"):
        assert {(f"{model}.conv1", bits) for bits in (2, 3, 4)} <= layers
    for entry in registry.entries.values():
        assert sorted(entry.rows) == list(range(len(entry.rows)))
