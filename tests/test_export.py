"""Quantized networks in files give back the same network, or one line of refusal."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from qubo_rounding.network.export.integers import (
    load_quantized,
    pack,
    save_quantized,
    unpack,
)
from qubo_rounding.network.export.layout import requantize
from qubo_rounding.network.layers import find_layer, weight_rows
from qubo_rounding.network.whole.activations import quantize_activations
from qubo_rounding.problem.grid import Grid
from solvers.errors import InputError
from tests.network_cases import GRIDS, images, rounded, small_network


@pytest.fixture(scope="module")
def activated():
    quantized = rounded(small_network(), GRIDS["channel, asymmetric"])
    return quantize_activations(quantized, lambda: [images()])


@pytest.fixture
def saved(tmp_path, activated):
    path = tmp_path / "network.safetensors"
    save_quantized(path, activated)
    return path


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )


@pytest.mark.parametrize("exclude", [(), ("grouped", "head")])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_round_trip(tmp_path, grid, exclude):
    path = tmp_path / "network.safetensors"
    quantized = rounded(small_network(), grid, exclude)
    save_quantized(path, quantized)
    loaded = load_quantized(path, small_network(seed=7))
    assert same(loaded.network, quantized.network)
    assert torch.equal(loaded.network(images()), quantized.network(images()))
    assert list(loaded.layers) == list(quantized.layers)
    assert loaded.meta == quantized.meta
    for name, layer in quantized.layers.items():
        found = loaded.layers[name]
        assert (found.shape, found.grid) == (layer.shape, layer.grid)
        for field in ("codes", "scale", "lo", "hi"):
            ours, theirs = (
                np.broadcast_arrays(getattr(v, field), v.codes)[0]
                for v in (found, layer)
            )
            assert np.array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
        rows = weight_rows(find_layer(loaded.network, name))
        assert np.array_equal(requantize(rows, found), layer.codes)


def test_rounded_activations_come_back(saved, activated):
    loaded = load_quantized(saved, small_network(seed=7))
    assert loaded.activations == activated.activations
    assert same(loaded.network, activated.network)
    assert torch.equal(loaded.network(images()), activated.network(images()))


class Twin(nn.Module):
    """Two layers share a weight; a buffer, and a parameter that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(6, 6, bias=False) for _ in range(2))
        self.second.weight = self.first.weight
        self.idle = nn.Parameter(torch.randn(2))
        self.register_buffer("shift", torch.randn(6))

    def forward(self, x):
        return self.second(self.first(x) + self.shift)


@pytest.mark.parametrize("activations", [False, True])
def test_shared_and_idle_parameters(tmp_path, activations):
    path = tmp_path / "network.safetensors"
    quantized = rounded(Twin(), Grid(), exclude=("second",))
    x = torch.randn(5, 6)
    if activations:
        quantized = quantize_activations(quantized, lambda: [x])
    save_quantized(path, quantized)
    loaded = load_quantized(path, Twin())
    assert torch.equal(loaded.network(x), quantized.network(x))
    assert loaded.network.second.weight is loaded.network.first.weight
    assert same(loaded.network, quantized.network)


def test_a_bias_that_rounding_added(tmp_path):
    path = tmp_path / "network.safetensors"
    quantized = rounded(small_network(), Grid())
    head = find_layer(quantized.network, "head")
    bias = np.arange(5, dtype=np.float32)
    head.bias = nn.Parameter(torch.from_numpy(bias.copy()))
    layers = {**quantized.layers, "head": replace(quantized.layers["head"], bias=bias)}
    save_quantized(path, replace(quantized, layers=layers))
    loaded = load_quantized(path, small_network())
    assert torch.equal(loaded.network(images()), quantized.network(images()))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("n", [1, 6, 7])
def test_two_integers_a_byte(n, signed):
    rng = np.random.default_rng(n)
    low, kind = (-8, np.int8) if signed else (0, np.uint8)
    integers = rng.integers(low, low + 16, (3, n)).astype(kind)
    packed = pack(integers)
    assert packed.shape == (3, -(-n // 2))
    found = unpack(packed, n, signed)
    assert found.dtype == kind
    assert np.array_equal(found, integers)
    # The layout of the documents: the even column is the lower half.
    assert packed[0, 0] & 15 == integers[0, 0] % 16


def test_four_bits_take_half_a_byte(tmp_path):
    network = nn.Sequential(nn.Linear(512, 512))
    sizes = {}
    for bits in (4, 8):
        path = tmp_path / f"{bits}.safetensors"
        save_quantized(path, rounded(network, Grid(bits=bits)))
        sizes[bits] = path.stat().st_size
    assert 512 * 256 < sizes[4] < 512 * 256 + 4096 < 512 * 512 < sizes[8]


def changed_header(path: Path, change) -> None:
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["quantized_network"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header, tensors)
    safetensors.torch.save_file(
        tensors, path, {"quantized_network": json.dumps(header)}
    )


def _at(*keys):
    """Sets or deletes an entry of the header or of the tensors."""

    def change(header, tensors):
        *path, last, value = keys
        place = tensors if path == ["tensors"] else header
        for key in path if place is header else ():
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return change


DAMAGES = {
    "version": (_at("version", 2), "version 2 of the format; this release reads"),
    "no version": (_at("version", None), "version None of the format"),
    "layers": (_at("layers", []), "'layers' must be a JSON object"),
    "meta": (_at("meta", None), "'meta' must be a JSON object"),
    "entry": (_at("layers", "head", "bias", None), "shape, bias and grid"),
    "shape": (_at("layers", "head", "shape", [5, -1]), "is no shape of a weight"),
    "bits": (_at("layers", "head", "grid", "bits", 9), "bits must be an integer"),
    "field": (_at("layers", "head", "grid", "step", 1), "unexpected keyword"),
    "missing tensor": (_at("tensors", "codes/head", None), "no tensor 'codes/head'"),
    "other dtype": (
        _at("tensors", "codes/head", torch.zeros(5, 17)),
        "codes must be torch.uint8 of shape",
    ),
    "other shape": (
        _at("tensors", "scale/head", torch.ones(6)),
        r"scale must be torch.float32 of shape \(5,\)",
    ),
    "scale": (_at("tensors", "scale/head", -torch.ones(5)), "must be positive"),
    "NaN": (_at("tensors", "scale/head", torch.full((5,), torch.nan)), "positive"),
    "zero point": (
        _at("tensors", "zero_point/head", torch.full((5,), 16, dtype=torch.uint8)),
        "zero points must be at most 15",
    ),
    "padding": (
        _at("tensors", "codes/head", torch.full((5, 17), 255, dtype=torch.uint8)),
        "behind the last column must be 0",
    ),
    "surplus": (_at("tensors", "codes/tail", torch.ones(1)), "'codes/tail' belongs to"),
    "parameter": (_at("tensors", "other/norm.weight", None), "no tensor 'other/norm"),
    "near parameter": (
        _at("tensors", "other/norm.weights", torch.ones(33)),
        "unknown parameter 'norm.weights'; did you mean norm.weight",
    ),
    "parameter's shape": (
        _at("tensors", "other/norm.weight", torch.ones(3)),
        r"norm.weight is torch.float32 of shape \(33,\), the file has",
    ),
    "near layer": (
        lambda header, _: header["layers"].update(heads=header["layers"].pop("head")),
        "no tensor 'codes/heads'",
    ),
    "range": (_at("activations", "head", "bits", 1), "take 2 to 8 bits"),
    "range's field": (_at("activations", "head", 3), "activations 'head'"),
    "place": (
        lambda header, _: header["activations"].update(
            {"add[7]": header["activations"]["add[0]"]}
        ),
        "unknown place of activations",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_what_a_file_says_is_checked(saved, damage, message):
    changed_header(saved, damage)
    with pytest.raises(InputError, match=message) as caught:
        load_quantized(saved, small_network())
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_a_truncated_file(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"cannot read .*network\.safetensors"):
        load_quantized(saved, small_network())


def test_what_is_no_such_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_quantized(tmp_path / "none.safetensors", small_network())
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        load_quantized(tmp_path / "network.pth", small_network())
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"a": torch.ones(1)}, other)
    with pytest.raises(InputError, match="is not a quantized network"):
        load_quantized(other, small_network())
    safetensors.torch.save_file({}, other, {"quantized_network": "{"})
    with pytest.raises(InputError, match="is not JSON"):
        load_quantized(other, small_network())


class Renamed(nn.Module):
    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        for layer in self.children():
            x = layer(x)
        return x


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"heads": nn.Linear(4, 3)}, "unknown layer 'head'; did you mean heads"),
        ({"head": nn.Linear(4, 2)}, r"weights of shape \(2, 4\), the file has \(3, 4"),
        ({"head": nn.Conv1d(4, 3, 1)}, "weights of shape"),
        ({"head": nn.Linear(4, 3).double()}, "weights of torch.float64"),
        ({"head": nn.LayerNorm(4)}, "is a LayerNorm"),
        ({"head": nn.Linear(4, 3), "more": nn.LayerNorm(3)}, "other/more.weight"),
    ],
)
def test_another_architecture(tmp_path, other, message):
    path = tmp_path / "network.safetensors"
    save_quantized(path, rounded(Renamed(head=nn.Linear(4, 3)), Grid()))
    with pytest.raises(InputError, match=message) as caught:
        load_quantized(path, Renamed(**other))
    assert "does not fit this network" in str(caught.value)


def _with(quantized, **fields):
    layer = replace(quantized.layers["head"], **fields)
    return replace(quantized, layers={**quantized.layers, "head": layer})


def test_a_network_that_is_not_what_its_integers_say(tmp_path):
    quantized = rounded(small_network(), Grid())
    layer = quantized.layers["head"]
    wrong = {
        "are not scale times codes": {"codes": -layer.codes},
        "other integers": {"hi": np.minimum(layer.hi, 1)},
        "another bias": {"bias": np.zeros(5, np.float32)},
        "has weights of shape": {"shape": (33, 5)},
        "not one per tensor": {
            "scale": layer.scale * np.array([[1], [1], [1], [1], [2]])
        },
        "every scale must be a positive float32": {"scale": layer.scale + 1e-12},
        "those of a grid of 3 bits": {"grid": Grid(bits=3)},
    }
    for message, fields in wrong.items():
        changed = _with(quantized, **fields)
        if "scale" in fields:
            # Only the layer's own numbers are wrong.
            changed = _with(quantized, **fields, codes=0 * layer.codes)
            head = nn.Linear(33, 5, bias=False)
            nn.init.zeros_(head.weight)
            changed.network.head = head.eval()
        with pytest.raises(InputError, match=f"layer 'head'.* {message}"):
            save_quantized(tmp_path / "a.safetensors", changed)
        assert list(tmp_path.iterdir()) == []
        quantized = rounded(small_network(), Grid())


def test_what_cannot_be_written(tmp_path, activated, monkeypatch):
    path = tmp_path / "network.safetensors"
    for meta in ({"a": {1, 2}}, {"a": float("nan")}):
        with pytest.raises(InputError, match="meta of this network cannot be written"):
            save_quantized(path, replace(activated, meta=meta))
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        save_quantized(tmp_path / "network.npz", activated)
    assert list(tmp_path.iterdir()) == []
    path.write_text("old")

    def full(self: Path, content: bytes) -> None:
        with self.open("wb") as file:
            file.write(content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"cannot write .*: No space left") as caught:
        save_quantized(path, activated)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "old"
