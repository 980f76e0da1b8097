"""Checkpoint files: forms that load, and refusals."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import save_file
from torch import Tensor

from qubo_rounding.network import checkpoints, vision
from qubo_rounding.network.cifar_resnet import CifarResNet
from qubo_rounding.network.models import load_network
from solvers.errors import InputError


@pytest.fixture
def resnet20_state() -> OrderedDict[str, Tensor]:
    torch.manual_seed(0)
    return OrderedDict(CifarResNet(20).state_dict())


def saved(state: object, path: Path) -> str:
    torch.save(state, path)
    return str(path)


def test_every_form_of_a_checkpoint_is_the_same_network(
    tmp_path: Path, resnet20_state: OrderedDict[str, Tensor]
) -> None:
    plain = {k: v for k, v in resnet20_state.items() if v.is_floating_point()}
    wrapped = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in plain.items()}}
    save_file(plain, tmp_path / "a.safetensors")
    files = [
        str(tmp_path / "a.safetensors"),
        saved(resnet20_state, tmp_path / "b.pth"),
        saved(wrapped, tmp_path / "c.pth"),
    ]
    networks = [load_network("resnet20", file) for file in files]
    assert len({network.weights_hash for network in networks}) == 1
    assert [network.weights for network in networks] == files
    assert networks[0].labels == "cifar10"
    assert not networks[0].module.training
    plain["linear.bias"] = plain["linear.bias"] + 1e-6
    other = load_network("resnet20", saved(plain, tmp_path / "d.pth"))
    assert other.weights_hash != networks[0].weights_hash


def test_the_number_of_classes_is_the_checkpoints(tmp_path: Path) -> None:
    for name, module in (
        ("squeezenet1_1", vision.build("squeezenet1_1", 7)),
        ("resnet32", CifarResNet(32, 7)),
    ):
        network = load_network(name, saved(module.state_dict(), tmp_path / "a.pth"))
        assert (network.classes, network.labels) == (7, "classes")
        assert network.module(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_auxiliary_heads_are_dropped(tmp_path: Path) -> None:
    state = vision.build("googlenet", auxiliary=True).state_dict()
    assert any(key.startswith("aux1") for key in state)
    network = load_network("googlenet", saved(state, tmp_path / "a.pth"))
    assert not any("aux" in name for name, _ in network.module.named_modules())


def test_old_densenet_keys(tmp_path: Path) -> None:
    state = vision.build("densenet121").state_dict()
    old = {
        k.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): v
        for k, v in state.items()
    }
    assert old.keys() != state.keys()
    assert load_network("densenet121", saved(old, tmp_path / "a.pth")).classes == 1000


def test_missing_and_corrupt_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pth does not exist"):
        load_network("resnet20", str(tmp_path / "none.pth"))
    with pytest.raises(InputError, match="no weights 'embeded': give auto, imagenet"):
        load_network("resnet20", "embeded")
    for name in ("a.pth", "a.safetensors"):
        for content in (b"", b"not a checkpoint at all", b"PK\x03\x04 half a zip"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match=f"{name} cannot be read") as caught:
                load_network("resnet20", str(tmp_path / name))
            assert "\n" not in str(caught.value)
    for state, line in (
        ({"a": [1]}, "holds a list at 'a'"),
        ({}, "holds no state dictionary"),
        ([1], "holds no state dictionary"),
    ):
        with pytest.raises(InputError, match=line):
            load_network("resnet20", saved(state, tmp_path / "b.pth"))
    path = saved(SimpleNamespace(a=1), tmp_path / "c.pth")
    with pytest.raises(InputError, match="not a file of tensors only"):
        load_network("resnet20", path)


def test_another_architecture(
    tmp_path: Path, resnet20_state: OrderedDict[str, Tensor]
) -> None:
    path = saved(resnet20_state, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"180 missing: layer1\.3\.conv1\.weight, "):
        load_network("resnet56", path)
    with pytest.raises(
        InputError, match=r"conv1\.weight is \[16, 3, 3, 3\].*\[64, 3, 7, 7\]"
    ):
        load_network("resnet18", path)
    resnet20_state["extra"] = torch.zeros(1)
    with pytest.raises(InputError, match="none missing; 1 unexpected: extra"):
        load_network("resnet20", saved(resnet20_state, tmp_path / "b.pth"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(
    tmp_path: Path, value: float, resnet20_state: OrderedDict[str, Tensor]
) -> None:
    resnet20_state["layer2.0.conv1.weight"][3, 1] = value
    with pytest.raises(InputError, match=r"layer2\.0\.conv1\.weight holds 9 NaN or"):
        load_network("resnet20", saved(resnet20_state, tmp_path / "a.pth"))


@given(arrays(np.float32, (3, 4, 2), elements=st.floats(-5, 5, width=32)))
def test_packing(values: np.ndarray) -> None:
    weight = torch.from_numpy(values)
    codes, scale = checkpoints.pack(weight)
    back = checkpoints.unpack(codes, scale)
    # Neighbouring codes are at most 1.75 / 127 of the largest apart.
    bound = scale.view(-1, 1, 1) * 0.5 * 1.75 / 127 + 1e-6
    assert bool(((back - weight).abs() <= bound).all())
    assert torch.equal(checkpoints.pack(back)[0], codes)
