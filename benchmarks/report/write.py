"""A store's report, written to a folder."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from benchmarks.harness.store import Store
from benchmarks.report import answers, cells, content, figures, page, weights
from solvers.atomic import replacing
from solvers.errors import InputError
from solvers.qubo import Float


def require_packages() -> None:
    """Refuse to begin without the packages that the report needs.

    Raises
    ------
    InputError
        One is not installed.
    """
    for package in ("jinja2", "matplotlib"):
        if find_spec(package) is None:
            raise InputError(
                f"report: {package} is not installed; "
                'pip install "qubo-rounding[report]" installs it'
            )


def write_report(
    path: Path, folder: Path, problems: Path | None, best: Mapping[str, Float]
) -> Path:
    """Write the page and its figures; return the page's file.

    Parameters
    ----------
    path
        The store.
    folder
        Where to write; it is made if it does not exist.
    problems
        A folder of saved problems, for what is shown of weights.
    best
        Best known energies of rows from elsewhere; see `cells.overview`.

    Raises
    ------
    InputError
        A package is not installed, the store cannot be read or the folder not be
        written to.
    """
    require_packages()
    if not path.exists():
        raise InputError(f"{path} does not exist")
    with Store(path) as store:
        known = cells.overview(store, best)
        gathered = answers.gather(store, known)
        files, why = {}, content.NO_FOLDER
        if problems is not None:
            files, why = weights.saved_problems(problems), content.NO_PROBLEM
        rounded = weights.roundings(store, known, files)
    numbers = content.content(known, gathered, rounded, why)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make folder {folder}: {error.strerror}") from error
    drawn = figures.draw(folder, numbers)
    text = page.render(path.stem, known, gathered, numbers, drawn)
    index = folder / "index.html"
    with replacing(index) as partial:
        partial.write_text(text, "utf-8")
    return index
