"""Libraries of instances: what is exported, read back, checked and taken up again."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.commands.instances import collect
from benchmarks.library import export
from benchmarks.library.export import Library, single_rows, without_pins
from benchmarks.library.registry import Registry
from qubo_rounding.problem import RoundingProblem
from solvers import read_qubo, write_qubo
from solvers.testing import brute_force, example_batch
from tests.cases import make, rounding
from tests.test_registry_of_best import ORIGIN, optimal, pose

META = ORIGIN | {"layer": "net.conv"}


@pytest.fixture(params=["one moment", "pinned", "two moments"])
def problem(request) -> RoundingProblem:
    problem = pose(rows=4, **META)
    if request.param == "pinned":
        return replace(problem, scale=problem.scale / 3)
    if request.param == "two moments":
        moments = np.stack([problem.moment, 3 * problem.moment])
        return replace(problem, moment=moments)
    return problem


def known(problem: RoundingProblem):
    registry = Registry()
    states = optimal(problem)
    registry.take(problem, states, solver="exact", proved=[True] * 4, when="2026-01-02")
    return registry.find(problem)


def exported(folder, problem, rows=None):
    """The files of a library with one problem."""
    library = Library(folder, "rounding-net", "CC0-1.0")
    library.prepare()
    paths = list(library.add(problem, known(problem), rows))
    library.finish()
    return paths


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def solution(states) -> str:
    return "".join("".join(map(str, row)) + "\n" for row in np.atleast_2d(states))


def checked(folder, instance, text, cwd):
    """What the checker prints, in a process that sees neither project nor folder."""
    (cwd / "solution.txt").write_text(text)
    command = [sys.executable, "-I", folder / "check.py", instance, "solution.txt"]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_instances_have_the_energies_of_the_problem(tmp_path, problem):
    whole, *rows = exported(tmp_path, problem)
    assert RoundingProblem.load(whole).digest == problem.digest
    states = np.random.default_rng(1).integers(0, 2, problem.weight.shape, np.uint8)
    pinned = problem.join(
        [q.pin(x) for q, x in zip(problem.to_qubos(), split(problem, states), strict=1)]
    )
    energies = problem.local_mse(pinned)
    assert len(rows) == 4
    for row, path in enumerate(rows):
        qubo = read_qubo(path)
        assert qubo.n == problem.n
        # Whatever stands at weights that are held.
        assert qubo.energies(states[[row]])[0] == pytest.approx(energies[row], rel=1e-9)
        lowest = problem.local_mse(optimal(problem))[row]
        assert brute_force(qubo)[1][0] == pytest.approx(lowest, rel=1e-9)


def split(problem, states):
    count = len(problem.blocks)
    return states.reshape(count, -1, problem.n)


def test_pinned_variables_do_nothing():
    qubo = make(5, 12)
    rows = [qubo.take([row]) for row in range(5)]
    for row in rows:
        plain = without_pins(row)
        states = np.random.default_rng(0).integers(0, 2, (1, 12), np.uint8)
        difference = plain.energies(states) - row.energies(row.pin(states))
        assert (abs(difference) <= rounding(row)).all()
        assert not plain.linear[:, row.fixed[0] >= 0].any()


def test_tables(tmp_path, problem):
    exported(tmp_path, problem, rows=3)
    instances = table(tmp_path / "instances.csv")
    best = table(tmp_path / "best_known.csv")
    assert [line["row"] for line in instances] == ["0", "1", "2"]
    energies = problem.local_mse(optimal(problem))
    for row, line in enumerate(best):
        assert float(line["best_known_min"]) == pytest.approx(energies[row], rel=1e-9)
        assert (line["proved"], line["solver"]) == ("true", "exact")
        assert bool(line["file"]) == (row < 3)
    for line in instances:
        content = (tmp_path / "qs" / line["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == line["sha256"]
        assert (line["model"], line["layer"], line["bits"]) == ("net", "conv", "3")
    page = (tmp_path / "README.md").read_text()
    assert "**Licence: CC0-1.0**" in page
    assert "3 instances; best known values of 4 rows, 4 of them proved" in page
    assert "$" not in page


def test_the_checker_knows_nothing_of_this_project(tmp_path, problem):
    whole, *rows = exported(tmp_path / "lib", problem)
    elsewhere = tmp_path / "empty"
    elsewhere.mkdir()
    states = [q.pin(q.nearest()) for q in problem.to_qubos()]
    energies = problem.local_mse(problem.join(states))
    found = checked(tmp_path / "lib", whole, solution(np.vstack(states)), elsewhere)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    best = known(problem)
    assert len(lines) == 4
    for row, line in enumerate(lines):
        words = line.replace(",", "").split()
        assert float(words[3]) == pytest.approx(energies[row], rel=1e-9)
        gap = 100 * (energies[row] / best[row].energy - 1)
        assert float(words[-2]) == pytest.approx(gap, abs=1e-3)
    text = solution(best[1].states)
    found = checked(tmp_path / "lib", rows[1], text, elsewhere)
    assert "gap 0.0000 %" in found.stdout
    refused = checked(tmp_path / "lib", rows[1], text.replace("1", "2"), elsewhere)
    assert refused.returncode == 1
    assert refused.stderr == "solution.txt may hold only 0 and 1\n"


def test_the_manifest(tmp_path):
    exported(tmp_path, pose(rows=4, **META))
    content = json.loads((tmp_path / "croissant.json").read_text())
    assert content["license"] == "CC0-1.0"
    described = {file["@id"]: file for file in content["distribution"]}
    files = {
        path.relative_to(tmp_path).as_posix()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert described.keys() == files - {"croissant.json"}
    for name, file in described.items():
        held = (tmp_path / name).read_bytes()
        assert file["sha256"] == hashlib.sha256(held).hexdigest()
        assert file["contentSize"] == f"{len(held)} B"


def test_croissants_own_package_takes_the_manifest(tmp_path, caplog):
    croissant = pytest.importorskip("mlcroissant", reason="the extra library")
    exported(tmp_path, problem := pose(rows=4, **META))
    dataset = croissant.Dataset(jsonld=tmp_path / "croissant.json")
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    assert caplog.text == ""
    records = list(dataset.records("best_known"))
    energies = [record["best_known/best_known_min"] for record in records]
    assert energies == [known(problem)[row].energy for row in range(4)]
    (first, *_) = dataset.records("instances")
    assert (first["instances/row"], first["instances/n"]) == (0, 6)


class TestTakingUp:
    @pytest.fixture
    def problem(self):
        return pose(rows=4, **META)

    def test_what_is_there_stays(self, tmp_path, problem):
        paths = exported(tmp_path, problem)
        before = {path: path.stat().st_mtime_ns for path in paths}
        torn, *_ = [path for path in paths if "row001" in path.name]
        content = torn.read_bytes()
        torn.write_bytes(content[:20])
        assert exported(tmp_path, problem) == paths
        assert torn.read_bytes() == content
        kept = {path: path.stat().st_mtime_ns for path in paths if path != torn}
        assert kept == {path: at for path, at in before.items() if path != torn}

    def test_another_problem_takes_its_place(self, tmp_path, problem):
        exported(tmp_path, problem)
        other = replace(problem, moment=problem.moment * 1.5)
        whole, row, *_ = exported(tmp_path, other)
        assert RoundingProblem.load(whole).digest == other.digest
        lowest = brute_force(read_qubo(row))[1][0]
        assert lowest == pytest.approx(known(other)[0].energy, rel=1e-9)

    def test_broken_off_and_gone_on(self, tmp_path, problem, monkeypatch):
        rows = iter(range(4))
        text = export.format_text

        def broken(*arguments):
            yield from text(*arguments)
            if next(rows) == 2:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(export, "format_text", broken)
            with pytest.raises(KeyboardInterrupt):
                exported(tmp_path / "a", problem)
        found = sorted(p.name for p in (tmp_path / "a" / "qs").iterdir())
        assert [name.split(".")[-3] for name in found] == ["row000", "row001"]
        assert not (tmp_path / "a" / "croissant.json").exists()
        exported(tmp_path / "a", problem)
        exported(tmp_path / "b", problem)
        for path in (tmp_path / "b").rglob("*.qs.xz"):
            other = tmp_path / "a" / path.relative_to(tmp_path / "b")
            assert other.read_bytes() == path.read_bytes()


class TestCommand:
    ARGUMENTS = "--weights embedded --calibration 4 --bits 4,2"

    def test_a_network(self, tmp_path, capsys):
        folder, registry = str(tmp_path / "lib"), str(tmp_path / "r.json")
        arguments = [*self.ARGUMENTS.split(), "--registry", registry]
        layer = ["--layer", "resnet20.conv1", "--solver", "nearest"]
        assert main(["best", "update", *layer, *arguments]) == 0
        capsys.readouterr()
        what = ["--model", "resnet20", "--layers", "conv1", "--rows", "2"]
        licence = ["--licence", "Apache-2.0"]
        assert main(["library", "export", folder, *what, *licence, *arguments]) == 0
        assert capsys.readouterr().out.startswith("6 files of 1 layers, with manifest")
        best = table(tmp_path / "lib" / "best_known.csv")
        assert len(best) == 32
        # The command for instances reads them with their best known values.
        texts = tmp_path / "lib" / "qs"
        instances = collect([texts], tmp_path / "lib" / "best_known.csv")
        assert len(instances) == 4
        states = {line["name"]: [list(map(int, line["state"]))] for line in best}
        for name, qubo, value in instances:
            energy = qubo.energies(states[name])[0]
            assert energy == pytest.approx(value, rel=1e-9)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("export DIR --model resnet20", "required: --licence"),
            ("export DIR --model resnet20 --licence x --bits 4,x", "--bits"),
            ("export DIR --model resnet20 --licence x --layers conv9", "'conv9'"),
            ("export FILE --model resnet20 --licence x", "cannot make"),
            ("import", "required: files"),
            ("import absent.qs", "no file absent.qs"),
            ("import FILE", "name it .qubo"),
        ],
    )
    def test_refused(self, tmp_path, capsys, arguments, message):
        (tmp_path / "file").touch()
        paths = {"DIR": str(tmp_path / "d"), "FILE": str(tmp_path / "file")}
        given = [paths.get(word, word) for word in arguments.split()]
        assert main(["library", *given]) == 2
        out, err = capsys.readouterr()
        assert message in err
        assert (out, err.count("\n")) == ("", 1)

    def test_import(self, tmp_path, capsys):
        qubo = replace(example_batch(1, 5), offset=[0.5])
        write_qubo(tmp_path / "a.qs.xz", qubo)
        write_qubo(tmp_path / "b.qplib", qubo, maximise=True)
        names = [str(tmp_path / name) for name in ("a.qs.xz", "b.qplib")]
        assert main(["library", "import", *names, "--into", str(tmp_path)]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert lines[0] == ["file", "n", "couplings", "sense", "offset"]
        assert lines[-2][:2] + lines[-2][3:] == ["a.qs.xz", "5", "minimise", "0.5"]
        assert lines[-1][:2] + lines[-1][3:] == ["b.qplib", "5", "maximise", "-0.5"]
        lowest = brute_force(qubo)[1][0]
        for name in ("a.npz", "b.npz"):
            found = brute_force(read_qubo(tmp_path / name))[1][0]
            assert found == pytest.approx(lowest, rel=1e-9)


def test_rows_of_blocks_come_in_order():
    problem = pose(rows=4, **META)
    moments = np.stack([problem.moment, 3 * problem.moment])
    problem = replace(problem, moment=moments)
    nearest = problem.local_mse(problem.nearest())
    for row, qubo in enumerate(single_rows(problem)):
        energy = qubo.energies(problem.nearest()[[row]])[0]
        assert energy == pytest.approx(nearest[row], rel=1e-9)
