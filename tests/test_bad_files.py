"""Archives and problem files that are no such thing: one line, and nothing executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import safetensors.numpy

from qubo_rounding.problem import RoundingProblem
from solvers.errors import InputError
from solvers.io.files import read_qubo
from solvers.testing import example_batch

PLAIN: dict[str, Any] = {
    "weight": np.array([[0.3, -0.8]]),
    "second_moment": np.eye(2),
    "scale": np.array(0.1),
    "bits": np.array(4),
}
NAMES = ("H", "linear", "offset", "scale", "prior")
BATCH = {name: getattr(example_batch(1, 2), name) for name in NAMES}


class Bomb:
    """Leaves a trace where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(values))
    return buffer.getvalue()


def headed(header: str | bytes, version: bytes = b"\x01\x00") -> bytes:
    """An array's file with the given header, and four bytes of data."""
    text = header.encode() if isinstance(header, str) else header
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + b"\0" * 4


def archive(members: dict[str, bytes], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def replaced(member: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Problem and batch in one, but that some members are another."""
    whole = {f"{k}.npy": npy(v) for k, v in (PLAIN | BATCH).items()}
    whole |= {"weight.npy": member, "linear.npy": member}
    return archive(whole, compression=compression)


def damaged(compression: int) -> bytes:
    """An archive with other bytes in the middle of the compressed members."""
    content = bytearray(replaced(npy(np.arange(500.0)), compression))
    start = content.index(b"linear.npy") + 10
    content[start : start + 40] = b"\xff" * 40
    return bytes(content)


def encrypted() -> bytes:
    content = bytearray(replaced(npy(1.0)))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := content.find(signature, at + 1)) >= 0:
            content[at + flags] |= 1
    return bytes(content)


FORM = "{'descr': '<f8', 'fortran_order': False, 'shape': %s, }\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        b"not an archive",
        archive({}),
        replaced(npy(1.0))[:-30],
        npy(np.ones((2, 2))),
        pickle.dumps(PLAIN),
        damaged(zipfile.ZIP_STORED),
        damaged(zipfile.ZIP_DEFLATED),
        damaged(zipfile.ZIP_BZIP2),
        damaged(zipfile.ZIP_LZMA),
        encrypted(),
        replaced(b"hello"),
        replaced(b""),
        replaced(headed("")),
        replaced(headed("rubbish")),
        replaced(headed(b"\xff\xfe\x00")),
        replaced(headed("(" * 5000)),
        replaced(headed("{'descr': '<f8'")),
        replaced(headed("{'descr': 3, 'fortran_order': 0, 'shape': 1}")),
        replaced(headed(FORM % "(2, 2)")),
        replaced(headed(FORM % "(-1,)")),
        replaced(headed(FORM % "(10**15,)")),
        replaced(headed(FORM % "(1000000000000000,)")),
        replaced(headed(FORM % "(1000000000, 100000000000)")),
        replaced(headed(FORM % "()", b"\x09\x00")),
        replaced(npy(np.ones((1, 2)))[:40]),
        replaced(npy(np.array([["1", "2"]]))),
        replaced(npy(np.ones((1, 2), complex))),
        replaced(npy(np.ones((1, 2), "m8[s]"))),
        replaced(npy(np.ones((1, 2), [("re", "f8")]))),
    ],
)
@pytest.mark.parametrize("read", [RoundingProblem.load, read_qubo])
def test_broken_archives(read, content, tmp_path):
    refused(lambda: read(put(tmp_path, "a.npz", content)), r"a\.npz.*")


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [RoundingProblem.load, read_qubo])
def test_whole_archives_are_read(read, tmp_path):
    """Compressed in any way: what is refused above is refused for its fault alone."""
    whole = {f"{k}.npy": npy(v) for k, v in (PLAIN | BATCH).items()}
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert read(put(tmp_path, "a.npz", archive(whole, compression=method))).n == 2


@pytest.mark.parametrize("read", [RoundingProblem.load, read_qubo])
@pytest.mark.parametrize("form", ["a member", "the file"])
def test_no_pickle_is_executed(read, form, tmp_path):
    mark = tmp_path / "executed"
    objects = np.array([Bomb(mark)], object)
    content = pickle.dumps(Bomb(mark))
    if form == "a member":
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, objects, allow_pickle=True)
        content = replaced(buffer.getvalue())
    refused(lambda: read(put(tmp_path, "a.npz", content)), "no.* .npz file of plain")
    assert not mark.exists()


def test_archives_larger_than_memory(tmp_path, monkeypatch):
    path = put(tmp_path, "a.npz", replaced(npy(np.zeros(10**5)), zipfile.ZIP_DEFLATED))
    memory = SimpleNamespace(available=10**5)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    refused(lambda: read_qubo(path), r"the arrays of .*a\.npz need 0.0 GiB and")


def test_folders(tmp_path):
    (tmp_path / "a.npz").mkdir()
    for read in (RoundingProblem.load, read_qubo):
        refused(lambda read=read: read(tmp_path / "a.npz"), r"a\.npz")


NO_JSON = "meta is not JSON"


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": np.array(np.inf)}, "bits is inf; it must be a whole number from 0"),
        ({"bits": np.array(np.nan)}, "bits is nan; it must be a whole number"),
        ({"bits": np.array([4, 4])}, "bits must be one number"),
        ({"bits": np.array(9)}, "bits must be 2 to 8, not 9"),
        ({"bits": np.array(1)}, "bits must be 2 to 8, not 1"),
        ({"count": np.array(np.inf)}, "count is inf; it must be a whole number"),
        ({"count": np.array(1e300)}, r"count is 1e\+300; it must be a whole number"),
        ({"count": np.array(-1)}, "count is -1; it must be a whole number"),
        ({"lo": np.array(np.inf), "hi": np.array(3)}, "lo is inf; it must be a whole"),
        ({"lo": np.array(-3.0), "hi": np.array(2.0**32)}, "hi is 4294967296.0; it mus"),
        ({"scale": np.array(-1.0)}, "scale must be positive"),
        ({"meta": "[" * 10**5}, NO_JSON),
        ({"meta": "[]"}, "meta must be a JSON object"),
        ({"meta": '{"a": NaN}'}, NO_JSON),
        ({"meta": '{"a": [-Infinity]}'}, NO_JSON),
        ({"meta": '{"a": 1e999}'}, NO_JSON),
        ({"meta": '{"a": ' + "1" * 5000 + "}"}, NO_JSON),
        ({"meta": "{"}, NO_JSON),
        ({"meta": '{"objective": 3}'}, "objective in meta must be a text, not 3"),
        ({"meta": '{"layer": ["a"]}'}, r"layer in meta must be a text, not \['a'\]"),
        ({"meta": '{"bits": "four"}'}, "bits must be 2 to 8, not 'four'"),
        ({"meta": '{"bits": true}'}, "bits must be 2 to 8, not True"),
        ({"saturated": "maybe"}, "saturated must be fixed or free, not 'maybe'"),
        ({"digest": "0"}, "is damaged: its contents do not match its digest"),
    ],
)
def test_fields_of_a_problem(suffix, change, message, tmp_path):
    path = tmp_path / f"a{suffix}"
    held = PLAIN | change
    if suffix == ".npz":
        np.savez(path, **held)
    else:
        text = {k: v for k, v in held.items() if isinstance(v, str)}
        arrays = {k: v for k, v in held.items() if k not in text}
        safetensors.numpy.save_file(arrays, path, text)
    refused(lambda: RoundingProblem.load(path), rf"a\{suffix}.*{message}")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_scale_of_one_number(suffix, shape, tmp_path):
    path = tmp_path / f"a{suffix}"
    held = PLAIN | {"scale": np.full(shape, 0.1), "bits": np.full(shape, 4)}
    if suffix == ".npz":
        np.savez(path, **held)
    else:
        safetensors.numpy.save_file(held, path)
    assert RoundingProblem.load(path).scale.tolist() == [[0.1]]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 100,
        (10**15).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
    ],
)
def test_broken_safetensors(content, tmp_path):
    path = put(tmp_path, "a.safetensors", content)
    refused(lambda: RoundingProblem.load(path), r"cannot read .*a\.safetensors")


@pytest.mark.parametrize(
    ("kind", "size"), [("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1), ("NO", 2)]
)
def test_tensors_that_numpy_lacks(kind, size, tmp_path):
    entry = {"dtype": kind, "shape": [1], "data_offsets": [0, size]}
    header = json.dumps({"weight": entry}).encode()
    content = len(header).to_bytes(8, "little") + header + b"\0" * size
    path = put(tmp_path, "a.safetensors", content)
    refused(lambda: RoundingProblem.load(path), r"a\.safetensors")


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"a": np.nan}, "meta cannot be written as JSON"),
        ({"a": object()}, "meta cannot be written as JSON"),
        ({"a": np.eye(2)}, "meta cannot be written as JSON"),
        ({1j: 2}, "meta cannot be written as JSON"),
    ],
)
def test_what_no_file_can_hold(meta, message, tmp_path):
    arrays = {"lo": -4, "hi": 3, "scale": 0.1, "moment": np.eye(2)}
    problem = RoundingProblem(weight=PLAIN["weight"], meta=meta, **arrays)
    refused(lambda: problem.save(tmp_path / "a.npz"), message)
    assert list(tmp_path.iterdir()) == []
