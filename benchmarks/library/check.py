"""Energy of a solution, and its gap to the best known value; needs numpy alone.

    python check.py INSTANCE SOLUTION

INSTANCE: a file of ``qs/`` (one row) or of ``problems/`` (all rows of a layer).
SOLUTION: a text file with a line of n zeros and ones for each row.
"""

import csv
import lzma
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def of_text(path: Path, x: Array) -> Array:
    """Energy [1] of a .qs.xz file: offset + x^T Q x with a symmetric Q."""
    with lzma.open(path, "rt") as file:
        lines = [line.split() for line in file]
    offset = next(float(line[2]) for line in lines if line[1] == "ObjectiveOffset")
    (n, _), *entries = [line for line in lines if line[0] != "#"]
    Q = np.zeros((int(n), int(n)))
    for i, j, value in entries:
        Q[int(i) - 1, int(j) - 1] = Q[int(j) - 1, int(i) - 1] = float(value)
    return np.array(offset + ((x @ Q) * x).sum(axis=1))


def of_layer(path: Path, x: Array) -> Array:
    """Energies [R] of an .npz file: D^T M D with the error D = scale (base + x) - w."""
    with np.load(path) as file:
        names = ("weight", "scale", "lo", "hi", "second_moment", "saturated")
        w, scale, lo, hi, M, saturated = (file[name] for name in names)
    if saturated == "fixed":
        x = np.where(w / scale < lo, 0, np.where(w / scale >= hi, 1, x))
    D = scale * (np.clip(np.floor(w / scale), lo, hi - 1) + x) - w
    blocks = M.reshape(-1, *M.shape[-2:])
    D = D.reshape(len(blocks), -1, M.shape[-1])
    return np.array(((D @ blocks) * D).sum(axis=2)).ravel()


def main(instance: Path, solution: Path) -> None:
    """Print energies and gaps."""
    lines = [line.replace(" ", "") for line in solution.read_text().split("\n")]
    x = np.array([list(line) for line in lines if line], float)
    if not np.isin(x, (0, 1)).all():
        sys.exit(f"{solution} may hold only 0 and 1")
    whole = instance.suffix == ".npz"
    with (Path(__file__).parent / "best_known.csv").open(newline="") as file:
        best = {
            int(line["row"]) if whole else 0: float(line["best_known_min"])
            for line in csv.DictReader(file)
            if line["problem" if whole else "file"] == instance.name
        }
    for row, energy in enumerate((of_layer if whole else of_text)(instance, x)):
        said = "nothing is known"
        if row in best:
            gap = 100 * (energy - best[row]) / best[row]
            said = f"best known {best[row]!r}, gap {round(gap, 4) + 0.0:.4f} %"
        print(f"row {row}: energy {float(energy)!r}, {said}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
