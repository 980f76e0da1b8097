"""`Library`: rounding problems in a folder that other programs and people can use.

    DIR/problems/resnet18.conv1.4bits.npz          all rows of a layer, with their one H
    DIR/qs/resnet18.conv1.4bits.row000.qs.xz       a row as text, QOBLIB's format
    DIR/instances.csv, best_known.csv              what the rows are, and what is known
    DIR/croissant.json, README.md, check.py

Every file is written whole or not at all, and one that is there already and holds the
same problem is left as it is: an export that was broken off goes on where it was.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from benchmarks.library.croissant import MANIFEST, manifest, sha256, write_table
from benchmarks.library.registry import Best
from qubo_rounding.problem import RoundingProblem
from solvers import InputError, QuboBatch
from solvers.atomic import replacing
from solvers.io.text import format_text

INSTANCES = {
    "file": "Text",
    "sha256": "Text",
    "problem": "Text",
    "row": "Integer",
    "n": "Integer",
    "free": "Integer",
    "nearest": "Float",
    "model": "Text",
    "layer": "Text",
    "bits": "Integer",
    "weights": "Text",
    "weights_sha256": "Text",
    "calibration": "Text",
    "calibration_sha256": "Text",
    "positions": "Integer",
}
BEST_KNOWN = {
    "file": "Text",
    "name": "Text",
    "problem": "Text",
    "row": "Integer",
    "best_known_min": "Float",
    "proved": "Boolean",
    "solver": "Text",
    "found": "Date",
    "state": "Text",
}
CITATION = (
    "Nagel, Amjad, van Baalen, Louizos, Blankevoort: Up or Down? Adaptive Rounding for "
    "Post-Training Quantization. Proceedings of the 37th International Conference on "
    "Machine Learning, PMLR 119:7197-7206, 2020"
)
DESCRIPTION = (
    "Binary quadratic problems of rounding the weights of a neural network's layers: "
    "for each weight the grid point below (0) or above (1). The value is the mean "
    "squared error that rounding adds to the layer's output, to be minimised."
)


@dataclass(eq=False)
class Library:
    """A folder of instances.

    Parameters
    ----------
    folder
        Where the files go.
    name
        Name of the data set.
    licence
        Licence of the weights, and so of the problems made from them.
    """

    folder: Path
    name: str
    licence: str
    _instances: list[dict[str, Any]] = field(default_factory=list)
    _best: list[dict[str, Any]] = field(default_factory=list)
    _files: list[Path] = field(default_factory=list)

    def prepare(self) -> None:
        """Make the folders.

        Raises
        ------
        InputError
            They cannot be made.
        """
        for name in ("problems", "qs"):
            try:
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                reason = error.strerror or error
                raise InputError(
                    f"cannot make {self.folder / name}: {reason}"
                ) from error

    def add(
        self, problem: RoundingProblem, known: Mapping[int, Best], rows: int | None
    ) -> Iterator[Path]:
        """Write a problem and its rows; yields every file when it is there.

        Parameters
        ----------
        problem
            A problem that a layer was posed as.
        known
            The best known states of its rows.
        rows
            How many rows to write as text; None: all.
        """
        stem = f"{problem.meta['layer']}.{problem.meta['bits']}bits"
        whole = self.folder / "problems" / f"{stem}.npz"
        if not _holds(whole, problem):
            problem.save(whole)
        self._files.append(whole)
        yield whole
        nearest = problem.local_mse(problem.nearest())
        for row, qubo in enumerate(single_rows(problem)):
            if rows is not None and row >= rows:
                break
            path = self.folder / "qs" / f"{stem}.row{row:03}.qs.xz"
            head = f"# {stem}, row {row}\n# problem {problem.digest}\n"
            if not _begins(path, head):
                with (
                    replacing(path) as partial,
                    lzma.open(partial, "wt", encoding="ascii") as file,
                ):
                    file.write(head)
                    file.writelines(format_text(without_pins(qubo), "qoblib"))
            self._instances.append(
                {
                    "file": path.name,
                    "sha256": sha256(path),
                    "problem": whole.name,
                    "row": row,
                    "n": qubo.n,
                    "free": int(qubo.free().sum()),
                    "nearest": repr(float(nearest[row])),
                    **_origin(problem),
                }
            )
            self._files.append(path)
            yield path
        for row, best in sorted(known.items()):
            name = f"{stem}.row{row:03}"
            written = rows is None or row < rows
            self._best.append(
                {
                    "file": f"{name}.qs.xz" if written else "",
                    "name": name,
                    "problem": whole.name,
                    "row": row,
                    "best_known_min": repr(best.energy),
                    "proved": str(best.proved).lower(),
                    "solver": best.solver,
                    "found": best.when,
                    "state": "".join(map(str, best.states)),
                }
            )

    def finish(self) -> None:
        """Write the tables, the checker, the page and, last of all, the manifest."""
        with replacing(self.folder / "instances.csv") as partial:
            write_table(partial, list(INSTANCES), self._instances)
        with replacing(self.folder / "best_known.csv") as partial:
            write_table(partial, list(BEST_KNOWN), self._best)
        room = files("benchmarks.library")
        with replacing(self.folder / "check.py") as partial:
            partial.write_text((room / "check.py").read_text("utf-8"), "utf-8")
        problems = [path.name for path in self._files if path.suffix == ".npz"]
        page = Template((room / "page.md").read_text("utf-8"))
        with replacing(self.folder / "README.md") as partial:
            partial.write_text(
                page.substitute(
                    name=self.name,
                    licence=self.licence,
                    description=DESCRIPTION,
                    citation=CITATION,
                    problems="\n".join(f"- `{name}`" for name in problems),
                    instances=len(self._instances),
                    known=len(self._best),
                    proved=sum(line["proved"] == "true" for line in self._best),
                ),
                "utf-8",
            )
        about = {
            "name": self.name,
            "description": DESCRIPTION,
            "license": self.licence,
            "citeAs": CITATION,
            "creator": {
                "@type": "sc:Organization",
                "name": "The qubo-rounding authors",
            },
            "datePublished": datetime.now(UTC).date().isoformat(),
            "version": "1.0.0",
            "keywords": ["QUBO", "quantization", "weight rounding", "lattice"],
        }
        tables = {"instances.csv": INSTANCES, "best_known.csv": BEST_KNOWN}
        beside = [self.folder / name for name in (*tables, "check.py", "README.md")]
        described = manifest(self.folder, [*self._files, *beside], tables, about)
        content = json.dumps(described, indent=1)
        with replacing(self.folder / MANIFEST) as partial:
            partial.write_text(content + "\n", "utf-8")


def single_rows(problem: RoundingProblem) -> Iterator[QuboBatch]:
    """The rows of a problem, one by one."""
    for batch in problem.to_qubos():
        for row in range(batch.rows):
            yield batch.take([row])


def without_pins(row: QuboBatch) -> QuboBatch:
    """The one row of a batch with as many variables, of which pinned ones do nothing.

    Whatever their state, the energy is that with their right one.
    """
    s = row.full_scale()[0]
    Q, linear, offset = s[:, None] * row.H * s, row.linear[0].copy(), row.offset[0]
    if row.fixed is not None:
        free, ones = row.fixed[0] < 0, row.fixed[0] == 1
        offset += linear[ones].sum() + Q[np.ix_(ones, ones)].sum()
        linear = np.where(free, linear + 2 * Q[:, ones].sum(axis=1), 0)
        Q[~free], Q[:, ~free] = 0, 0
    return QuboBatch.from_matrix(Q, linear, offset)


def _origin(problem: RoundingProblem) -> dict[str, Any]:
    meta = problem.meta
    model, _, layer = meta["layer"].partition(".")
    return {
        "model": model,
        "layer": layer,
        "bits": meta["bits"],
        "weights": meta["weights"],
        "weights_sha256": meta["weights_hash"],
        "calibration": meta["images"],
        "calibration_sha256": meta["calibration_digest"],
        "positions": meta["count"],
    }


def _holds(path: Path, problem: RoundingProblem) -> bool:
    """Whether a file holds the problem already."""
    try:
        return RoundingProblem.load(path).digest == problem.digest
    except InputError:
        return False


def _begins(path: Path, head: str) -> bool:
    """Whether a compressed file begins with these lines."""
    try:
        with lzma.open(path, "rb") as file:
            return file.read(len(head)) == head.encode()
    except (OSError, lzma.LZMAError, EOFError):
        return False
