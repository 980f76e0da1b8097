"""Rounding problems as a library of instances, and other libraries' as ours.

    python -m benchmarks library export DIR --model resnet18 --layers conv1
        --bits 4,3 --weights embedded --licence Apache-2.0
    python -m benchmarks library import FILE.qs.xz FILE.qplib --into DIR

An export writes each layer with its one H (.npz), each row as text in QOBLIB's format
(.qs.xz), best known values from the registry, a manifest in the format Croissant and a
checker that needs numpy alone. It leaves what is there already, so that one that was
broken off goes on. An import reads QOBLIB's, QPLIB's and all other formats of QUBO
files, and says size, sense and offset of each; --into writes batches in .npz.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from benchmarks.commands.layers import choose
from benchmarks.harness.readers import parse_grid
from benchmarks.harness.tables import columns
from benchmarks.library.export import Library
from benchmarks.library.posing import pose_layer
from benchmarks.library.registry import SHIPPED, Registry
from benchmarks.options import add
from qubo_rounding.network.paths import data_path
from solvers import InputError, read_qubo, write_qubo
from solvers.io.files import COMPRESSED, read_stated


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options to the parser."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    export = actions.add_parser("export", help="write the problems of a network")
    add(export, "folder", "licence", "name", "registry")
    add(export, "model", required=True)
    add(export, "layers", "weights", "images")
    add(export, "calibration", default=256)
    add(export, "widths", flag="--bits", note="4")
    add(export, "grid", "granularity", "saturated")
    add(export, "rows", help="write the first N rows of each layer as text")
    brought = actions.add_parser("import", help="read other libraries' instances")
    add(brought, "files", "into")


def run(options: argparse.Namespace) -> int:
    """Export or import; return the exit code."""
    return (export if options.action == "export" else bring)(options)


def export(options: argparse.Namespace) -> int:
    """Write the problems of a network's layers."""
    grids = [
        parse_grid(argparse.Namespace(**{**vars(options), "bits": bits}))
        for bits in options.bits or [4]
    ]
    names = choose(options.model, options.layers)
    registry = Registry.load(options.registry or data_path(SHIPPED))
    name = options.name or f"rounding-{options.model}"
    library = Library(options.folder, name, options.licence)
    library.prepare()

    from qubo_rounding.network.layers import supported_layers
    from qubo_rounding.network.source import load_source

    source = load_source(
        options.model,
        options.weights or "auto",
        options.images,
        options.calibration,
        evaluation=0,
        say=lambda line: print(line, file=sys.stderr),
    )
    if options.layers is None:
        names = supported_layers(source.network)
    batches, count = source.held(), 0
    with tqdm(desc="files", unit="", disable=None) as bar:
        for layer in names:
            for problem in pose_layer(source, batches, layer, grids):
                for path in library.add(problem, registry.find(problem), options.rows):
                    bar.set_postfix_str(path.name, refresh=False)
                    bar.update()
                    count += 1
    library.finish()
    print(f"{count} files of {len(names)} layers, with manifest, in {options.folder}")
    return 0


def bring(options: argparse.Namespace) -> int:
    """Say what files hold, and write them as batches."""
    lines = [["file", "n", "couplings", "sense", "offset"]]
    for path in tqdm(options.files, desc="files", disable=None):
        stated, maximises = read_stated(path)
        couplings = int((stated.H != 0).sum() - (stated.H.diagonal() != 0).sum()) // 2
        lines.append(
            [
                path.name,
                str(stated.n),
                str(couplings),
                "maximise" if maximises else "minimise",
                ", ".join(f"{value:.12g}" for value in stated.offset),
            ]
        )
        if options.into is not None:
            stem = Path(path.name.removesuffix(COMPRESSED)).stem
            target = options.into / f"{stem}.npz"
            if target.resolve() == path.resolve():
                raise InputError(f"{path} would be written over; choose another folder")
            write_qubo(target, read_qubo(path))
    print(columns(lines))
    return 0
