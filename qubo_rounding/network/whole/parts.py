"""Which parts of the objective on whole networks are used."""

from __future__ import annotations

from dataclasses import dataclass

from solvers.checks import require_kind
from solvers.errors import InputError, shown


@dataclass(frozen=True)
class Parts:
    """What a layer's rounding takes into account beside the layer itself.

    Parameters
    ----------
    inputs
        Layers see the inputs that the rounded layers before them leave, and should
        still give the original outputs (the symmetric part of AdaRound's eq. 25).
    residual
        A layer whose output is added to something should make up for the error of that
        too.
    bias
        The best bias follows the rounding (eq. 26 of AdaRound), and the rounding knows.
    trust
        How far weights should move to make up for errors of others is found on images
        that are held out, between not at all and in full; else in full.
    guard
        A layer that is worse on the held-out images than rounded to nearest, with the
        same bias correction, is rounded to nearest.
    holdout
        One of so many images is held out for `trust` and `guard`.
    """

    inputs: bool = True
    residual: bool = True
    bias: bool = True
    trust: bool = True
    guard: bool = True
    holdout: int = 16

    def __post_init__(self) -> None:
        for name in ("inputs", "residual", "bias", "trust", "guard"):
            require_kind(name, getattr(self, name), bool)
        if type(self.holdout) is not int or self.holdout < 2:
            raise InputError(
                f"holdout must be a whole number from 2, not {shown(self.holdout)}"
            )
        if self.residual and not self.inputs:
            raise InputError(
                "residual needs inputs: without them the rounded network is not run"
            )
