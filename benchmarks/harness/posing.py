"""The problems of a suite: posed, and saved where runs find them."""

from __future__ import annotations

import argparse
import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness.accuracy import HeldOut
from benchmarks.harness.digests import modules_digest
from benchmarks.harness.execute import load
from benchmarks.harness.problems import first_rows, some_rows
from benchmarks.harness.readers import parse_grid
from benchmarks.harness.runs import Problem, Run
from benchmarks.harness.subject import Accuracy
from benchmarks.harness.suite import Entry
from benchmarks.harness.trials import described
from qubo_rounding.problem import RoundingProblem
from solvers import InputError, QuboBatch
from solvers.io.files import write_qubo

if TYPE_CHECKING:
    from qubo_rounding.network.source import Source

Score = Callable[[Run], dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Posed:
    """A problem of a suite.

    Attributes
    ----------
    known
        The problem as results name it.
    path
        Its file.
    score
        Scores an answer on the network; None where that is not wanted.
    """

    known: Problem
    path: Path
    score: Score | None = None


def settled(entry: Entry) -> dict[str, Any] | None:
    """All that an entry's problems depend on beside the code, or None.

    With it a store knows the problems before they are posed. Weights that are looked
    for, and may be other ones tomorrow, are not settled.
    """
    files = {}
    for path in (entry.file, entry.weights):
        if path is not None and Path(path).is_file():
            files[path] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if entry.model and entry.weights != "embedded" and entry.weights not in files:
        return None
    if entry.images is not None:
        named = sorted(Path(entry.images).rglob("*"))
        told = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in named]
        files[entry.images] = hashlib.sha256(repr(told).encode()).hexdigest()
    code = modules_digest("qubo_rounding.network.pose", "qubo_rounding.network.source")
    return {"entry": asdict(entry), "files": files, "code": code}


def pose_all(entry: Entry, folder: Path, say: Callable[[str], None]) -> Iterator[Posed]:
    """Pose the problems of a suite's entry, and save them in a folder.

    Raises
    ------
    InputError
        A file, a network, a layer or images cannot be used; the folder cannot be
        written to.
    """
    if entry.file is not None:
        path = Path(entry.file)
        yield from _saved(load(path), path.name, entry, folder)
        return
    from qubo_rounding.network.models import architecture
    from qubo_rounding.network.pose import pose
    from qubo_rounding.network.prepare import require_likely_layer
    from qubo_rounding.network.source import load_source

    for layer in entry.layers:
        require_likely_layer(architecture(entry.model), layer)
    source = load_source(
        entry.model,
        entry.weights,
        None if entry.images is None else Path(entry.images),
        entry.calibration,
        entry.evaluation if entry.accuracy else 0,
        say,
    )
    batches = source.held()
    for layer in entry.layers:
        accuracy = _scorer(source, layer) if entry.accuracy else None
        for bits in entry.bits:
            options = argparse.Namespace(
                bits=bits,
                grid=entry.grid,
                granularity=entry.granularity,
                saturated=entry.saturated,
            )
            grid, meta = parse_grid(options), source.meta(layer)
            posed = pose(source.network, layer, lambda: batches, grid, meta=meta)
            name = f"{entry.model}.{layer}"
            yield from _saved(posed.problem, name, entry, folder, accuracy)


def _saved(
    problem: RoundingProblem | QuboBatch,
    name: str,
    entry: Entry,
    folder: Path,
    accuracy: Callable[[RoundingProblem], Score] | None = None,
) -> Iterator[Posed]:
    """The problem or, where each row is one, its rows."""
    parts: dict[str, RoundingProblem | QuboBatch] = {name: problem}
    if isinstance(problem, RoundingProblem):
        if entry.rows is not None:
            problem = parts[name] = first_rows(problem, entry.rows)
        if entry.track == "row":
            rows = range(problem.rows)
            parts = {f"{name}[{r}]": some_rows(problem, slice(r, r + 1)) for r in rows}
    elif entry.rows is not None or entry.track == "row":
        raise InputError(f"{name}: rows and track are for rounding problems")
    for each, part in parts.items():
        known = described(part, each)
        if isinstance(part, RoundingProblem):
            path = folder / f"{known.digest[:16]}.npz"
            if not path.exists():
                part.save(path)
        else:
            path = folder / "qubos" / f"{known.digest[:16]}.npz"
            path.parent.mkdir(exist_ok=True)
            if not path.exists():
                write_qubo(path, part)
        score = None
        if accuracy is not None and isinstance(part, RoundingProblem):
            score = accuracy(part)
        yield Posed(known, path, score)


def _scorer(source: Source, layer: str) -> Callable[[RoundingProblem], Score]:
    """Gives what scores the answers to a problem of the layer on the network."""
    from qubo_rounding.network.evaluate import predict
    from qubo_rounding.network.layers import layer_moments
    from qubo_rounding.network.source import BATCH

    network, images = source.network, source.evaluation
    moment = layer_moments(network, layer, images.batches(BATCH)).second_moment
    reference = predict(network, images, description="full precision")

    def of(problem: RoundingProblem) -> Score:
        # Made for the first run that is to be scored: nearest comes first.
        @functools.cache
        def accuracy() -> Accuracy:
            made = Accuracy(network, layer, moment, HeldOut(images, reference))
            nearest = problem.decode(problem.nearest())
            made.score(problem.weight, nearest, "nearest")
            return made

        def score(run: Run) -> dict[str, Any]:
            assert run.states is not None
            rounded = problem.decode(run.states)
            return accuracy().score(problem.weight, rounded, run.spec.solver)

        return score

    return of
