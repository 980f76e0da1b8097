"""What a network does with each of its parameters, seen while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from qubo_rounding.network.exposed import (
    OTHER_PRODUCTS,
    Product,
    function_name,
    tensors_in,
)

# Functions that look at a tensor's form and not at its values; attributes that give
# no tensor do the same.
FORM = {
    "__hash__",
    "__len__",
    "data_ptr",
    "dim",
    "element_size",
    "get_device",
    "is_contiguous",
    "is_floating_point",
    "ndimension",
    "nelement",
    "numel",
    "size",
    "stride",
    "type",
}


@dataclass(eq=False)
class Uses:
    """What happens to one parameter in a forward pass.

    Attributes
    ----------
    products
        One for each call in which the parameter multiplies an input; the inputs are
        not kept.
    places
        The module whose forward made each of these calls.
    biases
        Calls in which the parameter is added to such a product.
    bare
        Whether each product was the output of its module.
    multiplies
        Whether the parameter, or something made of it, multiplies an input.
    remarks
        What else happens to it, as the end of a sentence about the weight.
    """

    products: list[Product] = field(default_factory=list)
    places: list[nn.Module | None] = field(default_factory=list)
    biases: int = 0
    bare: bool = True
    multiplies: bool = False
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Derived:
    """A tensor made of parameters and buffers alone.

    `view_of` is the one parameter whose values these are, in whatever order.
    """

    tensor: Tensor
    sources: frozenset[int]
    view_of: int | None


class Recorder(TorchFunctionMode):
    """Records the uses of a network's parameters while it is active.

    Attributes
    ----------
    network
        The network.
    uses
        By the ids of the parameters.
    calls
        How often each module was called.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.uses: dict[int, Uses] = {}
        self.calls: Counter[nn.Module] = Counter()
        self._constants: dict[int, _Derived] = {}
        self._running: list[nn.Module] = []
        # What the products of running modules gave: tensor, its version, parameter.
        self._made: dict[int, tuple[Tensor, int, int]] = {}
        for parameter in network.parameters():
            key = id(parameter)
            self.uses[key] = Uses()
            self._constants[key] = _Derived(parameter, frozenset([key]), key)
        for buffer in network.buffers():
            self._constants[id(buffer)] = _Derived(buffer, frozenset(), None)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record, and know which module is running."""

        def enter(module: nn.Module, _: Any) -> None:
            self.calls[module] += 1
            self._running.append(module)

        def leave(module: nn.Module, _: Any, output: Any) -> None:
            self._running.pop()
            if id(module) in self._made:
                made, version, key = self._made.pop(id(module))
                if made is not output or made._version != version:
                    self.uses[key].bare = False

        handles = []
        for module in self.network.modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            handles.append(module.register_forward_pre_hook(enter, prepend=True))
            handles.append(module.register_forward_hook(leave))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the function, and note what it does to parameters."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = list(tensors_in((args, kwargs)))
        constants = [self._constants[id(x)] for x in given if id(x) in self._constants]
        sources = frozenset().union(*(c.sources for c in constants))
        if sources:
            name = function_name(func)
            product = Product.read(func, args, kwargs, self._is_constant)
            if product is not None:
                self._multiplied(product, result, constants)
            elif len(constants) < len(given):
                self._mixed(name, sources)
            else:
                self._derived(name, sources, constants, result)
        return result

    def _is_constant(self, x: Tensor) -> bool:
        return id(x) in self._constants

    def _multiplied(
        self, product: Product, result: Any, constants: list[_Derived]
    ) -> None:
        """A layer's product: its weight, its bias, and perhaps a constant input."""
        place = self._running[-1] if self._running else None
        for constant in constants:
            tensor = constant.tensor
            key = constant.view_of
            if _same_memory(tensor, product.weight):
                for source in constant.sources:
                    self.uses[source].multiplies = True
                    if key is None:
                        change = "is changed or divided before it multiplies an input"
                        self._remark(source, change)
                if key is not None:
                    nothing = product.input.new_empty(0)
                    self.uses[key].products.append(replace(product, input=nothing))
                    self.uses[key].places.append(place)
                    self._made[id(place)] = result, result._version, key
            elif tensor is product.bias and key is not None:
                self.uses[key].biases += 1
            else:
                for source in constant.sources:
                    self._remark(source, f"is also used by {product.function}")

    def _mixed(self, name: str, sources: frozenset[int]) -> None:
        """A function of parameters and of what the network is given."""
        for source in sources:
            self.uses[source].multiplies |= name in OTHER_PRODUCTS
            self._remark(source, f"is used by {name}")

    def _derived(
        self, name: str, sources: frozenset[int], constants: list[_Derived], result: Any
    ) -> None:
        """A function of parameters and buffers alone."""
        made = list(tensors_in(result))
        in_place = name.endswith("_") and not name.endswith("__")
        if in_place or not (made or name in FORM or name == "__get__"):
            for source in sources:
                self._remark(
                    source, f"is {'changed' if in_place else 'read'} by {name}"
                )
        first = constants[0]
        for tensor in made:
            is_view = (
                first.view_of is not None
                and tensor.numel() == first.tensor.numel()
                and tensor.untyped_storage().data_ptr()
                == first.tensor.untyped_storage().data_ptr()
            )
            self._constants[id(tensor)] = _Derived(
                tensor, sources, first.view_of if is_view else None
            )

    def _remark(self, key: int, remark: str) -> None:
        remarks = self.uses[key].remarks
        if remark not in remarks:
            remarks.append(remark)


def _same_memory(x: Tensor, y: Tensor) -> bool:
    return x.data_ptr() == y.data_ptr() and x.numel() == y.numel()
