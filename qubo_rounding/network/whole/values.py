"""Values between the steps of a walk, kept in memory up to a limit, else in files."""

from __future__ import annotations

import tempfile
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from qubo_rounding.network.messages import first_line
from solvers.errors import InputError


@dataclass(frozen=True)
class _Spilled:
    """Where a tensor lies that is not in memory."""

    path: Path
    channels_last: bool
    device: torch.device


class Values:
    """Values by step and batch, with a limit on the memory that they take.

    Tensors beyond the limit go to files in a temporary folder, and are read again when
    they are asked for. Use it as a context manager: leaving it removes the files.

    Parameters
    ----------
    memory
        Bytes that tensors may take in memory; None: no limit.
    folder
        Where to put the temporary folder; None: the system's place for such.
    """

    def __init__(self, memory: int | None = None, folder: Path | None = None) -> None:
        self._limit = memory
        self._parent = folder
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._held: dict[Hashable, dict[int, Any]] = {}
        self._bytes = 0
        self._files = 0
        self.peak = 0
        self.spilled = 0

    def __enter__(self) -> Values:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.clear()
        if self._folder is not None:
            self._folder.cleanup()

    def put(self, key: Hashable, batch: int, value: Any) -> None:
        """Keep a value.

        Raises
        ------
        InputError
            It does not fit into memory and cannot be written to a file.
        """
        if isinstance(value, Tensor) and not _channels_last(value):
            # Files hold no other layouts, and layouts decide in what order sums run.
            value = value.contiguous()
        size = _size(value)
        if self._limit is not None and self._bytes + size > self._limit:
            if isinstance(value, Tensor):
                value = self._spill(value)
                self.spilled += size
        else:
            self._bytes += size
            self.peak = max(self.peak, self._bytes)
        self._held.setdefault(key, {})[batch] = value

    def get(self, key: Hashable, batch: int) -> Any:
        """The value of a step for a batch."""
        value = self._held[key][batch]
        return _read(value) if isinstance(value, _Spilled) else value

    def __contains__(self, key: Hashable) -> bool:
        return key in self._held

    def known(self) -> list[Any]:
        """The steps whose values are kept."""
        return list(self._held)

    def drop(self, key: Hashable) -> None:
        """Forget the values of a step for all batches."""
        for value in self._held.pop(key, {}).values():
            if isinstance(value, _Spilled):
                value.path.unlink(missing_ok=True)
            else:
                self._bytes -= _size(value)

    def _spill(self, value: Tensor) -> _Spilled:
        try:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(
                    prefix="qubo-rounding-", dir=self._parent
                )
            path = Path(self._folder.name) / f"{self._files}.safetensors"
            self._files += 1
            safetensors.torch.save_file({"value": value.contiguous()}, path)
        except (OSError, safetensors.SafetensorError) as error:
            where = self._folder.name if self._folder else tempfile.gettempdir()
            raise InputError(
                f"cannot spill activations to {where} ({first_line(error)}): allow "
                "more memory, take fewer images, or name another folder in TMPDIR"
            ) from error
        return _Spilled(path, _channels_last(value), value.device)


def _read(spilled: _Spilled) -> Tensor:
    try:
        value = safetensors.torch.load_file(spilled.path)["value"]
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(
            f"spilled activations can no longer be read ({first_line(error)})"
        ) from error
    layout = torch.channels_last if spilled.channels_last else torch.contiguous_format
    # A copy, since memory that begins elsewhere can change the order of sums.
    return value.to(spilled.device).clone(memory_format=layout)


def _channels_last(value: Tensor) -> bool:
    return (
        value.ndim == 4
        and not value.is_contiguous()
        and value.is_contiguous(memory_format=torch.channels_last)
    )


def _size(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    return 0
