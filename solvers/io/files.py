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
``dimod``       ``.bqm``                              minimise  dimod's models
``npz``         ``.npz``                              minimise  a whole `QuboBatch`
==============  =================  ======  =========  ========  =====================

A line of the four text formats is ``i j weight``, and a diagonal entry is a linear
term. Where couplings count *once*, each pair is listed once and contributes
``w x_i x_j``. Where they count *twice*, the file lists the upper triangle of a
symmetric matrix, and (i, j) stands for (j, i) too: ``2 w x_i x_j``. The same problem
therefore has couplings twice as large in ``.qubo`` as in ``.sparse``.

Whatever the sense of a file, a `QuboBatch` is to be minimised: what maximises is
negated, and a best known maximum is then minus the lowest energy. A suffix can lie
about the sense (many ``.qubo`` files of the Glover-Kochenberger-Alidaee and Beasley
problems maximise): ``maximise=True`` reads such a file rightly.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from solvers.atomic import replacing
from solvers.checks import as_path, require_kind
from solvers.errors import InputError, UnknownNameError
from solvers.io.model import as_model
from solvers.io.text import FORMATS, format_text, parse_text
from solvers.memory import require_memory
from solvers.qubo import QuboBatch

_Made = TypeVar("_Made")
SUFFIXES = {suffix: name for name, form in FORMATS.items() for suffix in form.suffixes}
SUFFIXES |= {".bqm": "dimod", ".npz": "npz"}


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
            qubo = _read_npz(path)
        elif format == "dimod":
            qubo = _read_dimod(path)
        else:
            qubo = parse_text(path, path.read_bytes(), format, problem)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return _negated(qubo) if _maximises(format, maximise) else qubo


def write_qubo(
    path: str | Path,
    qubo: QuboBatch,
    *,
    format: str | None = None,
    maximise: bool | None = None,
) -> None:
    """Write a batch, whole or not at all.

    ``npz`` keeps everything bit by bit. The other formats hold one row, in the form
    ``linear + couplings``, without `prior` and `levels`; the text formats hold no
    offset, and numbers are written so that they read back exactly.

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
        _require_plain(path, qubo, offset=format == "dimod")
    if _maximises(format, maximise):
        qubo = _negated(qubo)
    if format == "npz":
        _atomically(path, lambda file: _write_npz(file, qubo))
    elif format == "dimod":
        _atomically(
            path, lambda file: shutil.copyfileobj(qubo.to_bqm().to_file(), file)
        )
    else:
        text = format_text(qubo, format)
        _atomically(path, lambda file: file.writelines(s.encode() for s in text))


def _format(path: Path, name: str | None) -> str:
    if name is not None:
        if name not in SUFFIXES.values():
            raise UnknownNameError("file format", name, (*FORMATS, "dimod", "npz"))
        return name
    if path.suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise InputError(f"{path}: name it {known}, or say which format it has")
    return SUFFIXES[path.suffix]


def _maximises(format: str, maximise: bool | None) -> bool:
    if maximise is None:
        return format in FORMATS and FORMATS[format].maximises
    return maximise


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
