"""Relaxations in torch: AdaRound's eq. (25), and devices other than the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from solvers.base import Task
from solvers.errors import InputError
from solvers.layer_data import LayerData
from solvers.pace import Schedule
from solvers.qubo import Float, QuboBatch, States
from solvers.relaxations.adam import (
    Held,
    Journal,
    Quadratic,
    Relaxation,
    origin,
    relaxed_energies,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Values of ``info["objective"]``.
EQ_25, QUADRATIC = "eq. 25", "quadratic form: no layer data given"

# Takes points [R, n]; returns their errors [R] and the gradient [R, n].
Objective = Callable[["Tensor"], tuple["Tensor", "Tensor"]]


def find_device(name: str) -> torch.device:
    """The torch device with the given name.

    Raises
    ------
    InputError
        The device is not available on this machine.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {name!r} is not available here ({reason}); use cpu"
        ) from None
    return device


class LayerLoss:
    """AdaRound's eq. (25) on minibatches of calibration images.

    ``||f_a(W x) - f_a(W_rounded x_hat)||^2``, summed over the channels and averaged
    over images and positions: the error of a row is in the units of its quadratic form,
    which it equals where there is no activation and all images are taken.

    Every step draws `batch` images without replacement, or all if there are no more.
    The draws depend on the seed alone, and so not on the other rows.
    """

    def __init__(
        self, data: LayerData, qubo: QuboBatch, seed: int, batch: int, activation: bool
    ) -> None:
        import torch

        self._data = data
        self.batch = min(batch, data.images)
        self._rng = np.random.default_rng(seed)
        self._activation = data.activation if activation else None
        targets = data.targets(torch.zeros(1, dtype=torch.long))
        self.device, self.dtype = targets.device, targets.dtype
        self._floor = self._tensor(data.floor)
        self._scale = self._tensor(qubo.scale)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Error [R] of the points x [R, n] on the next minibatch, and its gradient."""
        import torch

        rows = (self._floor + self._scale * x).requires_grad_()
        errors = self.errors(rows, self._draw())
        (gradient,) = torch.autograd.grad(errors.sum(), rows)
        return errors.detach(), (gradient * self._scale).to(x.dtype)

    def judge(self, x: Tensor, images: int) -> Tensor:
        """Error [R] of points [R, n] on the first `images` calibration images."""
        import torch

        with torch.no_grad():
            chosen = torch.arange(min(images, self._data.images))
            return self.errors(self._floor + self._scale * x, chosen)

    def errors(self, rows: Tensor, images: Tensor) -> Tensor:
        """Error [R] of the weights `rows` [R, n] on the given images."""
        import torch

        outputs = self._data.outputs(rows, images)
        with torch.no_grad():
            targets = self._data.targets(images)
        if self._activation is not None:
            outputs, targets = self._activation(outputs), self._activation(targets)
        return (outputs - targets).square().mean(dim=(0, 2))

    def _draw(self) -> Tensor:
        import torch

        if self.batch == self._data.images:
            return torch.arange(self.batch)
        drawn = self._rng.choice(self._data.images, self.batch, replace=False)
        return torch.from_numpy(drawn)

    def _tensor(self, values: Float) -> Tensor:
        import torch

        return torch.tensor(values, device=self.device, dtype=self.dtype)


def quadratic_loss(
    form: Quadratic, energies: Float, n: int, device: torch.device
) -> Objective:
    """The quadratic form on a device, in its units; `energies` [R] are those at p."""
    import torch

    base = torch.from_numpy(energies).to(device, torch.float32)

    H, s, c, p = (
        torch.from_numpy(np.ascontiguousarray(array[:, :n])).to(device)
        for array in (form.H, form.s, form.c, form.p)
    )

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        offset = x - p
        pull = (s * offset) @ H * s
        return base + ((pull + c) * offset).sum(dim=1), 2 * pull + c

    return objective


def relax_on_device(
    task: Task, relaxation: Relaxation, unit: Float, name: str
) -> States:
    """Like `solvers.relaxations.adam.relax`, on the torch device called `name`."""
    device = find_device(name)
    qubo, point = task.qubo, origin(task)
    form = Quadratic.at(qubo, point, unit, qubo.free(), task.budget.threads)
    energies = relaxed_energies(qubo, point) / unit
    objective = quadratic_loss(form, energies, qubo.n, device)
    held = Held.start(task)
    descend(task, relaxation, unit, objective, device, held.report)
    return held.states


def relax_layer(task: Task, relaxation: Relaxation, loss: LayerLoss) -> States:
    """Relax on eq. (25); return the rounding that the relaxation ends at.

    Energies of roundings on the way are not reported: they belong to another objective
    than the one that is minimised, so the best of them would be no answer.
    """
    unknown = np.full(task.qubo.rows, np.inf)
    return descend(
        task,
        relaxation,
        np.ones(task.qubo.rows),
        loss,
        loss.device,
        lambda _: task.monitor.report(unknown),
    )


def descend(
    task: Task,
    relaxation: Relaxation,
    unit: Float,
    objective: Objective,
    device: torch.device,
    report: Callable[[States], bool],
) -> States:
    """Descend by Adam on an objective in units [R]; return the last rounding.

    A rounding is ``h >= 0.5``. `solvers.kernels.relaxation.relax` takes the same steps
    on the quadratic form.
    """
    import torch

    qubo, point, mask = task.qubo, origin(task), task.qubo.free()

    def tensor(values: Float) -> Tensor:
        return torch.tensor(values, device=device, dtype=torch.float32)

    V, p = tensor(relaxation.start(point)), tensor(point)
    weight = tensor(relaxation.weight)[:, None]
    free = torch.from_numpy(mask).to(device)
    m, v, h = torch.zeros_like(V), torch.zeros_like(V), p
    journal = Journal(task, relaxation, unit)
    schedule = Schedule(task.monitor, task.budget.cap(relaxation.steps))
    states = task.start
    while (chunk := schedule.next()) is not None:
        plan = relaxation.plan(*chunk, schedule.taken - len(chunk[0]))
        for rate, root, beta, on, inverse, _ in plan.tolist():
            h, slope = soften(V, relaxation, inverse)
            errors, d = objective(torch.where(free, h, p))
            if on:
                u = 2 * h - 1
                d = d - 2 * beta * weight * u.sign() * u.abs().pow(beta - 1)
            d = torch.where(free, d * slope, 0.0)
            m.lerp_(d, 0.1)
            v.mul_(0.999).addcmul_(d, d, value=0.001)
            V.addcdiv_(m, v.sqrt().mul_(root).add_(1e-8), value=-rate)
        if journal.due(schedule.position):
            soft = torch.where(free, h, p).double().cpu().numpy()
            loss = errors.double().cpu().numpy() * unit
            journal.note(schedule, soft, float(loss.sum()))
        h = soften(V, relaxation, float(plan[-1, 5]))[0]
        states = qubo.pin((V >= 0).to(torch.uint8).cpu().numpy())
        if not report(states):
            break
    journal.close(h.cpu().numpy(), mask, schedule)
    return states


def soften(V: Tensor, relaxation: Relaxation, inverse: float) -> tuple[Tensor, Tensor]:
    """Relaxed states h(V) at the inverse temperature, and their derivatives."""
    import torch

    sigma = torch.sigmoid(V * inverse)
    raw = relaxation.span * sigma + relaxation.low
    h = raw.clamp(0, 1)
    slope = relaxation.span * inverse * sigma * (1 - sigma)
    return h, torch.where(raw == h, slope, 0.0)
