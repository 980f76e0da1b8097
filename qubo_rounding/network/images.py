"""Images for calibration and evaluation: a folder's, or the embedded ones."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from qubo_rounding.network.image_folder import ImageFolder
from qubo_rounding.network.messages import first_line
from qubo_rounding.network.models import Network
from qubo_rounding.network.paths import data_path
from qubo_rounding.network.preprocessing import Preprocessing
from solvers.errors import InputError, printable
from solvers.memory import require_memory

# Side in pixels of one image on the sheets in digits.npz.
_EMBEDDED_SIDE = 64


@dataclass(frozen=True)
class Images:
    """A sequence of images, decoded and preprocessed batch by batch.

    Attributes
    ----------
    name
        Origin of the images: the folder as given, or ``"embedded"``.
    digest
        SHA-256 (hex) over the images in order: of a folder's, the relative path and
        the size in bytes of each file; of embedded ones, the pixels.
    labels
        int64 ``[N]``, or None where they do not fit the network.
    skipped
        Files that could not be decoded and were left out.
    """

    name: str
    digest: str
    labels: Tensor | None = field(repr=False)
    skipped: int
    preprocessing: Preprocessing = field(repr=False)
    _items: Sequence[Path] | NDArray[np.uint8] = field(repr=False)

    def __len__(self) -> int:
        return len(self._items)

    def require_memory(self, count: int, copies: int = 1) -> None:
        """Refuse to hold more images, as a network takes them, than memory does."""
        side = self.preprocessing.crop
        require_memory(
            f"{count} images of {side} x {side} pixels",
            copies * count * 3 * side**2 * 4,
            "take fewer or smaller images",
        )

    def batches(self, size: int) -> Iterator[Tensor]:
        """Yield float32 ``[B, 3, crop, crop]``, ``B <= size``, in order of `labels`.

        Raises
        ------
        InputError
            A file has become unreadable since it was checked, or memory does not hold
            a batch.
        """
        # A batch, and the images that it is put together from.
        self.require_memory(min(size, len(self)), 2)
        for start in range(0, len(self), size):
            items = self._items[start : start + size]
            yield torch.stack([self._decode(item) for item in items])

    def _decode(self, item: Path | NDArray[np.uint8]) -> Tensor:
        if not isinstance(item, Path):
            return self.preprocessing(Image.fromarray(item))
        try:
            with Image.open(item) as image:
                return self.preprocessing(image)
        except InputError as error:
            raise InputError(f"image {item}: {error}") from None
        except Exception as error:  # whatever Pillow's decoders raise
            raise InputError(
                f"image {item} can no longer be read ({first_line(error)})"
            ) from error


def load_images(
    directory: Path | None,
    network: Network,
    calibration: int,
    evaluation: int | None = None,
    calibration_directory: Path | None = None,
) -> tuple[Images, Images]:
    """Images for calibration and others for evaluation; the two never overlap.

    Parameters
    ----------
    directory
        One folder per class with images in it, or ``train`` and ``test`` (or ``val``)
        with such folders: calibration then comes from the one, evaluation from the
        other. A single set is split by the hash of the relative paths, so the split
        depends on no seed. Class folders named by WordNet ids are ImageNet's classes;
        any others are numbered in sorted order. None: the embedded images.
    network
        Determines the preprocessing and whether the labels fit.
    calibration
        Number of calibration images.
    evaluation
        Number of evaluation images, which may be 0; None takes all the others, at
        least one.
    calibration_directory
        Another folder, with one folder per class, for the calibration images;
        `directory` is then for evaluation alone.

    Raises
    ------
    InputError
        No images, fewer than asked for, more than 1 % of them unreadable, or labels
        that contradict the network's.
    """
    asked = (("calibration", calibration, 1), ("evaluation", evaluation, 0))
    for name, count, least in asked:
        if count is not None and count < least:
            raise InputError(f"{name} images: {count} asked for, need at least {least}")
    if directory is None:
        if calibration_directory is not None:
            raise InputError("a folder of calibration images needs one to score on")
        return _embedded(network, calibration, evaluation)
    try:
        if calibration_directory is not None:
            folders = ImageFolder(calibration_directory), ImageFolder(directory)
            return _from_two(*folders, network, calibration, evaluation)
        return _from_folder(directory, network, calibration, evaluation)
    except OSError as error:
        raise InputError(
            f"images folder {directory} cannot be read: {first_line(error)}"
        ) from error


def _from_folder(
    directory: Path, network: Network, calibration: int, evaluation: int | None
) -> tuple[Images, Images]:
    if not directory.is_dir():
        raise InputError(f"images folder {directory} does not exist, or is no folder")
    for held_out in (directory / "test", directory / "val"):
        if (directory / "train").is_dir() and held_out.is_dir():
            folders = ImageFolder(directory / "train"), ImageFolder(held_out)
            return _from_two(*folders, network, calibration, evaluation)
    return _split(ImageFolder(directory), network, calibration, evaluation)


def _from_two(
    theirs: ImageFolder,
    held_out: ImageFolder,
    network: Network,
    calibration: int,
    evaluation: int | None,
) -> tuple[Images, Images]:
    one, other = theirs.directory.resolve(), held_out.directory.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise InputError(
            f"calibration images {theirs.directory} and images to score on "
            f"{held_out.directory} overlap; give two separate folders"
        )
    _refuse_different_classes(theirs, held_out)
    return _take(theirs, network, calibration), _take(held_out, network, evaluation)


def _split(
    folder: ImageFolder, network: Network, calibration: int, evaluation: int | None
) -> tuple[Images, Images]:
    wanted = None if evaluation is None else calibration + evaluation
    paths, skipped = folder.readable(wanted)
    if len(paths) < (wanted or calibration + 1):
        rest = "at least 1" if evaluation is None else str(evaluation)
        raise InputError(
            f"{folder.directory} has {len(paths)} readable images: too few for "
            f"{calibration} calibration and {rest} evaluation images"
        )
    return (
        _images(folder, network, paths[:calibration], skipped),
        _images(folder, network, paths[calibration:], skipped),
    )


def _take(folder: ImageFolder, network: Network, count: int | None) -> Images:
    paths, skipped = folder.readable(count)
    needed = 1 if count is None else count
    if len(paths) < needed:
        raise InputError(
            f"{folder.directory} has {len(paths)} readable images: too few for {needed}"
        )
    return _images(folder, network, paths, skipped)


def _refuse_different_classes(train: ImageFolder, held_out: ImageFolder) -> None:
    """Sorted positions mean the same classes only if the names are the same."""
    different = sorted(set(train.classes) ^ set(held_out.classes))
    if different and not train.label_space == held_out.label_space == "imagenet":
        raise InputError(
            f"{train.directory} and {held_out.directory} have different "
            f"class folders: {different[0]} is only in one of them"
        )


def _images(
    folder: ImageFolder, network: Network, paths: list[Path], skipped: int
) -> Images:
    fit = _labels_fit(network, folder.label_space, len(folder.classes))
    return Images(
        name=printable(str(folder.directory)),
        digest=folder.digest(paths),
        labels=torch.tensor(folder.labels(paths), dtype=torch.int64) if fit else None,
        skipped=skipped,
        preprocessing=network.preprocessing,
        _items=paths,
    )


def _labels_fit(network: Network, space: str, classes: int) -> bool:
    """Whether a folder's class indices are the network's.

    Known label spaces must agree. Where only the number of classes is known of one
    side, the numbers must agree, and sorted folder names are trusted to be in the
    network's order.
    """
    if network.labels == "digits" and space in ("imagenet", "cifar10"):
        raise InputError(
            f"the weights of {network.name} know digits and the images are {space}'s: "
            "give the weights of a network trained on such images, or leave them out"
        )
    if space == network.labels != "classes":
        return True
    named = "imagenet" in (space, network.labels) or network.labels == "digits"
    return not named and classes == network.classes


def _embedded(
    network: Network, calibration: int, evaluation: int | None
) -> tuple[Images, Images]:
    return (
        _embedded_set("calibration", network, calibration),
        _embedded_set("evaluation", network, evaluation),
    )


def _embedded_set(name: str, network: Network, count: int | None) -> Images:
    with np.load(data_path("digits.npz")) as file:
        labels = torch.from_numpy(file[f"{name}_labels"].astype(np.int64))
        sheet = np.array(Image.open(io.BytesIO(file[f"{name}_sheet"].tobytes())))
    if len(labels) < (count or 0):
        raise InputError(
            f"{count} {name} images asked for: there are {len(labels)} embedded"
        )
    rows, columns = (length // _EMBEDDED_SIDE for length in sheet.shape[:2])
    cells = sheet.reshape(rows, _EMBEDDED_SIDE, columns, _EMBEDDED_SIDE, 3)
    pixels = cells.swapaxes(1, 2).reshape(-1, _EMBEDDED_SIDE, _EMBEDDED_SIDE, 3)
    pixels = np.ascontiguousarray(pixels[: len(labels)][:count])
    return Images(
        name="embedded",
        digest=hashlib.sha256(pixels.tobytes()).hexdigest(),
        labels=labels[:count] if network.labels == "digits" else None,
        skipped=0,
        preprocessing=network.preprocessing,
        _items=pixels,
    )
