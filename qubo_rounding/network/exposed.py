"""Modules of any class whose weight is in a plain layer that they call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

CONVOLUTIONS = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}
# Arguments by name, of functions of torch and methods of tensors alike.
_ARGUMENTS = {
    **dict.fromkeys(
        CONVOLUTIONS,
        ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    ),
    "linear": ("input", "weight", "bias"),
    "addmm": ("input", "mat1", "mat2"),
    "matmul": ("input", "other"),
    "__matmul__": ("input", "other"),
    "mm": ("input", "mat2"),
}
_BIAS = {"addmm": "input"}
# Products that no plain layer computes.
OTHER_PRODUCTS = {
    "baddbmm",
    "addbmm",
    "bilinear",
    "bmm",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "convolution",
    "einsum",
    "gru",
    "gru_cell",
    "lstm",
    "lstm_cell",
    "multi_head_attention_forward",
    "mv",
    "addmv",
    "rnn_relu",
    "rnn_relu_cell",
    "rnn_tanh",
    "rnn_tanh_cell",
    "tensordot",
}


def function_name(function: Callable[..., Any]) -> str:
    """The name by which torch's functions and the methods of tensors are known."""
    return str(getattr(function, "__name__", function))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested sequences, mappings and dataclasses."""
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


@dataclass(frozen=True, eq=False)
class Product:
    """A call of torch in which a weight multiplies an input.

    Attributes
    ----------
    input
        What a plain layer would be given.
    weight
        The weight as a plain layer would hold it.
    bias
        What is added to the product, if anything.
    settings
        Stride, padding, dilation and groups of a convolution.
    left
        Whether the weight stands on the left, so that the layer's input and output
        are transposed.
    """

    function: str
    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    left: bool = False

    @classmethod
    def read(
        cls,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        is_weight: Callable[[Tensor], bool],
    ) -> Product | None:
        """The call as such a product, or None where it is none.

        Parameters
        ----------
        function, args, kwargs
            The call.
        is_weight
            Whether a factor is the weight.
        """
        name = function_name(function)
        if name not in _ARGUMENTS:
            return None
        named = dict(zip(_ARGUMENTS[name], args, strict=False)) | dict(kwargs)
        bias = named.pop("bias", None)
        if name in _BIAS:
            bias = named.pop("input")
            if named.pop("beta", 1) != 1 or named.pop("alpha", 1) != 1:
                return None
        if "weight" in named:
            x, weight = named.pop("input"), named.pop("weight")
            if not is_weight(weight):
                return None
            return cls(name, x, weight, bias, named)
        a, b = named.values()
        if is_weight(b) and not is_weight(a) and b.ndim == 2:
            return cls("linear", a, b.mT, bias)
        if is_weight(a) and not is_weight(b) and a.ndim == 2 <= b.ndim and bias is None:
            return cls("linear", b.mT, a, left=True)
        return None

    def plain(self) -> nn.Module:
        """A plain layer with copies of weight and bias that computes the product."""
        weight, bias = self.weight, self.bias
        options: dict[str, Any] = {"bias": bias is not None, "device": "meta"}
        layer: nn.Module
        if self.function == "linear":
            outputs, inputs = weight.shape
            layer = nn.Linear(inputs, outputs, **options)
        else:
            groups = self.settings.get("groups", 1)
            layer = CONVOLUTIONS[self.function](
                weight.shape[1] * groups,
                weight.shape[0],
                tuple(weight.shape[2:]),  # type: ignore[arg-type]
                **self.settings,
                **options,
            )
        layer.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
        return layer

    def form(self) -> tuple[object, ...]:
        """All but the input, to compare with other calls."""
        settings = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in self.settings.items()
        }
        return (
            self.function,
            self.left,
            self.weight.data_ptr(),
            self.weight.shape,
            self.weight.stride(),
            None if self.bias is None else id(self.bias),
            tuple(settings.items()),
        )

    def by(self, layer: nn.Module) -> Tensor:
        """What the layer makes of the input, in the form of the call's result."""
        output: Tensor = layer(self.input)
        return output.mT if self.left else output


class Exposed(nn.Module):
    """A module whose weight is in a plain layer, which its own forward calls.

    Wherever the module's forward multiplies by its weight, `layer` is called with
    what is multiplied. All else it computes stays.

    Parameters
    ----------
    original
        A module that uses its weight in one product alone; changed in place.
    product
        That product.
    weight, bias
        Names of the parameters.
    bare
        Whether the module's output is that of the layer.

    Attributes
    ----------
    original
        The module, with zeros that take no memory where its parameters were.
    layer
        A plain convolution or linear layer.
    """

    def __init__(
        self,
        original: nn.Module,
        product: Product,
        weight: str,
        bias: str | None,
        bare: bool,
    ) -> None:
        super().__init__()
        self.layer = product.plain()
        self.weight_name, self.bare = weight, bare
        for name in (weight, bias):
            if name is not None:
                value = original.get_parameter(name).detach()
                delattr(original, name)
                stand_in = value.new_zeros(()).expand(value.shape)
                original.register_buffer(name, stand_in, persistent=False)
        self.original = original
        self.train(original.training)

    def __getattr__(self, name: str) -> Any:
        """What the module itself does not have is the original's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "original":
                raise
            return getattr(self.original, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the original computes, with the weights of the layer."""
        with _Detour(self.original.get_buffer(self.weight_name), self.layer):
            return self.original(*args, **kwargs)


class _Detour(TorchFunctionMode):
    """Calls a layer wherever a weight would be multiplied by."""

    def __init__(self, weight: Tensor, layer: nn.Module) -> None:
        super().__init__()
        self.weights, self.layer = [weight], layer

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not any(self._is_weight(x) for x in tensors_in((args, kwargs))):
            return func(*args, **kwargs)
        product = Product.read(func, args, kwargs, self._is_weight)
        if product is not None:
            return product.by(self.layer)
        # A view, by which the forward may go on to multiply.
        result = func(*args, **kwargs)
        self.weights.extend(tensors_in(result))
        return result

    def _is_weight(self, x: object) -> bool:
        return any(x is weight for weight in self.weights)


class Calling:
    """A module's forward that calls layers wherever it multiplied by their weights.

    Parameters
    ----------
    module
        The module; becomes one whose `forward` this is.
    layers
        Plain layers in it that it does not call, but whose weights it uses.
    """

    def __init__(self, module: nn.Module, layers: Sequence[nn.Module]) -> None:
        self.module, self.layers = module, layers
        module.forward = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the module's class computes."""
        with ExitStack() as stack:
            for layer in self.layers:
                stack.enter_context(_Detour(layer.get_parameter("weight"), layer))
            return type(self.module).forward(self.module, *args, **kwargs)


def hides_layers(module: nn.Module) -> bool:
    """Whether layers run inside of the module that its forward does not show."""
    return isinstance(module, Exposed) or isinstance(module.forward, Calling)


def plain_layer(module: nn.Module) -> nn.Module:
    """The plain layer in a module that calls one, else the module itself."""
    return module.layer if isinstance(module, Exposed) else module


def named_layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules, without what is inside of an `Exposed`."""
    inside: set[nn.Module] = set()
    for name, module in network.named_modules():
        if module not in inside:
            yield name, module
        if isinstance(module, Exposed):
            inside.update(module.modules())


def install(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in the place of another, under all the names that it has."""
    for parent in list(network.modules()):
        for name, child in parent._modules.items():
            if child is old and parent is not new:
                parent._modules[name] = new
