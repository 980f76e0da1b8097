"""How kernels are compiled, and where the results are kept.

numba's disk cache watches only the file of the outermost function: a kernel whose
callee in another file has changed would silently go on with the old callee. The cache
is therefore kept in a folder named after a hash of all kernel files.
"""

from __future__ import annotations

import gc
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba.core import event, types
from numba.extending import intrinsic

# Untyped: numba sets the settings' names at run time.
config: Any = numba.config
# Fast-math flags for sums: what LLVM may do with floating-point numbers.
SUMS = {"reassoc", "contract"}
HERE = Path(__file__).resolve().parent


def digest(folder: Path = HERE) -> str:
    """A hash of the names and contents of all Python files of `folder`."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        content = path.read_bytes()
        whole.update(f"{path.name} {len(content)} ".encode() + content)
    return whole.hexdigest()[:16]


def cache_folder() -> Path | None:
    """The folder of compiled kernels; None if there is no folder that can be written.

    It lies below ``NUMBA_CACHE_DIR`` if that is set, else beside the kernels, else in
    the user's cache.
    """
    if config.CACHE_DIR:
        places = [Path(config.CACHE_DIR)]
    else:
        user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        places = [HERE / "__pycache__", Path(user) / "qubo-rounding"]
    for place in places:
        folder = place / f"kernels-{digest()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return None


_FOLDER = cache_folder()


class Compilation(event.Listener):
    """Says once, on a terminal, that kernels are being compiled; and speeds it up.

    Compiling makes millions of small objects that live until it ends. Looking through
    them for garbage again and again took an eighth of the time. numba compiles one
    function at a time, in whatever thread, so that counting is enough.
    """

    def __init__(self) -> None:
        self.said = False
        self._depth = 0
        self._collecting = False

    def on_start(self, event: Any) -> None:
        """Called when a function is not in the cache and is about to be compiled."""
        module = event.data["dispatcher"].py_func.__module__
        if not (self._depth or module.startswith("solvers.kernels.")):
            return
        if not self._depth:
            self._collecting = gc.isenabled()
            gc.disable()
        self._depth += 1
        if self.said:
            return
        self.said = True
        if sys.stderr is not None and sys.stderr.isatty():
            # Overwrites what a progress bar may have left in the line.
            text = "\r\x1b[Kcompiling kernels (once, some seconds) …"
            print(text, file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        """Called when the function has been compiled, or could not be."""
        if not self._depth:
            return
        self._depth -= 1
        if not self._depth and self._collecting:
            gc.enable()


# numba reports what it compiles; calls of compiled functions take no longer for it.
event.register("numba:compile", Compilation())


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    """`function` compiled without the GIL, with the cache in `cache_folder`."""
    # Kernels are never called by a C pointer.
    options["no_cfunc_wrapper"] = True
    before = config.CACHE_DIR
    # numba reads the folder when a function is decorated.
    config.CACHE_DIR = str(_FOLDER or "")
    try:
        return numba.njit(
            cache=_FOLDER is not None,
            nogil=True,
            error_model="numpy",
            **options,
        )(function)
    finally:
        config.CACHE_DIR = before


def jit(function: Callable[..., Any]) -> Any:
    """Compile a kernel without the GIL, with numpy's rules for division."""
    return _compiled(function)


def inlined(function: Callable[..., Any]) -> Any:
    """As `jit`, for functions that few kernels call: compiled as a part of each caller.

    Compiling a function by itself takes a tenth of a second at least, and it is
    optimised once more in each of its callers. Sums follow the rules of the caller.
    """
    return _compiled(function, inline="always")


def inner(function: Callable[..., Any]) -> Any:
    """As `jit`, for functions that only kernels call.

    The wrapper for calls from Python takes as long to compile as a small function, and
    is left out. Without it, a call from Python ends the process.
    """
    return _compiled(function, no_cpython_wrapper=True)


def jit_sum(function: Callable[..., Any]) -> Any:
    """As `jit`, and sums may be reordered: otherwise reductions do not vectorise.

    NaN and inf keep their meaning.
    """
    return _compiled(function, fastmath=SUMS)


def inner_sum(function: Callable[..., Any]) -> Any:
    """As `inner`, and sums may be reordered as in `jit_sum`."""
    return _compiled(function, fastmath=SUMS, no_cpython_wrapper=True)


def inner_min(function: Callable[..., Any]) -> Any:
    """As `inner_sum`, for minima: these vectorise only if no operand may be NaN.

    inf keeps its meaning.
    """
    return _compiled(function, fastmath=SUMS | {"nnan", "nsz"}, no_cpython_wrapper=True)


@intrinsic
def _minimum(typing: Any, a: Any, b: Any) -> Any:
    """The smaller of two floats of one type, neither NaN; for kernels of `jit_sum`.

    LLVM vectorises loops of its own minimum, but not of the comparison into which numba
    turns `min`.
    """
    if not (isinstance(a, types.Float) and a == b):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        smaller = builder.module.declare_intrinsic(
            "llvm.minnum", [kind], ir.FunctionType(kind, [kind, kind])
        )
        return builder.call(smaller, arguments, fastmath=("nnan", "nsz"))

    return a(a, a), generate


# Untyped: the type checker would ask for the compiler's argument of an intrinsic, too.
minimum: Any = _minimum
