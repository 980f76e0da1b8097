"""A layer that a walk has reached: its inputs and the error it should make up for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from qubo_rounding.network.layer_data import data_of_inputs
from qubo_rounding.network.layer_rows import (
    column_chunks,
    groups,
    output_rows,
    weight_rows,
)
from qubo_rounding.network.layers import COPIES, find_layer, refuse_non_finite
from qubo_rounding.problem.problem import RoundingProblem
from qubo_rounding.problem.target_moments import TargetMoments, TargetSums
from solvers.layer_data import LayerData
from solvers.memory import require_memory
from solvers.threads import ONE_THREAD_UP_TO, one_blas_thread

if TYPE_CHECKING:
    from qubo_rounding.network.whole.walk import Walk


@dataclass(frozen=True, eq=False)
class Stop:
    """A layer that a walk has reached.

    Attributes
    ----------
    walk
        The walk, which goes on when the next stop is asked for.
    step
        The step that holds the layer.
    name
        The layer's name.
    """

    walk: Walk
    step: fx.Node
    name: str

    @property
    def original(self) -> nn.Module:
        """The layer in the original network."""
        return find_layer(self.walk.original, self.name)

    @property
    def rounded(self) -> nn.Module:
        """The layer in the rounded network, still with the original weights."""
        return find_layer(self.walk.rounded, self.name)

    def statistics(
        self, *, residual: bool = True, holdout: int = 0
    ) -> tuple[TargetMoments, TargetMoments | None]:
        """Moments of the layer's inputs and errors.

        Parameters
        ----------
        residual
            Whether the output should also make up for the error of what it is added to.
        holdout
            Of every so many images one is left out of the first moments, and these
            images make up the second; 0: none.

        Raises
        ------
        InputError
            The layer is given NaN or inf, or the network changes its graph by its
            input.
        """
        rows, n = weight_rows(self.original).shape
        count = groups(self.original)
        require_memory(
            f"the second moments of layer {self.name!r} and the problem made of them "
            f"({COPIES} times {count} x {n}² x 8 bytes)",
            COPIES * 8 * count * n * n,
            "leave the layer out",
        )
        # Small products leave cores idle: batches are then added up in two lanes, which
        # are the same whatever the number of cores.
        lanes = 2 if n <= ONE_THREAD_UP_TO else 1
        fit, held = (
            [TargetSums(n, rows, count) for _ in range(lanes)] for _ in range(2)
        )
        work: list[Future[None] | None] = [None] * lanes
        image = 0

        def add(observed: _Observed, first: int, lane: int) -> None:
            images = observed.images(first)
            out = np.zeros(len(images), np.bool_)
            if holdout:
                out = images % holdout == holdout - 1
            observed.of(~out).add_to(fit[lane], self.original)
            observed.of(out).add_to(held[lane], self.original)

        with one_blas_thread(n), ThreadPoolExecutor(lanes) as pool:
            for number in range(self.walk.batches):
                for observed in self._observed(number, residual):
                    lane = number % lanes
                    if (before := work[lane]) is not None:
                        before.result()
                    work[lane] = pool.submit(add, observed, image, lane)
                image += self.walk.sizes[number]
            for last in work:
                if last is not None:
                    last.result()
        for lane in range(1, lanes):
            fit[0].merge(fit[lane])
            held[0].merge(held[lane])
        return fit[0].moments(), held[0].moments() if held[0].count else None

    def look(self) -> None:
        """Run the layer in both networks, as for its moments, and do nothing else."""
        for number in range(self.walk.batches):
            for _ in self._observed(number, True):
                pass

    def data(self, problem: RoundingProblem) -> list[LayerData]:
        """The layer's inputs in both networks, for solvers that minimise over them."""
        inputs: list[Tensor] = []
        sources: list[Tensor] = []
        for number in range(self.walk.batches):
            pairs = self.walk.call_pairs(self.step, self.name, number, False)
            for call, rounded in pairs:
                refuse_non_finite(rounded.inputs, self.name)
                inputs.extend(rounded.inputs)
                sources.extend(call.inputs)
        walk = self.walk
        return data_of_inputs(
            walk.rounded, self.name, problem, inputs, sources, self.original
        )

    def _observed(self, number: int, residual: bool) -> Iterator[_Observed]:
        """What is seen of the layer on a batch, for each of its calls."""
        walk = self.walk
        pairs = walk.call_pairs(self.step, self.name, number, residual)
        for call, rounded in pairs:
            refuse_non_finite(rounded.inputs, self.name)
            error = None
            if call.output is not rounded.output:
                error = call.output - rounded.output
            theirs, ours = call.addend, rounded.addend
            if theirs is not ours and _shape(theirs) == call.output.shape:
                assert theirs is not None
                assert ours is not None
                other = theirs - ours
                error = other if error is None else error + other
            axis = -1 if isinstance(self.original, nn.Linear) else 1
            counts = walk.masks[number]
            if counts is not None:
                counts = _per_position(counts, call.output, axis)
                walk.mask_fits = bool(walk.mask_fits) or counts is not None
            yield _Observed(rounded.inputs, error, counts, walk.sizes[number])


@dataclass(frozen=True, eq=False)
class _Observed:
    """A layer's inputs and errors in one call, and how much each position counts."""

    inputs: Tensor
    error: Tensor | None
    weights: Tensor | None
    batch: int

    def images(self, first: int) -> NDArray[np.int64]:
        """The image that each entry of the leading axis belongs to, as far as known.

        A network may cut images into windows along this axis. Where it is no multiple
        of the images in the batch, all entries count as the first image's.
        """
        length = len(self.inputs)
        share, rest = divmod(length, self.batch)
        if rest or not share:
            return np.full(length, first)
        return first + np.arange(length) // share

    def of(self, chosen: NDArray[np.bool_]) -> _Observed:
        """Those entries of the leading axis that are chosen."""
        if chosen.all():
            return self
        index = torch.from_numpy(np.flatnonzero(chosen)).to(self.inputs.device)
        parts = (
            None if part is None else part[index]
            for part in (self.inputs, self.error, self.weights)
        )
        inputs, error, weights = parts
        assert inputs is not None
        return _Observed(inputs, error, weights, self.batch)

    def add_to(self, sums: TargetSums, layer: nn.Module) -> None:
        """Add them to the sums, a bounded number of positions at a time."""
        if not len(self.inputs):
            return
        errors = None
        if self.error is not None:
            errors = output_rows(layer, self.error).cpu().numpy()
        weights = None if self.weights is None else self.weights.flatten().cpu().numpy()
        first = 0
        for columns in column_chunks(layer, self.inputs):
            part = slice(first, first + columns.shape[2])
            sums.update(
                columns,
                None if errors is None else errors[:, part],
                None if weights is None else weights[part],
            )
            first = part.stop


def _shape(tensor: Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape


def _per_position(counts: Tensor, output: Tensor, axis: int) -> Tensor | None:
    """What a mask says about each position of a layer's output; None: nothing.

    A mask has the leading axes of the output, channels apart: ``[B]`` counts images,
    ``[B, T]`` tokens.
    """
    positions = output.movedim(axis, -1).shape[:-1]
    if positions[: counts.ndim] != counts.shape:
        return None
    counts = counts.reshape(*counts.shape, *[1] * (len(positions) - counts.ndim))
    return counts.expand(positions).to(torch.float64)
