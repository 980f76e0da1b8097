"""Folders of images that hold more, or less, than images; networks that take none."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main as benchmarks
from qubo_rounding.network.image_folder import ImageFolder
from qubo_rounding.network.images import load_images
from qubo_rounding.network.models import load_network
from qubo_rounding.network.preprocessing import Preprocessing
from solvers.errors import InputError

NETWORK = """
from torch import nn

def any_image():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def vectors():
    return nn.Sequential(nn.Linear(7, 2))

def too_much():
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            return self.layer(x.new_empty(2**50, 3))
    return Padded()
"""
NAMES = ["a\nb", os.fsdecode(b"caf\xe9")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of five images; a network that takes any."""
    (tmp_path / "takes.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(5):
            image = Image.fromarray(np.full((10, 12, 3), i, np.uint8))
            image.save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """The line with which the command line refuses a folder of images."""

    def refused(folder: object, model: str = "takes:any_image") -> str:
        command = ["layers", "--model", model, "--images", str(folder)]
        assert benchmarks([*command, "--solver", "nearest", "--calibration", "9"]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
        return lines[-1]

    return refused


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def bomb(path: Path) -> None:
    """Replace an image by one of 10**10 pixels, a few bytes of a file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    size = (10**5).to_bytes(4, "big")
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size + size + bytes([8, 2, 0, 0, 0]))
        + chunk(b"IDAT", zlib.compress(bytes(999)))
        + chunk(b"IEND", b"")
    )


def link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


BROKEN: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no image"),
    "cut": cut,
    "bomb": bomb,
    "link to nowhere": lambda path: link(path, "nowhere.png"),
    "link to itself": lambda path: link(path, path.name),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_unreadable_images_are_counted(folder, refused, kind):
    BROKEN[kind](folder / "a" / "3.png")
    line = refused(folder)
    assert "cannot read 1 of 10 images, 3.png for one; at most 1 % may be bad" in line


def test_images_that_may_not_be_read_are_counted(folder, refused, monkeypatch):
    """As in a folder that may be listed, but whose files may not be opened."""
    denied = folder / "a" / "3.png"
    stat = Path.stat

    def no_stat(path: Path, **options: bool) -> os.stat_result:
        if path == denied:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    cut(denied)
    monkeypatch.setattr(Path, "stat", no_stat)
    assert "cannot read 1 of 10 images, 3.png for one" in refused(folder)


@pytest.mark.parametrize("error", [ZeroDivisionError, RuntimeError, MemoryError])
def test_whatever_a_decoder_raises(folder, refused, error, monkeypatch):
    def fail(path: Path) -> Image.Image:
        if path.name == "3.png":
            raise error
        return honest(path)

    honest = Image.open
    monkeypatch.setattr("PIL.Image.open", fail)
    assert "cannot read 2 of 10 images, 3.png for one" in refused(folder)


def test_what_is_no_file_is_no_image(folder):
    """Folders and pipes are passed over whatever their names, and never opened."""
    whole = ImageFolder(folder).readable(None)
    (folder / "a" / "folder.png").mkdir()
    os.mkfifo(folder / "a" / "pipe.png")
    link_to_pipe = folder / "a" / "link.png"
    link_to_pipe.symlink_to("pipe.png")
    (folder / "class.png").touch()
    assert ImageFolder(folder).readable(None) == whole


def test_folders_below_and_behind_links(folder):
    (folder / "a" / "below" / "x.png").mkdir(parents=True)
    (folder / "a" / "0.png").rename(folder / "a" / "below" / "x.png" / "0.png")
    (folder / "b").rename(folder.parent / "elsewhere")
    (folder / "b").symlink_to(folder.parent / "elsewhere")
    images = ImageFolder(folder)
    assert images.classes == ["a", "b"]
    assert len(images.readable(None)[0]) == 10


@pytest.mark.parametrize("which", [".", "b"])
def test_folders_that_may_not_be_listed(folder, refused, which, monkeypatch):
    """A class that is left out would shift the numbers of the others."""
    denied, scan = str(folder / which), os.scandir

    def no_scan(path: str) -> object:
        if str(path) == denied:
            raise PermissionError(13, "Permission denied", denied)
        return scan(path)

    monkeypatch.setattr(os, "scandir", no_scan)
    line = refused(folder)
    assert "images cannot be read: [Errno 13] Permission denied" in line
    assert denied in line


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a" * 999, "File name too long"),
        ("file", "file does not exist"),
        ("no\nwhere", r"no\nwhere does not exist"),
        (os.fsdecode(b"no\xff"), r"no\udcff does not exist"),
    ],
)
def test_names_of_no_folder(folder, refused, name, message):
    (folder / "file").touch()
    assert message in refused(folder / name)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_folders_and_files_may_be_anything(folder, name, capfd):
    """Messages show them in one line, that any terminal prints."""
    here = folder.parent / name
    folder.rename(here)
    (here / "b").rename(here / name)
    (here / "a" / "3.png").rename(here / "a" / f"{name}.png")
    command = ["layers", "--model", "takes:any_image", "--images", str(here)]
    assert benchmarks([*command, "--solver", "nearest", "--calibration", "10"]) == 0
    (line,) = [s for s in capfd.readouterr().err.splitlines() if "10 images of" in s]
    assert line.isprintable()
    cut(here / "a" / f"{name}.png")
    assert benchmarks([*command, "--solver", "nearest", "--calibration", "9"]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "cannot read 1 of 10 images" in error
    assert error.rstrip().isprintable()


@pytest.mark.parametrize("name", ["a\nb", os.fsdecode(b"a\xe9")])
def test_classes_that_are_in_one_folder_only(folder, refused, name):
    for half in ("train", "test"):
        (folder / half).mkdir()
    (folder / "a").rename(folder / "train" / name)
    (folder / "b").rename(folder / "test" / "b")
    line = refused(folder)
    assert (
        "class folders: a is only in one of them" in line or "class folders: " in line
    )
    assert line.isprintable()


def test_images_too_long_to_be_resized(folder, refused):
    """A strip of a few kilobytes would take gigabytes."""
    Image.new("RGB", (1, 60_000)).save(folder / "a" / "3.png")
    line = refused(folder)
    assert "3.png: 1 x 60000 pixels are too long an image to be resized to 256" in line
    wide = Preprocessing(8, 8)(Image.new("RGB", (60_000, 1)))
    assert wide.shape == (3, 8, 8)


def test_more_images_than_memory_holds(folder, refused, monkeypatch):
    memory = SimpleNamespace(available=3 * 224 * 224 * 4 * 8)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    line = refused(folder)
    assert "9 images of 224 x 224 pixels need 0.0 GiB and 0.0 GiB is available" in line


def test_a_batch_larger_than_memory(folder, monkeypatch):
    images, _ = load_images(folder, load_network("takes:any_image"), 10, 0)
    memory = SimpleNamespace(available=3 * 224 * 224 * 4 * 8)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    assert len(list(images.batches(4))) == 3
    with pytest.raises(InputError, match="5 images of 224 x 224 pixels need"):
        next(images.batches(5))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("takes:vectors", "Sequential cannot be run on a batch of shape (1, 3, 224"),
        ("takes:too_much", "Padded cannot be run on a batch of shape (1, 3, 224, 224)"),
    ],
)
def test_networks_that_take_no_images(folder, refused, model, message):
    assert message in refused(folder, model)


def test_an_image_that_breaks_later_is_named_in_one_line(folder):
    name = os.fsdecode(b"\xff\n.png")
    (folder / "a" / "3.png").rename(folder / "a" / name)
    images, _ = load_images(folder, load_network("resnet20", "embedded"), 10, 0)
    cut(folder / "a" / name)
    with pytest.raises(InputError, match=r"\\udcff\\n\.png can no longer be") as caught:
        list(images.batches(10))
    assert str(caught.value).isprintable()
