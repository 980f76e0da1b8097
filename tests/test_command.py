"""How the commands end."""

from __future__ import annotations

import pytest

from benchmarks.harness.command import exit_code
from solvers import InputError


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("no such layer"), 2, "error: no such layer\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (MemoryError("8 GiB"), 2, "error: out of memory: 8 GiB\n"),
    ],
)
def test_what_goes_wrong_is_one_line(capsys, error, code, said):
    def work() -> int:
        raise error

    assert exit_code(work) == code
    assert capsys.readouterr() == ("", said)


def test_otherwise_the_code_is_the_works():
    assert exit_code(lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: 1 // 0)
