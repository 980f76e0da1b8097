"""How commands begin and end: the parser, exit codes, errors in one line."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

from solvers.errors import InputError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are reported in one line, like all other errors."""

    def error(self, message: str) -> NoReturn:
        """Raise the message as an `InputError`, which `exit_code` reports."""
        raise InputError(message)


def execute(command: ModuleType, prog: str, arguments: Sequence[str] | None) -> int:
    """Parse the arguments and run a command; return the exit code.

    Parameters
    ----------
    command
        A module with the functions ``declare(parser)``, which adds the options (see
        `benchmarks.options`), and ``run(options)``, which returns the exit code. Its
        docstring is the description in the help.
    prog
        The command line before the arguments, for the help.
    arguments
        The arguments; None for those of the process.
    """
    warnings.formatwarning = lambda message, *_, **__: (
        f"warning: {printable(str(message))}\n"
    )

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


def printable(text: str) -> str:
    """`text` in one line that can be printed: anything else in it is escaped.

    Names of files may hold newlines, and bytes that are no text.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def exit_code(work: Callable[[], int]) -> int:
    """The exit code of a command's work.

    It is what `work` returns; 2 after unusable input or lack of memory, which is
    reported in one line; 130 after Ctrl-C.
    """
    try:
        return work()
    except InputError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except MemoryError as error:
        print(f"error: out of memory: {error}", file=sys.stderr)
        return 2
