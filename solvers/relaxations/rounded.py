"""Descent on the error of rounded weights: what `ste` and `signround` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.base import Task
from solvers.kernels import relaxation as kernels
from solvers.pace import Schedule
from solvers.qubo import Float
from solvers.relaxations.adam import (
    Float32,
    Quadratic,
    adam_corrections,
    origin,
    padded,
    typical_curvature,
    zeros_like,
)
from solvers.relaxations.on_layer import EQ_25, QUADRATIC, LayerLoss
from solvers.threads import over_rows

# With a layer's data, roundings are compared every `JUDGED_EVERY` steps, on
# `JUDGED_BATCHES` minibatches.
JUDGED_EVERY, JUDGED_BATCHES = 10, 4


@dataclass(eq=False)
class RoundedDescent:
    """Descent of z on the error of its rounding x, from the origin of a relaxation.

    Attributes
    ----------
    task
    steps, rate
        Number of steps, and the rate of the first; it falls linearly to 0.
    lowest, highest : float64 [R, n]
        Limits of z.
    by_sign
        Step by the sign of the gradient instead of by Adam.
    """

    task: Task
    steps: int
    rate: float
    lowest: Float
    highest: Float
    by_sign: bool = False

    def on_quadratic_form(self) -> NDArray[Any]:
        """The best rounding int16 [R, n] of all steps, or the start if it is best."""
        task, qubo, threads = self.task, self.task.qubo, self.task.budget.threads
        point = origin(task)
        free = np.ones(point.shape, bool)
        form = Quadratic.at(qubo, point, typical_curvature(qubo), free, threads)
        z = padded(point)
        m, v, y, g = (zeros_like(z) for _ in range(4))
        best, excess = z.copy(), np.full(qubo.rows, np.inf, np.float32)
        lowest, highest = padded(self.lowest), padded(self.highest)
        best_states = task.start.astype(np.int16)
        energies = qubo.energies(task.start, threads)
        schedule = Schedule(task.monitor, task.budget.cap(self.steps))
        while (chunk := schedule.next()) is not None:
            over_rows(
                kernels.descend_rounded,
                (form.H, self.by_sign, self._plan(*chunk, schedule.taken)),
                (
                    z,
                    m,
                    v,
                    y,
                    g,
                    form.s,
                    form.c,
                    form.p,
                    lowest,
                    highest,
                    best,
                    excess,
                ),
                threads,
            )
            x = np.floor(best[:, : qubo.n] + np.float32(0.5)).astype(np.int16)
            rounding_energies = qubo.energies(x, threads)
            best_states = np.where(
                (rounding_energies < energies)[:, None], x, best_states
            )
            energies = np.minimum(rounding_energies, energies)
            if not task.monitor.report(energies, best_states):
                break
        task.info.update(objective=QUADRATIC, steps=schedule.taken)
        return best_states

    def on_layer(self, loss: LayerLoss) -> NDArray[Any]:
        """The rounding int16 [R, n] of least error per row on a fixed set of images."""
        import torch

        task = self.task
        point = origin(task)

        def tensor(values: Float) -> torch.Tensor:
            return torch.tensor(values, device=loss.device, dtype=torch.float32)

        z, lowest, highest = tensor(point), tensor(self.lowest), tensor(self.highest)
        m, v = torch.zeros_like(z), torch.zeros_like(z)
        best = tensor(task.start.astype(np.float64))
        images = JUDGED_BATCHES * loss.batch
        least = loss.judge(best, images)
        curve = [(0, float(least.sum()))]
        schedule = Schedule(task.monitor, task.budget.cap(self.steps), JUDGED_EVERY)
        unknown = np.full(task.qubo.rows, np.inf)
        while (chunk := schedule.next()) is not None:
            for rate, root in self._plan(*chunk, schedule.taken).tolist():
                gradient = loss((z + 0.5).floor())[1]
                if self.by_sign:
                    z -= rate * gradient.sign()
                else:
                    m.lerp_(gradient, 0.1)
                    v.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                    z.addcdiv_(m, v.sqrt().mul_(root).add_(1e-8), value=-rate)
                z.clamp_(lowest, highest)
            x = (z + 0.5).floor()
            errors = loss.judge(x, images)
            best = torch.where((errors < least)[:, None], x, best)
            least = torch.minimum(errors, least)
            if schedule.position * 10 + 1e-6 >= len(curve):
                curve.append((schedule.taken, float(least.sum())))
            if not task.monitor.report(unknown):
                break
        task.info.update(objective=EQ_25, steps=schedule.taken, loss=curve)
        return best.to(torch.int16).cpu().numpy()

    def _plan(self, positions: Float, step: float, taken: int) -> Float32:
        """Rate and root [K, 2] of the steps at these positions, up to step `taken`."""
        number = taken - len(positions) + 1 + np.arange(len(positions))
        rates = self.rate * (1 - positions) * self.steps * step
        if self.by_sign:
            return np.stack([rates, rates], axis=1).astype(np.float32)
        return adam_corrections(number, rates).astype(np.float32)
