"""Networks that are not fed images: batches and scores of a user's own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from qubo_rounding.network.batches import examples, given, moved
from qubo_rounding.network.digests import add
from qubo_rounding.network.factories import call_factory
from qubo_rounding.network.layers import refuse_training
from qubo_rounding.network.messages import first_line, running
from solvers.errors import InputError, printable

Batch = Tensor | Mapping[str, Tensor]


class DataSource(Protocol):
    """What a factory named with ``--data package.module:factory`` returns.

    A batch is a tensor, with which the network is called, or a mapping from the names
    of the network's arguments to tensors. The first axis of the tensor, or of the
    mapping's first tensor, runs over the examples. No example should be in both sets.

    An optional method ``mask(batch)`` says which positions of a batch count: a tensor,
    boolean or of weights, with the leading axes of the layers' outputs (``[B, T]`` for
    tokens, 0 where one is padding), or None if all do.

    Attributes
    ----------
    name
        What the scores are, for tables: ``"accuracy"`` for example.
    calibration
        Batches to quantize the network with.
    evaluation
        Pairs of a batch and its targets, of whatever kind `score` takes.
    """

    name: str
    calibration: Sequence[Batch]
    evaluation: Sequence[tuple[Batch, Any]]

    def score(self, outputs: Any, targets: Any) -> Any:
        """How good the network's outputs for a batch are, the higher the better.

        Returns
        -------
        One number per example, as an array or a tensor ``[B]``: 1 where an answer is
        right and 0 where it is not, or a negative loss. Their mean is reported.
        """


@dataclass(frozen=True, eq=False)
class Data:
    """Checked data for a network that is not fed images.

    Attributes
    ----------
    spec
        The text given to `load_data`.
    name
        What the scores are.
    calibration
        Batches to quantize the network with.
    evaluation
        Pairs of a batch and its targets.
    score
        Gives one number per example for a network's outputs and the targets.
    mask
        Says of a batch which positions count; None: all.
    calibration_digest, evaluation_digest
        SHA-256 (hex) over the values of all batches in order, and of the targets.
    """

    spec: str
    name: str
    calibration: Sequence[Batch] = field(repr=False)
    evaluation: Sequence[tuple[Batch, Any]] = field(repr=False)
    score: Callable[[Any, Any], Any] = field(repr=False)
    mask: Callable[[Any], Tensor | None] | None = field(repr=False)
    calibration_digest: str
    evaluation_digest: str


def load_data(spec: str) -> Data:
    """Data for calibration and evaluation, by the name of a function that gives them.

    Parameters
    ----------
    spec
        ``"package.module:factory"``: a callable without arguments that returns a
        `DataSource`. It runs at a fixed seed of torch's generator.

    Raises
    ------
    InputError
        There is no such function, it fails, or what it returns lacks a part or holds
        one that cannot be used.
    """
    source: Any = call_factory("data", spec)
    where = f"data {spec}"
    for attribute in ("name", "calibration", "evaluation", "score"):
        if not hasattr(source, attribute):
            raise InputError(
                f"{where} returned a {type(source).__name__} without {attribute}; it "
                "needs name, calibration, evaluation and score"
            )
    mask = getattr(source, "mask", None)
    if not isinstance(source.name, str) or not source.name:
        raise InputError(f"{where}: name must be a text, not {source.name!r:.40}")
    if not callable(source.score):
        raise InputError(f"{where}: score must be a function of outputs and targets")
    if mask is not None and not callable(mask):
        raise InputError(f"{where}: mask must be a function of a batch")
    calibration, evaluation = hashlib.sha256(), hashlib.sha256()
    counted = mask is None
    for place, batch in _items(f"{where}: calibration", source.calibration):
        _check_batch(place, batch)
        add(calibration, batch)
        counted = counted or _counts_any(place, batch, mask)
    if not counted:
        raise InputError(f"{where}: by its mask no position of calibration counts")
    for place, pair in _items(f"{where}: evaluation", source.evaluation):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"{place} is no pair of a batch and its targets")
        _check_batch(place, pair[0])
        add(evaluation, pair)
    return Data(
        spec=spec,
        name=printable(source.name),
        calibration=source.calibration,
        evaluation=source.evaluation,
        score=source.score,
        mask=mask,
        calibration_digest=calibration.hexdigest(),
        evaluation_digest=evaluation.hexdigest(),
    )


def score_network(network: nn.Module, data: Data) -> NDArray[np.float64]:
    """Scores of the network's outputs ``[N]``, one for each example for evaluation.

    Parameters
    ----------
    network
        A network in eval mode.

    Raises
    ------
    InputError
        The network is in training mode, cannot be run on a batch or gives NaN, or the
        score fails or is not one finite number per example.
    """
    refuse_training(network)
    scores = []
    with torch.inference_mode():
        for number, (batch, targets) in enumerate(
            tqdm(data.evaluation, desc=data.name, leave=False, disable=None)
        ):
            place = f"data {data.spec}: evaluation, batch {number}"
            outputs = outputs_for(network, batch, place)
            try:
                found = torch.as_tensor(data.score(outputs, targets))
            except Exception as error:  # whatever the user's own code raises
                raise InputError(
                    f"{place}: score failed with {type(error).__name__}: "
                    f"{first_line(error)}"
                ) from error
            if found.shape != (examples(batch),):
                raise InputError(
                    f"{place}: score has shape {tuple(found.shape)}; expected "
                    f"({examples(batch)},), one number per example"
                )
            values = found.double().cpu().numpy()
            if not np.isfinite(values).all():
                first = int(np.flatnonzero(~np.isfinite(values))[0])
                raise InputError(
                    f"{place}: score of example {first} is {values[first]}"
                )
            scores.append(values)
    return np.concatenate(scores)


def outputs_for(network: nn.Module, batch: Batch, place: str) -> Any:
    """What the network makes of a batch, on its device and in its precision.

    Parameters
    ----------
    place
        Names the batch in messages.

    Raises
    ------
    InputError
        The network does not take the batch, or gives NaN.
    """
    with running(f"{place}: {type(network).__name__} cannot be run on it"):
        outputs = given(network, moved(network, batch))
    if isinstance(outputs, Tensor) and outputs.isnan().any():
        raise InputError(f"{place}: the network's outputs hold NaN")
    return outputs


def _items(where: str, sequence: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a sequence of at least one part, and a place to name in messages."""
    sized = hasattr(sequence, "__len__") and hasattr(sequence, "__getitem__")
    if not sized or isinstance(sequence, Tensor | np.ndarray | Mapping | str):
        raise InputError(
            f"{where} is a {type(sequence).__name__}; give a list of batches"
        )
    if not len(sequence):
        raise InputError(f"{where} is empty; give at least one batch")
    for number in range(len(sequence)):
        place = f"{where}, batch {number}"
        try:
            item = sequence[number]
        except Exception as error:  # whatever the user's own code raises
            raise InputError(
                f"{place}: {type(error).__name__}: {first_line(error)}"
            ) from error
        yield place, item


def _check_batch(place: str, batch: Any) -> None:
    tensors = batch if isinstance(batch, Mapping) else {"": batch}
    if not tensors:
        raise InputError(f"{place} is an empty mapping")
    for name, tensor in tensors.items():
        part = place if tensors is not batch else f"{place}, {name!r:.40}"
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(
                f"{part} is a {type(tensor).__name__}; a batch is a tensor or a "
                "mapping from names of arguments to tensors"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"{part} holds NaN or inf")
    first = next(iter(tensors.values()))
    if first.ndim == 0 or not len(first):
        raise InputError(f"{place} has shape {tuple(first.shape)}: it has no examples")


def _counts_any(place: str, batch: Batch, mask: Any) -> bool:
    """Whether any position of a batch counts; refuse what is no mask."""
    try:
        counts = mask(batch)
    except Exception as error:  # whatever the user's own code raises
        raise InputError(
            f"{place}: mask failed with {type(error).__name__}: {first_line(error)}"
        ) from error
    if counts is None:
        return True
    if not isinstance(counts, Tensor):
        raise InputError(
            f"{place}: mask returned a {type(counts).__name__}, not a tensor or None"
        )
    if counts.ndim == 0 or len(counts) != examples(batch):
        raise InputError(
            f"{place}: mask has shape {tuple(counts.shape)}; its first axis must be "
            f"the {examples(batch)} examples"
        )
    if not torch.isfinite(counts).all() or (counts < 0).any():
        raise InputError(f"{place}: mask must hold finite numbers from 0")
    return bool((counts > 0).any())
