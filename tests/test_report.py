"""The report's numbers, words and page, without a browser."""

from __future__ import annotations

import html
import importlib.util
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main as benchmarks
from benchmarks.harness.runs import Problem, Run, Spec
from benchmarks.harness.store import Store
from benchmarks.library.registry import Registry
from benchmarks.report import answers, cells, content, figures, pairs, weights, words
from benchmarks.report.cells import overview
from qubo_rounding.problem import RoundingProblem
from solvers.errors import InputError
from solvers.testing import brute_force
from tests import report_cases
from tests.report_cases import BUDGETS, FAULTS, HOSTILE, SEEDS, SOLVERS

needs_extra = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("jinja2", "matplotlib")),
    reason="the extra report is not installed",
)
SECTIONS = (
    "summary",
    "results",
    "anytime",
    "targets",
    "profiles",
    "accuracy",
    "rows",
    "weights",
    "failures",
    "environment",
    "protocol",
    "limits",
)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store(None) as held:
        yield held


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    path = report_cases.stored(folder)
    problems = str(folder / "problems")
    out = folder / "out"
    assert (
        benchmarks(["report", str(path), "-o", str(out), "--problems", problems]) == 0
    )
    return out / "index.html"


def data_of(page: Path) -> dict:
    pattern = r'<script type="application/json" id="data">(.*?)</script>'
    (text,) = re.findall(pattern, page.read_text("utf-8"), re.DOTALL)
    return json.loads(text)


def lines_of(table: dict) -> list[dict]:
    return [dict(zip(table["fields"], line, strict=True)) for line in table["lines"]]


def simple(problem: str, solver: str, objective: float, **more) -> Run:
    spec = Spec(problem=problem, solver=solver, code=more.pop("code", "a"), seconds=1.0)
    spec = replace(spec, seed=more.pop("seed", 0), **more.pop("spec", {}))
    defaults = {"status": "ok", "seconds": 1.0, "began": "2026-01-01"}
    return Run(spec=spec, objective=objective, **{**defaults, **more})


def test_cells_hold_every_run_once_and_the_best_solver_comes_first(store):
    report_cases.fill(store)
    known = overview(store)
    assert sorted(known.shown()) == list(range(len(known.table["run_id"])))
    # Rank by rank the solvers of the cases try fewer answers; two are as good.
    assert known.solvers[0] == SOLVERS[0]
    assert {subject.title for subject in known.subjects} == {
        "net.one, 3 bits",
        "net.two, 2 bits",
        "net",
    }
    for (_, solver), at in known.last.items():
        layer = known.subjects[known.cells[at].problem].problem.kind == "rounding"
        if layer and known.solvers[solver] in SOLVERS:
            assert known.budgets[known.cells[at].budget] == (BUDGETS[-1], None, 1)


def test_gaps_lie_between_the_best_known_and_nearest(store):
    store.add_problem(Problem(digest="p", name="p", nearest=3.0))
    store.add(simple("p", "good", 1.0))
    store.add(simple("p", "bad", 2.0))
    store.add(simple("p", "liar", 0.5, status="invalid"))
    known = overview(store)
    assert known.subjects[0].best == 1.0
    found = {known.solvers[c.solver]: known.gaps(c).tolist() for c in known.cells}
    assert found == {"good": [0.0], "bad": [0.5], "liar": []}


@pytest.mark.parametrize(("nearest", "gap"), [(None, 0.5), (-4.0, 0.5), (-2.0, 1.0)])
def test_without_a_worse_nearest_gaps_are_relative_to_the_best(store, nearest, gap):
    store.add_problem(Problem(digest="p", name="p", kind="qubo", nearest=nearest))
    store.add(simple("p", "good", -4.0))
    store.add(simple("p", "bad", -2.0))
    known = overview(store)
    worst = max(float(known.gaps(cell)[0]) for cell in known.cells)
    assert worst == pytest.approx(gap)


def test_runs_of_older_code_are_left_out_and_counted(store):
    store.add_problem(Problem(digest="p", name="p", nearest=3.0))
    store.add(simple("p", "s", 1.0, code="new", began="2026-02-01"))
    store.add(simple("p", "s", 2.0, code="old", began="2026-01-01"))
    known = overview(store)
    assert [known.gaps(cell).tolist() for cell in known.cells] == [[0.0]]
    assert known.outdated == 1
    said = " ".join(words.limits(known, answers.gather(store, known)))
    assert "1 run by earlier versions of the code is left out" in said


def test_equal_names_are_told_apart(store):
    for digest in ("aaaaaaaa", "bbbbbbbb"):
        store.add_problem(Problem(digest=digest, name="p", nearest=3.0))
        store.add(simple(digest, "s", 1.0, spec={"settings": {"part": digest[0]}}))
    known = overview(store)
    assert [subject.title for subject in known.subjects] == ["p, aaaaaa", "p, bbbbbb"]
    assert sorted(known.solvers) == ["s part=a", "s part=b"]
    named = [solver["short"] for solver in content._solvers(known.solvers)]
    assert named == ["s 1", "s 2"]


def test_times_to_targets_come_from_traces_that_the_answer_bears_out(store):
    store.add_problem(Problem(digest="p", name="p", nearest=10.0))
    # Gaps 0.5, 0.05 and 0; the trace of the second claims more than its answer holds.
    honest = np.array([[0.1, 5.0], [0.2, 0.5], [0.4, 0.0]])
    store.add(simple("p", "s", 0.0, falls=honest))
    store.add(simple("p", "s", 0.5, seed=1, falls=honest))
    store.add(simple("p", "s", math.nan, seed=2, status="crash"))
    known = overview(store)
    numbers = content.content(known, answers.gather(store, known), [], "")
    found = {line["gap"]: line for line in lines_of(numbers["targets"])}
    assert found[0]["times"] == [0.2, 0.2, None]
    assert found[0]["median"] == 0.2
    assert found[3]["times"] == [0.4, None, None]
    assert (found[3]["median"], found[3]["reached"], found[3]["of"]) == (None, 1, 3)


def test_the_budget_of_a_target_is_the_one_that_gets_there_first(store):
    store.add_problem(Problem(digest="p", name="p", nearest=10.0))
    for seconds, at in ((1.0, 0.9), (0.2, 0.15)):
        falls = np.array([[at, 0.0]])
        spec = {"seconds": seconds}
        store.add(simple("p", "s", 0.0, falls=falls, seconds=seconds, spec=spec))
    known = overview(store)
    numbers = content.content(known, answers.gather(store, known), [], "")
    for line in lines_of(numbers["targets"]):
        assert numbers["budgets"][line["budget"]]["seconds"] == 0.2
        assert line["median"] == 0.15


def test_curves_fall_and_end_at_the_median_answer(store):
    report_cases.fill(store)
    known = overview(store)
    numbers = content.content(known, answers.gather(store, known), [], "")
    assert len(numbers["curves"]) == 2 * len(SOLVERS)
    ends = {
        (line["problem"], line["solver"]): line["gap"]
        for line in lines_of(numbers["cells"])
        if line["last"]
    }
    for curve in numbers["curves"]:
        assert curve["t"] == sorted(curve["t"])
        for key in ("median", "low", "high"):
            assert curve[key] == sorted(curve[key], reverse=True)
        end = ends[curve["problem"], curve["solver"]]
        assert curve["median"][-1] == pytest.approx(min(end, 1.0), rel=1e-3)


def test_rows_are_measured_from_their_best_and_their_bound(store):
    report_cases.fill(store)
    known = overview(store)
    parts = content.rows(known, answers.gather(store, known))
    titles = [known.subjects[part["problem"]].title for part in parts]
    assert titles == ["net.one, 3 bits", "net.two, 2 bits"]
    for part in parts:
        assert all(gap >= 0 for line in part["solvers"] for gap in line["gaps"])
        assert np.all(np.array(part["lower"]) <= part["best"])


def test_the_first_solver_is_compared_with_each_other_in_pairs(store):
    for digest in "pqr":
        store.add_problem(Problem(digest=digest, name=digest, nearest=10.0))
        for seed in range(2):
            store.add(simple(digest, "best", 0.0, seed=seed))
            store.add(simple(digest, "next", 1.0, seed=seed))
        store.add(simple(digest, "lost", math.nan, status="crash"))
    # A run without its pair does not count; one that failed is as bad as nearest.
    store.add(simple("p", "next", 5.0, seed=7))
    store.add(simple("p", "fails", 0.0))
    store.add(simple("q", "fails", math.nan, status="oom"))
    known = overview(store)
    found = {known.solvers[s]: (n, pair) for s, n, pair in pairs.against_first(known)}
    assert set(found) == {"next", "fails"}
    count, pair = found["next"]
    assert (count, pair.tally.wins, pair.tally.losses) == (6, 6, 0)
    assert pair.difference.value == pytest.approx(-0.1)
    count, pair = found["fails"]
    assert (count, pair.tally.wins, pair.tally.ties) == (2, 1, 1)
    assert pair.difference.value == pytest.approx(-0.5)


def test_curves_of_many_runs_are_thinned_and_keep_their_ends(store, monkeypatch):
    report_cases.fill(store)
    known = overview(store)
    gathered = answers.gather(store, known)
    whole = content.curves(known, gathered)
    monkeypatch.setattr(content, "MOST_NUMBERS", 400)
    thin = content.curves(known, gathered)
    numbers = sum(len(curve[key]) for curve in thin for key in ("t", "low", "high"))
    assert numbers <= 400
    for curve, before in zip(thin, whole, strict=True):
        assert curve["median"][-1] == before["median"][-1]


@pytest.mark.parametrize(
    ("name", "most", "sentence"),
    [
        ("MOST_SCORED", 3, "Scores are those of the first 3 runs"),
        ("MOST_ROWS", 2, "the first 2 rows are shown"),
        ("MOST_NUMBERS", 1, "The rows of 2 problems are left out"),
        ("MOST_FAILURES", 2, "Only the 2 most frequent failures"),
        ("MOST_DRAWN", 2, "are of 2 problems"),
    ],
)
def test_what_is_too_much_for_a_page_is_said(store, monkeypatch, name, most, sentence):
    report_cases.fill(store)
    known = overview(store)
    for module in (content, answers):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, most)
    gathered = answers.gather(store, known)
    numbers = content.content(known, gathered, [], "")
    assert sentence in " ".join(content.cuts(known, gathered, numbers))


def test_a_small_store_is_shown_whole(store):
    report_cases.fill(store)
    known = overview(store)
    gathered = answers.gather(store, known)
    numbers = content.content(known, gathered, [], "")
    assert content.cuts(known, gathered, numbers) == []


@pytest.mark.parametrize(
    "info", [(), ({},), ({"lower_bound": [1.0]},), ({"lower_bound": ["x", 1.0]},)]
)
def test_remarks_that_are_no_bounds_are_none(info):
    run = simple("p", "s", 1.0, info=info, energies=np.ones(2))
    assert answers.lower_bounds(run) is None


def test_weights_are_counted_by_place_and_direction():
    problem = report_cases.rounding(1, 3)
    nearest = problem.nearest()
    counted = weights.counted(problem, nearest)
    assert counted["other"] == counted["beyond"] == 0
    half = weights.BINS // 2
    assert sum(counted["up"][:half]) == sum(counted["down"][half:]) == 0
    assert sum(counted["up"]) + sum(counted["down"]) == counted["free"]
    assert counted["free"] + counted["fixed"] == problem.weight.size
    assert weights.counted(problem, 1 - nearest)["other"] == counted["free"]
    assert weights.counted(problem, nearest + np.int16(1))["beyond"] > 0


def test_the_summary_says_who_is_best_and_what_failed(store):
    report_cases.fill(store)
    first, second, third = words.summary(overview(store))
    assert first.startswith(f"{SOLVERS[0]} has the lowest median error in ")
    assert "of the 4 pairings" in first
    assert SOLVERS[0] in second
    runs = (2 * len(SOLVERS) * len(BUDGETS) + 1) * len(SEEDS) + len(FAULTS)
    assert third.startswith(f"This is from {runs} runs")
    assert f"{len(FAULTS)} of them" in third
    assert all(f"1 {fault}" in third for fault in FAULTS)


def test_a_store_in_which_all_failed_has_a_summary(store):
    store.add_problem(Problem(digest="p", name="p"))
    store.add(simple("p", "s", math.nan, status="crash", seconds=math.nan))
    known = overview(store)
    gathered = answers.gather(store, known)
    assert words.summary(known)[0].startswith("No run has an answer")
    numbers = content.content(known, gathered, [], "")
    assert json.loads(content.as_json(numbers))["curves"] == []
    assert words.limits(known, gathered)


def test_too_many_cells_leave_out_the_problems_with_fewest_runs(store, monkeypatch):
    monkeypatch.setattr(cells, "MOST_CELLS", 2)
    for digest, solvers in (("a", "s"), ("b", "st"), ("c", "s")):
        store.add_problem(Problem(digest=digest, name=digest, nearest=3.0))
        for solver in solvers:
            store.add(simple(digest, solver, 1.0))
    known = overview(store)
    assert [subject.title for subject in known.subjects] == ["b"]
    assert known.left_out == 2
    answers.gather(store, known)


def test_an_empty_store_is_refused(store):
    with pytest.raises(InputError, match="no runs to report on"):
        overview(store)


@needs_extra
def test_the_page_has_every_section_and_needs_nothing_else(page):
    text = page.read_text("utf-8")
    for section in SECTIONS:
        assert f'<section id="{section}"' in text
        assert f'href="#{section}"' in text
    # Names of standards are no addresses that a browser would fetch.
    outside = set(re.findall(r"https?://[^\s\"'<>]*", text))
    assert outside == {"http://www.w3.org/2000/svg"}
    assert not re.search(
        r"<(?:script|img|iframe|link)[^>]+(?:src|href)=\"(?!data:)", text
    )
    assert page.stat().st_size < 6_000_000


@needs_extra
def test_names_of_any_kind_stay_text(page):
    text = page.read_text("utf-8")
    assert HOSTILE not in text
    assert text.count("</script>") == 2
    data = data_of(page)
    assert any(HOSTILE in solver["label"] for solver in data["solvers"])
    messages = {line["message"] for line in lines_of(data["failures"])}
    assert messages == {f"{HOSTILE} {fault}" for fault in FAULTS}
    (summary,) = re.findall(r'<section id="summary".*?</section>', text, re.DOTALL)
    assert "pairings of problem and budget" in html.unescape(summary)


@needs_extra
def test_figures_lie_beside_the_page(page):
    names = {path.name for path in page.parent.iterdir()}
    for kind in ("anytime", "targets", "weights"):
        for suffix in (".svg", ".png"):
            assert f"{kind}-2-net.one-3-bits{suffix}" in names
    linked = set(re.findall(r'<a href="([^"#]+)"', page.read_text("utf-8")))
    assert linked == names - {"index.html"}


@needs_extra
def test_without_the_problems_the_page_says_why_there_are_no_weights(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(figures, "draw", lambda *_: [])
    path = report_cases.stored(tmp_path)
    out = tmp_path / "out"
    assert benchmarks(["report", str(path), "-o", str(out)]) == 0
    assert data_of(out / "index.html")["weights"] == []
    assert "--problems DIR" in data_of(out / "index.html")["noWeights"]


@pytest.mark.parametrize(("known", "best"), [(0.5, 0.5), (1.5, 1.0), (np.inf, 1.0)])
def test_gaps_begin_at_what_is_known_elsewhere_if_it_is_better(store, known, best):
    store.add_problem(Problem(digest="p", name="p", nearest=3.0))
    store.add(simple("p", "good", 1.0, energies=np.array([0.4, 0.6])))
    found = overview(store, {"p": np.array([0.5, known - 0.5]), "q": np.zeros(2)})
    assert found.subjects[0].best == best
    (cell,) = found.cells
    assert found.gaps(cell) == pytest.approx((1.0 - best) / (3.0 - best))
    gathered = answers.gather(store, found)
    rows = np.minimum([0.4, 0.6], [0.5, known - 0.5])
    np.testing.assert_allclose(gathered.best[0], rows)
    assert "for 1 problem, of the registry" in words.limits(found, gathered)[0]


@needs_extra
def test_the_page_begins_at_the_registrys_best(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "draw", lambda *_: [])
    path = report_cases.stored(tmp_path)
    registry, problems = tmp_path / "best.json", tmp_path / "problems"
    one = RoundingProblem.load(problems / "net.one.npz")
    known = Registry()
    optimal = one.join([brute_force(qubo)[0] for qubo in one.to_qubos()])
    known.take(one, optimal, solver="exact")
    known.save(registry)
    arguments = ["report", str(path), "-o", str(tmp_path / "out"), "--best"]
    arguments += ["--registry", str(registry)]
    assert benchmarks([*arguments, "--problems", str(problems)]) == 0
    shown = {
        problem["title"]: problem["best"]
        for problem in data_of(tmp_path / "out" / "index.html")["problems"]
    }
    title = next(title for title in shown if title.startswith("net.one"))
    assert shown[title] == pytest.approx(one.local_mse(optimal).sum(), rel=1e-6)
    capsys.readouterr()
    assert benchmarks(arguments) == 2
    assert "--best needs --problems DIR" in capsys.readouterr().err
    assert benchmarks([a for a in arguments if a != "--best"]) == 2
    assert "--registry goes with --best" in capsys.readouterr().err


@needs_extra
def test_bad_input_is_one_line(tmp_path, capsys):
    for store, message in (("none.store", "does not exist"), ("text", "not a store")):
        (tmp_path / "text").write_text("no store" * 100)
        arguments = [str(tmp_path / store), "-o", str(tmp_path / "out")]
        assert benchmarks(["report", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_extra_is_one_line(tmp_path, monkeypatch, capsys, package):
    from benchmarks.report import write

    monkeypatch.setattr(
        write, "find_spec", lambda name: None if name == package else object()
    )
    assert benchmarks(["report", "any", "-o", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: report: {package} is not installed; pip install")
