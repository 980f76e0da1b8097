"""Train the embedded networks and make the embedded images.

Run from a checkout, with the ``data`` extra installed::

    python -m data.train --device cuda

Writes ``digits.npz``, ``resnet18.safetensors`` and ``resnet20.safetensors``, and
prints the accuracies of the files as written.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from data import rounding_check
from data.scenes import SIDE, Difficulty, Scenes
from qubo_rounding.network.checkpoints import load_state, packed, read_checkpoint
from qubo_rounding.network.cifar_resnet import CifarResNet
from qubo_rounding.network.preprocessing import Preprocessing
from qubo_rounding.network.vision import build

COUNTS = {"calibration": 512, "evaluation": 1000}
# The mean is left in: like the inputs of all later layers, behind their rectifiers,
# those of the first are then positive.
PREPROCESSING = Preprocessing(
    resize=SIDE, crop=SIDE, mean=(0.0, 0.0, 0.0), std=(0.25, 0.25, 0.25)
)
# Images side by side on a sheet in the files.
COLUMNS = 25


def new_network(name: str) -> nn.Module:
    """Network with fresh weights for the ten digits."""
    return CifarResNet(20) if name == "resnet20" else build(name, num_classes=10)


def normalised(pixels: Tensor) -> Tensor:
    """Network input of uint8 pixels, as `PREPROCESSING` makes it of an image."""
    mean = torch.tensor(PREPROCESSING.mean, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(PREPROCESSING.std, device=pixels.device).view(3, 1, 1)
    return ((pixels.float() / 255 - mean) / std).contiguous(
        memory_format=torch.channels_last
    )


def train(
    network: nn.Module, scenes: Scenes, steps: int, size: int, rate: float
) -> None:
    """Stochastic gradient descent with momentum on fresh scenes, one-cycle rate."""
    network.train()
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": 5e-4},
        {"params": others},
    ]
    optimiser = torch.optim.SGD(
        groups,
        lr=rate,
        momentum=0.9,
        nesterov=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, steps, pct_start=0.2
    )
    begin = time.perf_counter()
    for step in range(1, steps + 1):
        ease = 1 + 2 * max(0.0, 1 - 3 * step / steps)
        pixels, labels = scenes.batch(size, ease)
        loss = functional.cross_entropy(network(normalised(pixels)), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % max(1, steps // 10) == 0:
            print(f"  {step} {loss.item():.3f} {time.perf_counter() - begin:.0f} s")
    network.eval()


@torch.no_grad()
def recalibrate(network: nn.Module, scenes: Scenes, size: int, batches: int) -> None:
    """Set the batch norms' statistics to plain means over fresh training scenes."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    network.train()
    for _ in range(batches):
        network(normalised(scenes.batch(size)[0]))
    network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy in per cent."""
    hits = [
        (network(normalised(p)).argmax(1) == y).sum()
        for p, y in zip(torch.split(pixels, 250), torch.split(labels, 250), strict=True)
    ]
    return 100 * float(torch.stack(hits).sum()) / len(labels)


def pack(name: str, network: nn.Module) -> dict[str, Tensor]:
    """State for the file: ResNet18's body as 8-bit codes, all else as it is."""
    state = {k: v.cpu().contiguous() for k, v in network.state_dict().items()}
    state = {k: v for k, v in state.items() if v.is_floating_point()}
    keys = {k for k in state if name == "resnet18" and k.startswith("layer")}
    return packed(state, {k for k in keys if state[k].ndim == 4})


def save_network(name: str, network: nn.Module, folder: Path) -> Path:
    """Write a network; its metadata say how to preprocess and what the labels mean."""
    fields = {k: getattr(PREPROCESSING, k) for k in PREPROCESSING.__annotations__}
    metadata = {"labels": "digits", "preprocessing": json.dumps(fields)}
    path = folder / f"{name}.safetensors"
    save_file(pack(name, network), path, metadata)
    path.chmod(0o644)  # safetensors makes it the owner's alone
    return path


def save_images(difficulty: Difficulty, folder: Path, seed: int) -> None:
    """Write the calibration and evaluation scenes, one PNG sheet for each."""
    arrays: dict[str, Any] = {}
    for split, count in COUNTS.items():
        pixels, labels = Scenes(split, difficulty, seed=seed).batch(count)
        arrays[f"{split}_sheet"] = np.frombuffer(_sheet(pixels), dtype=np.uint8)
        arrays[f"{split}_labels"] = labels.numpy().astype(np.uint8)
    np.savez(folder / "digits.npz", **arrays)


def _sheet(pixels: Tensor) -> bytes:
    rows = -(-len(pixels) // COLUMNS)
    cells = np.zeros((rows * COLUMNS, SIDE, SIDE, 3), dtype=np.uint8)
    cells[: len(pixels)] = pixels.permute(0, 2, 3, 1).numpy()
    sheet = cells.reshape(rows, COLUMNS, SIDE, SIDE, 3).swapaxes(1, 2)
    file = io.BytesIO()
    Image.fromarray(sheet.reshape(rows * SIDE, COLUMNS * SIDE, 3)).save(
        file, "PNG", optimize=True
    )
    return file.getvalue()


def read_network(name: str, path: Path) -> nn.Module:
    """The network as its file holds it."""
    network = new_network(name)
    load_state(network, read_checkpoint(path).state, str(path))
    return network.eval()


def report(
    name: str, path: Path, difficulty: Difficulty, seed: int, device: str
) -> None:
    """Print the top-1 of a written network, plain and with its first layer rounded."""
    sets = {split: Scenes(split, difficulty, seed=seed) for split in COUNTS}
    pixels, labels = (x.to(device) for x in sets["evaluation"].batch(1000))
    calibration = sets["calibration"].batch(512)[0].to(device)
    network = read_network(name, path).to(device)
    batches = [normalised(p) for p in torch.split(calibration, 64)]
    moments = rounding_check.second_moments(network, ["conv1"], batches)
    print(f"{name}: top-1 {accuracy(network, pixels, labels):.1f} % as written")
    for bits in (4, 3):
        scores = []
        for method in (rounding_check.nearest, rounding_check.relaxed):
            rounded = copy.deepcopy(network)
            rounding_check.round_layers(rounded, moments, bits, method)
            scores.append(accuracy(rounded, pixels, labels))
        print(f"  conv1 at {bits} bits: nearest {scores[0]:.1f}, good {scores[1]:.1f}")


def main() -> None:
    """Train, write and report."""
    parser = argparse.ArgumentParser(description="Make the embedded data.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument(
        "--contrast", type=float, nargs=2, default=Difficulty().contrast
    )
    parser.add_argument("--out", type=Path, default=Path("data"))
    args = parser.parse_args()
    difficulty = Difficulty(contrast=tuple(args.contrast))
    save_images(difficulty, args.out, args.seed)
    for name in ("resnet18", "resnet20"):
        torch.manual_seed(args.seed)
        network = new_network(name).to(args.device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        scenes = Scenes("train", difficulty, args.device, args.seed)
        train(network, scenes, args.steps, args.batch, rate=0.2)
        recalibrate(network, scenes, args.batch, batches=40)
        path = save_network(name, network, args.out)
        report(name, path, difficulty, args.seed, args.device)


if __name__ == "__main__":
    main()
