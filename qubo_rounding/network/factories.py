"""Objects of a user's own modules, by the names of functions that make them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable

import torch

from qubo_rounding.network.messages import first_line
from solvers.errors import InputError


def call_factory(kind: str, spec: str) -> object:
    """What a function without arguments gives, at a fixed seed of torch's generator.

    Parameters
    ----------
    kind
        What it should give, such as ``"model"``, for messages.
    spec
        ``"package.module:factory"``.

    Raises
    ------
    InputError
        The text is not of this form, or the module or the function fails.
    """
    module_name, _, attribute = spec.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", spec):
        raise InputError(f"{spec!r} is not of the form package.module:factory")
    # The global generator is the caller's.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            factory: Callable[[], object] = getattr(
                importlib.import_module(module_name), attribute
            )
            return factory()
        except (Exception, SystemExit) as error:  # whatever the user's own code raises
            raise InputError(
                f"{kind} {spec}: {type(error).__name__}: {first_line(error)}"
            ) from error
