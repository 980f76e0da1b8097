"""Every option of every command, declared once: its meaning, its form, its check.

A command takes options by name, and may change what is required or the default:

    options.add(parser, "problem", required=True)
    options.add(parser, "rows", "saturated", "threads", "store")
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.harness.readers import (
    Reader,
    activation_rule,
    at_least,
    begun_or_writable,
    bits_by_layer,
    figure,
    folder,
    folder_to_fill,
    ladder,
    names,
    numbers,
    numbers_or_all,
    positive,
    statuses,
    writable,
    writable_arrays,
    writable_network,
    writable_onnx,
    writable_parquet,
)
from qubo_rounding.problem.problem import OBJECTIVES

# Number of variables of the smallest problem that walks are timed on.
SMALLEST = 16


@dataclass(frozen=True)
class Option:
    """An option of the command line.

    Attributes
    ----------
    help
        The text of the help, without the default.
    kind
        Converts the text to a value; argparse reports a failure. `bool` declares a flag
        that takes no value.
    read
        Checks that value, and converts it to the one that commands see.
    flag
        The flag, if it is not ``--`` and the option's name; without dashes the option
        is positional.
    metavar, choices, nargs, default, required, dest
        As in argparse.
    note
        What the help says about the default, if that is not the value itself.
    """

    help: str
    kind: Callable[[str], Any] = str
    read: Reader | None = None
    flag: str | None = None
    metavar: str | None = None
    choices: Sequence[str] | None = None
    nargs: str | None = None
    default: Any = None
    required: bool = False
    note: str | None = None
    dest: str | None = None


OPTIONS = {
    # The problem to round or to solve.
    "layer": Option("the layer, such as resnet18.conv1", metavar="MODEL.LAYER"),
    "model": Option("the network, such as resnet18", metavar="MODEL"),
    "models": Option("the networks", read=names, metavar="MODEL,…"),
    "side": Option("height and width of the images", int, at_least(32), metavar="N"),
    "no-moments": Option("measure the passes alone", bool),
    "layers": Option(
        "the layers, such as conv1,layer1.0.conv1", metavar="LAYER,LAYER…", note="all"
    ),
    "exclude": Option("layers to leave as they are", read=names, metavar="LAYER,…"),
    "bits-of": Option(
        "bits of single layers", read=bits_by_layer, metavar="LAYER=BITS,…"
    ),
    "fit-outputs": Option(
        "then fit all scales and biases together to the original network's class "
        "scores, in so many steps (200 say)",
        int,
        at_least(1),
        metavar="STEPS",
        note="not fitted",
    ),
    "activations": Option(
        "then round activations to 8 bits, with ranges by this rule",
        read=activation_rule,
        metavar="minmax|percentile:P|mse|kl",
        note="not rounded",
    ),
    "without": Option(
        "parts of the objective on whole networks to leave out: inputs, residual, "
        "bias, trust, guard, scale or all",
        read=names,
        metavar="PART,…",
    ),
    "problem": Option("a saved problem", Path, metavar="FILE.npz"),
    "problems": Option(
        "generated problems, QUBO files and saved problems",
        read=names,
        metavar="CLASS:SIZE|FILE,…",
    ),
    "files": Option("QUBO files, or folders", Path, flag="files", nargs="+"),
    "best-known": Option(
        "table with columns file and best_known_max (or best_known_min)",
        Path,
        metavar="CSV",
        note="the best of the run",
    ),
    "weights": Option(
        "the network's weights; auto: torch hub's cache, a download, else the embedded "
        "network",
        metavar="auto|imagenet|embedded|PATH",
        note="auto",
    ),
    "images": Option(
        "folder with a folder of images for each class",
        Path,
        folder,
        metavar="DIR",
        note="embedded",
    ),
    "calibration-images": Option(
        "folder of the calibration images, if they are not with those to score on",
        Path,
        folder,
        metavar="DIR",
    ),
    "data": Option(
        "batches and scores in place of images: a function that returns them",
        metavar="PACKAGE.MODULE:FACTORY",
    ),
    "pool": Option(
        "number of images that each seed draws the calibration images from",
        int,
        at_least(1),
        metavar="N",
    ),
    "calibration": Option(
        "number of images that the problem is made from", int, at_least(1), metavar="N"
    ),
    "evaluation": Option(
        "number of images to score on",
        int,
        at_least(1),
        metavar="N",
        note="all the others",
    ),
    "objective": Option(
        "the error of the layer's output, or the task loss",
        choices=OBJECTIVES,
        note=OBJECTIVES[0],
    ),
    "rows": Option("use the first N rows", int, at_least(1), metavar="N", note="all"),
    "largest": Option(
        "leave out instances with more variables", int, at_least(1), metavar="N"
    ),
    # The grid that weights are rounded to.
    "bits": Option("bits of the grid, 2 to 8", int, metavar="N", note="4"),
    "grid": Option(
        "RULE: weight-mse (default), output-mse, minmax, percentile or "
        "percentile:99.9; RANGE: symmetric (default), restricted, asymmetric; "
        "in-turn:ROUNDS: so many times (say 5) fit the scale to the rounded weights "
        "and round again",
        metavar="RULE[,RANGE][,in-turn:ROUNDS]",
    ),
    "widths": Option(
        "bits of the grids",
        read=numbers(int, "4,3,2", at_least(2)),
        metavar="BITS,…",
    ),
    "granularity": Option(
        "one scale for each of these",
        metavar="tensor|channel|group:SIZE",
        note="tensor",
    ),
    "saturated": Option(
        "whether weights beyond the grid are pinned to its end",
        choices=("fixed", "free"),
        note="fixed, or the file's",
    ),
    # How it is solved and measured.
    "solver": Option(
        "solvers, with options: cem[samples=500],mine.py:MySolver[option=2],"
        "window[solver=kbest[paths=16],rounds=4]",
        metavar="NAME[,NAME…]",
    ),
    "reference": Option(
        "solvers whose best answer the bounds are compared with",
        metavar="NAME[,NAME…]",
    ),
    "seed": Option(
        "seed of all random numbers", int, at_least(0), metavar="N", default=0
    ),
    "seeds": Option("number of seeds", int, at_least(1), metavar="N"),
    "seconds": Option("time limit of each solver", float, positive, metavar="S"),
    "budgets": Option(
        "time limits for all rows together",
        read=ladder(float, "0.05,0.5,5", positive),
        flag="--seconds",
        metavar="S,S,…",
    ),
    "sweeps": Option(
        "sweeps of one anneal", read=ladder(int, "30,300", at_least(1)), metavar="N,N,…"
    ),
    "threads": Option(
        "number of threads that share the rows of a batch",
        int,
        at_least(1),
        metavar="N",
        default=1,
    ),
    "target": Option(
        "print also the seconds to this target", metavar="RATIO|SOLVER@SECONDS"
    ),
    "baseline": Option("solver that speed-ups are relative to", metavar="SOLVER"),
    "table": Option("the table to print"),
    "lines": Option(
        "numbers of its lines",
        read=numbers(int, "1,2", at_least(1)),
        metavar="N,N,…",
    ),
    "adaround-steps": Option("steps of AdaRound", int, at_least(1), metavar="N"),
    "repeats": Option("repeats of each measurement", int, at_least(1), metavar="N"),
    "moves": Option("longest moves of the library"),
    "sizes": Option(
        "numbers of variables",
        read=numbers(int, "147,576,1152,2304,4608", at_least(SMALLEST)),
        metavar="N,N,…",
    ),
    "inputs": Option(
        "numbers of inputs of a row that exact search is given",
        read=numbers_or_all,
        flag="--sizes",
        metavar="N,N,…|all",
    ),
    "tolerance": Option(
        "how many times as long as before a case may take",
        float,
        at_least(1),
        metavar="TIMES",
    ),
    "stored": Option(
        "the stored baseline", Path, flag="--baseline", metavar="FILE.json"
    ),
    # Stores of runs.
    "stored-runs": Option("the store", Path, flag="stored_runs", metavar="STORE"),
    "more-stores": Option(
        "stores whose runs are taken over",
        Path,
        flag="more_stores",
        nargs="+",
        metavar="STORE",
    ),
    "run-id": Option("the run's id, or its beginning", flag="run_id", metavar="RUN"),
    "problem-name": Option(
        "runs on the problem of this name, or whose digest begins so",
        flag="--problem",
        metavar="NAME|DIGEST",
        dest="problem_name",
    ),
    "solver-label": Option(
        "runs of this solver; without options, with any",
        flag="--solver",
        metavar="NAME[option=value,…]",
        dest="solver_label",
    ),
    "status": Option(
        "runs that ended so, as ok or error,crash", read=statuses, metavar="STATUS,…"
    ),
    "problem-files": Option(
        "saved problems, on which the states of their runs are tried",
        Path,
        flag="--problem",
        nargs="+",
        metavar="FILE.npz",
        dest="problem_files",
    ),
    # Best known states, and libraries of instances.
    "registry": Option(
        "the registry of best known states", Path, metavar="FILE.json", note="shipped"
    ),
    "best": Option("take best known values from the registry, too", bool),
    "states": Option("states that run --save has written", Path, metavar="FILE.npz"),
    "folder": Option("the folder of the library", Path, flag="folder", metavar="DIR"),
    "licence": Option(
        "licence of the weights: a name of spdx.org or an address",
        metavar="LICENCE",
        required=True,
    ),
    "name": Option("name of the library", metavar="NAME", note="rounding-MODEL"),
    "into": Option("write them to this folder as .npz", Path, folder, metavar="DIR"),
    # Output.
    "csv": Option("write a table", Path, writable, metavar="FILE.csv"),
    "parquet": Option("write a table", Path, writable_parquet, metavar="FILE.parquet"),
    "json": Option("write the record", Path, writable, metavar="FILE"),
    "save": Option(
        "write the rounded weights", Path, writable_arrays, metavar="FILE.npz"
    ),
    "save-problem": Option(
        "write the problem", Path, writable_arrays, metavar="FILE.npz"
    ),
    "save-problems": Option(
        "write the problems as DIR/MODEL.LAYER.npz", Path, metavar="DIR"
    ),
    "figure": Option(
        "draw error against seconds", Path, figure, metavar="FILE.svg|png"
    ),
    "store": Option(
        "keep finished runs in FILE, and reuse those it has",
        Path,
        begun_or_writable,
        metavar="FILE",
    ),
    "isolate": Option(
        "make each run in a process of its own, held to its limits", bool
    ),
    "rerun": Option("make runs again that the store has", bool),
    "rerun-failed": Option("make failed runs again that the store has", bool),
    "keep": Option(
        "keep finished layers of whole networks in DIR, and go on with those it has",
        Path,
        folder_to_fill,
        metavar="DIR",
    ),
    "export": Option(
        "write the quantized network: integers, scales, biases",
        Path,
        writable_network,
        metavar="FILE.safetensors",
    ),
    "onnx": Option(
        "write the quantized network as an ONNX graph",
        Path,
        writable_onnx,
        metavar="FILE.onnx",
    ),
    "memory": Option(
        "GiB of activations to hold in memory; what is beyond goes to a file",
        float,
        positive,
        metavar="GIB",
        note="no limit",
    ),
    "suite": Option(
        "a suite's name, or its file", flag="suite", metavar="SUITE|FILE.toml"
    ),
    "dry-run": Option("print what would be done, with time and memory", bool),
    "at-once": Option(
        "runs made at a time, each on cores of its own",
        int,
        at_least(1),
        flag="--jobs",
        metavar="N",
        default=1,
    ),
    "scheduler": Option(
        "make runs on the workers of this dask scheduler (extra cluster)",
        metavar="ADDRESS",
    ),
    "of-store": Option("the store to report on", Path, flag="store", metavar="STORE"),
    "output": Option(
        "folder of the page and its figures",
        Path,
        folder_to_fill,
        flag="-o",
        metavar="DIR",
    ),
    "saved-problems": Option(
        "folder with the problems as .npz files, to show weights before and after",
        Path,
        folder,
        flag="--problems",
        metavar="DIR",
        note="left out",
    ),
    "update": Option("store the measurements instead of comparing them", bool),
    "list": Option(
        "print names and do nothing else", choices=("layers", "solvers", "models")
    ),
}


class _Read(argparse.Action):
    """Stores the value that the option's reader returns."""

    def __init__(self, *arguments: Any, read: Reader, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.read = read

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, self.read(self.option_strings[0], values))


def add(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    *names: str,
    **changes: Any,
) -> None:
    """Add the options with these names to a parser.

    `changes` are attributes of `Option` that replace the declared ones.
    """
    for name in names:
        option = replace(OPTIONS[name], **changes)
        flag = option.flag or f"--{name}"
        note = option.default if option.note is None else option.note
        if "default" in changes and "note" not in changes:
            note = option.default
        settings: dict[str, Any] = {
            "help": option.help if note is None else f"{option.help} ({note})"
        }
        if option.kind is bool:
            parser.add_argument(flag, action="store_true", **settings)
            continue
        settings |= {"type": option.kind, "metavar": option.metavar}
        settings |= {"choices": option.choices, "nargs": option.nargs}
        settings["default"] = option.default
        if option.read is not None:
            settings |= {"action": _Read, "read": option.read}
            if option.default is not None:
                settings["default"] = option.read(flag, option.default)
        if flag.startswith("-"):
            settings |= {"required": option.required}
            settings |= {} if option.dest is None else {"dest": option.dest}
        parser.add_argument(flag, **settings)
