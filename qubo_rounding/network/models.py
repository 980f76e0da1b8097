"""Networks by name, with weights that are found, checked and identified."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from qubo_rounding.network import checkpoints, cifar_resnet, vision
from qubo_rounding.network.factories import call_factory
from qubo_rounding.network.paths import data_path
from qubo_rounding.network.preprocessing import Preprocessing
from solvers.errors import InputError, UnknownNameError, printable

EMBEDDED = ("resnet18", "resnet20")
_CIFAR = {f"resnet{depth}": depth for depth in cifar_resnet.DEPTHS}
# What outputs may mean, and their number; "classes" may be any number.
_LABELS = {"imagenet": 1000, "cifar10": 10, "digits": 10}
_CIFAR_PREPROCESSING = Preprocessing(resize=32, crop=32)


@dataclass(frozen=True)
class Network:
    """A network with weights, and how images and labels fit it.

    Attributes
    ----------
    name
        The name given to `load_network`.
    module
        In evaluation mode, float32, batch norms not folded.
    weights
        ``"embedded"``, the name of published weights and their file, or a path.
    weights_hash
        SHA-256 of the loaded weights, see `checkpoints.state_hash`.
    labels
        Meaning of the outputs: ``"imagenet"``, ``"cifar10"``, ``"digits"``, or
        ``"classes"`` where nothing is known but their number.
    classes
        Number of outputs.
    preprocessing
        From an image to the network's input.
    """

    name: str
    module: nn.Module
    weights: str
    weights_hash: str
    labels: str
    classes: int
    preprocessing: Preprocessing


def list_models() -> list[str]:
    """Names that `load_network` knows: torchvision's and the CIFAR ResNets."""
    return sorted([*vision.model_names(), *_CIFAR])


def load_network(model: str, weights: str = "auto") -> Network:
    """Load a network by name.

    Parameters
    ----------
    model
        One of `list_models`, or ``"package.module:factory"``: a callable without
        arguments that returns a `torch.nn.Module`, whose attribute ``preprocessing``
        (a `Preprocessing`) is used if there is one.
    weights
        ``"imagenet"``: published weights, from torch hub's cache or downloaded.
        ``"embedded"``: the small network that ships with this package (`EMBEDDED`).
        ``"auto"``: the first of these that is available, or a factory's own weights;
        falling back to embedded ones is reported in one line on stderr. Anything
        else is the path of a ``.pth`` or ``.safetensors`` file.

    Raises
    ------
    InputError
        Unknown name, weights that are not available, a checkpoint that cannot be
        read, is of another architecture, or holds NaN or inf.
    """
    if ":" in model:
        return _from_factory(model, weights)
    known = list_models()
    if model not in known:
        raise UnknownNameError("model", model, known)
    if weights == "embedded":
        return _embedded(model)
    if weights == "imagenet":
        return _published(model)
    if weights != "auto":
        return _from_file(model, Path(weights), weights)
    if model in _CIFAR and model in EMBEDDED:
        return _embedded(model)
    try:
        return _published(model)
    except _UnavailableError as error:
        if model not in EMBEDDED:
            raise
        print(
            f"WARNING: {error}; using the small embedded weights (digits, 10 classes) "
            "instead",
            file=sys.stderr,
        )
        return _embedded(model)


def architecture(model: str) -> nn.Module:
    """The network of that name without trained weights, to look at its layers.

    Raises
    ------
    InputError
        Unknown name, or a factory that fails.
    """
    if ":" in model:
        return _call_factory(model)
    if model not in list_models():
        raise UnknownNameError("model", model, list_models())
    return _build(model, _usual_classes(model), auxiliary=False)


class _UnavailableError(InputError):
    """Published weights that are neither cached nor to be downloaded."""


def _published(model: str) -> Network:
    """Network with its published ImageNet weights, downloaded if need be."""
    if model in _CIFAR:
        have = " or embedded" if model in EMBEDDED else ""
        raise _UnavailableError(
            f"no weights are published for {model}: give the path of a checkpoint{have}"
        )
    choices = vision.published_weights(model)
    if not choices:
        raise _UnavailableError(f"no weights are published for {model}: give a path")
    source = choices[0]
    if not (source.cached.is_file() and source.is_intact()):
        reason = source.download()
        if reason is not None:
            raise _UnavailableError(
                f"no ImageNet weights for {model}: {source.file} is not in "
                f"{source.cached.parent} and the download failed ({reason})"
            )
    return _from_file(model, source.cached, f"{source.name} ({source.file})")


def _embedded(model: str) -> Network:
    if model not in EMBEDDED:
        raise InputError(
            f"no embedded weights for {model}: only {' and '.join(EMBEDDED)} have some"
        )
    return _from_file(model, data_path(f"{model}.safetensors"), "embedded")


def _from_file(model: str, path: Path, weights: str) -> Network:
    # Path.exists raises where a name is too long.
    if not path.suffix and not os.path.exists(path):  # noqa: PTH110
        raise InputError(
            f"no weights {weights!r}: give auto, imagenet, embedded or a checkpoint"
        )
    checkpoint = checkpoints.read_checkpoint(path)
    auxiliary = any(key.startswith(("aux", "Aux")) for key in checkpoint.state)
    classes = _usual_classes(model)
    module = _build(model, classes, auxiliary)
    class_count = checkpoints.class_count(module, checkpoint.state)
    if class_count is not None:
        classes = class_count
        module = _build(model, classes, auxiliary)
    checkpoints.load_state(module, checkpoint.state, f"{path} for {model}")
    vision.drop_auxiliary(module)
    labels = checkpoint.metadata.get("labels", _labels(model, classes))
    if labels != "classes" and _LABELS.get(labels) != classes:
        known = ", ".join(f"{name} ({count})" for name, count in _LABELS.items())
        raise InputError(
            f"checkpoint {path} has {classes} classes and labels "
            f"{labels!r:.40}; expected {known} or classes"
        )
    return _network(
        model,
        module,
        weights=printable(str(weights)),
        labels=labels,
        classes=classes,
        preprocessing=_preprocessing(
            model, path, checkpoint.metadata.get("preprocessing")
        ),
    )


def _usual_classes(model: str) -> int:
    return 10 if model in _CIFAR else 1000


def _labels(model: str, classes: int) -> str:
    if model in _CIFAR:
        return "cifar10" if classes == 10 else "classes"
    return "imagenet" if classes == 1000 else "classes"


def _build(model: str, classes: int, auxiliary: bool) -> nn.Module:
    # Initialising draws from torch's global generator, which is the caller's.
    with torch.random.fork_rng(devices=[]):
        if model in _CIFAR:
            return cifar_resnet.CifarResNet(_CIFAR[model], classes)
        return vision.build(model, classes, auxiliary)


def _preprocessing(model: str, path: Path, described: str | None) -> Preprocessing:
    if described is not None:
        try:
            return Preprocessing.from_json(described)
        except InputError as error:
            raise InputError(
                f"checkpoint {path}, metadata preprocessing: {error}"
            ) from None
    if model in _CIFAR:
        return _CIFAR_PREPROCESSING
    choices = vision.published_weights(model)
    # A file with the name of published weights gets the transforms of those.
    choices.sort(key=lambda choice: choice.file != path.name)
    return choices[0].preprocessing if choices else Preprocessing()


def _from_factory(model: str, weights: str) -> Network:
    if weights in ("imagenet", "embedded"):
        raise InputError(
            f"{weights} weights do not go with {model}: give auto (the factory's own) "
            "or the path of a checkpoint"
        )
    module = _call_factory(model)
    if weights == "auto":
        checkpoints.refuse_nonfinite(module, model)
    else:
        state = checkpoints.read_checkpoint(Path(weights)).state
        checkpoints.load_state(module, state, f"{weights} for {model}")
    classes = _output_width(module)
    preprocessing = getattr(module, "preprocessing", None)
    return _network(
        model,
        module,
        weights="factory" if weights == "auto" else printable(str(weights)),
        labels="imagenet" if classes == 1000 else "classes",
        classes=classes,
        preprocessing=preprocessing
        if isinstance(preprocessing, Preprocessing)
        else Preprocessing(),
    )


def _call_factory(model: str) -> nn.Module:
    module = call_factory("model", model)
    if not isinstance(module, nn.Module):
        raise InputError(
            f"model {model} returned a {type(module).__name__}, not a torch.nn.Module"
        )
    return module


def _output_width(module: nn.Module) -> int:
    """Width of the last layer in order of definition; 0 where there is none."""
    widths = [
        layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        for layer in module.modules()
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    ]
    return widths[-1] if widths else 0


def _network(
    name: str,
    module: nn.Module,
    *,
    weights: str,
    labels: str,
    classes: int,
    preprocessing: Preprocessing,
) -> Network:
    return Network(
        name=name,
        module=module.eval(),
        weights=weights,
        weights_hash=checkpoints.state_hash(module),
        labels=labels,
        classes=classes,
        preprocessing=preprocessing,
    )
