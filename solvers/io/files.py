"""Binary quadratic models in files: `read_qubo`, `write_qubo`.

==============  =================  ======  =========  ========  =====================
format          suffix             counts  couplings  sense     source
                                   from    count
==============  =================  ======  =========  ========  =====================
``qbsolv``      ``.qubo``          0       once       minimise  qbsolv's manual,
                                                                "Input File Format"
``biqmac``      ``.sparse``        1       twice      minimise  Biq Mac Library
``or-library``  ``.bqp, .txt``     1       twice      maximise  OR-Library, bqpinfo
``coo``         ``.coo``           0       once       minimise  dimod's module coo
``qoblib``      ``.qs``            1       twice      minimise  QOBLIB, arXiv 2504.03832
``qplib``       ``.qplib``         1       once       its own   QPLIB, appendix B
``dimod``       ``.bqm``                              minimise  dimod's models
``npz``         ``.npz``                              minimise  a whole `QuboBatch`
==============  =================  ======  =========  ========  =====================

A line of the text formats is ``i j weight``, and a diagonal entry is a linear
term. Where couplings count *once*, each pair is listed once and contributes
``w x_i x_j``. Where they count *twice*, the file lists the upper triangle of a
symmetric matrix, and (i, j) stands for (j, i) too: ``2 w x_i x_j``. The same problem
therefore has couplings twice as large in ``.qubo`` as in ``.sparse``.

``qoblib`` is ``biqmac`` with the constant in a comment, ``# ObjectiveOffset 5``; of a
problem that was to be maximised, ZIMPL negates all but this constant. ``qplib`` has a
constant and a sense of its own; of its squares a half counts, and problems with
constraints or with variables that are not binary are refused. Text may be compressed:
``.qs.xz`` and the like.

Whatever the sense of a file, a `QuboBatch` is to be minimised: what maximises is
negated, and a best known maximum is then minus the lowest energy. A suffix can lie
about the sense (many ``.qubo`` files of the Glover-Kochenberger-Alidaee and Beasley
problems maximise): ``maximise=True`` reads such a file rightly.
"""

from __future__ import annotations

import lzma
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from solvers.atomic import replacing
from solvers.checks import as_path, require_kind
from solvers.errors import InputError, UnknownNameError
from solvers.io.model import as_model
from solvers.io.qplib import format_qplib, parse_qplib
from solvers.io.text import FORMATS, format_text, parse_text
from solvers.memory import require_memory
from solvers.qubo import QuboBatch

_Made = TypeVar("_Made")
SUFFIXES = {suffix: name for name, form in FORMATS.items() for suffix in form.suffixes}
SUFFIXES |= {".qplib": "qplib", ".bqm": "dimod", ".npz": "npz"}
BINARY = ("dimod", "npz")
COMPRESSED = ".xz"
# Bytes that are decompressed at a time, and memory that reading takes for each: words
# of lines, then numbers.
CHUNK, EXPANSION = 1 << 24, 16


def read_qubo(
    path: str | Path,
    *,
    format: str | None = None,
    problem: int | None = None,
    maximise: bool | None = None,
) -> QuboBatch:
    """Read a problem, as one to be minimised.

    Parameters
    ----------
    path
        The file.
    format
        A name from the table above; default: by the suffix.
    problem
        Which problem of a file of the OR-Library, counted from 1; needed where there
        are several.
    maximise
        Whether the file's problem is one to be maximised, which is then negated;
        default: by its format.

    Raises
    ------
    InputError
        The file does not exist, or its contents break the format: one line,
        ``path:line: what is wrong``.
    """
    qubo, maximises = read_stated(path, format=format, problem=problem)
    if maximise is None:
        maximise = maximises
    return _negated(qubo) if maximise else qubo


def read_stated(
    path: str | Path, *, format: str | None = None, problem: int | None = None
) -> tuple[QuboBatch, bool]:
    """The problem as its file states it, and whether it is to be maximised.

    Parameters and errors are those of `read_qubo`.
    """
    path = as_path(path)
    format = _format(path, format)
    if problem is not None and format != "or-library":
        raise InputError(f"{path}: only files of the OR-Library hold several problems")
    if not path.is_file():
        raise InputError(
            f"{path} is not a file" if path.exists() else f"no file {path}"
        )
    try:
        if format == "npz":
            return _read_npz(path), False
        if format == "dimod":
            return _read_dimod(path), False
        content = _content(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if format == "qplib":
        return parse_qplib(path, content)
    return parse_text(path, content, format, problem), FORMATS[format].maximises


def _content(path: Path) -> bytes:
    """What is in a text file; a compressed one is not let grow beyond memory."""
    if path.suffix != COMPRESSED:
        return path.read_bytes()
    parts: list[bytes] = []
    try:
        with lzma.open(path) as file:
            while part := file.read(CHUNK):
                parts.append(part)
                size = EXPANSION * sum(map(len, parts))
                require_memory(f"the lines of {path}", size, "free some")
    except (lzma.LZMAError, EOFError) as error:
        raise InputError(f"{path} is not an .xz file, or damaged") from error
    return b"".join(parts)


def write_qubo(
    path: str | Path,
    qubo: QuboBatch,
    *,
    format: str | None = None,
    maximise: bool | None = None,
) -> None:
    """Write a batch, whole or not at all.

    ``npz`` keeps everything bit by bit. The other formats hold one row, in the form
    ``linear + couplings``, without `prior` and `levels`; of the text formats only
    ``qoblib`` and ``qplib`` hold an offset, and numbers are written so that they read
    back exactly.

    Parameters
    ----------
    path
        The file, replaced if there is one.
    qubo
        The batch to write.
    format
        A name from the table above; default: by the suffix.
    maximise
        Write for readers who maximise (negated); default: the format's own sense.

    Raises
    ------
    InputError
        The format cannot hold the batch, or `path` cannot be written.
    """
    path = as_path(path)
    require_kind("qubo", qubo, QuboBatch)
    format = _format(path, format)
    if format != "npz":
        _require_plain(path, qubo, format not in FORMATS or FORMATS[format].offset)
    if maximise is None:
        maximise = format in FORMATS and FORMATS[format].maximises
    if maximise:
        qubo = _negated(qubo)
    if format == "npz":
        _atomically(path, lambda file: _write_npz(file, qubo))
    elif format == "dimod":
        _atomically(
            path, lambda file: shutil.copyfileobj(qubo.to_bqm().to_file(), file)
        )
    elif format == "qplib":
        _write_text(path, format_qplib(qubo, maximise))
    else:
        _write_text(path, format_text(qubo, format))


def format_of(path: Path) -> str | None:
    """The format that a file's name tells; None if it tells none."""
    if path.suffix != COMPRESSED:
        return SUFFIXES.get(path.suffix)
    name = SUFFIXES.get(Path(path.stem).suffix)
    return None if name in BINARY else name


def _format(path: Path, name: str | None) -> str:
    if name is not None:
        if name not in SUFFIXES.values():
            raise UnknownNameError(
                "file format", name, dict.fromkeys(SUFFIXES.values())
            )
        return name
    found = format_of(path)
    if found is None:
        known = ", ".join(SUFFIXES)
        raise InputError(f"{path}: name it {known}, or say which format it has")
    return found


def _negated(qubo: QuboBatch) -> QuboBatch:
    # Subtracting makes no negative zeros.
    return replace(qubo, H=0 - qubo.H, linear=0 - qubo.linear, offset=0 - qubo.offset)


def _require_plain(path: Path, qubo: QuboBatch, offset: bool) -> None:
    advice = "write .npz"
    if qubo.rows != 1:
        raise InputError(
            f"{path} can hold one row, not {qubo.rows}; take([r]) one, or {advice}"
        )
    if qubo.fixed is not None and (qubo.fixed >= 0).any():
        raise InputError(f"{path} cannot hold pinned variables; {advice}")
    if qubo.offset[0] and not offset:
        raise InputError(
            f"{path} cannot hold an offset ({qubo.offset[0]:g}); {advice} or .bqm"
        )


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file by name; nothing pickled is ever loaded.

    Raises
    ------
    InputError
        The file cannot be read, is no archive of arrays, or memory cannot hold it.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            size = sum(member.file_size for member in file.zip.infolist())
            require_memory(f"the arrays of {path}", size, "free some")
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except MemoryError as error:
        raise InputError(f"{path} announces more than memory can hold") from error
    except InputError:
        raise
    # numpy and zipfile parse headers unguarded: a broken file can raise anything.
    except Exception as error:
        raise InputError(f"{path} is not an .npz file of plain arrays") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise InputError(f"{path} holds {name!r}, which is no array")
    return arrays


def _read_npz(path: Path) -> QuboBatch:
    known = [f.name for f in fields(QuboBatch)]
    arrays = {k: v for k, v in read_arrays(path).items() if k in known}
    for name in known[:5]:
        if name not in arrays:
            raise InputError(f"{path} is not a QuboBatch: it has no {name!r}")
    return naming(path, lambda: QuboBatch(**arrays))


def _write_npz(file: BinaryIO, qubo: QuboBatch) -> None:
    arrays = {f.name: getattr(qubo, f.name) for f in fields(qubo)}
    present: dict[str, Any] = {k: v for k, v in arrays.items() if v is not None}
    np.savez(file, **present)


def _read_dimod(path: Path) -> QuboBatch:
    import dimod

    try:
        with path.open("rb") as file:
            bqm = dimod.BinaryQuadraticModel.from_file(file)
    except OSError:
        raise
    # dimod parses headers and labels unguarded: a broken file can raise anything.
    except Exception as error:
        raise InputError(
            f"{path} is not a file of a dimod model, or damaged"
        ) from error
    return naming(path, lambda: as_model(bqm).qubo)


def naming(path: Path, make: Callable[[], _Made]) -> _Made:
    """What `make` gives; its errors begin with the file's name."""
    try:
        return make()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    with replacing(path) as partial, partial.open("wb") as file:
        write(file)


def _write_text(path: Path, text: Iterator[str]) -> None:
    def write(file: BinaryIO) -> None:
        if path.suffix == COMPRESSED:
            with lzma.open(file, "wb") as compressed:
                compressed.writelines(s.encode() for s in text)
        else:
            file.writelines(s.encode() for s in text)

    _atomically(path, write)
