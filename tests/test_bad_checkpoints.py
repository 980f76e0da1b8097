"""Checkpoints that cannot be used: one clear line and exit code 2, nothing guessed."""

from __future__ import annotations

import json
import os
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.__main__ import main as benchmarks
from qubo_rounding.network.checkpoints import pack, packed
from qubo_rounding.network.cifar_resnet import CifarResNet
from qubo_rounding.network.models import load_network
from qubo_rounding.network.preprocessing import Preprocessing
from solvers.errors import InputError, printable

WEIGHT, BIAS = "linear.weight", "linear.bias"
State = OrderedDict[str, Tensor]


@pytest.fixture(scope="module")
def good() -> State:
    torch.manual_seed(0)
    return OrderedDict(CifarResNet(20).state_dict())


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[Path], str]:
    """The line with which the command line refuses a checkpoint of a ResNet-20."""

    def refused(path: Path) -> str:
        command = ["layers", "--model", "resnet20", "--weights", str(path)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert benchmarks(command) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith("error: ")
        assert shown.err.count("\n") == 1
        return shown.err

    return refused


def quantized(weight: Tensor) -> Tensor:
    with warnings.catch_warnings(action="ignore"):
        return torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)


def nested(weight: Tensor) -> Tensor:
    with warnings.catch_warnings(action="ignore"):
        return torch.nested.nested_tensor(list(weight[:2]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Tensor.to_sparse, "linear.weight is sparse; expected a dense tensor"),
        (nested, "linear.weight is nested"),
        (quantized, "linear.weight is quantized"),
        (lambda w: w.to("meta"), "linear.weight is on the meta device"),
        (lambda w: w.to(torch.complex64), "linear.weight is complex64"),
        (lambda w: w.to(torch.float8_e4m3fn), "linear.weight is float8_e4m3fn"),
        (lambda w: w.to(torch.int64), "is int64 in the checkpoint; expected floating"),
        (lambda w: w > 0, "linear.weight is bool in the checkpoint"),
        (lambda w: w.double() * 1e300, "holds 640 NaN or infinite values"),
        (lambda w: w[:0], "linear.weight is empty, [0, 64]"),
        (lambda w: w.sum(), "linear.weight is [] in the checkpoint, [10, 64] in the"),
        (lambda w: w[:, None], "linear.weight is [10, 1, 64] in the checkpoint"),
        # As large as this, it is nowhere but in the file's header.
        (lambda w: w[:1].expand(10**12, 64), "64000000270477 numbers of checkpoint"),
    ],
)
def test_tensors(tmp_path, good, refused, change, message):
    torch.save(good | {WEIGHT: change(good[WEIGHT])}, tmp_path / "a.pth")
    assert message in refused(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.to(torch.complex64), "linear.weight is complex64"),
        (lambda w: w[:0], "linear.weight is empty, [0, 64]"),
        (lambda w: w.to(torch.int8), "is int8 in the checkpoint; expected floating"),
    ],
)
def test_tensors_of_safetensors(tmp_path, good, refused, change, message):
    save_file(good | {WEIGHT: change(good[WEIGHT])}, tmp_path / "a.safetensors")
    assert message in refused(tmp_path / "a.safetensors")


@pytest.mark.parametrize("classes", [0, 10**12])
def test_numbers_of_classes(tmp_path, good, refused, classes):
    weight, bias = (good[key][:1] for key in (WEIGHT, BIAS))
    wide = {WEIGHT: weight.expand(classes, 64), BIAS: bias.expand(classes)}
    torch.save(good | wide, tmp_path / "a.pth")
    line = refused(tmp_path / "a.pth")
    assert ("is empty" if classes == 0 else "GiB is available; take a smaller") in line


def test_a_network_of_one_class(tmp_path, good):
    one = {key: good[key][:1] for key in (WEIGHT, BIAS)}
    torch.save(good | one, tmp_path / "a.pth")
    assert load_network("resnet20", str(tmp_path / "a.pth")).classes == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, s: (c.fill_(-128), s), "a code of -128; codes are from -127 to 127"),
        (lambda c, s: (c.to(torch.uint8), s), "codes of uint8; expected int8"),
        (lambda c, s: (c.to(torch.int64) * 300, s), "codes of int64; expected int8"),
        (lambda c, s: (c * float("nan"), s), "codes of float32; expected int8"),
        (lambda c, s: (c[0, 0], s), "codes [] and scales [10]; expected one scale"),
        (lambda c, s: (c[:3], s), "codes [3, 64] and scales [10]"),
        (lambda c, s: (c[:, :3], s), "linear.weight is [10, 3] in the checkpoint"),
        (lambda c, s: (c, s[:1]), "codes [10, 64] and scales [1]"),
        (lambda c, s: (c, s[:, None]), "codes [10, 64] and scales [10, 1]"),
        (lambda c, s: (c, -s), "scales that are not positive and finite"),
        (lambda c, s: (c, s * float("nan")), "scales that are not positive and finite"),
        (lambda c, s: (c, s * float("inf")), "scales that are not positive and finite"),
        (lambda c, s: (c, s > 0), "scales that are not positive and finite"),
    ],
)
def test_codes(tmp_path, good, refused, change, message):
    codes, scale = change(*pack(good[WEIGHT]))
    state = packed(good, {WEIGHT})
    state |= {f"{WEIGHT}.codes": codes, f"{WEIGHT}.scale": scale}
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "a.safetensors")
    assert message in refused(tmp_path / "a.safetensors")


def test_a_tensor_that_is_there_twice(tmp_path, good, refused):
    torch.save(packed(good, {WEIGHT}) | good, tmp_path / "a.pth")
    assert "linear.weight is there twice" in refused(tmp_path / "a.pth")


@pytest.mark.parametrize("versions", [5, {"bn1": 7}, {"bn1": {"version": "new"}}])
def test_versions_of_modules_that_are_none(tmp_path, good, refused, versions):
    state = OrderedDict(good)
    state._metadata = versions
    torch.save(state, tmp_path / "a.pth")
    assert "the state cannot be loaded (" in refused(tmp_path / "a.pth")


DESCRIBED = {
    "resize": 32,
    "crop": 32,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
    "interpolation": "bilinear",
}
INTEGERS = "integers with 1 <= crop <= resize"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((t, "expected a JSON object with resize, crop, mean") for t in ("{", "null")),
        *((t, "expected a JSON object") for t in ("[1]", "3", "[" * 99999, "9" * 9999)),
    ],
    ids=lambda text: text[:9],
)
def test_metadata_that_are_no_object(tmp_path, good, refused, text, message):
    save_file(good, tmp_path / "a.safetensors", {"preprocessing": text})
    assert message in refused(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "expected a JSON object with resize, crop, mean, std, interp"),
        *(({"resize": side}, INTEGERS) for side in (-1, 0, 31, 32.5, "32", None)),
        *(({"crop": side}, INTEGERS) for side in (-1, 0, 33, True, [32])),
        ({"resize": 10**40}, INTEGERS),
        ({"resize": 10**9, "crop": 10**9}, INTEGERS),
        *(
            ({name: value}, f"{name} must be three finite numbers")
            for name in ("mean", "std")
            for value in (
                *([0.5, 0.5], [0.5] * 4, 0.5, "abc", ["a", "b", "c"], None, {}),
                *([0.5, 0.5, wrong] for wrong in (float("nan"), float("inf"), 1e300)),
            )
        ),
        *(
            ({"std": [1, wrong, 1]}, "all of them positive")
            for wrong in (0, -1, 1e-300)
        ),
        *(({"interpolation": w}, "is one of nearest") for w in ("x", ["x"], None, 2)),
    ],
)
def test_metadata_that_preprocessing_does_not_expect(change, message):
    with pytest.raises(InputError, match=message):
        Preprocessing.from_json(json.dumps(DESCRIBED | change))


@pytest.mark.parametrize("missing", DESCRIBED)
def test_metadata_that_lack_something(missing):
    described = {key: value for key, value in DESCRIBED.items() if key != missing}
    with pytest.raises(InputError, match="expected a JSON object with resize, crop"):
        Preprocessing.from_json(json.dumps(described))


def test_metadata_that_fit(tmp_path, good):
    metadata = {"preprocessing": json.dumps(DESCRIBED), "labels": "digits"}
    save_file(good, tmp_path / "a.safetensors", metadata)
    network = load_network("resnet20", str(tmp_path / "a.safetensors"))
    assert network.labels == "digits"
    assert network.preprocessing == Preprocessing(32, 32, (0.5,) * 3, (0.2,) * 3)


@pytest.mark.parametrize("labels", ["imagenet", "dogs", "", "a\nb"])
def test_labels_that_are_not_the_networks(tmp_path, good, refused, labels):
    save_file(good, tmp_path / "a.safetensors", {"labels": labels})
    line = refused(tmp_path / "a.safetensors")
    assert "has 10 classes and labels" in line
    assert "expected imagenet (1000), cifar10 (10), digits (10) or classes" in line


@pytest.mark.parametrize("name", [b"a\nb.pth", b"a\xff.pth", b"a\nb.safetensors"])
def test_names_of_files_may_be_anything(tmp_path, good, name):
    path = tmp_path / os.fsdecode(name)
    (torch.save if path.suffix == ".pth" else save_file)(good, path)
    network = load_network("resnet20", str(path))
    assert network.weights == printable(str(path))
    assert network.weights.isprintable()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\nb.pth", r"a\nb.pth does not exist"),
        ("a" * 999, "no weights '"),
        ("a" * 999 + ".pth", "cannot be read"),
        (".", "does not exist, or is no file"),
        ("folder.pth", "folder.pth does not exist"),
        # Its reader takes no such names.
        (os.fsdecode(b"a\xff.safetensors"), r"a\udcff.safetensors cannot be read"),
    ],
)
def test_names_of_no_file(tmp_path, refused, name, message):
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / os.fsdecode(b"a\xff.safetensors")).touch()
    assert message in refused(tmp_path / name)


def test_damaged_files_are_refused_or_read(tmp_path, good):
    """A file with a byte changed anywhere is refused by `InputError`, if at all."""
    small = {key: good[key] for key in (WEIGHT, BIAS)}
    torch.save(small, tmp_path / "whole.pth", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "whole.pth").read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        at, byte = (int(torch.randint(k, (), generator=generator)) for k in (900, 256))
        changed = bytearray(whole)
        changed[at] = byte
        (tmp_path / "a.pth").write_bytes(changed)
        with pytest.raises(InputError):
            load_network("resnet20", str(tmp_path / "a.pth"))
