"""Finished runs stay, whatever happens, and are the same when they are read again."""

from __future__ import annotations

import math
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import packing
from benchmarks.harness import store as module
from benchmarks.harness.runs import STATUSES, Problem, Run, Spec
from benchmarks.harness.store import COLUMNS, Store
from solvers.errors import InputError, UnknownNameError

PROBLEM = Problem(
    digest="d" * 64, name="net.conv1", rows=2, n=3, nearest=4.5, meta={"bits": 4}
)
# Adds runs until it is killed; says which once they are in.
WRITER = """
import sys
from pathlib import Path
from tests.test_store import PROBLEM, Store, run_of
store = Store(Path(sys.argv[1]))
store.add_problem(PROBLEM)
for seed in range(int(sys.argv[2]), int(sys.argv[3])):
    run = run_of(seed)
    store.add(run)
    print(run.spec.run_id, flush=True)
"""


def run_of(seed: int = 0, **changes: object) -> Run:
    spec = Spec(
        problem=PROBLEM.digest,
        solver="sa[num_sweeps=3]",
        code="c0de",
        seed=seed,
        seconds=0.5,
        sweeps=None,
        threads=2,
        settings={"target": -1.5},
    )
    given = {
        "spec": spec,
        "status": "ok",
        "objective": 1.5,
        "energies": np.array([0.5, 1.0]),
        "claimed": np.array([0.5, 1.0]),
        "states": np.array([[1, 0, 1], [0, 0, 1]], np.uint8),
        "falls": np.array([[0.1, 3.0], [0.2, 1.5]]),
        "seconds": 0.25,
        "timing": {"search": 0.2, "compile": 3.0},
        "info": ({"flips": 3}, {"flips": 4}),
        "scores": {"top1": 68.5},
        "began": "2030-01-01T00:00:00",
        "environment": {"cpus": 2},
    }
    return Run(**(given | changes))


def same(run: Run, other: Run) -> bool:
    pairs = [(getattr(run, f.name), getattr(other, f.name)) for f in fields(Run)]
    return all(
        a.dtype == b.dtype and np.array_equal(a, b)
        if isinstance(a, np.ndarray)
        else a == b or (a != a and b != b)
        for a, b in pairs
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def begun(path: Path | None, *runs: Run) -> Store:
    store = Store(path)
    store.add_problem(PROBLEM)
    store.add(*runs)
    return store


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"status": "crash", "message": "signal 11", "objective": math.nan},
        dict.fromkeys(("energies", "claimed", "states", "falls")) | {"seconds": np.nan},
        {"states": np.array([[-2, 300], [0, 1], [4, 5]], np.int16)},
        {"states": np.ones((1, 1), np.int16), "energies": np.array([np.inf, -0.0])},
        {"states": np.zeros((3, 0), np.uint8), "falls": np.zeros((0, 2))},
        {"info": (), "scores": {}, "timing": {}, "environment": {}},
    ],
)
def test_a_run_comes_back_as_it_was(path, changes):
    run = run_of(3, **changes)
    begun(path, run).close()
    with Store(path) as store:
        assert same(store.get(run.spec.run_id), run)
        assert same(store.find(run.spec), run)
        assert store.problems() == {PROBLEM.digest: PROBLEM}


def test_the_hash_of_a_spec_survives(path):
    spec = Spec(
        problem=PROBLEM.digest,
        solver="nearest",
        code="c",
        seconds=1,
        settings={"parts": ("a", "b"), "path": Path("x"), "n": np.int64(3)},
    )
    begun(path, run_of(spec=spec)).close()
    (run,) = Store(path).runs()
    assert run.spec.run_id == spec.run_id
    assert spec.run_id == replace(spec, seconds=1.0).run_id


def test_a_run_of_the_same_spec_is_replaced(path):
    store = begun(path, run_of(0), run_of(1))
    store.add(run_of(0, status="error", states=None))
    assert [(r.spec.seed, r.status) for r in store.runs()] == [(0, "error"), (1, "ok")]
    assert store.get(run_of(0).spec.run_id).states is None


def test_runs_by_column_and_without_what_is_large():
    store = begun(None, *(run_of(seed) for seed in range(1200)))
    store.add(run_of(7, status="oom"), run_of(9, status="error"))
    assert [run.spec.seed for run in store.runs()] == list(range(1200))
    (run,) = store.runs(status="oom", problem=PROBLEM.digest)
    assert (run.spec.seed, run.states) == (7, None)
    assert len(run.falls) == 2
    assert next(store.runs(falls=False, states=True, seed=7)).falls is None
    found = store.runs(status=["oom", "error"])
    assert [run.status for run in found] == ["oom", "error"]
    with pytest.raises(UnknownNameError, match="unknown column of runs 'stauts'"):
        next(store.runs(stauts="ok"))


def test_runs_may_be_added_while_others_are_read(path):
    store, other = begun(path, *(run_of(seed) for seed in range(3))), Store(path)
    for run in store.runs():
        if run.spec.seed < 3:
            other.add(run_of(run.spec.seed + 10))
            store.add(replace(run, status="invalid"))
    assert len(list(store.runs(status="invalid"))) == 3
    assert len(list(store.runs())) == 6


def test_a_table_of_columns():
    store = begun(None, run_of(1), run_of(0, status="oom", objective=math.nan))
    table = store.table()
    assert set(table) == set(COLUMNS)
    assert table["seed"].tolist() == [1, 0]
    assert (table["status"] == "ok").tolist() == [True, False]
    assert np.isnan(table["objective"]).tolist() == [False, True]
    assert np.isnan(table["sweeps"]).all()
    assert store.table("threads", status="oom")["threads"].tolist() == [2]
    assert Store(None).table("seconds")["seconds"].shape == (0,)
    with pytest.raises(UnknownNameError, match="unknown column of runs 'sed'"):
        store.table("sed")


def test_environments_are_kept_once(path):
    begun(path, *(run_of(seed) for seed in range(5))).close()
    store = begun(path, run_of(6, environment={"cpus": 4}))
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM environments").fetchone() == (2,)
    assert [run.environment["cpus"] for run in store.runs()][-2:] == [2, 4]


@pytest.mark.parametrize("count", [0, 1, 399, 400, 401, 100_000])
def test_falls_are_bounded(count):
    falls = np.stack([np.arange(count), -np.arange(count)], axis=1).astype(float)
    store = begun(None, run_of(falls=falls))
    (run,) = store.runs()
    assert len(run.falls) == min(count, packing.MOST_FALLS)
    if count:
        assert run.falls[[0, -1]].tolist() == falls[[0, -1]].tolist()
    assert (np.diff(run.falls[:, 0]) > 0).all()


def test_facts_are_made_once(path):
    made = []

    def make():
        made.append(1)
        return {"rows": 3}

    for _ in range(2):
        with Store(path) as store:
            assert store.fact({"layer": "conv1", "bits": 4}, make) == {"rows": 3}
            assert store.fact({"bits": 4, "layer": "conv1"}, make) == {"rows": 3}
    assert made == [1]
    assert Store(path).fact({"layer": "conv2"}, lambda: {"rows": 5})["rows"] == 5


def test_failed_runs_are_made_again_when_asked_for(path):
    bad = [run_of(seed, status=status) for seed, status in enumerate(STATUSES)]
    begun(path, *bad).close()
    assert all(Store(path).find(run.spec) for run in bad)
    store = Store(path, again=("error", "oom"))
    missing = [run.status for run in bad if store.find(run.spec) is None]
    assert missing == ["error", "oom"]
    # Once, not each time that a command asks for them.
    again = next(run for run in bad if run.status == "error")
    store.add(again)
    assert same(store.find(again.spec), again)


def test_a_run_needs_its_problem(path):
    store = Store(path)
    with pytest.raises(InputError, match="add the problem of a run before the run"):
        store.add(run_of())
    assert list(store.runs()) == []
    store.add_problem(PROBLEM)
    store.add(run_of())
    store.add_problem(replace(PROBLEM, name="another name"))
    assert store.problems()[PROBLEM.digest].name == PROBLEM.name


def test_several_runs_are_added_together_or_not_at_all():
    store = begun(None)
    lost = run_of(spec=replace(run_of().spec, problem="e"))
    with pytest.raises(InputError):
        store.add(run_of(1), lost)
    assert list(store.runs()) == []


def writer(path: Path, first: int, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_no_finished_run_is_lost_when_the_process_is_killed(path):
    rng = random.Random(0)
    reported: list[str] = []
    for turn in range(4):
        process = writer(path, 10_000 * turn, 10_000 * (turn + 1))
        assert process.stdout is not None
        reported.append(process.stdout.readline().strip())
        threading.Timer(0.3 * rng.random(), process.kill).start()
        out, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL
        # What was cut off was not reported.
        reported += out.split("\n")[:-1]
    store = Store(path)
    assert len(reported) > 4
    assert set(reported) <= {run.spec.run_id for run in store.runs(states=True)}
    assert store.damage() == []


def test_two_suites_write_to_one_store_at_once(path):
    processes = [writer(path, 0, 60), writer(path, 60, 120), writer(path, 30, 90)]
    assert [process.communicate() and process.returncode for process in processes] == [
        0,
        0,
        0,
    ]
    assert sorted(run.spec.seed for run in Store(path).runs()) == list(range(120))


def test_a_store_that_stays_locked_is_named(path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    begun(path)
    store, other = Store(path), sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(InputError, match=r"runs\.db is being written to by another"):
        store.add(run_of())
    other.execute("ROLLBACK")
    store.add(run_of())


def test_a_full_disk_loses_nothing(path):
    store = begun(path, run_of(0))
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    large = run_of(1, states=np.ones((1000, 1000), np.uint8))
    with pytest.raises(InputError, match=r"cannot write .*runs\.db: .* is full"):
        store.add(large)
    assert [run.spec.seed for run in Store(path).runs()] == [0]
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.add(large)
    assert [run.spec.seed for run in Store(path).runs()] == [0, 1]


def test_a_file_that_must_not_grow_loses_nothing(path):
    store = begun(path, run_of(0))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = max(p.stat().st_size for p in path.parent.iterdir())
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10_000, limits[1]))
        with pytest.raises(InputError, match=r"cannot write .*runs\.db: "):
            store.add(run_of(1, states=np.ones((1000, 1000), np.uint8)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, kept)
    store.add(run_of(2))
    store.close()
    assert [run.spec.seed for run in Store(path).runs()] == [0, 2]


def test_a_store_that_cannot_be_written_can_be_read(path):
    store = begun(path, run_of(0))
    store._db.execute("PRAGMA query_only = ON")
    with pytest.raises(InputError, match=r"cannot write .*runs\.db: .*readonly"):
        store.add(run_of(1))
    assert [run.spec.seed for run in store.runs()] == [0]


def test_a_newer_version_is_refused(path):
    begun(path, run_of()).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"is a store of version 99; this code knows"):
        Store(path)
    assert path.read_bytes() == before


def test_an_older_version_is_brought_up_to_date(path, monkeypatch):
    begun(path, run_of()).close()
    step = ("ALTER TABLE runs ADD COLUMN note TEXT NOT NULL DEFAULT ''",)
    monkeypatch.setattr(module, "VERSIONS", (*module.VERSIONS, step))
    for _ in range(2):
        with Store(path) as store:
            assert same(next(store.runs(states=True)), run_of())
            (version,) = store._db.execute("PRAGMA user_version").fetchone()
            assert version == len(module.VERSIONS)
            assert store._db.execute("SELECT note FROM runs").fetchone() == ("",)


def test_a_migration_that_fails_changes_nothing(path, monkeypatch):
    begun(path, run_of()).close()
    step = ("ALTER TABLE runs ADD COLUMN note TEXT", "NONSENSE")
    with monkeypatch.context() as patched:
        patched.setattr(module, "VERSIONS", (*module.VERSIONS, step))
        with pytest.raises(InputError, match=r"cannot use .*runs\.db: near"):
            Store(path)
    with Store(path) as store:
        assert same(next(store.runs(states=True)), run_of())


@pytest.mark.parametrize("content", [b"solver,ratio\n", b"\0" * 5000, b"x" * 5000])
def test_other_files_are_refused_and_kept(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"runs\.db is not a store of runs; name an"):
        Store(path)
    assert path.read_bytes() == content


def test_other_databases_are_refused_and_kept(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE runs (a)")
    before = path.read_bytes()
    with pytest.raises(InputError, match="is not a store of runs"):
        Store(path)
    assert path.read_bytes() == before


def test_an_empty_file_is_begun(path):
    path.touch()
    begun(path, run_of()).close()
    assert len(list(Store(path).runs())) == 1


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_torn_file_is_named(path, share):
    begun(path, *(run_of(seed) for seed in range(200))).close()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"runs\.db is (damaged|not a store)"):
        list(Store(path).runs(states=True))


def test_places_that_are_no_files(tmp_path):
    with pytest.raises(InputError, match="is not a file"):
        Store(tmp_path)
    with pytest.raises(InputError, match=r"cannot use .*: unable to open"):
        Store(tmp_path / "missing" / "runs.db")


def test_numbers_that_are_too_large_are_refused():
    store = begun(None)
    with pytest.raises(InputError, match="too large"):
        store.add(run_of(2**63))


def test_names_that_are_no_text_are_refused():
    store = begun(None)
    with pytest.raises(InputError, match="surrogates not allowed"):
        store.add(run_of(spec=replace(run_of().spec, solver="\udcff.py:Mine")))


def test_the_file_alone_holds_everything_once_it_is_closed(path):
    begun(path, run_of()).close()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.slow
def test_a_hundred_thousand_runs(path):
    store = begun(path)
    for first in range(0, 100_000, 5000):
        store.add(*(run_of(seed) for seed in range(first, first + 5000)))
    assert store.table("seed")["seed"].sum() == 99_999 * 50_000
    assert sum(1 for _ in store.runs(falls=False)) == 100_000
