"""torchvision: importing it, its classification models, their published weights."""

from __future__ import annotations

import functools
import hashlib
import http.client
import importlib
import importlib.util
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from qubo_rounding.network.messages import first_line
from qubo_rounding.network.preprocessing import Preprocessing

_TIMEOUT_SECONDS = 5.0
# Declarations of operators live as long as their library object.
_LIBRARIES: list[torch.library.Library] = []


@functools.cache
def import_torchvision() -> ModuleType:
    """Import torchvision, also where its compiled operators cannot be loaded.

    Beside a torch of another build (a CPU-only one, say) torchvision's shared library
    does not load, and the import then stops at "operator torchvision::nms does not
    exist" when it attaches shape functions to the detection operators. The
    classification models use none of these, so declaring the missing names is enough;
    calling one of them still fails. Where the import works, nothing is declared.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    _declare_operators()
    # The failed import leaves half-initialised submodules behind.
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    return importlib.import_module("torchvision")


def _declare_operators() -> None:
    """Declare every operator that this torchvision's import expects to exist."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError("torchvision is not installed")
    source = Path(spec.origin).with_name("_meta_registrations.py").read_text()
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in re.findall(r'register_fake\(\s*"torchvision::(\w+)"', source):
        library.define(f"{name}() -> ()")  # type: ignore[no-untyped-call]
    _LIBRARIES.append(library)


def model_names() -> list[str]:
    """Names of torchvision's image classification models."""
    models = import_torchvision().models
    names: list[str] = models.list_models(module=models)
    return names


def build(name: str, num_classes: int = 1000, auxiliary: bool = False) -> nn.Module:
    """Build the architecture as torchvision's pretrained weights expect it.

    Parameters
    ----------
    name
        One of `model_names`.
    num_classes
        Width of the classifier.
    auxiliary
        Whether GoogLeNet and Inception get their auxiliary heads (training only).
    """
    options: dict[str, Any] = {"num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):
        # Their weights came from another framework: inputs are rescaled inside, and
        # the default initialisation alone would take tens of seconds.
        options |= {
            "transform_input": True,
            "init_weights": False,
            "aux_logits": auxiliary,
        }
    module: nn.Module = import_torchvision().models.get_model(
        name, weights=None, **options
    )
    return module


def drop_auxiliary(module: nn.Module) -> None:
    """Remove the auxiliary heads, which evaluation never runs."""
    for head in ("aux1", "aux2", "AuxLogits"):
        if hasattr(module, head):
            setattr(module, head, None)
            setattr(module, "aux_logits", False)  # noqa: B010


class Published:
    """One set of published weights of a model: its file, and its preprocessing.

    Parameters
    ----------
    entry
        Member of one of torchvision's weights enumerations.
    """

    def __init__(self, entry: Any) -> None:
        self.name: str = entry.name
        self.url: str = entry.url
        self.file = self.url.rsplit("/", 1)[-1]
        transforms = entry.transforms()
        self.preprocessing = Preprocessing(
            resize=transforms.resize_size[0],
            crop=transforms.crop_size[0],
            mean=tuple(transforms.mean),
            std=tuple(transforms.std),
            interpolation=transforms.interpolation.value,
        )

    @property
    def cached(self) -> Path:
        """Path at which torch hub keeps, or would keep, the file."""
        folder: str = torch.hub.get_dir()
        return Path(folder, "checkpoints", self.file)

    def is_intact(self) -> bool:
        """Whether the cached file begins with the hash that its name promises."""
        prefix = self._hash_prefix()
        with self.cached.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest().startswith(prefix)

    def download(self) -> str | None:
        """Fetch the file into torch hub's cache.

        Returns one line that says why, if that fails.
        """
        try:
            self.cached.parent.mkdir(parents=True, exist_ok=True)
            with _socket_timeout(_TIMEOUT_SECONDS):
                torch.hub.download_url_to_file(
                    self.url, str(self.cached), self._hash_prefix(), progress=True
                )
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            return first_line(error)
        return None

    def _hash_prefix(self) -> str:
        match = re.search(r"-([0-9a-f]{8,})\.", self.file)
        return match[1] if match else ""


def published_weights(name: str) -> list[Published]:
    """Weights published for a model, the ones for plain ImageNet-1k (V1) first."""
    entries = list(import_torchvision().models.get_model_weights(name))
    entries.sort(key=lambda entry: entry.name != "IMAGENET1K_V1")
    return [Published(entry) for entry in entries]


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Set the time-out of new connections; torch hub has no argument for it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
