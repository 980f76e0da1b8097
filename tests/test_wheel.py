"""The built wheel, alone in an environment of its own, does the main job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
NO_INDEX = ("No matching distribution found", "Could not find a version")


def _run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    # A path or a user's site-packages would let the checkout in by a side door.
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    env["PYTHONNOUSERSITE"] = "1"
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def _pip(python: str | Path, *arguments: str | Path, cwd: Path) -> None:
    done = _run(python, "-m", "pip", *arguments, cwd=cwd)
    if done.returncode == 0:
        return
    if any(line in done.stderr for line in NO_INDEX) and not os.environ.get("CI"):
        pytest.skip("pip reaches no package index")
    pytest.fail(f"pip {arguments[0]} failed:\n{done.stderr[-2000:]}")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _pip(sys.executable, "wheel", "--no-deps", "-w", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean_python(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("clean") / "venv"
    created = _run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    assert created.returncode == 0, created.stderr
    python = folder / "bin" / "python"
    _pip(python, "install", wheel, cwd=folder.parent)
    yield python
    # pytest keeps the folders of three runs, and this one is over a gigabyte.
    shutil.rmtree(folder)


def test_wheel_holds_the_packages_and_the_data_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    folders = {name.split("/")[0] for name in names}
    assert {f for f in folders if not f.endswith(".dist-info")} == {
        "benchmarks",
        "qubo_rounding",
        "solvers",
    }
    shipped = {name for name in names if name.startswith("qubo_rounding/_data/")}
    data = ROOT / "data"
    expected = {
        f"qubo_rounding/_data/{path.relative_to(data).as_posix()}"
        for path in data.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert expected
    assert shipped == expected
    for package in ("benchmarks", "qubo_rounding", "solvers"):
        assert f"{package}/py.typed" in names
    for part in ("page.html", "style.css", "drawing.js"):
        assert f"benchmarks/report/template/{part}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_installed_wheel_does_the_main_job_from_any_folder(
    clean_python: Path, tmp_path: Path
) -> None:
    job = "-m benchmarks.run --layer resnet18.conv1 --solver nearest"
    options = "--weights embedded --json record.json"
    done = _run(clean_python, *job.split(), *options.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nearest" in done.stdout
    record = json.loads((tmp_path / "record.json").read_text("utf-8"))
    (nearest,) = record["results"]
    assert nearest["solver"] == "nearest"
    assert nearest["ratio_to_nearest"] == 1
    assert nearest["local_mse"] > 0


def test_installed_wheel_has_its_own_command(
    clean_python: Path, tmp_path: Path
) -> None:
    command = clean_python.parent / "qubo-rounding"
    done = _run(command, "--list", "solvers", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nearest" in done.stdout.split()
