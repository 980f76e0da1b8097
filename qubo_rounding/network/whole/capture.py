"""What a layer is given, what it gives and what that is added to, as a step runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Reading these of a tensor is no use of its values.
LOOKS = {"__get__", "size", "dim", "is_floating_point", "numel", "stride", "__len__"}
# Functions that leave a tensor as it is when a network is not in training.
UNCHANGING = {
    *("dropout", "dropout_", "alpha_dropout", "feature_dropout"),
    *("stochastic_depth", "contiguous"),
}
ADDITIONS = {"add", "iadd", "add_", "__add__", "__iadd__", "__radd__"}


@dataclass(eq=False)
class Call:
    """One call of a layer.

    Attributes
    ----------
    inputs, output
        What the layer was given, and what it gave.
    addend
        What the output was added to first, if nothing else used it.
    """

    inputs: Tensor
    output: Tensor
    addend: Tensor | None = None


@contextmanager
def recording(
    module: nn.Module, additions: bool, copies: bool = True
) -> Iterator[list[Call]]:
    """Record the calls of a plain layer while other code runs.

    Parameters
    ----------
    module
        The layer.
    additions
        Whether to look for what the outputs are added to.
    copies
        Whether what runs next might overwrite inputs and outputs in place.
    """
    calls: list[Call] = []
    watch = _Additions()

    def record(_: nn.Module, args: tuple[Any, ...], kwargs: Any, output: Any) -> None:
        inputs = args[0] if args else kwargs["input"]
        call = Call(inputs, output)
        if copies:
            call = Call(inputs.clone(), output.clone())
        calls.append(call)
        watch.follow(output, call)

    handle = module.register_forward_hook(record, with_kwargs=True)
    try:
        if additions:
            with watch:
                yield calls
        else:
            yield calls
    finally:
        handle.remove()
    watch.conclude()


class _Additions(TorchFunctionMode):
    """Finds the additions that outputs of a layer go to, and nowhere else."""

    def __init__(self) -> None:
        super().__init__()
        # Tensors that hold a call's output; they are kept, so that no other tensor
        # takes the same id.
        self._outputs: dict[int, tuple[Tensor, Call]] = {}
        self._uses: dict[int, int] = {}
        self._calls: list[Call] = []

    def follow(self, output: Tensor, call: Call) -> None:
        """Look for what a call's output is added to."""
        self._outputs[id(output)] = (output, call)
        self._calls.append(call)

    def conclude(self) -> None:
        """Forget the addends of outputs that were also used elsewhere."""
        for call in self._calls:
            if self._uses.get(id(call), 0) != 1:
                call.addend = None

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(function, "__name__", "")
        used = [
            (argument, self._outputs[id(argument)][1])
            for argument in _tensors((args, kwargs or {}))
            if id(argument) in self._outputs
        ]
        if not used or name in LOOKS:
            return function(*args, **(kwargs or {}))
        if name in UNCHANGING:
            result = function(*args, **(kwargs or {}))
            self._outputs[id(result)] = (result, used[0][1])
            return result
        for argument, call in used:
            self._uses[id(call)] = self._uses.get(id(call), 0) + 1
            if name in ADDITIONS and not kwargs and len(args) == 2:
                other = args[1] if args[0] is argument else args[0]
                if isinstance(other, Tensor) and other is not argument:
                    call.addend = other.clone()
        return function(*args, **(kwargs or {}))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
