"""A folder of images in one folder per class: listing, checking, labelling."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from qubo_rounding.network.paths import data_path
from solvers.errors import InputError, printable

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_UNREADABLE_SHARE = 0.01
_CIFAR10 = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]
_DIGITS = [str(digit) for digit in range(10)]


class ImageFolder:
    """Image files below one folder per class, in an order that mixes the classes.

    Parameters
    ----------
    directory
        Holds the class folders; images may lie deeper inside them.

    Attributes
    ----------
    classes
        Names of the class folders that hold images, sorted.
    label_space
        ``"imagenet"`` if all are WordNet ids, ``"cifar10"`` or ``"digits"`` by their
        names, else ``"classes"``.

    Raises
    ------
    InputError
        No images, or WordNet ids mixed with other names.
    OSError
        A folder cannot be listed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        files = list(_images(directory))
        if not files:
            raise InputError(
                f"{directory} holds no images: expected one folder per class "
                f"with {', '.join(SUFFIXES)} files in it"
            )
        self.classes = sorted({self._class(path) for path in files})
        self.label_space = _label_space(self.classes, directory)
        # By a hash of the path: the order is fixed, and mixes the classes as names
        # would not.
        self._files = sorted(files, key=lambda path: _sha256(self._relative(path)))

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.directory).as_posix()

    def _class(self, path: Path) -> str:
        return path.relative_to(self.directory).parts[0]

    def readable(self, wanted: int | None) -> tuple[list[Path], int]:
        """The first `wanted` files that decode (None: all), and how many did not.

        The files are decoded here and once more when they are used: a file found bad
        only then would shift the labels of all that follow. JPEGs are decoded at an
        eighth of their size, which reads all their bytes in a third of the time.

        Raises
        ------
        InputError
            More than 1 % of the files looked at are unreadable.
        """
        good: list[Path] = []
        bad: list[Path] = []
        with tqdm(self._files, desc="checking images", disable=None) as progress:
            for path in progress:
                if len(good) == wanted:
                    break
                (good if _decodes(path) else bad).append(path)
        examined = len(good) + len(bad)
        if not bad:
            return good, 0
        skipped = f"{len(bad)} of {examined} images, {bad[0].name} for one"
        if len(bad) > _UNREADABLE_SHARE * examined:
            raise InputError(
                f"{self.directory}: cannot read {skipped}; at most 1 % may be bad"
            )
        warning = f"WARNING: {self.directory}: skipped {skipped}"
        print(printable(warning), file=sys.stderr)
        return good, len(bad)

    def labels(self, paths: list[Path]) -> list[int]:
        """Class index of each file: ImageNet's, or the place among `classes`."""
        names = imagenet_wnids() if self.label_space == "imagenet" else self.classes
        index = {name: k for k, name in enumerate(names)}
        return [index[self._class(path)] for path in paths]

    def digest(self, paths: list[Path]) -> str:
        """SHA-256 (hex) over relative path and size in bytes of each file, in order."""
        return _sha256(
            "".join(f"{self._relative(p)}\0{p.stat().st_size}\n" for p in paths)
        )


def imagenet_wnids() -> list[str]:
    """WordNet ids of the 1000 ImageNet classes in order of their index."""
    return data_path("imagenet_wnids.txt").read_text().split()


def _label_space(classes: list[str], directory: Path) -> str:
    wnids = [name for name in classes if re.fullmatch(r"n\d{8}", name)]
    if not wnids:
        named = {tuple(_CIFAR10): "cifar10", tuple(_DIGITS): "digits"}
        return named.get(tuple(classes), "classes")
    others = sorted(set(classes) - set(imagenet_wnids()))
    if others:
        raise InputError(
            f"{directory}: {len(others)} class folders are no ImageNet classes, "
            f"{others[0]} for one, while others are"
        )
    return "imagenet"


def _images(directory: Path) -> Iterator[Path]:
    """Paths below the folders in a directory that are named as images are.

    A link to nowhere is one of them, and unreadable; a folder or a pipe is none.
    """

    def refuse(error: OSError) -> None:
        # Classes are numbered by their folders: a folder that is left out, because it
        # cannot be listed, would shift the numbers of the others.
        raise error

    _, classes, _ = next(os.walk(directory, onerror=refuse))
    for name in classes:
        for top, _, files in os.walk(directory / name, onerror=refuse):
            for path in (Path(top, file) for file in files):
                if path.suffix.lower() in SUFFIXES and _may_be_file(path):
                    yield path


def _may_be_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _decodes(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.draft("RGB", (image.width // 8, image.height // 8))
            image.load()
    except Exception:  # whatever Pillow's decoders raise on damaged files
        return False
    return True


def _sha256(text: str) -> str:
    # File names may hold bytes that are no valid text.
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
