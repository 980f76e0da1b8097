"""What a suite shows of its runs while it makes them."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import threading

import pytest

from benchmarks.harness import progress as module
from benchmarks.harness.progress import Progress
from benchmarks.harness.runs import Run, Spec

NAMES = {"p": "net.conv1"}


def run_of(seed: int, status: str = "ok", **changes: object) -> Run:
    spec = Spec(problem="p", solver="sa[num_sweeps=3]", code="c", seed=seed, seconds=2)
    return Run(
        spec=spec, status=status, **{"objective": 1.5, "seconds": 0.25, **changes}
    )


def show(at_once: int | None = 1) -> Progress:
    """Two of four runs, one of them failed."""
    with Progress(4, 10.0, NAMES, at_once) as progress:
        progress.ended(run_of(0), 2.5)
        progress.ended(run_of(1, "crash", message="SIGSEGV while solving"), 2.5)
    return progress


def shown_in_terminal(monkeypatch: pytest.MonkeyPatch, kind: str) -> str:
    """What a terminal of the given kind gets to show, without its colours."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", kind)
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    reading, writing = pty.openpty()
    parts: list[bytes] = []

    def read() -> None:
        # It ends with an error when the other side is closed.
        with contextlib.suppress(OSError):
            while part := os.read(reading, 4096):
                parts.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        show()
    reader.join()
    os.close(reading)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", b"".join(parts).decode())


def test_lines_outside_of_a_terminal(capsys):
    show()
    assert capsys.readouterr().err.splitlines() == [
        "1/4 net.conv1 sa[num_sweeps=3] 2 s seed 0: ok, 1.5 in 0.25 s",
        "2/4 net.conv1 sa[num_sweeps=3] 2 s seed 1: crash, SIGSEGV while solving",
    ]


def test_a_table_in_a_terminal(monkeypatch):
    told = shown_in_terminal(monkeypatch, "xterm")
    last = told[told.rindex("suite") :]
    row = next(line for line in last.splitlines() if re.search(r"\d", line))
    assert re.findall(r"[\d:]+", row)[:4] == ["2", "1", "1", "2"]
    for text in ("done", "failed", "running", "left", "time left"):
        assert text in last
    # Options of solvers are not taken for styles, and failures are named.
    assert "sa[num_sweeps=3]" in last
    assert "crash" in last


def test_lines_in_a_terminal_that_cannot_go_back(monkeypatch):
    assert len(shown_in_terminal(monkeypatch, "dumb").splitlines()) == 2


def test_time_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    progress = Progress(4, 200.0, NAMES, 1)
    assert progress.time_left() == "3:20"
    # Half is done, in twice the time that was expected.
    now[0] = 200.0
    progress.ended(run_of(0), 100.0)
    assert progress.time_left() == "3:20"
    progress.ended(run_of(1), 150.0)
    assert progress.time_left() == "0:00"


@pytest.mark.parametrize(("at_once", "running"), [(1, "1"), (8, "2"), (None, "?")])
def test_how_many_are_running(at_once, running):
    table = show(at_once).table()
    cells = {column.header: next(iter(column.cells)) for column in table.columns}
    assert cells["running"] == running
