"""How commands begin and end: the parser, exit codes, one line for what went wrong."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

from solvers.errors import InputError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        """Leave the message to `exit_code`."""
        raise InputError(message)


def execute(command: ModuleType, prog: str, arguments: Sequence[str] | None) -> int:
    """Parse the arguments and run a command; the exit code.

    Parameters
    ----------
    command
        A module that offers ``declare(parser)``, which adds the options (see
        `benchmarks.options`), and ``run(options)``, which gives the exit code. Its
        docstring is the description.
    prog
        What the user has written before the arguments.
    arguments
        None: those of the process.
    """
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"

    def work() -> int:
        parser = Parser(
            prog=prog,
            description=command.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.declare(parser)
        code: int = command.run(parser.parse_args(arguments))
        return code

    return exit_code(work)


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
