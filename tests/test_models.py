"""Architectures, weights and where they come from."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from types import ModuleType
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from data import rounding_check
from qubo_rounding.network import checkpoints, vision
from qubo_rounding.network.cifar_resnet import DEPTHS, BasicBlock, CifarResNet
from qubo_rounding.network.images import load_images
from qubo_rounding.network.models import Network, list_models, load_network
from qubo_rounding.network.preprocessing import Preprocessing
from solvers.errors import InputError

EMBEDDED_TOP1 = {"resnet18": 93.6, "resnet20": 96.2}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Torch hub with an empty cache and no network; its folder."""

    def fail(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    return tmp_path / "hub" / "checkpoints"


def saved(state: object, path: Path) -> str:
    torch.save(state, path)
    return str(path)


def top1(network: Network, module: nn.Module, evaluation: int | None = None) -> float:
    _, images = load_images(None, network, 1, evaluation)
    assert images.labels is not None
    with torch.no_grad():
        answers = torch.cat([module(x).argmax(1) for x in images.batches(100)])
    return 100 * float((answers == images.labels).float().mean())


# Architectures


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)],
)
def test_parameters_of_the_cifar_resnets(depth: int, parameters: int) -> None:
    assert depth in DEPTHS
    assert sum(p.numel() for p in CifarResNet(depth).parameters()) == parameters


def test_keys_of_a_cifar_resnet() -> None:
    weights = {k for k in CifarResNet(20).state_dict() if k.endswith("weight")}
    expected = {f"{name}.weight" for name in ("conv1", "bn1", "linear")} | {
        f"layer{stage}.{block}.{name}.weight"
        for stage in (1, 2, 3)
        for block in range(3)
        for name in ("conv1", "bn1", "conv2", "bn2")
    }
    assert weights == expected


def test_option_a_shortcut() -> None:
    block = BasicBlock(4, 8, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(2, 4, 6, 6)
    y = block(x)
    assert y.shape == (2, 8, 3, 3)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert not y[:, :2].any()
    assert not y[:, 6:].any()


def test_a_depth_that_no_cifar_resnet_has() -> None:
    with pytest.raises(ValueError, match="6 n \\+ 2"):
        CifarResNet(21)


def test_known_models() -> None:
    known = list_models()
    assert known == sorted(set(known))
    assert {"resnet18", "inception_v3", "squeezenet1_1", "resnet110"} <= set(known)
    assert not any("rcnn" in name or "quantized" in name for name in known)


def test_a_misspelt_model_is_corrected() -> None:
    with pytest.raises(InputError, match=r"unknown model 'resnet19'.*resnet18"):
        load_network("resnet19")


def test_torchvision_that_imports_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    healthy = ModuleType("torchvision")
    monkeypatch.setattr("importlib.import_module", lambda _: healthy)
    monkeypatch.setattr(vision, "_declare_operators", lambda: pytest.fail("declared"))
    assert vision.import_torchvision.__wrapped__() is healthy


# Preprocessing


@pytest.mark.parametrize("size", [(300, 260), (256, 341), (500, 333), (91, 120)])
@pytest.mark.parametrize("name", ["resnet18", "inception_v3", "efficientnet_b0"])
def test_preprocessing_is_torchvisions(name: str, size: tuple[int, int]) -> None:
    models = vision.import_torchvision().models
    theirs = models.get_model_weights(name).IMAGENET1K_V1.transforms()
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    ours = vision.published_weights(name)[0].preprocessing(image)
    assert torch.allclose(ours, theirs(image), atol=1e-6)


def test_preprocessing_of_other_modes() -> None:
    grey = Image.fromarray(np.full((40, 32), 128, dtype=np.uint8))
    tensor = Preprocessing(32, 32, (0.0,) * 3, (1.0,) * 3)(grey)
    assert torch.allclose(tensor, torch.full((3, 32, 32), 128 / 255))


# Where weights come from


def test_auto_falls_back_loudly(
    offline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = load_network("resnet18")
    assert (network.weights, network.labels, network.classes) == (
        "embedded",
        "digits",
        10,
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("WARNING: no ImageNet weights for resnet18")
    assert "no route to host" in line
    assert "embedded" in line


def test_auto_without_anything(offline: Path) -> None:
    with pytest.raises(InputError, match=r"no ImageNet weights for alexnet.*no route"):
        load_network("alexnet")
    with pytest.raises(InputError, match="no weights are published for resnet56"):
        load_network("resnet56")


def test_imagenet_is_not_replaced(offline: Path) -> None:
    with pytest.raises(InputError, match=r"resnet18-\w+\.pth is not in .*no route"):
        load_network("resnet18", "imagenet")
    with pytest.raises(InputError, match="path of a checkpoint or embedded"):
        load_network("resnet20", "imagenet")


def test_no_embedded_weights() -> None:
    with pytest.raises(InputError, match="no embedded weights for resnet50"):
        load_network("resnet50", "embedded")


def test_download(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float | None]] = []

    def fetch(url: str, to: str, prefix: str, progress: bool) -> None:
        asked.append((prefix, socket.getdefaulttimeout()))
        torch.save(vision.build("squeezenet1_1").state_dict(), to)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    network = load_network("squeezenet1_1")
    ((prefix, timeout),) = asked
    assert len(prefix) >= 8
    assert timeout is not None
    assert timeout <= 10
    assert socket.getdefaulttimeout() is None
    assert network.weights.startswith("IMAGENET1K_V1 (squeezenet1_1-")
    assert (network.labels, network.classes) == ("imagenet", 1000)
    # What was written does not have the promised hash: not trusted, fetched again.
    load_network("squeezenet1_1")
    assert len(asked) == 2


def test_an_intact_cached_file_is_used(offline: Path) -> None:
    offline.mkdir(parents=True)
    content = b"weights"
    prefix = hashlib.sha256(content).hexdigest()[:8]
    entry = vision.published_weights("resnet18")[0]
    entry.file = f"net-{prefix}.pth"
    entry.cached.write_bytes(content)
    assert entry.is_intact()
    entry.cached.write_bytes(content + b"!")
    assert not entry.is_intact()


# Embedded networks


@pytest.mark.parametrize("name", EMBEDDED_TOP1)
def test_accuracy_of_the_embedded_networks(name: str) -> None:
    network = load_network(name, "embedded")
    assert top1(network, network.module) == pytest.approx(EMBEDDED_TOP1[name], abs=0.1)


@pytest.mark.parametrize("name", EMBEDDED_TOP1)
def test_nearest_rounding_hurts_and_good_rounding_heals(name: str) -> None:
    network = load_network(name, "embedded")
    before = top1(network, network.module, 300)
    calibration, _ = load_images(None, network, 64)
    moments = rounding_check.second_moments(
        network.module, ["conv1"], calibration.batches(32)
    )
    state = {k: v.clone() for k, v in network.module.state_dict().items()}
    rounding_check.round_layers(network.module, moments, 4, rounding_check.nearest)
    assert top1(network, network.module, 300) < before - 5
    network.module.load_state_dict(state)
    rounding_check.round_layers(network.module, moments, 4, rounding_check.relaxed)
    assert top1(network, network.module, 300) > before - 3


# The user's own networks


def tiny() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 5))


def broken() -> nn.Module:
    raise RuntimeError("first line\nsecond line")


def quitting() -> nn.Module:
    raise SystemExit("no more")


def without_values() -> nn.Module:
    return nn.Linear(3, 2, device="meta")


def sparse() -> nn.Module:
    layer = nn.Linear(3, 2)
    layer.weight = nn.Parameter(layer.weight.detach().to_sparse())
    return layer


class Noted(nn.Linear):
    """A layer whose state holds more than tensors."""

    def get_extra_state(self) -> object:
        return {"note": 1}

    def set_extra_state(self, state: object) -> None:
        pass


def noted() -> nn.Module:
    return Noted(3, 2)


def test_a_state_may_hold_more_than_tensors() -> None:
    network = load_network(f"{__name__}:noted")
    layer = nn.Linear(3, 2)
    layer.load_state_dict(
        {k: v for k, v in network.module.state_dict().items() if k != "_extra_state"}
    )
    assert network.weights_hash == checkpoints.state_hash(layer)


def test_a_factory(tmp_path: Path) -> None:
    spec = f"{__name__}:tiny"
    network = load_network(spec)
    assert (network.classes, network.weights) == (5, "factory")
    assert network.weights_hash == load_network(spec).weights_hash
    state = {k: v + 1 for k, v in network.module.state_dict().items()}
    other = load_network(spec, saved(state, tmp_path / "a.pth"))
    assert other.weights_hash != network.weights_hash


def test_loading_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    load_network(f"{__name__}:tiny")
    load_network("resnet20", "embedded")
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("no.such.package:net", "ModuleNotFoundError: No module named 'no'"),
        ("json:nothing", "AttributeError: .*nothing"),
        (f"{__name__}:broken", "RuntimeError: first line$"),
        (f"{__name__}:quitting", "SystemExit: no more$"),
        (f"{__name__}:without_values", "weight is on the meta device, without values"),
        (f"{__name__}:sparse", "weight is sparse; expected a dense tensor"),
        ("collections:OrderedDict", "returned a OrderedDict, not a torch.nn.Module"),
        ("a:b:c", "not of the form package.module:factory"),
    ],
)
def test_factories_that_fail(spec: str, line: str) -> None:
    with pytest.raises(InputError, match=line):
        load_network(spec)


def test_published_weights_do_not_go_with_a_factory() -> None:
    with pytest.raises(InputError, match="embedded weights do not go with"):
        load_network(f"{__name__}:tiny", "embedded")


# Real checkpoints


def test_real_cifar_resnet20(real_data: Path) -> None:
    path = real_data / "checkpoints/cifar10_resnet20.pth"
    network = load_network("resnet20", str(path))
    _, images = load_images(real_data / "cifar10", network, 1, 1000)
    assert images.labels is not None
    with torch.no_grad():
        answers = torch.cat([network.module(x).argmax(1) for x in images.batches(100)])
    assert 0.78 < float((answers == images.labels).float().mean()) < 0.84


def test_real_resnet18(real_data: Path) -> None:
    path = real_data / "checkpoints/resnet18_layer4_reconstructed.pth"
    network = load_network("resnet18", str(path))
    _, images = load_images(real_data / "imagenet-sample", network, 1, 20)
    assert (network.labels, network.classes) == ("imagenet", 1000)
    assert images.labels is not None
    with torch.no_grad():
        answers = network.module(next(images.batches(20))).argmax(1)
    assert int((answers == images.labels).sum()) >= 11
