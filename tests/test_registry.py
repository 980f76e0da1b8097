"""Solvers by name, by text, and from other packages."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import pytest

from solvers.base import Solver, Task
from solvers.composed.window import Window
from solvers.errors import InputError, UnknownNameError
from solvers.flips.annealing import SimulatedAnnealing
from solvers.qubo import States
from solvers.registry import (
    BUILT_IN,
    available,
    broken,
    label,
    parse_solver,
    parse_solvers,
    solver_class,
    split_solvers,
)
from solvers.sampling.cem import CrossEntropy
from solvers.sampling.neal import Neal
from solvers.sampling.nearest import Floor, Nearest
from solvers.sampling.stochastic import Stochastic


@dataclass(frozen=True, kw_only=True)
class Plugin(Solver):
    name: ClassVar[str] = "plugin"

    depth: int = 3
    limit: int | None = None

    def search(self, task: Task) -> States:
        return task.start


class NoSolver:
    pass


class Nameless(Solver):
    def search(self, task: Task) -> States:
        return task.start


class TestParse:
    @pytest.mark.parametrize(
        ("text", "solver"),
        [
            ("nearest", Nearest()),
            (" floor[] ", Floor()),
            ("cem[samples=50,elite=0.2]", CrossEntropy(samples=50, elite=0.2)),
            ("cem[ samples = 50 , ]", CrossEntropy(samples=50)),
            ("cem[elite=2e-1]", CrossEntropy(elite=0.2)),
            ("cem[polish=one-flip]", CrossEntropy(polish="one-flip")),
            ("stochastic[pick=layer]", Stochastic(pick="layer")),
            ("sa[float32=false]", SimulatedAnnealing(float32=False)),
            ("sa[float32=True]", SimulatedAnnealing(float32=True)),
            ("neal[beta_min=5,beta_max=200]", Neal(beta_min=5, beta_max=200)),
            (
                "window[solver=cem[samples=50,elite=0.2],rounds=3]",
                Window(solver="cem[samples=50,elite=0.2]", rounds=3),
            ),
            ("window[ rounds=2, solver = sa[ ] ]", Window(solver="sa", rounds=2)),
        ],
    )
    def test_text(self, text, solver):
        found = parse_solver(text)
        assert found == solver
        assert type(found) is type(solver)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "cannot read solver ''; write name"),
            ("cem[samples=3", r"cannot read solver 'cem\[samples=3' \(a \[ is not cl"),
            ("cem]", r"cannot read solver 'cem]' \(a ] closes no \[\); write name"),
            ("cem[samples=3]]", r"a ] closes no \["),
            ("cem[samples=3][elite=0.5]", r"\(a ] closes no \[\)|cannot read solver"),
            ("window[solver=cem[samples=3]", r"\(a \[ is not closed\)"),
            ("window[solver=cem[samples=3],round=2]", "did you mean rounds"),
            ("window[solver=cem[sample=3]]", "unknown option of solver cem 'sample'"),
            ("window[solver=cem,elite=0.5]", "unknown option of solver window 'elite'"),
            ("cem samples=3", "cannot read solver"),
            ("[samples=3]", "cannot read solver"),
            ("cme", "unknown solver 'cme'; did you mean cem"),
            ("qqqqqq", "unknown solver 'qqqqqq'; known: nearest, floor"),
            (
                "cem[sample=3]",
                "unknown option of solver cem 'sample'; did you .* samples",
            ),
            ("cem[name=3]", "unknown option of solver cem 'name'"),
            ("stochastic[chunk=3]", "unknown option of solver stochastic 'chunk'"),
            ("cem[samples]", "solver cem: write samples=value, not 'samples'"),
            ("cem[samples=3,samples=4]", "solver cem: option samples is given twice"),
            (
                "cem[samples=many]",
                "option samples takes a value of type int, not 'many'",
            ),
            ("cem[samples=2.5]", "option samples takes a value of type int, not '2.5'"),
            ("cem[samples=]", "option samples takes a value of type int, not ''"),
            ("cem[elite=x]", "option elite takes a value of type float, not 'x'"),
            ("sa[float32=1]", "option float32 takes true or false, not '1'"),
            ("cem[samples=1]", "solver cem: samples must be at least 2"),
            ("cem[elite=nan]", "solver cem: elite must lie between 0 and 1"),
            (
                "cem[polish=two-flip]",
                "solver cem: polish must be one of none, one-flip",
            ),
        ],
    )
    def test_refused(self, text, message):
        with pytest.raises(InputError, match=message) as caught:
            parse_solver(text)
        assert "\n" not in str(caught.value)

    def test_unknown_names_have_a_type(self):
        with pytest.raises(UnknownNameError):
            parse_solver("cme")
        with pytest.raises(UnknownNameError):
            parse_solver("cem[sample=3]")


class TestParseList:
    def test_commas_inside_brackets(self):
        text = "nearest, cem[samples=50,elite=0.2],floor[],sa[num_sweeps=3],"
        assert parse_solvers(text) == [
            Nearest(),
            CrossEntropy(samples=50, elite=0.2),
            Floor(),
            SimulatedAnnealing(num_sweeps=3),
        ]

    def test_brackets_inside_brackets(self):
        text = (
            "window[solver=cem[samples=50,elite=0.2],rounds=3],floor, window[rounds=2]"
        )
        assert parse_solvers(text) == [
            Window(solver="cem[samples=50,elite=0.2]", rounds=3),
            Floor(),
            Window(rounds=2),
        ]
        assert split_solvers(text)[1:] == ["floor", "window[rounds=2]"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("floor,window[solver=cem[samples=3]", r"a \[ is not closed"),
            ("floor],cem", r"a ] closes no \["),
        ],
    )
    def test_unbalanced_brackets(self, text, message):
        with pytest.raises(InputError, match=f"cannot read solvers .*: {message}"):
            split_solvers(text)

    def test_the_same_solver_twice(self):
        first, second = parse_solvers("cem[samples=50],cem")
        assert (first.samples, second.samples) == (50, CrossEntropy().samples)

    @pytest.mark.parametrize("text", ["", " ", ",", " , ,"])
    def test_none(self, text):
        with pytest.raises(InputError, match="no solver given"):
            parse_solvers(text)

    def test_one_bad(self):
        with pytest.raises(InputError, match=r"'nerest'; .* nearest"):
            parse_solvers("cem[samples=3,elite=0.5],nerest")


class TestLabel:
    @pytest.mark.parametrize(
        "text",
        [
            "cem",
            "cem[samples=50,elite=0.25]",
            "sa[float32=False]",
            "stochastic[polish=one-flip,pick=layer]",
            "neal[beta_min=0.1,beta_max=1e+20]",
            "window",
            "window[solver=kbest[paths=16],rounds=3]",
            "window[solver=docs/example_solver.py:MultiStart[starts=5],rounds=3]",
            "window[solver=docs/example_solver.py:MultiStart]",
            "docs/example_solver.py:MultiStart[starts=5]",
        ],
    )
    def test_round_trip(self, text):
        solver = parse_solver(text)
        assert label(solver) == text
        assert parse_solver(label(solver)) == solver

    def test_every_solver(self):
        for name in available():
            solver = parse_solver(name)
            assert label(solver) == name
            if solver.out_of_set:
                continue
            polished = type(solver)(polish="one-flip")
            assert parse_solver(label(polished)) == polished

    def test_brackets_in_a_file_name(self, tmp_path):
        source = "from solvers.sampling.nearest import Nearest\n"
        source += "class Mine(Nearest):\n    name = 'mine'\n"
        (tmp_path / "one[2].py").write_text(source)
        text = f"{tmp_path}/one[2].py:Mine[polish=one-flip]"
        solver = parse_solver(text)
        assert (solver.name, solver.polish) == ("mine", "one-flip")
        assert label(solver) == text

    def test_values_at_their_defaults_are_left_out(self):
        assert label(CrossEntropy(samples=CrossEntropy().samples)) == "cem"


class TestPlugins:
    def test_good(self, install):
        install(plugin=f"{__name__}:Plugin")
        assert available()[-1] == "plugin"
        assert solver_class("plugin") is Plugin
        assert parse_solver("plugin[depth=5]") == Plugin(depth=5)
        assert label(Plugin(depth=5)) == "plugin[depth=5]"
        with pytest.raises(InputError, match=r"'plugni'; .* plugin"):
            parse_solver("plugni")

    def test_a_broken_one_is_reported_and_harms_no_other(self, install):
        install(plugin=f"{__name__}:Plugin", bad="no_such_package.module:Solver")
        reason = r"solver 'bad' \(no_such_package.module:Solver\): ModuleNotFoundErr"
        with pytest.warns(UserWarning, match=reason) as caught:
            names = available()
        assert names == [*BUILT_IN, "plugin"]
        (warning,) = caught
        assert "\n" not in str(warning.message)
        assert list(broken()) == ["bad"]
        assert parse_solver("nearest") == Nearest()

    def test_parsing_imports_no_plugin(self, install, monkeypatch):
        install(bad="no_such_package.module:Solver")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert parse_solver("nearest") == Nearest()
            assert label(Nearest()) == "nearest"

    def test_none_is_broken(self):
        assert broken() == {}

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (
                "no_such_package:Solver",
                r"solver 'mine' \(no_such_package:Solver\): ModuleNotFoundError: No",
            ),
            (f"{__name__}:Absent", "solver 'mine' .* has no attribute 'Absent'"),
            (f"{__name__}:NoSolver", r"NoSolver\) is not a Solver class"),
            (f"{__name__}:Solver", r"Solver\) has no method search"),
            (f"{__name__}:Nameless", r"Nameless\) has no name"),
            (f"{__name__}:Plugin", r"Plugin\): its class has the name 'plugin'"),
            (f"{__name__}:TestPlugins.value", "solver 'mine'"),
        ],
    )
    def test_broken(self, install, value, message):
        install(mine=value)
        with pytest.raises(InputError, match=message) as caught:
            parse_solver("mine")
        assert "\n" not in str(caught.value)

    def test_name_taken(self, install):
        install(sa=f"{__name__}:Plugin", plugin=f"{__name__}:Plugin")
        with pytest.warns(
            UserWarning, match=r"solver 'sa' of .*Plugin left out: the na"
        ):
            names = available()
        assert names.count("sa") == 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert solver_class("sa") is SimulatedAnnealing
            assert solver_class("plugin") is Plugin

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("raise OSError('one\\ntwo\\nthree')\n", "OSError: one two three"),
            ("raise AssertionError\n", "AssertionError"),
            ("import sys\nsys.exit('tired')\n", "SystemExit: tired"),
            ("def f(:\n", "SyntaxError: .*line 1"),
        ],
    )
    def test_raises_on_import(self, install, tmp_path, monkeypatch, source, message):
        (tmp_path / "long_story.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        install(mine="long_story:Solver")
        with pytest.raises(InputError, match=message) as caught:
            parse_solver("mine")
        assert "\n" not in str(caught.value)

    def test_option_of_a_type_without_text(self, install):
        install(plugin=f"{__name__}:Plugin")
        with pytest.raises(InputError, match="option limit"):
            parse_solver("plugin[limit=3]")
