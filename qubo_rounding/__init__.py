"""From weights and activations to binary quadratic problems, and back.

Public names are imported when they are first asked for: only networks need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qubo_rounding.network.export.integers import load_quantized, save_quantized
    from qubo_rounding.network.export.onnx import export_onnx
    from qubo_rounding.network.whole.activations import quantize_activations
    from qubo_rounding.network.whole.outputs import fit_outputs
    from qubo_rounding.network.whole.parts import Parts
    from qubo_rounding.network.whole.quantize import quantize_network
    from qubo_rounding.network.whole.result import QuantizedLayer, QuantizedNetwork
    from qubo_rounding.problem.grid import Grid
    from qubo_rounding.problem.problem import RoundingProblem

__all__ = [
    "Grid",
    "Parts",
    "QuantizedLayer",
    "QuantizedNetwork",
    "RoundingProblem",
    "export_onnx",
    "fit_outputs",
    "load_quantized",
    "quantize_activations",
    "quantize_network",
    "save_quantized",
]

# Where each of them is defined.
_MODULES = {
    "Grid": "problem.grid",
    "Parts": "network.whole.parts",
    "QuantizedLayer": "network.whole.result",
    "QuantizedNetwork": "network.whole.result",
    "RoundingProblem": "problem.problem",
    "export_onnx": "network.export.onnx",
    "fit_outputs": "network.whole.outputs",
    "load_quantized": "network.export.integers",
    "quantize_activations": "network.whole.activations",
    "quantize_network": "network.whole.quantize",
    "save_quantized": "network.export.integers",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
