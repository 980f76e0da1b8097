"""Quantized layers kept in a folder as they are finished, so that work can go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from qubo_rounding.network.digests import add
from qubo_rounding.network.whole.result import QuantizedLayer
from qubo_rounding.problem import file
from qubo_rounding.problem.grid import Grid
from solvers.errors import InputError
from solvers.io.files import read_arrays

ARRAYS = ("codes", "scale", "lo", "hi", "bias")


class Kept:
    """Quantized layers in a folder, one file each.

    A layer depends on all that went before: each file holds a digest of the inputs of
    the work and of the layers before it, and is used again only under the same digest.

    Parameters
    ----------
    folder
        The folder, which is made if it does not exist; None keeps nothing.
    settings
        What the work depends on beside the network and the batches.
    network
        The network to be quantized.

    Raises
    ------
    InputError
        The folder cannot be made.
    """

    def __init__(
        self, folder: Path | None, settings: Mapping[str, Any], network: nn.Module
    ) -> None:
        self._folder = folder
        self._count = 0
        self._sha = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make folder {folder}: {error.strerror}"
            ) from error
        self._sha.update(repr(network).encode())
        for name, tensor in network.state_dict().items():
            self._sha.update(name.encode())
            add(self._sha, tensor)

    def watched(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches; what they hold becomes part of what the work depends on."""
        for batch in batches:
            if self._folder is not None:
                add(self._sha, batch)
            yield batch

    def find(self, name: str, grid: Grid) -> QuantizedLayer | None:
        """The next layer, if it has been kept; None if not.

        Raises
        ------
        InputError
            The folder holds a layer of other work.
        """
        if self._folder is None:
            return None
        path = self._path(name)
        if not path.exists():
            return None
        held = read_arrays(path)
        if str(held.get("digest")) != self._sha.hexdigest():
            raise InputError(
                f"{path} was kept by other work (other options, weights, images or "
                "code); name another folder"
            )
        layer = QuantizedLayer(
            name=name,
            shape=tuple(json.loads(str(held["shape"]))),
            grid=grid,
            report=json.loads(str(held["report"])),
            **{key: held.get(key) for key in ARRAYS},  # type: ignore[arg-type]
        )
        self._passed(layer)
        return layer

    def keep(self, layer: QuantizedLayer) -> None:
        """Keep the next layer.

        Raises
        ------
        InputError
            The file cannot be written.
        """
        if self._folder is not None:
            arrays = {key: getattr(layer, key) for key in ARRAYS}
            texts = {
                "digest": self._sha.hexdigest(),
                "shape": json.dumps(layer.shape),
                "report": json.dumps(dict(layer.report)),
            }
            held = {key: value for key, value in arrays.items() if value is not None}
            file.write(self._path(layer.name), held, texts)
        self._passed(layer)

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{self._count:03}.{name}.npz"

    def _passed(self, layer: QuantizedLayer) -> None:
        self._count += 1
        self._sha.update(layer.name.encode())
        self._sha.update(layer.weight().tobytes())
        if layer.bias is not None:
            self._sha.update(layer.bias.tobytes())
