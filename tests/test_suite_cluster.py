"""Suites on the workers of a dask scheduler: a real one, on this machine."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.__main__ import main
from benchmarks.harness import execute
from benchmarks.harness.store import Store
from tests.report_cases import rounding

ROOT = Path(__file__).parent.parent
SEEDS = 20
TEXT = f"""
seeds = {SEEDS}
untimed = ["sa[num_sweeps=300]", "stochastic"]
[[problems]]
file = "small.npz"
"""
distributed = pytest.importorskip(
    "distributed", reason="dask is not installed: it is in the extra cluster"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    rounding(1, 3).save(tmp_path / "small.npz")
    (tmp_path / "mine.toml").write_text(TEXT)
    return tmp_path


def cluster_of(workers: int) -> Any:
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=2,
        processes=True,
        dashboard_address=None,
        host="127.0.0.1",
    )


@pytest.fixture
def cluster(folder: Path) -> Iterator[Any]:
    with cluster_of(2) as cluster:
        yield cluster


def start(address: str) -> subprocess.Popen[str]:
    arguments = ["suite", "run", "mine.toml", "--scheduler", address]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def table(path: str) -> list[tuple[object, ...]]:
    with Store(Path(path)) as store:
        return sorted(
            (run.spec.run_id, run.status, run.objective, run.states.tobytes())
            for run in store.runs(states=True)
        )


def servers(folder: Path) -> list[int]:
    """What forks runs, of this test alone."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in str(process.info["cmdline"])
        and "serve(" in str(process.info["cmdline"])
    ]


@pytest.mark.slow
def test_a_worker_is_killed_midway(cluster, folder):
    process = start(cluster.scheduler_address)
    assert process.stderr is not None
    lines = [process.stderr.readline() for _ in range(4)]
    os.kill(cluster.workers[0].pid, 9)
    _, rest = process.communicate(timeout=120)
    lines += rest.splitlines()
    assert process.returncode == 0
    # Each run was taken once, and each taken is in the store.
    numbers = [int(match[1]) for line in lines if (match := re.match(r"(\d+)/", line))]
    assert numbers == [*range(1, 2 * SEEDS + 1)]
    found = table("mine.db")
    assert main(["suite", "run", "mine.toml", "--store", "here.db"]) == 0
    assert found == table("here.db")
    assert len(found) == 2 * SEEDS
    assert servers(folder)
    cluster.close()
    until = time.monotonic() + 10
    while servers(folder):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert not [*(folder / "tmp").glob("runs-*")]


@pytest.mark.slow
def test_the_scheduler_is_lost_and_another_takes_over(folder):
    with cluster_of(1) as cluster:
        process = start(cluster.scheduler_address)
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(4)]
    out, rest = process.communicate(timeout=120)
    assert process.returncode == 2
    last = rest.splitlines()[-1]
    assert last.startswith("error: what makes the runs has ended (")
    assert "Traceback" not in rest
    assert all(re.match(r"\d+/", line) for line in lines)
    finished = len(table("mine.db"))
    assert finished >= 4
    assert out.split() == (
        ["status", "runs", "ok", str(finished), "missing", str(2 * SEEDS - finished)]
    )
    assert main(["suite", "run", "mine.toml"]) == 0
    assert len(table("mine.db")) == 2 * SEEDS


@pytest.mark.slow
def test_workers_may_come_later(folder):
    with cluster_of(0) as cluster:
        process = start(cluster.scheduler_address)
        assert process.stderr is not None
        assert "has no workers yet" in process.stderr.readline()
        cluster.scale(1)
        _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert len(table("mine.db")) == 2 * SEEDS


@pytest.mark.slow
def test_the_script_for_slurm(folder, monkeypatch):
    """With workers here in place of SLURM's."""
    asked: dict[str, Any] = {}

    def here(**options: Any) -> Any:
        asked.update(options)
        shown = types.SimpleNamespace(
            scheduler_address=cluster.scheduler_address,
            scale=lambda jobs: cluster.scale(1),
        )
        return contextlib.nullcontext(shown)

    text = (ROOT / "docs" / "cluster.md").read_text("utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    stand_in = types.SimpleNamespace(SLURMCluster=here)
    monkeypatch.setitem(sys.modules, "dask_jobqueue", stand_in)
    (folder / "paper.toml").write_text(TEXT)
    with cluster_of(0) as cluster, pytest.raises(SystemExit) as ended:
        exec(script.replace('"paper"', '"paper.toml"'), {"__name__": "script"})
    assert ended.value.code == 0
    assert len(table("paper.db")) == 2 * SEEDS
    monkeypatch.undo()
    jobqueue = pytest.importorskip("dask_jobqueue")
    queue = jobqueue.SLURMCluster(**asked, interface="lo")
    assert f"--nthreads {asked['cores']} " in queue.job_script()
    queue.close()


@pytest.mark.parametrize("address", ["what://x", "127.0.0.1:9"])
def test_a_scheduler_that_cannot_be_reached(folder, capsys, monkeypatch, address):
    monkeypatch.setattr(execute, "PATIENCE", 0.1)
    assert main(["suite", "run", "mine.toml", "--scheduler", address]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"error: cannot reach the scheduler {address}: ")


def test_without_dask(folder, capsys, monkeypatch):
    monkeypatch.setattr(execute, "find_spec", lambda name: None)
    assert main(["suite", "run", "mine.toml", "--scheduler", "127.0.0.1:9"]) == 2
    assert 'pip install "qubo-rounding[cluster]"' in capsys.readouterr().err
