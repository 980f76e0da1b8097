"""One walk through a network and its rounded copy, side by side, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from qubo_rounding.network.batches import examples, moved
from qubo_rounding.network.layers import find_layer
from qubo_rounding.network.messages import running
from qubo_rounding.network.whole.capture import Call, recording
from qubo_rounding.network.whole.graph import Graph, steps_of, whole
from qubo_rounding.network.whole.stop import Stop
from qubo_rounding.network.whole.values import Values
from solvers.errors import InputError

Mask = Callable[[Any], Tensor | None]
# The two networks: original and rounded.
ORIGINAL, ROUNDED = "original", "rounded"
# Values of steps in each of them, for one batch.
Held = dict[str, dict[fx.Node, Any]]
NOTHING: Held = {ORIGINAL: {}, ROUNDED: {}}


@dataclass(eq=False)
class Walk:
    """A walk through a network and its rounded copy, side by side.

    Every operation is evaluated once in each network for all batches; only values that
    are still needed are kept. At a layer the walk stops: the layer's weights in the
    rounded network may be changed before it goes on. A network that torch.fx cannot
    trace is one operation, which is evaluated anew for every layer.

    Attributes
    ----------
    original, rounded
        The network and a copy of it, in eval mode, for this walk alone.
    layers
        Names of the layers to stop at.
    values
        Where values are kept.
    mask
        Says of a batch which positions count, ``[B, …]`` with the leading axes of the
        layers' inputs; None: all.
    rounded_inputs
        Whether layers see the inputs that the rounded layers before them leave. If
        not, the rounded network is not evaluated.
    traced
        Whether to trace the network where that can be done.
    mask_fits
        Whether the mask has told the positions of any layer apart; None before one was
        tried.
    """

    original: nn.Module
    rounded: nn.Module
    layers: Sequence[str]
    values: Values
    mask: Mask | None = None
    rounded_inputs: bool = True
    traced: bool = True
    graph: Graph = field(init=False)
    batches: int = field(init=False, default=0)
    sizes: list[int] = field(init=False, default_factory=list)
    masks: list[Tensor | None] = field(init=False, default_factory=list)
    mask_fits: bool | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        plain = {name: find_layer(self.original, name) for name in self.layers}
        self.graph = (
            steps_of(self.original, plain)
            if self.traced
            else whole(self.original, "tracing is switched off")
        )
        # Steps name modules, and the names are the same in both networks.
        other = self.rounded if self.graph.traced else whole(self.rounded, "").root
        self._roots = {ORIGINAL: self.graph.root, ROUNDED: other}
        # Steps with other values in the rounded network.
        self._dirty: set[fx.Node] = set()
        self._counts: dict[str, int] = {}
        self._batch: Any = None

    def stops(self, batches: Iterable[Any]) -> Iterator[Stop]:
        """Walk along; yield at each layer, once its inputs are known.

        Raises
        ------
        InputError
            The network cannot be run on the batches, there are none, or it does not
            run a layer.
        """
        steps, start = self.graph.steps, 0
        names = {
            id(find_layer(self.original, name)): name for name in reversed(self.layers)
        }
        left = set(self.layers)
        for index, step in enumerate(steps):
            module = self.graph.module(step)
            if module is None:
                continue
            inside = [names[id(m)] for m in module.modules() if id(m) in names]
            if not inside:
                continue
            self._advance(start, index, batches if start == 0 else None)
            start = index
            if len(inside) > 1:
                inside = self._in_order_of_calls(step, inside)
            for name in inside:
                yield Stop(self, step, name)
                left.discard(name)
                self._dirty.add(step)
        if left:
            missing = ", ".join(repr(name) for name in self.layers if name in left)
            raise InputError(f"the network's output does not depend on layer {missing}")

    def _advance(self, first: int, last: int, batches: Iterable[Any] | None) -> None:
        """Evaluate the steps from first to last, of which the latter is left out."""
        steps = self.graph.steps
        segment = steps[first:last]
        if self.rounded_inputs:
            for step in segment:
                if any(i in self._dirty for i in step.all_input_nodes):
                    self._dirty.add(step)
        later = set(steps[last:])
        kept = [s for s in segment if any(user in later for user in s.users)]
        last_use = {i: step for step in segment for i in (*step.all_input_nodes, step)}
        for number in self._numbers(batches):
            held: Held = {ORIGINAL: {}, ROUNDED: {}}
            for step in segment:
                for side in self._sides(step):
                    held[side][step] = self._run(side, step, number, held)
                    if step in kept:
                        self.values.put((side, step), number, held[side][step])
                for i in (*step.all_input_nodes, step):
                    if last_use[i] is step:
                        for values in held.values():
                            values.pop(i, None)
        for key in self.values.known():
            _, step = key
            if not any(user in later for user in step.users):
                self.values.drop(key)

    def _numbers(self, batches: Iterable[Any] | None) -> Iterator[int]:
        """Numbers of the batches; the batches themselves are kept the first time."""
        if batches is None:
            yield from range(self.batches)
            return
        for number, batch in enumerate(batches):
            self.masks.append(None if self.mask is None else self.mask(batch))
            self._batch = moved(self.original, batch)
            self.sizes.append(examples(batch))
            self.batches = number + 1
            yield number
        if not self.batches:
            raise InputError("no calibration batches to quantize the network with")

    def _sides(self, step: fx.Node) -> tuple[str, ...]:
        """The networks in which a step is evaluated; unchanged values are shared."""
        return (ORIGINAL, ROUNDED) if step in self._dirty else (ORIGINAL,)

    def _run(self, side: str, step: fx.Node, number: int, held: Held) -> Any:
        """Evaluate a step in one of the networks."""
        if step.op == "placeholder":
            return self._input(step)
        root = self._roots[side]
        args, kwargs = self._arguments(side, step, number, held)
        with torch.no_grad():
            if step.op == "get_attr":
                value: Any = root
                for part in str(step.target).split("."):
                    value = getattr(value, part)
                return value
            if step.op == "output":
                return args[0]
            shape = getattr(args[0], "shape", None) if args else None
            given = "" if shape is None else f" on a batch of shape {tuple(shape)}"
            with running(f"the network cannot be run at {step.name}{given}"):
                if step.op == "call_module":
                    return root.get_submodule(str(step.target))(*args, **kwargs)
                if step.op == "call_method":
                    return getattr(args[0], str(step.target))(*args[1:], **kwargs)
                assert callable(step.target)
                return step.target(*args, **kwargs)

    def _input(self, step: fx.Node) -> Any:
        first = next(s for s in self.graph.steps if s.op == "placeholder")
        if step is first:
            return self._batch
        defaults = self.graph.defaults or {}
        name = str(step.target)
        return defaults.get(name, defaults.get(name.rpartition("_")[0]))

    def _arguments(self, side: str, step: fx.Node, number: int, held: Held) -> Any:
        def value(node: fx.Node) -> Any:
            where = side if node in self._dirty else ORIGINAL
            known = held[where]
            return known[node] if node in known else self._value(where, node, number)

        return fx.node.map_arg((step.args, step.kwargs), value)

    def _value(self, side: str, node: fx.Node, number: int) -> Any:
        return self.values.get((side, node), number)

    def _in_order_of_calls(self, step: fx.Node, names: list[str]) -> list[str]:
        """Layers within one step in the order in which they are first called."""
        order: dict[str, None] = {}
        handles = [
            find_layer(self.original, name).register_forward_pre_hook(
                lambda *_, name=name: order.setdefault(name)
            )
            for name in names
        ]
        try:
            self._run(ORIGINAL, step, 0, NOTHING)
        finally:
            for handle in handles:
                handle.remove()
        missing = [name for name in names if name not in order]
        if missing:
            raise InputError(f"the network never calls layer {missing[0]!r}")
        return list(order)

    def call_pairs(
        self, step: fx.Node, name: str, number: int, residual: bool
    ) -> Iterator[tuple[Call, Call]]:
        """The calls of a layer on a batch, in both networks.

        Raises
        ------
        InputError
            The layer is called a different number of times in the two networks, or
            another number of times than on the first batch.
        """
        calls = self._calls(ORIGINAL, step, name, number, residual)
        shared = not self.rounded_inputs or (
            step not in self._dirty
            and not any(i in self._dirty for i in step.all_input_nodes)
        )
        rounded = (
            [Call(c.inputs, c.output, c.addend) for c in calls]
            if shared
            else self._calls(ROUNDED, step, name, number, residual)
        )
        if self.graph.traced and residual:
            addend = self.graph.addend(step)
            if addend is not None and (ORIGINAL, addend) in self.values:
                side = ROUNDED if addend in self._dirty else ORIGINAL
                calls[-1].addend = self._value(ORIGINAL, addend, number)
                rounded[-1].addend = self._value(side, addend, number)
        counts = self._counts.setdefault(name, len(calls))
        if not len(calls) == len(rounded) == counts or not counts:
            raise InputError(
                f"layer {name!r} is called {len(calls)} times on batch {number}, "
                f"{len(rounded)} times in the rounded network and {counts} times on "
                "the first batch: the network must not change its graph by its input"
            )
        yield from zip(calls, rounded, strict=True)

    def _calls(
        self, side: str, step: fx.Node, name: str, number: int, residual: bool
    ) -> list[Call]:
        network = self.original if side == ORIGINAL else self.rounded
        layer = find_layer(network, name)
        watched = residual and not self.graph.traced
        # Steps do nothing in place; what a layer lies in may.
        alone = self._roots[side].get_submodule(str(step.target)) is layer
        with recording(layer, watched, copies=not alone) as calls:
            self._run(side, step, number, NOTHING)
        return calls
