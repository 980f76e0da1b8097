"""``benchmarks.run`` on whole networks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness.accuracy import HeldOut
from benchmarks.harness.environment import environment
from benchmarks.harness.failures import FAULTS, SolverFailure
from benchmarks.harness.failures import report as report_failure
from benchmarks.harness.race import about
from benchmarks.harness.readers import parse_grid
from benchmarks.harness.report import write_json
from benchmarks.harness.whole import parse_parts, quantized, table
from solvers import InputError, Solver

# Options that go with single layers alone.
OF_LAYERS = ("objective", "save", "save_problem")


def run(options: argparse.Namespace, solvers: Sequence[Solver]) -> int:
    """Quantize a network with every solver, print and write the record."""
    from qubo_rounding.network.evaluate import predict
    from qubo_rounding.network.source import image_count, load_source
    from qubo_rounding.network.whole.quantize import TURNS

    for name in OF_LAYERS:
        if getattr(options, name) is not None:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} goes with a single layer, MODEL.LAYER")
    grid, parts = parse_grid(options, in_turn=True), parse_parts(options.without)
    if options.grid is None and not {"scale", "all"} & set(options.without or ()):
        grid = replace(grid, turns=TURNS)
    source = load_source(
        options.layer,
        options.weights or "auto",
        options.images,
        256 if options.calibration is None else options.calibration,
        options.evaluation,
        _say,
        calibration_images=options.calibration_images,
    )
    _say(image_count("evaluation", source.evaluation))
    if source.evaluation.labels is None:
        _say("the images' labels are not the network's: accuracy is not reported")
    reference = predict(source.network, source.evaluation, description="full precision")
    held_out = HeldOut(source.evaluation, reference)
    record: dict[str, Any] = {
        "spec": {
            k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()
        },
        "environment": environment(options.threads),
        "network": {
            **source.meta("all"),
            "layer": source.model,
            "calibration_images": len(source.calibration),
            "evaluation_images": len(source.evaluation),
            "evaluation_digest": source.evaluation.digest,
        },
        "full_precision": held_out.full_precision(),
        "results": [],
    }
    # The baseline knows nothing of the layers before and after.
    baseline = replace(grid, turns=0), parse_parts(["all"])
    stopped: BaseException | None = None
    try:
        for solver in solvers:
            own, taken = (grid, parts) if record["results"] else baseline
            try:
                found, result = quantized(source, solver, own, taken, options)
            except SolverFailure as failure:
                if not record["results"]:
                    raise InputError(str(failure)) from failure
                report_failure(failure)
                failed = {"status": "error", "error": str(failure)}
                record["results"].append(about(solver, options.seed) | failed)
                continue
            record["results"].append(
                result | held_out.score(found.network, result["label"])
            )
    except (KeyboardInterrupt, MemoryError) as error:
        if not record["results"]:
            raise
        stopped = error
    print(table(record))
    if options.json:
        record["interrupted"] = stopped is not None
        write_json(options.json, record)
    if stopped is not None:
        raise stopped
    return int(any(result["status"] in FAULTS for result in record["results"]))


def _say(line: str) -> None:
    print(line, file=sys.stderr)
