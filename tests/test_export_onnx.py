"""ONNX graphs hold the integers, and onnxruntime runs them as torch does."""

from __future__ import annotations

import builtins
import errno
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qubo_rounding.network.evaluate import predict
from qubo_rounding.network.export.layout import store
from qubo_rounding.network.export.onnx import export_onnx
from qubo_rounding.network.images import load_images
from qubo_rounding.network.models import load_network
from qubo_rounding.network.whole.activations import quantize_activations
from qubo_rounding.problem.grid import Grid
from solvers.errors import InputError
from tests.network_cases import GRIDS, images, rounded, small_network

EXTRA = "needs the extra onnx"
onnx = pytest.importorskip("onnx", reason=EXTRA)
runtime = pytest.importorskip("onnxruntime", reason=EXTRA)
pytest.importorskip("onnxscript", reason=EXTRA)

# As written, node by node; and with integer kernels and all else that it can do.
PLAIN = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
FUSED = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL


def outputs(path: Path, *inputs: Tensor, level=PLAIN) -> np.ndarray:
    options = runtime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(path, options, ["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    feeds = {n: x.numpy() for n, x in zip(names, inputs, strict=True)}
    return session.run(None, feeds)[0]


def reference(network: nn.Module, *inputs: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return network(*inputs).numpy()


def assert_holds_integers(path: Path, quantized) -> None:
    """The checker accepts the graph; its initializers are the layers' integers."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    held = {i.name: i for i in model.graph.initializer}
    for name, layer in quantized.layers.items():
        assert f"{name}.weight" not in held
        integers = held[f"{name}.weight.integers"]
        kind = ("" if layer.grid.symmetric else "U") + (
            "INT4" if layer.grid.bits <= 4 else "INT8"
        )
        assert integers.data_type == onnx.TensorProto.DataType.Value(kind)
        q = onnx.numpy_helper.to_array(integers).astype(np.int64)
        q = q.reshape(layer.codes.shape)
        codes = q if layer.grid.symmetric else q + layer.lo
        assert np.array_equal(codes, layer.codes)
        scale = onnx.numpy_helper.to_array(held[f"{name}.weight.scale"])
        assert np.array_equal(scale.ravel(), store(layer).scale.ravel())


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_rounded_weights(tmp_path, grid):
    path = tmp_path / "network.onnx"
    quantized = rounded(small_network(), grid)
    export_onnx(path, quantized, images(1))
    assert_holds_integers(path, quantized)
    # The length of the batch is open.
    for count in (1, 8):
        expected = reference(quantized.network, images(count))
        for level in (PLAIN, FUSED):
            found = outputs(path, images(count), level=level)
            np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("grid", ["tensor", "ragged groups"])
def test_rounded_activations(tmp_path, grid, symmetric):
    path = tmp_path / "network.onnx"
    quantized = rounded(small_network(), GRIDS[grid], exclude=("hidden",))
    quantized = quantize_activations(
        quantized, lambda: [images(32)], symmetric=symmetric
    )
    export_onnx(path, quantized, images(2))
    assert_holds_integers(path, quantized)
    nodes = Counter(node.op_type for node in onnx.load(path).graph.node)
    # An operand of the addition is the input of a layer, too.
    assert nodes["QuantizeLinear"] == len(quantized.activations) - 1
    assert nodes["DequantizeLinear"] == nodes["QuantizeLinear"] + len(quantized.layers)
    x = images(64)
    expected = reference(quantized.network, x)
    np.testing.assert_allclose(outputs(path, x), expected, atol=1e-5)
    # Integer kernels round between the nodes, too.
    fused = outputs(path, x, level=FUSED)
    assert np.abs(fused - expected).max() < 0.05 * np.abs(expected).max()
    assert (fused.argmax(1) == expected.argmax(1)).mean() > 0.95


class Shared(nn.Module):
    """Two inputs; layers that share a weight, on a matrix of three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(6, 6) for _ in range(2))
        self.second.weight = self.first.weight

    def forward(self, x, y):
        return self.second(torch.relu(self.first(x))) + y


def test_several_inputs_and_a_shared_weight(tmp_path):
    path = tmp_path / "network.onnx"
    quantized = rounded(Shared().eval(), Grid(bits=3), exclude=("second",))
    x = torch.randn(4, 5, 6), torch.randn(4, 1, 6)
    export_onnx(path, quantized, x)
    assert_holds_integers(path, quantized)
    expected = reference(quantized.network, *x)
    np.testing.assert_allclose(outputs(path, *x), expected, atol=1e-5)
    floats = [
        i
        for i in onnx.load(path).graph.initializer
        if i.data_type == onnx.TensorProto.FLOAT
    ]
    assert max(int(np.prod(i.dims)) for i in floats) == 6  # biases


@pytest.mark.parametrize("bits", [4, 8])
def test_the_embedded_resnet18(tmp_path, bits):
    path = tmp_path / "network.onnx"
    network = load_network("resnet18", "embedded")
    calibration, evaluation = load_images(None, network, 32, 64)
    grid = Grid(bits=bits, granularity="channel", scale="minmax")
    quantized = rounded(network.module, grid)
    quantized = quantize_activations(quantized, lambda: calibration.batches(32))
    x = torch.cat(list(evaluation.batches(32)))
    export_onnx(path, quantized, x[:2])
    assert_holds_integers(path, quantized)
    weights = sum(layer.codes.size for layer in quantized.layers.values())
    assert path.stat().st_size < 1.1 * weights * bits / 8
    expected = reference(quantized.network, x)
    found = outputs(path, x)
    # A sum's last bit may send an activation to the other side of a step.
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.98


def test_a_real_network_has_the_same_predictions(tmp_path, real_data):
    path = tmp_path / "network.onnx"
    weights = real_data / "checkpoints/cifar10_resnet20.pth"
    network = load_network("resnet20", str(weights))
    calibration, evaluation = load_images(real_data / "cifar10", network, 64, 200)
    grid = Grid(bits=4, granularity="channel", scale="minmax")
    quantized = rounded(network.module, grid)
    x = torch.cat(list(evaluation.batches(100)))
    for name, rounded_network in {
        "weights": quantized,
        "activations": quantize_activations(
            quantized, lambda: calibration.batches(64), rule="mse"
        ),
    }.items():
        export_onnx(path, rounded_network, x[:2])
        expected = predict(rounded_network.network, evaluation).top5[:, 0]
        found = outputs(path, x).argmax(1)
        assert (found == expected).mean() >= (1 if name == "weights" else 0.99)


def test_what_cannot_be_exported(tmp_path, monkeypatch):
    quantized = rounded(small_network(), Grid())
    path = tmp_path / "network.onnx"
    with pytest.raises(InputError, match=r"must end in \.onnx"):
        export_onnx(tmp_path / "network.pb", quantized, images())
    with pytest.raises(InputError, match="cannot export Small to ONNX: ") as caught:
        export_onnx(path, quantized, torch.randn(2, 4, 8, 8))
    assert "\n" not in str(caught.value)
    few = quantize_activations(quantized, lambda: [images()], bits=6)
    with pytest.raises(InputError, match=r"'conv1' have 6 bits; .* takes those of 8"):
        export_onnx(path, few, images())
    layer = replace(quantized.layers["head"], codes=-quantized.layers["head"].codes)
    wrong = replace(quantized, layers={**quantized.layers, "head": layer})
    with pytest.raises(InputError, match="'head': the network's weights are not"):
        export_onnx(path, wrong, images())
    missing = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "onnxscript":
            raise ImportError(name)
        return missing(name, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", without)
        with pytest.raises(InputError, match=r"pip install 'qubo-rounding\[onnx\]'"):
            export_onnx(path, quantized, images())

    def full(self: Path, content: bytes) -> None:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"cannot write .*: No space left"):
        export_onnx(path, quantized, images())
    assert list(tmp_path.iterdir()) == []
