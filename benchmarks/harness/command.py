"""How commands begin and end: the parser, exit codes, errors in one line."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from solvers.errors import InputError, printable

# Exit codes of the shell for what a signal has ended.
INTERRUPTED, BROKEN_PIPE, TERMINATED = 130, 141, 143


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM), and does what it does after Ctrl-C."""


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
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files may hold bytes that are no text.
        sys.stdout.reconfigure(errors="backslashreplace")

    def work() -> int:
        parser = Parser(
            prog=prog,
            description=command.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.declare(parser)
        options = parser.parse_args(arguments)
        with _terminable():
            code: int = command.run(options)
        return code

    return exit_code(work)


def exit_code(work: Callable[[], int]) -> int:
    """The exit code of a command's work.

    It is what `work` returns; 2 after unusable input, lack of memory or what the system
    refuses, which is reported in one line; that of the shell after Ctrl-C, SIGTERM and
    when nobody reads the output any more.
    """
    try:
        try:
            return work()
        finally:
            sys.stdout.flush()
    except InputError as error:
        return _failed(str(error))
    except Terminated:
        print("terminated", file=sys.stderr)
        return TERMINATED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except MemoryError as error:
        return _failed(f"out of memory: {str(error) or _place(error)}")
    except BrokenPipeError:
        # The interpreter writes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        named = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return _failed(f"{named}{error.strerror or error}")


def _failed(message: str) -> int:
    print(f"error: {printable(message)}", file=sys.stderr)
    return 2


def _place(error: BaseException) -> str:
    """Where an exception was raised: file, line and function."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}, in {frame.name}"


@contextmanager
def _terminable() -> Iterator[None]:
    """Raise `Terminated` when SIGTERM comes; only the main thread can see signals."""

    def stop(*_: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
