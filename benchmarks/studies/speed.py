"""Speed, side by side in one run: annealing, energies, and building models.

    python -m benchmarks speed [--problem FILE.npz …] [--repeats 5]

Every comparison alternates between the two sides and quotes medians, on one thread.
Without ``--problem``, the problems are two layers of the embedded network.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.problems import load_problem
from benchmarks.harness.subject import from_layer
from benchmarks.options import add
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from solvers import QuboBatch
from solvers.flips.annealing import SimulatedAnnealing
from solvers.sampling.neal import dwave_sampler

# Inverse temperatures in units of 1 / scale²; those of a model are these over scale².
BETAS = (2.0, 100.0)
SWEEPS = 1000


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "problem", nargs="*", help="saved problems instead")
    add(parser, "repeats", default=5)
    add(parser, "rows", default=64, help="rows of each problem")


def run(options: argparse.Namespace) -> int:
    """Print all comparisons; return the exit code."""
    for name, problem in _problems(options.problem):
        qubo = problem.to_qubos()[0].take(slice(0, options.rows))
        print(f"\n{name}: {qubo.rows} rows, n = {qubo.n}, 1 thread")
        annealing(qubo, options.repeats)
        energies(qubo, options.repeats)
    building()
    importing()
    return 0


def annealing(qubo: QuboBatch, repeats: int) -> None:
    """Compare `sa`, unpolished, with dwave's SA: same rows, betas, sweeps, one read."""
    units = qubo.scale[:, 0] ** 2
    if np.ptp(units) > 0:
        print("  annealing: skipped, the rows' scales differ")
        return
    low, high = (beta / units[0] for beta in BETAS)
    ours = SimulatedAnnealing(
        num_sweeps=SWEEPS, beta_min=low, beta_max=high, polish="none"
    )
    ours.compile_for(qubo)
    sampler = dwave_sampler()
    begun = time.perf_counter()
    models = [qubo.to_bqm(r) for r in range(qubo.rows)]
    building = time.perf_counter() - begun

    def theirs() -> float:
        sample_sets = [
            sampler.sample(
                model, beta_range=(low, high), num_sweeps=SWEEPS, num_reads=1, seed=r
            )
            for r, model in enumerate(models)
        ]
        return float(sum(samples.first.energy for samples in sample_sets))

    (our_seconds, our_energy), (their_seconds, their_energy) = _alternate(
        lambda: float(ours.solve(qubo).energies.sum()), theirs, repeats
    )
    nearest = qubo.energies(qubo.nearest()).sum()
    print(
        f"  annealing, {SWEEPS} sweeps: sa {our_seconds:.3f} s, "
        f"dwave {their_seconds:.3f} s (+ {building:.2f} s to build its models): "
        f"{their_seconds / our_seconds:.1f} times as fast; energy / nearest "
        f"{our_energy / nearest:.4f} against {their_energy / nearest:.4f}"
    )
    hot = 1e-9 / units[0]
    always = SimulatedAnnealing(
        num_sweeps=SWEEPS, beta_min=hot, beta_max=hot, polish="none"
    )

    def our_rate() -> float:
        solution = always.solve(qubo)
        return float(solution.info["flips"] / solution.timing["solve"])

    def their_rate() -> float:
        samples = sampler.sample(
            models[0],
            beta_range=(hot, hot),
            num_sweeps=10 * SWEEPS,
            num_reads=1,
            seed=0,
        )
        # At this temperature every proposal is accepted.
        flips = 10 * SWEEPS * len(models[0].variables)
        return float(flips / (samples.info["timing"]["sampling_ns"] * 1e-9))

    rates = [(our_rate(), their_rate()) for _ in range(repeats)]
    our_flips, their_flips = (
        statistics.median(side) for side in zip(*rates, strict=True)
    )
    print(
        f"  accepted flips per second: sa {our_flips:.3g}, dwave {their_flips:.3g}: "
        f"{our_flips / their_flips:.1f} times; "
        f"{4e-9 * qubo.n * our_flips:.0f} GB/s of rows of H"
    )


def energies(qubo: QuboBatch, repeats: int) -> None:
    """Compare energies of 100 random states a row with numpy's einsum and dimod."""
    rng = np.random.default_rng(0)
    states = rng.integers(0, 2, (qubo.rows, 100, qubo.n), dtype=np.uint8)
    states[:, :, :] = qubo.pin(states.transpose(1, 0, 2)).transpose(1, 0, 2)
    ours = qubo.energies(states)
    H = qubo.H.astype(np.float64)
    linear = qubo.linear[:, None]

    def by_einsum(optimize: bool) -> Callable[[], Any]:
        def run() -> Any:
            y = states * qubo.scale[:, None]
            quadratic = np.einsum("rki,ij,rkj->rk", y, H, y, optimize=optimize)
            return quadratic + (states * linear).sum(2) + qubo.offset[:, None]

        return run

    models = [qubo.to_bqm(r) for r in range(qubo.rows)]
    free = [np.array(list(model.variables)) for model in models]

    def by_dimod() -> Any:
        return np.array(
            [
                model.energies((states[r][:, free[r]], free[r].tolist()))
                for r, model in enumerate(models)
            ]
        )

    for name, other, count in (
        ("einsum", by_einsum(False), 1),
        ("einsum(optimize=True)", by_einsum(True), repeats),
        ("dimod", by_dimod, repeats),
    ):
        (our_seconds, _), (their_seconds, values) = _alternate(
            lambda: qubo.energies(states), other, count
        )
        np.testing.assert_allclose(values, ours, rtol=1e-6)
        print(
            f"  energies of {ours.size} states: kernel {our_seconds:.4f} s, "
            f"{name} {their_seconds:.4f} s: {their_seconds / our_seconds:.1f} times "
            "as fast"
        )


def building(rows: int = 512, n: int = 4608) -> None:
    """Build the models of a large layer, and estimate what dimod would need for it."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 2 * n), np.float32)
    moment = (x @ x.T / (2 * n)).astype(np.float64)
    moment = (moment + moment.T) / 2
    del x
    weight = rng.standard_normal((rows, n))
    tracemalloc.start()
    begun = time.perf_counter()
    problem = RoundingProblem.on_grid(weight, Grid(), moment)
    posed = time.perf_counter()
    (qubo,) = problem.to_qubos()
    built = time.perf_counter()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(
        f"\n{rows} rows, n = {n}: scale and checks {posed - begun:.2f} s, QUBOs "
        f"{built - posed:.2f} s, {peak / 2**30:.2f} GiB beside H at the peak"
    )
    begun = time.perf_counter()
    model = qubo.to_bqm(0)
    seconds = time.perf_counter() - begun
    # dimod keeps each coupling at both its ends: an index and a bias, 16 bytes.
    size = 2 * 16 * model.num_interactions
    print(
        f"  dimod: one row's model takes {seconds:.1f} s and {size / 2**20:.0f} MiB, "
        f"all rows {rows * seconds / 60:.0f} min and {rows * size / 2**30:.0f} GiB"
    )


def importing() -> None:
    """Time ``import solvers`` in a fresh process, with the interpreter and without."""

    def run(code: str) -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - begun

    times = [(run("import solvers"), run("pass")) for _ in range(5)]
    whole, bare = (min(side) for side in zip(*times, strict=True))
    print(f"\nimport solvers: {whole:.2f} s as a process, {whole - bare:.2f} s of it")


def _alternate(
    ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int
) -> tuple[tuple[float, Any], tuple[float, Any]]:
    """Median seconds and last answer of each side; the two run in turns."""
    seconds: tuple[list[float], list[float]] = ([], [])
    answers: list[Any] = [None, None]
    for _ in range(repeats):
        for side, run in enumerate((ours, theirs)):
            begun = time.perf_counter()
            answers[side] = run()
            seconds[side].append(time.perf_counter() - begun)
    return (
        (statistics.median(seconds[0]), answers[0]),
        (statistics.median(seconds[1]), answers[1]),
    )


def _problems(files: list[Path] | None) -> list[tuple[str, RoundingProblem]]:
    """Names and problems of the files, or of two layers of the embedded network."""
    if files:
        return [(file.stem, load_problem(file, None, None)) for file in files]
    return [
        (
            layer,
            from_layer(
                layer,
                Grid(),
                weights="embedded",
                images=None,
                calibration=256,
                evaluation=1,
                objective="second-moment",
                seed=0,
                say=lambda line: None,
            ).problem,
        )
        for layer in ("resnet18.conv1", "resnet18.layer1.0.conv1")
    ]
