"""Whole networks on the command line: tables, records, files, and going on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.__main__ import main as benchmarks
from benchmarks.harness import readers
from qubo_rounding import load_quantized
from qubo_rounding.network.evaluate import predict
from qubo_rounding.network.images import load_images
from qubo_rounding.network.models import load_network
from solvers.decoders.kbest import KBest

EMBEDDED = ["--layer", "resnet20", "--weights", "embedded"]
SMALL = [*EMBEDDED, "--calibration", "8", "--evaluation", "12"]
LAYERS = ["conv1", "layer1.0.conv1", "linear"]
FEW = [*SMALL, "--layers", ",".join(LAYERS)]
# Each layer is solved once.
ONCE = [*FEW, "--solver", "kbest", "--without", "scale,trust"]
WIDTH = 120
pytestmark = pytest.mark.filterwarnings("ignore:layer.*positions for:UserWarning")


def command(*arguments: object) -> int:
    return benchmarks(["run", *map(str, arguments)])


def accuracy(network: nn.Module, count: int) -> float:
    """Top-1 in percent on the first images of those that `EMBEDDED` scores on."""
    _, images = load_images(None, load_network("resnet20", "embedded"), 8, count)
    assert images.labels is not None
    return 100 * float(predict(network, images).correct(images.labels).mean())


def test_a_network_is_rounded_scored_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_file, file = tmp_path / "record.json", tmp_path / "network.safetensors"
    code = command(
        # So many that intervals are in the table.
        *(*FEW, "--evaluation", "40"),
        *("--bits", "3", "--bits-of", "conv1=8", "--exclude", "linear"),
        *("--solver", "kbest[paths=4]", "--activations", "percentile:99.9"),
        *("--json", record_file, "--export", file),
    )
    assert code == 0
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines())) <= WIDTH
    # No bar of progress where there is no terminal.
    assert "\r" not in err
    assert "layer/s" not in err
    assert "[a, b]: 95 % interval of the gain over nearest, same inputs" in out

    record = json.loads(record_file.read_text())
    assert not record["interrupted"]
    assert record["spec"]["bits_of"] == {"conv1": 8}
    assert record["network"]["calibration_images"] == 8
    nearest, kbest = record["results"]
    assert not any(v for v in nearest["parts"].values() if isinstance(v, bool))
    assert list(kbest["layers"]) == ["conv1", "layer1.0.conv1"]
    bits = {name: layer["bits"] for name, layer in kbest["layers"].items()}
    assert bits == {"conv1": 8, "layer1.0.conv1": 3}
    for layer in kbest["layers"].values():
        assert layer["error"] <= layer["error_nearest"]
    assert kbest["activations"]["rule"] == "percentile:99.9"
    for result in record["results"]:
        assert f"{result['top1']:.1f}" in out
        assert f"{result['activations']['top1']:.1f}" in out
    assert "A8: with activations of 8 bits, percentile:99.9" in out

    # What is written is the network that was scored.
    loaded = load_quantized(file, load_network("resnet20", "embedded").module)
    assert loaded.meta["model"] == "resnet20"
    assert accuracy(loaded.network, 40) == kbest["activations"]["top1"]


def test_the_baseline_alone_can_be_written(tmp_path: Path) -> None:
    file, record_file = tmp_path / "a.safetensors", tmp_path / "a.json"
    arguments = [*FEW, "--solver", "nearest", "--export", file, "--json", record_file]
    assert command(*arguments) == 0
    loaded = load_quantized(file, load_network("resnet20", "embedded").module)
    (nearest,) = json.loads(record_file.read_text())["results"]
    assert accuracy(loaded.network, 12) == nearest["top1"]


def test_an_onnx_graph_gives_the_same_outputs(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    file, graph = tmp_path / "a.safetensors", tmp_path / "a.onnx"
    files = ["--export", file, "--onnx", graph]
    assert command(*ONCE, *files) == 0
    x = torch.randn(3, 3, 64, 64)
    loaded = load_quantized(file, load_network("resnet20", "embedded").module)
    session = runtime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        expected = loaded.network(x).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_layers_that_fell_back_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_file = tmp_path / "record.json"
    # So many that some are held out.
    arguments = [*FEW, "--calibration", "32", "--solver", "floor"]
    assert command(*arguments, "--json", record_file) == 0
    out = capsys.readouterr().out
    _, floor = json.loads(record_file.read_text())["results"]
    fallen = [name for name, layer in floor["layers"].items() if layer["guarded"]]
    assert fallen
    assert f"floor fell back to nearest in {', '.join(fallen)}" in out.splitlines()


@pytest.mark.parametrize(
    "options",
    [["--threads", "2"], ["--memory", "0.001"], ["--threads", "2", "--memory", "1e-9"]],
    ids=" ".join,
)
def test_the_same_answer_with_other_threads_and_memory(
    options: list[str], tmp_path: Path
) -> None:
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    solver = ["--solver", "lattice[elites=1,num_sweeps=5]", "--without", "scale"]
    for file, more in zip(files, ([], options), strict=True):
        assert command(*FEW, *solver, "--export", file, *more) == 0
    assert files[0].read_bytes() == files[1].read_bytes()


@dataclass
class Solves:
    """Counts the layers that `kbest` solves, and raises Ctrl-C before one of them."""

    stop: int | None = None
    done: int = 0
    search: Any = field(default=KBest.search)

    def __call__(self, *task: Any) -> Any:
        if self.done == self.stop:
            raise KeyboardInterrupt
        self.done += 1
        return self.search(*task)


@pytest.fixture
def solves(monkeypatch: pytest.MonkeyPatch) -> Solves:
    found = Solves()
    monkeypatch.setattr(KBest, "search", lambda *task: found(*task))
    return found


def test_an_interrupted_run_goes_on_where_it_was(
    tmp_path: Path, solves: Solves, capsys: pytest.CaptureFixture[str]
) -> None:
    keep, record_file = tmp_path / "new" / "kept", tmp_path / "record.json"
    file, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    again = [*ONCE, "--keep", keep, "--json", record_file, "--export", file]

    solves.stop = 2
    assert command(*again) == 130
    out, err = capsys.readouterr()
    assert "nearest" in out
    assert f"{file} is not written: the solver has not finished" in err
    assert err.splitlines()[-1] == "interrupted"
    record = json.loads(record_file.read_text())
    assert record["interrupted"]
    assert [result["solver"] for result in record["results"]] == ["nearest"]
    assert not file.exists()

    solves.stop = None
    assert command(*again) == 0
    assert "without scale, trust" in capsys.readouterr().out.splitlines()
    assert solves.done == len(LAYERS)
    assert not json.loads(record_file.read_text())["interrupted"]
    # Nothing is left to be solved.
    assert command(*again) == 0
    assert solves.done == len(LAYERS)
    assert command(*ONCE, "--export", other) == 0
    assert file.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    "other",
    [
        ["--bits", "3"],
        ["--calibration", "9"],
        ["--seed", "1"],
        ["--bits-of", "conv1=8"],
    ],
    ids=" ".join,
)
def test_a_folder_keeps_one_work(
    other: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = ["--keep", tmp_path / "kept", "--solver", "nearest"]
    assert command(*FEW, *keep) == 0
    capsys.readouterr()
    assert command(*FEW, *other, *keep) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "was kept by other work (other options, weights, images or code)" in last


def test_a_solver_whose_file_has_changed_takes_nothing_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(__file__).with_name("misbehaving.py").read_text("utf-8")
    solver, record_file = tmp_path / "mine.py", tmp_path / "record.json"
    arguments = [*FEW, "--keep", tmp_path / "kept", "--json", record_file]
    for text, code in ((source, 0), (source, 0), (f"{source}\nCHANGED = True\n", 2)):
        capsys.readouterr()
        solver.write_text(text, "utf-8")
        assert command(*arguments, "--solver", f"{solver}:Honest") == code
    out, err = capsys.readouterr()
    assert "was kept by other work" in err.splitlines()[-1]
    # What is finished is not lost.
    assert "nearest" in out
    record = json.loads(record_file.read_text())
    assert record["interrupted"]
    assert [result["solver"] for result in record["results"]] == ["nearest"]


def test_a_solver_that_fails_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.safetensors"
    solver = f"{Path(__file__).with_name('misbehaving.py')}:Raises"
    assert command(*FEW, "--solver", solver, "--export", file) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].endswith("error")
    assert "ValueError: first line" in err
    assert f"{file} is not written" in err
    assert not file.exists()


def test_names_of_layers_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--list", "layers", "--layer", "resnet18") == 0
    names = capsys.readouterr().out.splitlines()
    assert len(names) == 21
    assert {"resnet18.conv1", "resnet18.layer4.0.downsample.0"} <= set(names)


LAYER = ["--layer", "resnet20.conv1", *SMALL[2:]]
DATA = ["--layer", f"{__name__}:mlp", "--data", f"{__name__}:points"]
MAPPED = ["--layer", f"{__name__}:mlp", "--data", f"{__name__}:mapped_points"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "resnet19"], "unknown model 'resnet19'; did you mean resnet18"),
        (["--layer", "resnet19", "--layers", "conv1"], "unknown model 'resnet19'"),
        ([*SMALL, "--layers", "conv11"], "unknown layer 'conv11'; did you mean conv1"),
        ([*SMALL, "--layers", "bn1"], "layer 'bn1' is a BatchNorm2d"),
        ([*SMALL, "--exclude", "conv11"], "unknown layer 'conv11'; did you mean conv1"),
        ([*SMALL, "--bits-of", "conv11=8"], "unknown layer 'conv11'; did you mean"),
        ([*SMALL, "--bits-of", "conv1=9"], "with 2 to 8 bits, as conv1=8, not 'conv1="),
        ([*SMALL, "--bits-of", "conv1"], "takes LAYER=BITS with 2 to 8 bits"),
        ([*SMALL, "--bits-of", "conv1=8,conv1=4"], "names layer 'conv1' twice"),
        ([*SMALL, "--without", "residul"], "'residul'; did you mean residual?"),
        ([*SMALL, "--memory", "0"], "--memory must be positive, not 0.0"),
        ([*SMALL, "--keep", __file__], "is no folder that can be made and written to"),
        ([*SMALL, "--activations", "klx"], "unknown rule for activations 'klx'; did "),
        ([*SMALL, "--activations", "mse:3"], "'mse:3' is no rule for activations"),
        ([*SMALL, "--export", "a.npz"], "cannot write a.npz: name it .safetensors"),
        ([*SMALL, "--export", "no/a.safetensors"], "its folder does not exist"),
        ([*SMALL, "--onnx", "a.pb"], "cannot write a.pb: name it .onnx"),
        (
            [*SMALL, "--solver", "kbest,sa", "--export", "a.safetensors"],
            "--export writes one network: give --solver one solver",
        ),
        (
            [*SMALL, "--calibration-images", "."],
            "--calibration-images needs --images, the ones to score on",
        ),
        ([*SMALL, "--problem", "a.npz"], "give one of --layer and --problem"),
        ([*SMALL, "--objective", "fisher"], "--objective goes with a single layer"),
        ([*SMALL, "--save", "a.npz"], "--save goes with a single layer"),
        ([*SMALL, "--save-problem", "a.npz"], "--save-problem goes with a single"),
        ([*LAYER, "--layers", "conv1"], "--layers goes with a whole network"),
        ([*LAYER, "--exclude", "conv1"], "--exclude goes with a whole network"),
        ([*LAYER, "--bits-of", "conv1=8"], "--bits-of goes with a whole network"),
        ([*LAYER, "--without", "bias"], "--without goes with a whole network"),
        ([*LAYER, "--memory", "1"], "--memory goes with a whole network"),
        ([*LAYER, "--keep", "kept"], "--keep goes with a whole network"),
        ([*LAYER, "--export", "a.safetensors"], "--export goes with a whole network"),
        ([*LAYER, "--activations", "mse"], "--activations goes with a whole network"),
        ([*LAYER, *DATA[2:]], "--data goes with a whole network"),
        (["--problem", "a.npz", "--layers", "conv1"], "--layers goes with a whole"),
        ([*DATA, "--images", "."], "--images does not go with --data, which has it"),
        ([*DATA, "--calibration", "8"], "--calibration does not go with --data"),
        ([*DATA, "--evaluation", "8"], "--evaluation does not go with --data"),
    ],
    ids=lambda value: " ".join(value[-3:]) if isinstance(value, list) else "",
)
def test_bad_input_is_told_before_any_work(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*arguments) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == ""
    assert line.startswith("error: ")
    assert message in line


def test_a_missing_exporter_is_told_before_any_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(readers, "find_spec", lambda name: None)
    assert command(*SMALL, "--onnx", "a.onnx") == 2
    assert capsys.readouterr().err == (
        "error: --onnx: onnxscript is not installed; "
        'pip install "qubo-rounding[onnx]" installs it\n'
    )


@pytest.mark.parametrize("layer", ["resnet20", "resnet20.conv1"])
def test_images_of_a_folder_of_their_own(
    layer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for name in ("one/a", "one/b", "two/a", "two/b", "two/inner/a"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    arguments = ["--layer", layer, *SMALL[2:4], "--solver", "nearest"]
    arguments += ["--calibration", "4", "--evaluation", "4"]
    arguments += ["--images", str(tmp_path / "two")]
    if layer == "resnet20":
        arguments += ["--layers", "conv1"]
    for inside in ("two", "two/inner"):
        assert command(*arguments, "--calibration-images", tmp_path / inside) == 2
        assert "overlap; give two separate" in capsys.readouterr().err.splitlines()[-1]
    (tmp_path / "two" / "inner").rename(tmp_path / "inner")
    assert command(*arguments, "--calibration-images", tmp_path / "one") == 0
    assert f"calibration: 4 images of {tmp_path / 'one'}" in capsys.readouterr().err


def mlp() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    return nn.Sequential(*layers).eval()


@dataclass
class Points:
    """Points whose class is the one that `mlp` says."""

    calibration: list[Any]
    evaluation: list[Any]
    name: str = "accuracy"

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.argmax(1) == targets


def points() -> Points:
    network, x = mlp(), torch.randn(3, 50, 4)
    with torch.no_grad():
        return Points([x[0], x[1]], [(x[2], network(x[2]).argmax(1))])


def mapped_points() -> Points:
    held = points()
    calibration = [{"input": x} for x in held.calibration]
    return Points(calibration, [({"input": x}, y) for x, y in held.evaluation])


@pytest.mark.parametrize("data", [DATA, MAPPED], ids=["tensors", "mappings"])
def test_data_of_a_users_own(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_file = tmp_path / "record.json"
    rounded = ["--activations", "minmax"] if data is DATA else []
    arguments = [*data, "--solver", "kbest", "--bits", "2", "--json", record_file]
    assert command(*arguments, *rounded) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= WIDTH
    record = json.loads(record_file.read_text())
    assert record["full_precision"] == {"score": 1.0}
    assert record["network"]["evaluation_examples"] == 50
    nearest, kbest = record["results"]
    assert "accuracy" in out.splitlines()[0]
    assert f"{kbest['score']:.4f}" in out
    for layer in kbest["layers"].values():
        assert layer["error"] < layer["error_nearest"]
    low, high = kbest["score_minus_nearest"]
    assert low <= kbest["score"] - nearest["score"] <= high
    assert nearest["score_minus_nearest"] is None
    for result in record["results"]:
        assert ("activations" in result) == bool(rounded)
        if rounded:
            assert 0 <= result["activations"]["score"] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*DATA, "--layers", "1"], "layer '1' is a ReLU"),
        ([*DATA, "--layers", "3"], "unknown layer '3'"),
        (
            [*MAPPED, "--activations", "mse"],
            "--activations takes networks that are fed",
        ),
        ([*DATA[:2], "--data", "points"], "not of the form package.module:factory"),
    ],
)
def test_bad_input_with_data(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("error: ")
    assert message in err.splitlines()[-1]
