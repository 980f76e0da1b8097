"""Layers of many classes, which only pad or turn, or do more than that."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

X = torch.randn(3, 3, 9, 11, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


class DynamicSame(nn.Conv2d):
    """Pads by itself, as TensorFlow does, by the size of what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        sides: list[int] = []
        for axis in (1, 0):
            size, kernel = x.size(2 + axis), self.weight.size(2 + axis)
            reach = self.dilation[axis] * (kernel - 1) + 1
            outputs = math.ceil(size / self.stride[axis])
            total = max((outputs - 1) * self.stride[axis] + reach - size, 0)
            sides += [total // 2, total - total // 2]
        x = F.pad(x, sides)
        return F.conv2d(
            x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


class StaticSame(nn.Conv2d):
    """Pads by a submodule, made for one size of images."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.stride = list(self.stride)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(
            self.pad(x), self.weight, self.bias, stride=self.stride, groups=self.groups
        )


class HarmlessConv(nn.Conv2d):
    """A subclass that adds nothing."""


class HarmlessLinear(nn.Linear):
    """A subclass that adds nothing."""


class Scaled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 3


class InPlace(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(super().forward(x))


class Conv1D(nn.Module):
    """A linear layer whose weight is [in, out], as GPT-2 has them."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.size()[:-1], self.weight.shape[1])
        flat = x.view(-1, x.size(-1)).to(self.weight.dtype)
        return torch.addmm(self.bias, flat, self.weight).view(shape)


class Product(nn.Module):
    def __init__(self, product: Callable[[Tensor, Tensor], Tensor], *shape: int):
        super().__init__()
        self.kernel, self.product = nn.Parameter(torch.randn(*shape)), product

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.kernel)


def right(x: Tensor, w: Tensor) -> Tensor:
    return x @ w


def turned(x: Tensor, w: Tensor) -> Tensor:
    return torch.matmul(x, w.T)


def left(x: Tensor, w: Tensor) -> Tensor:
    return w @ x


def as_kernel_of_one(x: Tensor, w: Tensor) -> Tensor:
    return F.linear(x, w.data[..., 0])


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, centred, self.bias)


class Masked(nn.Linear):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.register_buffer("mask", torch.ones(self.weight.shape).triu())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class MaskedHere(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(self.weight.shape).triu()
        return F.linear(x, self.weight * mask, self.bias)


class TwiceACall(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(super().forward(x))


class Sized(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out if float(self.weight.norm()) > 1 else -out


class Multiplied(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.weight.mean()


class BiasOnce(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias * 2)


class BiasAgain(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.bias


class Clamped(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        self.weight.data.clamp_(-1, 1)
        return super().forward(x)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.packed = nn.Parameter(torch.randn(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.packed.chunk(2)
        return F.linear(F.linear(x, one), two)


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.randn(4, 4))
        self.two = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.one @ self.two


class Beside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.projection = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x) @ self.projection
        return out


class Outside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.inner.weight)


class Sequences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cells(x)[0]
        return out


class Pairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Bilinear(4, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.both(x, x)
        return out


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.used(x)
        return out


class Strides(nn.Module):
    """One convolution, with two strides."""

    class Conv(nn.Conv1d):
        def forward(self, x: Tensor, stride: int = 1) -> Tensor:  # type: ignore[override]
            return F.conv1d(x, self.weight, self.bias, stride)

    def __init__(self) -> None:
        super().__init__()
        self.conv = self.Conv(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.conv(x.mT), 2)
        return out


def einsum(x: Tensor, w: Tensor) -> Tensor:
    return torch.einsum("nsi,oi->nso", x, w)


def sliced(x: Tensor, w: Tensor) -> Tensor:
    return x @ w[:, :2]
