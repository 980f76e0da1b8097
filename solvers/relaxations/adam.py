"""Parts that relaxations share: h(V), schedules, the quadratic form, the descent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.base import Task
from solvers.kernels import relaxation as kernels
from solvers.pace import Schedule
from solvers.qubo import Float, QuboBatch, States
from solvers.threads import over_rows
from solvers.walk import aligned

Float32 = NDArray[np.float32]

# The rectified sigmoid's stretch (Louizos et al. 2018, as in AdaRound's eq. 23).
ZETA, GAMMA = 1.1, -0.1
# How far inside [0, 1] a relaxed state starts, for the rectified sigmoid and the plain
# one. On the border itself rounding decides whether the derivative of the rectified one
# is 0, and with 0 a weight on the grid could never move; the plain sigmoid reaches the
# border only at infinity.
MARGIN = {True: 1e-6, False: 1e-2}
# A free variable is soft while its relaxed state is further than this from 0 and 1.
SOFT = 0.01
# Beyond this share of soft variables, the final rounding is in effect to nearest.
TOO_SOFT = 0.01
# Where a schedule is shortened, its rate grows up to this over the root of the steps:
# measured at 100, 1000 and 10 000 steps, where the best rates were 1, 0.3 and 0.1.
FASTEST = 10.0
# Points of the loss curve.
POINTS = 10


@dataclass(frozen=True, kw_only=True)
class Relaxation:
    """Settings of a descent of V on ``E(h(V)) + weight * f_reg(h(V))`` by Adam.

    ``f_reg = sum(1 - |2 h - 1|**beta)``, eq. (24) of Nagel et al. 2020.

    Attributes
    ----------
    steps, rate
        Number of steps and rate of Adam. Where a budget allows fewer steps, the rate
        grows so that V can travel as far (see `FASTEST`).
    rectified
        Whether h is the rectified sigmoid, eq. (23).
    weight : float64 [R]
        Weight of f_reg for each row; 0: none.
    beta_start, beta_end, cosine, warm_up
        f_reg is off during the share `warm_up` of the steps. After it, beta falls from
        `beta_start` to `beta_end`, along a half cosine or a straight line.
    hot, cold
        The sigmoid's temperature at the start and at the end; it falls geometrically.
    """

    steps: int
    rate: float
    weight: Float
    rectified: bool = True
    beta_start: float = 20.0
    beta_end: float = 2.0
    cosine: bool = True
    warm_up: float = 0.2
    hot: float = 1.0
    cold: float = 1.0

    @property
    def low(self) -> float:
        """Limit of h before the clip, as V goes to minus infinity."""
        return GAMMA if self.rectified else 0.0

    @property
    def span(self) -> float:
        """Rise of h before the clip, from its lower to its upper limit."""
        return ZETA - GAMMA if self.rectified else 1.0

    def start(self, h: Float) -> Float:
        """V with ``h(V) = h``, where h at the border is first moved just inside."""
        margin = MARGIN[self.rectified]
        sigma = (np.clip(h, margin, 1 - margin) - self.low) / self.span
        return np.asarray(self.hot * np.log(sigma / (1 - sigma)))

    def temperature(self, t: Float) -> Float:
        """The sigmoid's temperature at the share t of the schedule."""
        return np.asarray(self.hot * (self.cold / self.hot) ** np.minimum(t, 1.0))

    def beta(self, t: Float) -> Float:
        """The exponent of f_reg at the share t of the schedule."""
        done = np.clip((t - self.warm_up) / max(1 - self.warm_up, 1e-9), 0.0, 1.0)
        left = (1 + np.cos(np.pi * done)) / 2 if self.cosine else 1 - done
        return np.asarray(self.beta_end + (self.beta_start - self.beta_end) * left)

    def plan(self, t: Float, step: float, done: int) -> Float32:
        """The kernel's plan [K, 6] for steps at the shares t [K] of the schedule.

        The shares are `step` apart; `done` steps have been taken before.
        """
        plan = np.empty((len(t), 6), np.float32)
        rate = min(self.rate * self.steps * step, FASTEST * math.sqrt(step))
        rate = max(rate, self.rate)
        plan[:, :2] = adam_corrections(done + 1 + np.arange(len(t)), rate)
        plan[:, 2] = self.beta(t)
        plan[:, 3] = t >= self.warm_up
        plan[:, 4] = 1 / self.temperature(t)
        plan[:, 5] = 1 / self.temperature(t + step)
        return plan

    def regularisation(self, h: Float, t: float) -> Float:
        """``weight * f_reg`` of relaxed states [R, n] at the share t, per row."""
        if t < self.warm_up:
            return np.zeros(len(h))
        f = (1 - np.abs(2 * h - 1) ** self.beta(np.array(t))).sum(axis=1)
        return np.asarray(self.weight * f)


def adam_corrections(number: NDArray[np.int_], rate: float | Float) -> Float:
    """Rate and root [K, 2] of Adam's steps of the given numbers, counted from 1.

    ``V -= rate * m / (root * sqrt(v) + eps)``, corrected for moments that start at zero
    (Kingma and Ba 2015).
    """
    rates, roots = rate / (1 - 0.9**number), 1 / np.sqrt(1 - 0.999**number)
    return np.stack([rates, roots], axis=1)


@dataclass(frozen=True, eq=False)
class Quadratic:
    """The energies of a batch about a point p in float32, each row in its own unit.

    With ``y = s (x - p)``, ``E(x) - E(p) = unit * (y^T H y + c.(x - p))``. The gradient
    c at p is summed in float64, so that large terms cancel before they are rounded: on
    inputs with a common mean they are nearly all there is.

    Attributes
    ----------
    H : float32 [n, width]
    s, c, p : float32 [R, width]
        s and c are 0 where a variable is pinned. Pinned variables stay at p, so what
        they add is in c; left in, they would drag the others with them.
    """

    H: Float32
    s: Float32
    c: Float32
    p: Float32

    @classmethod
    def at(
        cls,
        qubo: QuboBatch,
        p: Float,
        unit: Float,
        free: NDArray[np.bool_],
        threads: int,
    ) -> Quadratic:
        """The form about p [R, n], in units [R] of energy, for the `free` variables."""
        gradient, scale = np.empty_like(p), qubo.full_scale()
        over_rows(
            kernels.gradients, (qubo.H,), (scale, qubo.linear, p, gradient), threads
        )
        largest = float(np.abs(qubo.H).max(initial=0)) or 1.0
        s = scale * np.sqrt(largest) / np.sqrt(unit)[:, None]
        return cls(
            padded(qubo.H / largest),
            padded(np.where(free, s, 0.0)),
            padded(np.where(free, gradient / unit[:, None], 0.0)),
            padded(p),
        )


def padded(values: NDArray[np.floating[Any]], fill: float = 0.0) -> Float32:
    """`values` [R, n] as float32 [R, width], padded to whole vectors with `fill`."""
    rows, n = values.shape
    out = aligned(rows, n + -n % kernels.LANES, np.dtype(np.float32), fill)
    out[:, :n] = values
    return out


def zeros_like(array: Float32) -> Float32:
    """Zeros of the shape of `array`, aligned to cache lines."""
    rows, width = array.shape
    return aligned(rows, width, array.dtype, 0.0)


def origin(task: Task) -> Float:
    """Start of a relaxation [R, n]: the prior, or its mean with given states."""
    return (task.qubo.prior + task.start) / 2 if task.warm else task.qubo.prior


def typical_curvature(qubo: QuboBatch) -> Float:
    """Median of ``s**2 |H_jj|`` over a row's free variables [R], positive.

    The cost of moving one weight by a whole step, and so a unit for f_reg that suits
    any problem. Where it is 0, the row's largest coefficient.
    """
    cost = qubo.full_scale() ** 2 * np.abs(qubo.H.diagonal())
    free = qubo.free()
    unit = np.array(
        [np.median(c[f]) if f.any() else 0.0 for c, f in zip(cost, free, strict=True)]
    )
    steepest = qubo.scale.max(axis=1, initial=0) ** 2 * np.abs(qubo.H).max(initial=0)
    steepest = np.maximum(steepest, np.abs(qubo.linear).max(axis=1, initial=0))
    unit = np.where(unit > 0, unit, steepest)
    return np.where(unit > 0, unit, 1.0)


@dataclass(eq=False)
class Held:
    """The best states [R, n] reported so far, with their energies [R]."""

    task: Task
    states: States
    energies: Float

    @classmethod
    def start(cls, task: Task) -> Held:
        """Begin with the start of the task."""
        return cls(
            task, task.start, task.qubo.energies(task.start, task.budget.threads)
        )

    def report(self, states: States) -> bool:
        """Keep the better rows of `states`; return whether the solver may go on."""
        energies = self.task.qubo.energies(states, self.task.budget.threads)
        better = energies < self.energies
        self.states = np.where(better[:, None], states, self.states)
        self.energies = np.minimum(energies, self.energies)
        return self.task.monitor.report(self.energies, self.states)


def relax(task: Task, relaxation: Relaxation, unit: Float) -> States:
    """Descend on the quadratic form; return the best rounding ``h >= 0.5`` seen.

    ``relaxation.weight`` is in units `unit` [R] of energy.
    """
    qubo, threads = task.qubo, task.budget.threads
    point, free = origin(task), qubo.free()
    form = Quadratic.at(qubo, point, unit, free, threads)
    V = padded(relaxation.start(point))
    m, v, h, slope, y, g = (zeros_like(V) for _ in range(6))
    weight = relaxation.weight.astype(np.float32)
    held, journal = Held.start(task), Journal(task, relaxation, unit)
    schedule = Schedule(task.monitor, task.budget.cap(relaxation.steps))
    while (chunk := schedule.next()) is not None:
        plan = relaxation.plan(*chunk, schedule.taken - len(chunk[0]))
        over_rows(
            kernels.relax,
            (form.H, np.float32(relaxation.low), np.float32(relaxation.span), plan),
            (V, m, v, h, slope, y, g, form.s, form.c, form.p, weight),
            threads,
        )
        if journal.due(schedule.position):
            soft = np.where(free, h[:, : qubo.n], point)
            journal.note(schedule, soft, float(relaxed_energies(qubo, soft).sum()))
        if not held.report(qubo.pin((V[:, : qubo.n] >= 0).astype(np.uint8))):
            break
    journal.close(h[:, : qubo.n], free, schedule)
    return held.states


def relaxed_energies(qubo: QuboBatch, h: Float) -> Float:
    """Energies [R] of relaxed states h [R, n]."""
    y = qubo.scale * h
    quadratic = ((y @ qubo.H.astype(np.float64, copy=False)) * y).sum(axis=1)
    return np.asarray(quadratic + (qubo.linear * h).sum(axis=1) + qubo.offset)


class Journal:
    """Record of a relaxation in ``task.info``.

    ``loss``: at about ten points of the schedule the step, the reconstruction error
    summed over the rows and the regularisation, both in units of energy. ``steps``,
    ``soft_fraction`` (the share of the free variables whose h lies in (0.01, 0.99)) and
    a ``warning`` where that is not small.
    """

    def __init__(self, task: Task, relaxation: Relaxation, unit: Float) -> None:
        self._info, self._relaxation, self._unit = task.info, relaxation, unit
        self._info["loss"] = []

    def due(self, position: float) -> bool:
        """Whether another tenth of the schedule is done."""
        return position * POINTS + 1e-6 >= len(self._info["loss"]) + 1

    def note(self, schedule: Schedule, h: Float, loss: float) -> None:
        """Add a point of the loss curve, at relaxed states h [R, n]."""
        weighted = self._relaxation.regularisation(h, schedule.position) * self._unit
        self._info["loss"].append((schedule.taken, loss, float(weighted.sum())))

    def close(
        self, h: NDArray[Any], free: NDArray[np.bool_], schedule: Schedule
    ) -> None:
        """Record how near to 0 and 1 the final relaxed states h [R, n] are."""
        soft = np.minimum(h, 1 - h)[free] > SOFT
        share = float(soft.mean()) if soft.size else 0.0
        self._info |= {"steps": schedule.taken, "soft_fraction": share}
        if share > TOO_SOFT:
            self._info["warning"] = (
                f"{100 * share:.1f} % of the relaxed states are not near 0 or 1; take "
                "more steps, a higher rate or a stronger regularisation"
            )
