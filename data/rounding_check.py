"""Effect on the trained networks of rounding to nearest and by the quadratic error.

A quick, self-contained estimate while training; the benchmark itself is elsewhere. A
convolution's weight, batch norm folded, is rounded on a symmetric per-tensor grid
whose scale minimises the weight's squared error. "Good" rounding relaxes
``(b − t)ᵀ H (b − t)`` and then descends by single flips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

Rounding = Callable[[Tensor, Tensor, float], Tensor]


def convolutions(network: nn.Module) -> dict[str, str]:
    """The name of each convolution's batch norm, by the convolution's name."""
    modules = dict(network.named_modules())
    names = {}
    for name, module in modules.items():
        if isinstance(module, nn.Conv2d):
            norm = name.replace("conv", "bn")
            names[name] = (
                norm if norm != name else name.replace("downsample.0", "downsample.1")
            )
    return names


def second_moments(
    network: nn.Module, names: Iterable[str], batches: Iterable[Tensor]
) -> dict[str, Tensor]:
    """E[x xᵀ] of the unfolded inputs, float64 ``[n, n]``, of convolutions."""
    modules = dict(network.named_modules())
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(names, 0)

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(module, nn.Conv2d)
            assert not isinstance(module.padding, str)
            x = functional.unfold(
                inputs[0],
                module.kernel_size,
                padding=module.padding,
                stride=module.stride,
            )
            x = x.transpose(0, 1).flatten(1).double()
            sums[name] = sums.get(name, torch.zeros(())).to(x) + x @ x.T
            counts[name] += x.shape[1]

        return add

    handles = [modules[n].register_forward_pre_hook(hook(n)) for n in counts]
    with torch.no_grad():
        for batch in batches:
            network(batch)
    for handle in handles:
        handle.remove()
    return {name: total / counts[name] for name, total in sums.items()}


def weight_mse_scale(weight: Tensor, bits: int) -> float:
    """Step of the symmetric grid with the least squared error of the weight."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    largest = weight.abs().max() / high
    steps = [float(largest) * k / 200 for k in range(20, 241)]
    errors = [
        float(((weight / s).round().clamp(low, high) * s - weight).square().sum())
        for s in steps
    ]
    return steps[errors.index(min(errors))]


def nearest(position: Tensor, moment: Tensor, high: float) -> Tensor:
    """Grid indices next to the positions."""
    return position.round().clamp(-high - 1, high)


def relaxed(position: Tensor, moment: Tensor, high: float, steps: int = 1500) -> Tensor:
    """Grid indices that minimise the quadratic: AdaRound's relaxation, then descent."""
    base = position.floor().clamp(-high - 1, high - 1)
    # Beyond the grid's ends the target leaves [0, 1]; the others then make up for it.
    target = position - base
    metric = moment / moment.diagonal().mean()
    logit = torch.logit((target.clamp(0, 1) + 0.1) / 1.2).requires_grad_()
    optimiser = torch.optim.Adam([logit], lr=1e-2)
    for step in range(steps):
        soft = (torch.sigmoid(logit) * 1.2 - 0.1).clamp(0, 1)
        error = soft - target
        beta = 20 - 18 * max(0.0, step / steps - 0.2) / 0.8
        decided = (1 - (2 * soft - 1).abs() ** beta).sum()
        loss = ((error @ metric) * error).sum() + (
            0.01 if step > steps / 5 else 0
        ) * decided
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return base + _descended((logit >= 0).double().detach(), target, metric)


def _descended(states: Tensor, target: Tensor, metric: Tensor) -> Tensor:
    """Flip, in every row, the variable that gains most until none gains."""
    diagonal = metric.diagonal()
    gradient = 2 * (states - target) @ metric
    rows = torch.arange(len(states), device=states.device)
    for _ in range(10 * states.shape[1]):
        sign = 1 - 2 * states
        change, best = (sign * gradient + diagonal).min(1)
        gains = (change < -1e-12).double()
        if not bool(gains.any()):
            break
        flip = sign[rows, best] * gains
        states[rows, best] += flip
        gradient += 2 * flip[:, None] * metric[best]
    return states


def round_layers(
    network: nn.Module, moments: dict[str, Tensor], bits: int, method: Rounding
) -> None:
    """Round the convolutions of `moments` in place, folded with their batch norms."""
    modules = dict(network.named_modules())
    norms = convolutions(network)
    for name, moment in moments.items():
        conv, norm = modules[name], modules[norms[name]]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_var is not None
        fold = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double()
        weight = conv.weight.detach().flatten(1).double() * fold[:, None]
        step = weight_mse_scale(weight, bits)
        rounded = method(weight / step, moment, 2 ** (bits - 1) - 1) * step
        # Dividing the batch norm's factor out again leaves the folded layer rounded.
        conv.weight.data = (rounded / fold[:, None]).view_as(conv.weight).float()
