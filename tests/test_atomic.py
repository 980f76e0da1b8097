"""Files are written whole or not at all, and unreadable ones are refused."""

from __future__ import annotations

import os

import numpy as np
import pytest

from qubo_rounding.problem import RoundingProblem
from solvers import InputError, QuboBatch, read_qubo, write_qubo
from solvers.atomic import replacing


def test_replaces(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as partial:
            partial.write_text("ne")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("name", ["file/a.qubo", "none/a.qubo", "a" * 300 + ".qubo"])
def test_paths_that_cannot_be_written(tmp_path, name):
    (tmp_path / "file").touch()
    qubo = QuboBatch.from_matrix(np.eye(2))
    with pytest.raises(InputError, match="cannot write"):
        write_qubo(tmp_path / name, qubo)


def test_what_is_no_file_is_not_replaced(tmp_path):
    """A pipe here; for an administrator it might be a device of the system."""
    path = tmp_path / "a.npz"
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"a\.npz: it is not a regular file"):
        write_qubo(path, QuboBatch.from_matrix(np.eye(2)))
    assert path.is_fifo()
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("read", [read_qubo, RoundingProblem.load])
def test_files_that_are_no_archives(tmp_path, read):
    path = tmp_path / "a.npz"
    np.save(tmp_path / "a.npy", np.eye(2))
    whole = tmp_path / "whole.npz"
    write_qubo(whole, QuboBatch.from_matrix(np.eye(2)))
    content = whole.read_bytes()
    # The method of compression of the first entry, and a byte in its middle.
    at = content.index(b"PK\x01\x02") + 10
    broken = content[:at] + b"\x63" + content[at + 1 :]
    for wrong in ((tmp_path / "a.npy").read_bytes(), b"", b"\x00" * 40, broken):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match=r"a\.npz") as caught:
            read(path)
        assert "\n" not in str(caught.value)
