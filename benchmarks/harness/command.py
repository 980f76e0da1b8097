"""How the commands end: exit codes, and one line for what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable

from solvers import InputError


def exit_code(work: Callable[[], int]) -> int:
    """The exit code of a command's work.

    That of `work`; 2 after input that cannot be used, said in one line; 130 after
    Ctrl-C.
    """
    try:
        return work()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except MemoryError as error:
        print(f"error: out of memory: {error}", file=sys.stderr)
        return 2
