"""Bad input on the command line: one clear line and exit code 2."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main as benchmarks

SMALL = ["--weights", "embedded", "--calibration", "24", "--evaluation", "40"]


def command(*arguments: object) -> int:
    return benchmarks(["run", *map(str, arguments)])


def _broken_images(folder: Path, readable: int, broken: int) -> Path:
    (folder / "class").mkdir(parents=True)
    for i in range(readable):
        Image.new("RGB", (64, 64)).save(folder / "class" / f"{i}.png")
    for i in range(broken):
        (folder / "class" / f"bad{i}.png").write_bytes(b"no image")
    return folder


LAYER = ["--layer", "resnet20.conv1", *SMALL]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of --layer MODEL.LAYER and --problem FILE"),
        (["--layer", "resnet18."], "write MODEL.LAYER, such as resnet18.conv1"),
        (["--layer", "resnet19.conv1"], "unknown model 'resnet19'; did you mean"),
        (["--layer", "resnet20.conv3", *SMALL], "unknown layer 'conv3'; did you mean"),
        (["--layer", "resnet20.bn1", *SMALL], "BatchNorm2d"),
        ([*LAYER, "--solver", "cen"], "unknown solver 'cen'; did you mean cem"),
        ([*LAYER, "--solver", "cem[sample=3]"], "did you mean samples"),
        ([*LAYER, "--solver", "cem[samples=many]"], "takes a value of type int"),
        ([*LAYER, "--solver", "cem[samples=1]"], "samples must be at least 2"),
        ([*LAYER, "--solver", ","], "no solver given"),
        ([*LAYER, "--bits", "9"], "bits must be an integer from 2 to 8"),
        ([*LAYER, "--bits", "four"], "invalid int value: 'four'"),
        (
            [*LAYER, "--grid", "mse"],
            "unknown scale rule 'mse'; known: minmax, weight-mse",
        ),
        ([*LAYER, "--grid", "minmax,wide"], "range must be symmetric, restricted or"),
        ([*LAYER, "--grid", "in-turn"], "write in-turn:ROUNDS, as in-turn:5, not 'in-"),
        ([*LAYER, "--grid", "minmax,in-turn:0"], "not 'in-turn:0'"),
        ([*LAYER, "--grid", "minmax,in-turn:-2"], "not 'in-turn:-2'"),
        ([*LAYER, "--grid", "minmax,in-turn:99999"], "not 'in-turn:99999'"),
        ([*LAYER, "--grid", "in-turn:2,in-turn:3"], "not 'in-turn:2,in-turn:3'"),
        ([*LAYER, "--grid", "minmax,in-turn:2,wide"], "range must be symmetric"),
        (
            [*LAYER, "--grid", "in-turn:2", "--save-problem", "problem.npz"],
            "--save-problem writes a problem at one scale; leave in-turn out",
        ),
        (
            [*LAYER, "--solver", "window[solver=sa"],
            r"cannot read solvers .* a \[ is not",
        ),
        ([*LAYER, "--solver", "window[solver=ste]"], "ste is out of the set itself"),
        ([*LAYER, "--granularity", "group"], "group:SIZE, as group:32"),
        ([*LAYER, "--granularity", "group:x"], "--grid and --granularity"),
        ([*LAYER, "--grid", "minmax:99"], "--grid minmax takes no :99"),
        ([*LAYER, "--seed", "-1"], "--seed must be at least 0, not -1"),
        ([*LAYER, "--seconds", "inf"], "seconds must be positive, not inf"),
        ([*LAYER, "--json", "."], r"cannot write \."),
        (["--problem", "x.npz", "--weights", "auto"], "--weights does not go with"),
        ([*LAYER, "--threads", "0"], "threads must be at least 1"),
        ([*LAYER, "--seconds", "-1"], "seconds must be positive"),
        ([*LAYER, "--calibration", "9999"], "9999 calibration images asked for"),
        ([*LAYER, "--images", "nowhere"], "--images: folder nowhere does not exist"),
        ([*LAYER, "--json", "x" * 300], r"cannot write x+: File name too long"),
        (
            [*LAYER, "--solver", "no.py:X"],
            r"no\.py:X: cannot read no\.py: No such file",
        ),
        ([*LAYER, "--json", "no/record.json"], "its folder does not exist"),
        ([*LAYER, "--save", "rounded.txt"], r"name it \.npz or \.safetensors"),
        (["--layer", "resnet20.conv1", "--weights", "no.pth"], r"no\.pth"),
        (["--problem", "no.npz"], r"no\.npz does not exist"),
        (["--problem", "no.npz", "--bits", "4"], "--bits does not go with --problem"),
        (["--list", "layers"], "--list layers needs --layer MODEL"),
        (["--list", "colours"], "invalid choice"),
        (["--wieghts", "x"], "unrecognized arguments"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0] == err.splitlines()[-1]
    assert re.search(message, errors[0])


def test_a_record_replaces_no_pipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert command("--problem", "no.npz", "--json", path) == 2
    said = f"error: cannot write {path}: it is not a regular file\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("readable", "broken", "message"),
    [
        (0, 0, "no images"),
        (10, 5, "1 %"),
        (10, 0, "too few for 24 calibration"),
    ],
)
def test_bad_image_folders(
    tmp_path: Path,
    readable: int,
    broken: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = _broken_images(tmp_path / "pictures", readable, broken)
    assert command(*LAYER, "--images", folder) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.full((2, 3), np.nan)}, r"weight\[0, 0\] is nan"),
        ({"second_moment": np.diag([1, np.inf, 1])}, r"moment\[1, 1\] is inf"),
        ({"second_moment": np.triu(np.ones((3, 3)))}, "moment is not symmetric"),
        ({"second_moment": np.diag([1, -1, 1])}, "negative eigenvalue"),
        ({"second_moment": np.eye(4)}, r"moment must have shape \(3, 3\)"),
        ({"weight": np.ones((0, 3))}, "non-empty"),
        ({"bits": None}, "neither lo and hi nor bits"),
        ({"bits": 4.7}, "bits is 4.7; it must be a whole number"),
        ({"bits": 40}, "bits must be 2 to 8, not 40"),
        ({"bits": np.array([4, 4])}, "bits must be one number"),
        ({"lo": -8.5, "hi": 7}, "lo is -8.5; it must be a whole number"),
        ({"meta": "{bad"}, "meta is not JSON"),
        ({"meta": "[1]"}, "meta must be a JSON object"),
        ({"weight": np.ones((2, 3)) * 1j}, "weight must be real numbers"),
        ({"scale": 1e-300}, "must lie within 1e±100"),
    ],
)
def test_bad_problem_files(
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fields = {
        "weight": np.ones((2, 3)),
        "second_moment": np.eye(3),
        "scale": 0.1,
        "bits": 4,
    } | changes
    path = tmp_path / "problem.npz"
    np.savez(path, **{k: v for k, v in fields.items() if v is not None})
    assert command("--problem", path) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert re.match(f"error: .*{message}", err)
