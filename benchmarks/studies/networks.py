"""Whole networks: what each part of the objective gains, and other methods beside it.

    python -m benchmarks networks --model resnet20 --table parts --widths 3,2

`--table parts` adds the parts of the objective one by one; `--table methods` has the
methods that others use. Every seed draws calibration images of its own if `--pool` is
larger than `--calibration`. Gains are paired: on the same images, over all seeds.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness.digests import code_digest_of
from benchmarks.harness.failures import FAULTS, SolverFailure, plain
from benchmarks.harness.failures import report as report_failure
from benchmarks.harness.packing import hash_of
from benchmarks.harness.runs import Problem, Run, Spec
from benchmarks.harness.store import open_store
from benchmarks.harness.tables import as_interval, columns, mean_and_deviation, number
from benchmarks.harness.trials import started
from benchmarks.harness.whole import MAKER, parse_parts, quantized
from benchmarks.options import add
from qubo_rounding.problem.grid import Grid
from solvers import Solver, label, parse_solver
from solvers.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from qubo_rounding.network.source import Source

BESIDE = ("qubo_rounding.network.equalize", "qubo_rounding.network.whole.outputs")
"""Modules that some lines need beside the solver."""
ROUNDS = 5
"""Rounds of fitting scale and codes in turn."""


@dataclass(frozen=True)
class Row:
    """A line of a table: how the network is quantized.

    Attributes
    ----------
    name
        What the line says.
    solver
        The solver's text; None for the one that the command is given.
    without
        Parts of the objective that are left out.
    turns
        Rounds of fitting scale and codes in turn.
    granularity
        Granularity of the grid; None for the one that the command is given.
    window
        Whether windows follow the solver's answers.
    equalized
        Whether layers are equalized first.
    fitted
        Whether scales and biases are then fitted to the outputs.
    """

    name: str
    solver: str | None = None
    without: tuple[str, ...] = ()
    turns: int = 0
    granularity: str | None = None
    window: bool = False
    equalized: bool = False
    fitted: bool = False


ALONE = ("all",)
# What is left of the objective in the paper's eq. (25), and of bias correction.
ASYMMETRIC = ("residual", "bias", "trust", "guard")
CORRECTED = ("residual", "trust", "guard")
TABLES = {
    "parts": (
        Row("nearest", "nearest", ALONE),
        Row("each layer alone", without=ALONE),
        Row("+ inputs of the rounded network", without=ASYMMETRIC),
        Row("+ errors of what is added", without=("bias", "trust", "guard")),
        Row("+ best bias", without=("trust", "guard")),
        Row("+ scale and codes in turn", without=("trust", "guard"), turns=ROUNDS),
        Row("+ trust and guard on held-out images: all", turns=ROUNDS),
        Row("all, and windows that follow", turns=ROUNDS, window=True),
        Row("all but turns, per channel", granularity="channel"),
        Row("all, per channel", turns=ROUNDS, granularity="channel"),
    ),
    "methods": (
        Row("nearest", "nearest", ALONE),
        Row("nearest, bias correction", "nearest", CORRECTED),
        Row("nearest, equalized", "nearest", ALONE, equalized=True),
        Row("nearest, per channel", "nearest", ALONE, granularity="channel"),
        Row("gptq", "gptq", ASYMMETRIC),
        Row("ste", "ste", ASYMMETRIC),
        Row("adaround", "adaround[preset=paper]", ASYMMETRIC),
        Row("all parts", turns=ROUNDS),
        Row("all parts, per channel", turns=ROUNDS, granularity="channel"),
        Row("all parts, outputs fitted", turns=ROUNDS, fitted=True),
        Row("same, per channel", turns=ROUNDS, granularity="channel", fitted=True),
    ),
}


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "model", required=True)
    add(parser, "weights", default="auto")
    add(parser, "images")
    add(parser, "calibration", default=256)
    add(parser, "pool", note="as many as --calibration")
    add(parser, "evaluation")
    add(parser, "table", choices=tuple(TABLES), default="parts")
    add(parser, "lines", note="all")
    add(parser, "widths", default="4,3,2")
    add(parser, "granularity")
    add(parser, "solver", default="auto")
    add(parser, "adaround-steps", note="10000")
    add(parser, "seconds", "threads")
    add(parser, "seeds", default=1)
    add(parser, "store", "rerun", "rerun-failed")


def run(options: argparse.Namespace) -> int:
    """Print a table; return the exit code."""
    from qubo_rounding.network.evaluate import predict
    from qubo_rounding.network.source import load_source

    rows = _chosen(TABLES[options.table], options.lines)
    pool = max(options.pool or 0, options.calibration)
    source = load_source(
        options.model,
        options.weights,
        options.images,
        pool,
        options.evaluation,
        print,
    )
    images = source.evaluation
    if images.labels is None:
        raise InputError("the images' labels are not the network's: no accuracy")
    full = predict(source.network, images).correct(images.labels)
    inputs = _inputs(source)
    runs: dict[tuple[Row, int], list[Run]] = {}
    widths, seeds = options.widths, range(options.seeds)
    problem = _problem(source)
    plan = list(itertools.product(seeds, rows, widths))
    try:
        with open_store(options) as store:
            store.add_problem(problem)
            drawn = [_drawn(inputs, options.calibration, seed) for seed in seeds]
            for seed, row, bits in (bar := tqdm(plan, desc="networks", disable=None)):
                bar.set_postfix_str(f"{row.name}, {bits} bits")
                task = Task(row, bits, seed, options, source, drawn[seed])
                run = store.kept(task.spec(problem), partial(task.make, problem))
                if run.status in FAULTS:
                    report_failure(run.message)
                runs.setdefault((row, bits), []).append(run)
    finally:
        print(_table(rows, widths, runs, 100 * float(full.mean())))
    return int(any(run.status in FAULTS for done in runs.values() for run in done))


def _problem(source: Source) -> Problem:
    """A network as results name it."""
    from qubo_rounding.network.digests import network_digest

    meta = {
        "weights": source.weights,
        "weights_hash": source.weights_hash,
        "network": network_digest(source.model, source.network),
    }
    digest = hash_of({"model": source.model, **meta})
    return Problem(digest=digest, name=source.model, kind="network", meta=meta)


@dataclass(frozen=True, eq=False)
class Task:
    """A network to be quantized as a line says, with some bits and a seed."""

    row: Row
    bits: int
    seed: int
    options: argparse.Namespace
    source: Source
    batches: Sequence[Tensor]

    def solver(self) -> Solver:
        """The line's solver."""
        text = self.row.solver or self.options.solver
        steps = self.options.adaround_steps
        if self.row.solver is not None and "adaround" in self.row.solver and steps:
            text = f"adaround[preset=paper,steps={steps}]"
        return parse_solver(f"window[solver={text}]" if self.row.window else text)

    def grid(self) -> Grid:
        """The line's grid."""
        granularity: Any = self.row.granularity or self.options.granularity or "tensor"
        return Grid(bits=self.bits, granularity=granularity, turns=self.row.turns)

    def spec(self, problem: Problem) -> Spec:
        """All that decides the run."""
        from qubo_rounding.network.digests import tensors_digest

        solver = self.solver()
        return Spec(
            problem=problem.digest,
            solver=label(solver),
            code=code_digest_of(solver, MAKER, *BESIDE),
            seed=self.seed,
            seconds=self.options.seconds,
            threads=self.options.threads,
            settings={
                "without": sorted(self.row.without),
                "grid": asdict(self.grid()),
                "equalized": self.row.equalized,
                "fitted": self.row.fitted,
                "calibration": tensors_digest(self.batches),
                "evaluation": self.source.evaluation.digest,
            },
        )

    def make(self, problem: Problem) -> Run:
        """Quantize the network and count the images that it still gets right."""
        from qubo_rounding.network.evaluate import predict

        source, solver = self.source, self.solver()
        if self.row.equalized:
            from qubo_rounding.network.equalize import equalize

            source = replace(source, network=equalize(source.network))
        spec = self.spec(problem)
        options = argparse.Namespace(
            seed=self.seed, seconds=spec.seconds, threads=spec.threads
        )
        begun = started(spec.threads)
        parts = parse_parts(self.row.without)
        try:
            found, result = quantized(
                source, solver, self.grid(), parts, options, self.batches
            )
        except SolverFailure as failure:
            return Run(spec=spec, status="error", message=str(failure), **begun)
        seconds = 0.0
        if self.row.fitted:
            from qubo_rounding.network.whole.outputs import fit_outputs

            at = time.perf_counter()
            found = fit_outputs(source.network, found, self.batches, seed=self.seed)
            seconds = time.perf_counter() - at
        labels = source.evaluation.labels
        assert labels is not None
        correct = predict(found.network, source.evaluation).correct(labels)
        packed = np.packbits(correct).tobytes().hex()
        told = plain({"parts": result["parts"], "layers": result["layers"]})
        return Run(
            spec=spec,
            status="ok",
            seconds=result["seconds"],
            timing={"total": result["total_seconds"] + seconds},
            scores={**told, "correct": packed, "images": len(correct)},
            **begun,
        )


def _chosen(rows: Sequence[Row], lines: Sequence[int] | None) -> list[Row]:
    """The lines with the given numbers, from 1; all by default."""
    if lines is None:
        return list(rows)
    for line in lines:
        if line > len(rows):
            raise InputError(f"--lines: the table has {len(rows)} lines, not {line}")
    return [rows[line - 1] for line in lines]


def _inputs(source: Source) -> Tensor:
    import torch

    return torch.cat(source.held(copies=2))


def _drawn(inputs: Tensor, count: int, seed: int) -> list[Tensor]:
    """Batches of as many images as are asked for, drawn by the seed."""
    from qubo_rounding.network.source import BATCH

    order = np.random.default_rng(seed).permutation(len(inputs))
    chosen = inputs[np.sort(order[:count])]
    return [chosen[i : i + BATCH] for i in range(0, len(chosen), BATCH)]


def _table(
    rows: Sequence[Row],
    widths: Sequence[int],
    runs: Mapping[tuple[Row, int], list[Run]],
    full: float,
) -> str:
    """A line for each way to quantize the network, three columns for each width."""
    lines = [["full precision", *[number(full, 2), "", ""] * len(widths)]]
    head = [""]
    for bits in widths:
        head += [f"{bits} bits: top-1 %", "less than full", "solving s"]
    for row in rows:
        cells = [row.name]
        for bits in widths:
            done = [r for r in runs.get((row, bits), []) if r.status == "ok"]
            top1 = [100 * float(_correct(run).mean()) for run in done]
            cells.append(mean_and_deviation(top1, 2))
            cells.append(number(full - statistics.fmean(top1), 2) if top1 else "-")
            seconds = [run.seconds for run in done]
            cells.append(number(statistics.fmean(seconds), 1) if seconds else "-")
        lines.append(cells)
    text = columns([head, *lines])
    last = rows[-1]
    for bits in widths:
        gains = [_gain(runs, row, last, bits) for row in rows[:-1]]
        if any(gains):
            text += f"\n\n{bits} bits, {last.name!r} less …, 95 % interval:"
            for row, gain in zip(rows, gains, strict=False):
                text += f"\n  {row.name}: {gain or '-'}"
    return text


def _gain(
    runs: Mapping[tuple[Row, int], list[Run]],
    row: Row,
    last: Row,
    bits: int,
) -> str:
    """How much better the last line is on the same images, averaged over seeds."""
    from qubo_rounding.network.evaluate import paired_interval

    pairs = [
        (_correct(a), _correct(b))
        for a, b in zip(runs.get((last, bits), []), runs.get((row, bits), []))  # noqa: B905
        if a.status == b.status == "ok"
    ]
    if not pairs:
        return ""
    ours, theirs = (np.mean(side, axis=0) for side in zip(*pairs, strict=True))
    interval = paired_interval(ours, theirs)
    gain = 100 * float((ours - theirs).mean())
    bounds = None if interval is None else (100 * interval[0], 100 * interval[1])
    return f"{gain:+.2f}{as_interval(bounds)}"


def _correct(run: Run) -> Any:
    """Which images a run's network gets right, ``bool [N]``."""
    packed = np.frombuffer(bytes.fromhex(run.scores["correct"]), np.uint8)
    return np.unpackbits(packed, count=run.scores["images"]).astype(bool)
