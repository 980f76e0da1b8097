"""``benchmarks.run`` on whole networks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.harness.environment import environment
from benchmarks.harness.failures import FAULTS, SolverFailure
from benchmarks.harness.failures import report as report_failure
from benchmarks.harness.feed import Feed, data_feed, images_feed
from benchmarks.harness.race import about
from benchmarks.harness.readers import parse_grid
from benchmarks.harness.report import spec, write_json
from benchmarks.harness.whole import ACTIVATION_BITS, parse_parts, quantized, table
from qubo_rounding.problem.grid import Grid
from solvers import InputError, Solver, UnknownNameError

if TYPE_CHECKING:
    from torch import nn

    from qubo_rounding.network.whole.result import QuantizedNetwork

# Options of whole networks alone, and of single layers alone.
OF_NETWORKS = (
    "layers",
    "exclude",
    "bits_of",
    "data",
    "fit_outputs",
    "activations",
    "without",
    "memory",
    "keep",
    "export",
    "onnx",
)
OF_LAYERS = ("objective", "save", "save_problem")
OF_IMAGES = ("images", "calibration_images", "calibration", "evaluation")


def run(options: argparse.Namespace, solvers: Sequence[Solver]) -> int:
    """Quantize a network with every solver, print and write the record."""
    _check(options, solvers)
    grid, parts = _grid(options), parse_parts(options.without)
    # The baseline knows nothing of the layers before and after.
    baseline = replace(grid, turns=0), parse_parts(["all"])
    feed = _feed(options)
    scores, rounded_scores = feed.scores(), feed.scores()
    record: dict[str, Any] = {
        "spec": spec(options),
        "environment": environment(options.threads),
        "network": feed.description,
        "full_precision": scores.full_precision(),
        "results": [],
    }
    stopped: BaseException | None = None
    last: QuantizedNetwork | None = None
    try:
        for solver in solvers:
            own, taken = (grid, parts) if record["results"] else baseline
            last = None
            try:
                found, result = quantized(
                    feed.source, solver, own, taken, options, mask=feed.mask
                )
            except SolverFailure as failure:
                if not record["results"]:
                    raise InputError(str(failure)) from failure
                report_failure(failure)
                failed = {"status": "error", "error": str(failure)}
                record["results"].append(about(solver, options.seed) | failed)
                continue
            if options.fit_outputs and record["results"]:
                found = _with_outputs(found, feed, options)
                result["outputs"] = found.meta["outputs"]
            result |= scores.score(found.network, result["label"])
            if options.activations:
                found = _with_activations(found, feed, options.activations)
                result["activations"] = {
                    **found.meta["activations"],
                    **rounded_scores.score(found.network, result["label"]),
                }
            record["results"].append(result)
            last = found
    except (KeyboardInterrupt, MemoryError, InputError) as error:
        if not record["results"]:
            raise
        stopped, last = error, None
    print(table(record))
    if options.json:
        record["interrupted"] = stopped is not None
        write_json(options.json, record)
    _write(options, feed, last)
    if stopped is not None:
        raise stopped
    return int(any(result["status"] in FAULTS for result in record["results"]))


def _check(options: argparse.Namespace, solvers: Sequence[Solver]) -> None:
    """Refuse options that do not go together, before any work is done."""
    if options.problem is not None:
        raise InputError("give one of --layer and --problem")
    for name in OF_LAYERS:
        if getattr(options, name) is not None:
            raise InputError(f"{_flag(name)} goes with a single layer, MODEL.LAYER")
    if options.data is not None:
        for name in OF_IMAGES:
            if getattr(options, name) is not None:
                raise InputError(f"{_flag(name)} does not go with --data, which has it")
    for name in ("export", "onnx"):
        if getattr(options, name) is not None and len(solvers) > 2:
            raise InputError(
                f"{_flag(name)} writes one network: give --solver one solver"
            )
    if ":" not in options.layer and _named_layers(options):
        from qubo_rounding.network.models import architecture

        # A misspelt layer should cost no download.
        _require_layers(architecture(options.layer), options)


def _grid(options: argparse.Namespace) -> Grid:
    """The grid that the options describe; its scale is fitted in turn by default."""
    from qubo_rounding.network.whole.quantize import TURNS

    grid = parse_grid(options, in_turn=True)
    if options.grid is None and not {"scale", "all"} & set(options.without or ()):
        return replace(grid, turns=TURNS)
    return grid


def _feed(options: argparse.Namespace) -> Feed:
    """The network and what it is fed, loaded and checked."""
    if options.data is None:
        return images_feed(options, _say)
    feed = data_feed(options, _say)
    _require_layers(feed.source.network, options)
    if options.activations or options.onnx:
        batch = next(feed.source.batches())
        if not hasattr(batch, "shape"):
            flag = "--activations" if options.activations else "--onnx"
            raise InputError(
                f"{flag} takes networks that are fed tensors; the batches of "
                f"{options.data} are mappings"
            )
    return feed


def _require_layers(network: nn.Module, options: argparse.Namespace) -> None:
    """Refuse names that no layer of the network can have."""
    from qubo_rounding.network.prepare import require_likely_layer

    for name in _named_layers(options):
        try:
            require_likely_layer(network, name)
        except InputError as error:
            # What cannot be rounded may well be left out.
            left_out = name in (options.exclude or ())
            if isinstance(error, UnknownNameError) or not left_out:
                raise


def _named_layers(options: argparse.Namespace) -> list[str]:
    """All names of layers among the options."""
    lists = (options.layers, options.exclude, options.bits_of)
    return [name for names in lists for name in names or ()]


def _with_outputs(
    found: QuantizedNetwork, feed: Feed, options: argparse.Namespace
) -> QuantizedNetwork:
    """The network with scales and biases fitted to the outputs of the original one."""
    from qubo_rounding.network.whole.outputs import fit_outputs

    source, steps = feed.source, options.fit_outputs
    batches: Any = source.batches()
    return fit_outputs(source.network, found, batches, steps=steps, seed=options.seed)


def _with_activations(
    found: QuantizedNetwork, feed: Feed, rule: str
) -> QuantizedNetwork:
    """The network with rounded activations, too."""
    from qubo_rounding.network.whole.activations import quantize_activations

    batches: Any = feed.source.batches
    return quantize_activations(found, batches, bits=ACTIVATION_BITS, rule=rule)


def _write(
    options: argparse.Namespace, feed: Feed, found: QuantizedNetwork | None
) -> None:
    """Write the files that the options ask for; None: the solver has not finished."""
    for path in (options.export, options.onnx):
        if path is not None and found is None:
            _say(f"{path} is not written: the solver has not finished")
    if found is None:
        return
    if options.export is not None:
        from qubo_rounding.network.export.integers import save_quantized

        save_quantized(options.export, found)
    if options.onnx is not None:
        from qubo_rounding.network.export.onnx import export_onnx

        example: Any = next(feed.source.batches())
        export_onnx(options.onnx, found, example[:1])


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _say(line: str) -> None:
    print(line, file=sys.stderr)
