"""Objects in a file whose arrays many processes read from one and the same memory."""

from __future__ import annotations

import mmap
import pickle
from pathlib import Path
from typing import Any

import cloudpickle

# Arrays begin at multiples of so many bytes, as those that numpy allocates do.
ALIGNMENT = 64


def dump(path: Path, value: Any) -> None:
    """Write `value` to a file, its arrays apart from the rest."""
    buffers: list[pickle.PickleBuffer] = []
    text = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(text), *(buffer.raw() for buffer in buffers)]
    sizes = [part.nbytes for part in parts]
    with path.open("wb") as file:
        pickle.dump(sizes, file)
        for part in parts:
            file.seek(_aligned(file.tell()))
            file.write(part)


def load(path: Path) -> Any:
    """What `dump` has written. Its arrays are read-only, and lie in the file."""
    with path.open("rb") as file:
        sizes = pickle.load(file)
        at = file.tell()
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    parts = []
    for size in sizes:
        at = _aligned(at)
        parts.append(whole[at : at + size])
        at += size
    return pickle.loads(parts[0], buffers=parts[1:])


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT
